//! What a caller may ask of the accounts at most. Policies may say less, never more.
//!
//! A caller without a principal is the village itself. Roles are those that count for the credential that was shown: who has
//! not shown a second factor is no administrator here.

use std::collections::BTreeSet;

use aivillage_runtime::Principal;

use crate::identity::accounts::{Accounts, NewKey, SubjectId};
use crate::identity::error::IdentityError;
use crate::identity::role::Role;

/// Only administrators have a say over who has these roles, and only a super administrator over those that could take the
/// tenant over.
pub(super) fn check_grant(by: Option<&Principal>, roles: &BTreeSet<Role>) -> Result<(), IdentityError> {
    let Some(by) = by else { return Ok(()) };
    let is_super = by.has_role(Role::SuperAdmin.name());
    let strong = roles.contains(&Role::SuperAdmin) || roles.contains(&Role::Admin);
    let may = is_super || (by.has_role(Role::Admin.name()) && !strong);
    if may { Ok(()) } else { Err(IdentityError::Forbidden) }
}

/// A subject has a say over itself.
pub(super) fn check_own(by: Option<&Principal>, accounts: &Accounts, id: SubjectId) -> Result<(), IdentityError> {
    if by.is_some_and(|by| by.subject == id.to_string()) {
        return Ok(());
    }
    check_grant(by, accounts.subject(id).map_or(&BTreeSet::new(), |subject| &subject.roles))
}

/// A key is worth no more than what it was asked for with: neither roles that wait for a second factor nor scopes that the
/// caller has not.
pub(super) fn check_key(by: Option<&Principal>, accounts: &Accounts, new: &NewKey) -> Result<(), IdentityError> {
    let Some(caller) = by else { return Ok(()) };
    check_own(by, accounts, new.subject)?;
    let is_own = caller.subject == new.subject.to_string();
    let has_all =
        accounts.subject(new.subject).is_none_or(|one| one.roles.iter().all(|role| caller.has_role(role.name())));
    let narrow = !new.scopes.is_empty() && new.scopes.iter().all(|scope| caller.scopes.contains(scope));
    if (is_own && !has_all) || !(caller.scopes.is_empty() || narrow) {
        return Err(IdentityError::Forbidden);
    }
    Ok(())
}

/// Whoever delegates, or whoever is to act, asks for a delegation.
pub(super) fn check_delegation(by: Option<&Principal>, sub: SubjectId, actor: SubjectId) -> Result<(), IdentityError> {
    let is_party = |by: &Principal| by.subject == sub.to_string() || by.subject == actor.to_string();
    if by.is_none_or(is_party) { Ok(()) } else { Err(IdentityError::Forbidden) }
}
