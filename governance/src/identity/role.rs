//! Roles, the duties they bring, and which duties must not meet in one hand.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a subject may be. Policies decide what a role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Manages keys, approves access and policies.
    SuperAdmin,
    /// Administers the tenant.
    Admin,
    /// Builds agents and tools.
    Developer,
    /// Trains and evaluates.
    DataScientist,
    /// Runs the village.
    Operator,
    /// Uses it.
    User,
    /// Looks at it.
    Guest,
    /// Judges appeals.
    Juror,
    /// Holds a share of a tally's key.
    Trustee,
    /// Reads what happened.
    Auditor,
    /// Data protection officer.
    Dpo,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 11] = [
        Self::SuperAdmin,
        Self::Admin,
        Self::Developer,
        Self::DataScientist,
        Self::Operator,
        Self::User,
        Self::Guest,
        Self::Juror,
        Self::Trustee,
        Self::Auditor,
        Self::Dpo,
    ];

    /// Its name in policies and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SuperAdmin => "super_admin",
            Self::Admin => "admin",
            Self::Developer => "developer",
            Self::DataScientist => "data_scientist",
            Self::Operator => "operator",
            Self::User => "user",
            Self::Guest => "guest",
            Self::Juror => "juror",
            Self::Trustee => "trustee",
            Self::Auditor => "auditor",
            Self::Dpo => "dpo",
        }
    }

    /// The duties that come with it, as far as they conflict with others.
    #[must_use]
    pub const fn duties(self) -> &'static [Duty] {
        match self {
            Self::SuperAdmin => &[Duty::ManageKeys, Duty::ApproveAccess, Duty::ApprovePolicy],
            Self::Admin => &[Duty::RequestAccess, Duty::WritePolicy, Duty::Moderate, Duty::SpendTreasury],
            Self::Operator => &[Duty::ExecuteProposal, Duty::RunTally],
            Self::User => &[Duty::Propose],
            Self::Juror => &[Duty::JudgeAppeal],
            Self::Trustee => &[Duty::CertifyTally],
            Self::Auditor => &[Duty::ReconcileTreasury],
            Self::Dpo => &[Duty::ReadSealedEvidence],
            Self::Developer | Self::DataScientist | Self::Guest => &[],
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One side of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Duty {
    Propose,
    ExecuteProposal,
    RequestAccess,
    ApproveAccess,
    WritePolicy,
    ApprovePolicy,
    RunTally,
    CertifyTally,
    ManageKeys,
    ReadSealedEvidence,
    SpendTreasury,
    ReconcileTreasury,
    Moderate,
    JudgeAppeal,
}

/// Pairs of duties that one subject must not have both of.
pub const CONFLICTS: [(Duty, Duty); 7] = [
    (Duty::Propose, Duty::ExecuteProposal),
    (Duty::RequestAccess, Duty::ApproveAccess),
    (Duty::WritePolicy, Duty::ApprovePolicy),
    (Duty::RunTally, Duty::CertifyTally),
    (Duty::ManageKeys, Duty::ReadSealedEvidence),
    (Duty::SpendTreasury, Duty::ReconcileTreasury),
    (Duty::Moderate, Duty::JudgeAppeal),
];

/// Roles that would put both duties of a pair into one hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("separation of duties: {one:?} and {other:?} cannot be one subject's")]
pub struct SodConflict {
    /// The first duty of the pair.
    pub one: Duty,
    /// The second.
    pub other: Duty,
}

/// Refuses roles whose duties conflict.
///
/// # Errors
/// The first pair of [`CONFLICTS`] that is complete.
pub fn check_duties(roles: &BTreeSet<Role>) -> Result<(), SodConflict> {
    let has = |duty: Duty| roles.iter().any(|role| role.duties().contains(&duty));
    let conflict = CONFLICTS.into_iter().find(|(one, other)| has(*one) && has(*other));
    conflict.map_or(Ok(()), |(one, other)| Err(SodConflict { one, other }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(roles: &[Role]) -> Result<(), SodConflict> {
        check_duties(&roles.iter().copied().collect())
    }

    #[test]
    fn each_role_alone_is_free_of_conflicts() {
        for role in Role::ALL {
            assert_eq!(check(&[role]), Ok(()), "{role}");
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
    }

    #[test]
    fn each_pair_of_duties_has_roles_that_are_refused_together() {
        for (one, other) in CONFLICTS {
            let having = |duty| Role::ALL.into_iter().find(|role| role.duties().contains(&duty)).unwrap();
            assert!(check(&[having(one), having(other)]).is_err(), "{one:?} {other:?}");
        }
        assert_eq!(
            check(&[Role::Admin, Role::Auditor]),
            Err(SodConflict { one: Duty::SpendTreasury, other: Duty::ReconcileTreasury })
        );
    }
}
