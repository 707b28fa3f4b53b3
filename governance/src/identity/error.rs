//! What a caller of identity can decide on.

use serde::{Deserialize, Serialize};

use super::password::WeakPassword;
use super::role::SodConflict;

/// Why identity did not do what was asked. Nothing in it tells whether an account exists to one who may not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum IdentityError {
    /// The credential is wrong, unknown, expired, used up or revoked: the same words for all of these.
    #[error("the credentials are not valid")]
    Refused,
    /// Too many failures from there: no attempt is looked at before the delay has passed.
    #[error("too many failures, try again in {retry_after_ms} ms")]
    Locked {
        /// Milliseconds until the next attempt is looked at.
        retry_after_ms: u64,
    },
    /// The password does not keep the policy.
    #[error(transparent)]
    WeakPassword(#[from] WeakPassword),
    /// The roles put two duties into one hand that have to be in two.
    #[error(transparent)]
    Sod(#[from] SodConflict),
    /// There is no such subject or key; told to those who administer the tenant only.
    #[error("there is no such {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The name belongs to another account.
    #[error("the name is taken")]
    Taken,
    /// A name or a list is too long, too short or has what cannot be in it.
    #[error("{field}: {why}")]
    Invalid {
        /// Which field.
        field: String,
        /// What would be right.
        why: String,
    },
    /// The tenant has its first administrator already.
    #[error("the tenant has accounts already")]
    Founded,
    /// The caller may not do this.
    #[error("the caller may not do this")]
    Forbidden,
    /// The subject has as many as it may have.
    #[error("no more than {max} of these")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// Agents act for agents only up to a depth.
    #[error("a chain of delegation has at most {max} actors")]
    TooDeep {
        /// The limit.
        max: usize,
    },
    /// The secret of the village has not come to this node yet; in a moment it may be there.
    #[error("the keys of the village are not here yet, try again in a moment")]
    NotReady,
    /// A sealed record cannot be opened: another seal key, or a changed record.
    #[error("a sealed record cannot be opened")]
    Sealed,
}
