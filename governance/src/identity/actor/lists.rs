//! What the accounts look like in lists.

use std::ops::Bound;

use crate::identity::accounts::{Accounts, Subject, SubjectId};
use crate::identity::bearer::TokenId;
use crate::identity::message::{KeyInfo, Page, UserInfo};

/// Most entries of an answer.
const MAX_LIMIT: usize = 1_000;

pub(super) fn keys(accounts: &Accounts, subject: Option<SubjectId>, page: Page<TokenId>) -> Vec<KeyInfo> {
    let wanted = accounts.keys_after(after(page.after)).filter(|(_, key)| subject.is_none_or(|id| key.subject == id));
    let info = wanted.map(|(id, key)| KeyInfo {
        id,
        subject: key.subject,
        label: key.label.clone(),
        scopes: key.scopes.clone(),
        made_ms: key.made_ms,
        expires_ms: key.expires_ms,
    });
    info.take(limit(page.limit)).collect()
}

pub(super) fn users(accounts: &Accounts, page: Page<SubjectId>) -> Vec<UserInfo> {
    let info = accounts.subjects_after(after(page.after)).map(|(id, subject)| user(id, subject));
    info.take(limit(page.limit)).collect()
}

pub(super) fn find(accounts: &Accounts, whom: &str) -> Option<UserInfo> {
    let by_id = || whom.parse().ok().map(SubjectId).and_then(|id| Some((id, accounts.subject(id)?)));
    let (id, subject) = by_id().or_else(|| accounts.named(whom))?;
    Some(user(id, subject))
}

fn user(id: SubjectId, subject: &Subject) -> UserInfo {
    UserInfo {
        id,
        kind: subject.kind,
        name: subject.name.clone(),
        roles: subject.roles.clone(),
        is_suspended: subject.is_suspended,
        has_password: !subject.passwords.is_empty(),
        has_mfa: subject.has_mfa(),
        made_ms: subject.made_ms,
    }
}

fn after<I>(last: Option<I>) -> Bound<I> {
    last.map_or(Bound::Unbounded, Bound::Excluded)
}

fn limit(asked: u16) -> usize {
    usize::from(asked).min(MAX_LIMIT)
}
