//! The account of a person, for exporting and erasing.

use aivillage_runtime::{AppError, CallError, Village};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use super::accounts::{Accounts, SubjectId};
use super::actor::Identity;
use super::message::{IdentityMsg, Page};
use crate::erasure::{DataOwner, Places, Subject, as_village};

/// Keys of an account that are exported; it has at most a tenth of them.
const KEYS: u16 = 1_000;

/// The accounts of people, as a store that keeps data about them. Whoever has none, a program, has nothing here.
#[derive(Debug, Clone, Copy)]
pub struct AccountData;

/// An account's subject is its id.
fn account(subject: &Subject) -> Option<SubjectId> {
    subject.name.parse::<Uuid>().ok().map(SubjectId)
}

impl DataOwner for AccountData {
    fn name(&self) -> &'static str {
        "accounts"
    }

    fn enumerate<'a>(&'a self, village: &'a Village, subject: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>> {
        async move {
            let Some(id) = account(subject) else { return Ok(Places::new()) };
            let items = village.copied::<Identity, Accounts>(&subject.tenant).await?.items(id);
            Ok((items > 0).then(|| (subject.tenant.clone(), items)).into_iter().collect())
        }
        .boxed()
    }

    fn export<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<Vec<Value>, CallError>> {
        async move {
            let (Some(id), Some(tenant)) = (account(subject), places.keys().next()) else { return Ok(Vec::new()) };
            let desk = village.addr::<Identity>(tenant);
            let Some(user) = desk.ask(|reply| IdentityMsg::Find(id.to_string(), reply)).await? else {
                return Ok(Vec::new());
            };
            let page = Page { after: None, limit: KEYS };
            let keys = desk.ask(|reply| IdentityMsg::ListKeys(Some(id), page, reply)).await?;
            let key = |key: super::KeyInfo| {
                json!({ "label": key.label, "scopes": key.scopes, "made_ms": key.made_ms, "expires_ms": key.expires_ms })
            };
            Ok(vec![json!({
                "id": id,
                "name": user.name,
                "kind": user.kind,
                "roles": user.roles,
                "is_suspended": user.is_suspended,
                "has_password": user.has_password,
                "has_mfa": user.has_mfa,
                "made_ms": user.made_ms,
                "keys": keys.into_iter().map(key).collect::<Vec<_>>(),
            })])
        }
        .boxed()
    }

    fn erase<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        async move {
            let (Some(id), Some(tenant)) = (account(subject), places.keys().next()) else { return Ok(()) };
            let desk = village.addr::<Identity>(tenant);
            let erased = as_village(desk.ask(|reply| IdentityMsg::Erase(id, reply))).await?;
            erased.map(drop).map_err(|error| AppError::new("forbidden", error.to_string()).into())
        }
        .boxed()
    }
}
