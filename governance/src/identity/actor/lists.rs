//! What the accounts look like in lists.

use std::ops::Bound;

use aivillage_runtime::CallError;

use super::{Desk, LABEL};
use crate::identity::accounts::{Subject, SubjectId};
use crate::identity::bearer::TokenId;
use crate::identity::message::{KeyInfo, Page, UserInfo};

/// Most entries of an answer.
const MAX_LIMIT: usize = 1_000;

impl Desk {
    pub(super) async fn list_keys(
        &self,
        subject: Option<SubjectId>,
        page: Page<TokenId>,
    ) -> Result<Vec<KeyInfo>, CallError> {
        let keys = self.accounts.keys_after(after(page.after));
        let wanted = keys.filter(|(_, key)| subject.is_none_or(|id| key.subject == id)).take(limit(page.limit));
        let mut all = Vec::new();
        for (id, key) in wanted {
            let label: Option<String> = self.personal.open(LABEL, &key.label).await?;
            all.push(KeyInfo {
                id,
                subject: key.subject,
                label: label.unwrap_or_default(),
                scopes: key.scopes.clone(),
                made_ms: key.made_ms,
                expires_ms: key.expires_ms,
            });
        }
        Ok(all)
    }

    pub(super) async fn list_users(&mut self, page: Page<SubjectId>) -> Result<Vec<UserInfo>, CallError> {
        self.names().await?;
        let part = self.accounts.subjects_after(after(page.after)).take(limit(page.limit));
        Ok(part.map(|(id, subject)| self.user(id, subject)).collect())
    }

    pub(super) async fn find(&mut self, whom: &str) -> Result<Option<UserInfo>, CallError> {
        let named = self.names().await?.id(whom);
        let by_id = whom.parse().ok().map(SubjectId).and_then(|id| Some((id, self.accounts.subject(id)?)));
        let found = by_id.or_else(|| named.and_then(|id| Some((id, self.accounts.subject(id)?))));
        Ok(found.map(|(id, subject)| self.user(id, subject)))
    }

    fn user(&self, id: SubjectId, subject: &Subject) -> UserInfo {
        UserInfo {
            id,
            kind: subject.kind,
            name: self.names.as_ref().and_then(|names| names.of(id)).unwrap_or_default().to_owned(),
            roles: subject.roles.clone(),
            is_suspended: subject.is_suspended,
            has_password: !subject.passwords.is_empty(),
            has_mfa: subject.has_mfa(),
            made_ms: subject.made_ms,
        }
    }
}

fn after<I>(last: Option<I>) -> Bound<I> {
    last.map_or(Bound::Unbounded, Bound::Excluded)
}

fn limit(asked: u16) -> usize {
    usize::from(asked).min(MAX_LIMIT)
}
