//! Whose values have tokens: on every node that has copies of them, for exporting and erasing.

use std::collections::HashMap;
use std::sync::Arc;

use aivillage_runtime::{CallError, ReplicaView, Village};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Drawer, DrawerEvent, TokenMsg, TokenVault};
use crate::dlp::Token;
use crate::erasure::{DataOwner, Places, Subject};
use crate::keys::SubjectTag;

/// Whom the values of a tenant are about; none of what is kept in the clear.
type Owners = HashMap<Token, Option<SubjectTag>>;

/// The same of all tenants of which this node has copies, by group. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held(Arc<Mutex<HashMap<u8, HashMap<String, Owners>>>>);

impl Held {
    /// What follows one group.
    pub(crate) fn view(&self, group: u8) -> HeldView {
        HeldView { held: self.clone(), group }
    }

    fn of(&self, tenant: &str, subject: SubjectTag) -> u64 {
        let groups = self.0.lock();
        let owners = groups.values().filter_map(|tenants| tenants.get(tenant));
        owners.flat_map(HashMap::values).filter(|owner| **owner == Some(subject)).count() as u64
    }
}

/// Follows the vaults of one group.
#[derive(Debug)]
pub(crate) struct HeldView {
    held: Held,
    group: u8,
}

impl ReplicaView for HeldView {
    type State = Drawer;

    async fn clear(&mut self) {
        self.held.0.lock().remove(&self.group);
    }

    async fn restored(&mut self, key: &str, _: u64, state: &Drawer) {
        let owners = state.owners().collect();
        self.held.0.lock().entry(self.group).or_default().insert(key.to_owned(), owners);
    }

    async fn applied(&mut self, key: &str, _: u64, event: DrawerEvent) {
        let mut groups = self.held.0.lock();
        let owners = groups.entry(self.group).or_default().entry(key.to_owned()).or_default();
        match event {
            DrawerEvent::Kept(stored) => {
                for stored in stored {
                    owners.entry(stored.token).or_insert(stored.value.subject());
                }
            }
            DrawerEvent::Forgotten(subject) => owners.retain(|_, owner| *owner != Some(subject)),
        }
    }
}

/// The values of tokens, as a store that keeps data about people.
#[derive(Debug, Clone, Copy)]
pub struct TokenData;

impl DataOwner for TokenData {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn enumerate<'a>(&'a self, village: &'a Village, subject: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>> {
        async move {
            let held = village.provided::<Held>().ok_or(CallError::UnknownKind { kind: self.name().to_owned() })?;
            let items = held.of(&subject.tenant, subject.tag()?);
            Ok(if items > 0 { [(subject.tenant.clone(), items)].into() } else { Places::new() })
        }
        .boxed()
    }

    /// The tokens: their values are told for a purpose only.
    fn export<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<Vec<Value>, CallError>> {
        async move {
            let (tag, mut tokens) = (subject.tag()?, Vec::new());
            for tenant in places.keys() {
                tokens.extend(village.addr::<TokenVault>(tenant).ask(|reply| TokenMsg::Of(tag, reply)).await?);
            }
            Ok(tokens.into_iter().map(|token| json!(token)).collect())
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
            let tag = subject.tag()?;
            for tenant in places.keys() {
                village.addr::<TokenVault>(tenant).ask(|reply| TokenMsg::Forget(tag, reply)).await?;
            }
            Ok(())
        }
        .boxed()
    }
}
