//! The tenants of a village: a machine of the control group, so every node knows all of them without a message.
//!
//! The tenant [`HOME`] is that of whoever runs the village; it is there from the start and stays. A village without a cluster
//! has no other.

use std::collections::BTreeMap;

use aivillage_runtime::control::ControlMachine;
use aivillage_runtime::{DecideError, StoreError, Village};
use serde::{Deserialize, Serialize};

use super::bearer::TenantTag;

/// The machine's name.
const NS: &str = "gov.tenants";
/// The tenant of whoever runs the village.
pub const HOME: &str = "local";
/// Most tenants: the machine's state is one value of the store, and every node has all of it in memory.
const MAX_TENANTS: usize = 10_000;
/// Most characters of a name.
const MAX_NAME: usize = 63;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// What its accounts, agents and documents are kept under.
    pub name: String,
    /// When it was made, Unix milliseconds; 0 for [`HOME`].
    pub made_ms: u64,
    /// None of its credentials is let in.
    pub is_suspended: bool,
}

/// All tenants. Two with the same tag are not made, so a tag names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantMachine {
    tenants: BTreeMap<String, Tenant>,
    tags: BTreeMap<TenantTag, String>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Command {
    Make(String),
    Suspend(String, bool),
}

/// Why the tenants stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TenantRefused {
    /// There is one of this name.
    #[error("there is a tenant of this name already")]
    Exists,
    /// There is none of this name.
    #[error("there is no such tenant")]
    Unknown,
    /// It could be taken for something else.
    #[error("a name is 1 to 63 of `a-z`, `0-9` and `-`, with a letter first")]
    Name,
    /// Its tag is that of another one, by a chance of 2^-40.
    #[error("credentials of this name could be taken for those of another tenant: choose another name")]
    Tag,
    /// The tenant of whoever runs the village.
    #[error("the tenant `{HOME}` runs the village and cannot be suspended")]
    Home,
    /// There are too many.
    #[error("there are at most {max} tenants")]
    Full {
        /// How many there may be.
        max: u64,
    },
    /// The command or the answer is that of another version of the program.
    #[error("not a command of this version: {0}")]
    Unreadable(String),
}

impl Default for TenantMachine {
    fn default() -> Self {
        let mut machine = Self { tenants: BTreeMap::new(), tags: BTreeMap::new() };
        machine.insert(Tenant { name: HOME.to_owned(), made_ms: 0, is_suspended: false });
        machine
    }
}

impl TenantMachine {
    /// A tenant.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tenant> {
        self.tenants.get(name)
    }

    /// The tenant whose credentials have this tag.
    #[must_use]
    pub fn tagged(&self, tag: TenantTag) -> Option<&Tenant> {
        self.tags.get(&tag).and_then(|name| self.tenants.get(name))
    }

    fn insert(&mut self, tenant: Tenant) {
        self.tags.insert(TenantTag::of(&tenant.name), tenant.name.clone());
        self.tenants.insert(tenant.name.clone(), tenant);
    }

    fn take(&mut self, now_ms: u64, command: &[u8]) -> Result<(), TenantRefused> {
        let command = postcard::from_bytes(command).map_err(|error| TenantRefused::Unreadable(error.to_string()))?;
        match command {
            Command::Make(name) => self.make(name, now_ms),
            Command::Suspend(name, is_suspended) => self.suspend(&name, is_suspended),
        }
    }

    fn make(&mut self, name: String, made_ms: u64) -> Result<(), TenantRefused> {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let begins = name.starts_with(|first: char| first.is_ascii_lowercase());
        if !begins || name.len() > MAX_NAME || !name.bytes().all(is_inner) {
            return Err(TenantRefused::Name);
        }
        if self.tenants.contains_key(&name) {
            return Err(TenantRefused::Exists);
        }
        if self.tags.contains_key(&TenantTag::of(&name)) {
            return Err(TenantRefused::Tag);
        }
        if self.tenants.len() >= MAX_TENANTS {
            return Err(TenantRefused::Full { max: MAX_TENANTS as u64 });
        }
        self.insert(Tenant { name, made_ms, is_suspended: false });
        Ok(())
    }

    fn suspend(&mut self, name: &str, is_suspended: bool) -> Result<(), TenantRefused> {
        if name == HOME {
            return Err(TenantRefused::Home);
        }
        self.tenants.get_mut(name).ok_or(TenantRefused::Unknown)?.is_suspended = is_suspended;
        Ok(())
    }
}

impl ControlMachine for TenantMachine {
    fn ns(&self) -> &'static str {
        NS
    }

    fn apply(&mut self, _: u64, now_ms: u64, command: &[u8]) -> Vec<u8> {
        // A refusal always can be written.
        postcard::to_allocvec(&self.take(now_ms, command)).unwrap_or_default()
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.tenants.values().collect::<Vec<_>>()).unwrap_or_default()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let tenants: Vec<Tenant> = postcard::from_bytes(bytes)
            .map_err(|error| StoreError::Decode { what: "tenants", detail: error.to_string() })?;
        *self = Self::default();
        for tenant in tenants {
            self.insert(tenant);
        }
        Ok(())
    }
}

/// Why a tenant was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// It cannot be.
    #[error(transparent)]
    Refused(#[from] TenantRefused),
    /// The cluster did not decide.
    #[error(transparent)]
    Undecided(#[from] DecideError),
}

/// The tenants, as this node knows them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tenants(Village);

impl Tenants {
    /// Those of a village that was built with [`install`](fn@crate::install).
    #[must_use]
    pub fn new(village: &Village) -> Self {
        Self(village.clone())
    }

    fn read<T>(&self, read: impl Fn(&TenantMachine) -> T) -> T {
        let known = self.0.cluster().and_then(|cluster| cluster.machine(NS, &read));
        known.unwrap_or_else(|| read(&TenantMachine::default()))
    }

    /// Whether there is a tenant of this name that is not suspended.
    #[must_use]
    pub fn is_live(&self, name: &str) -> bool {
        // Also on a node that knows nothing yet.
        name == HOME || self.read(|machine| machine.get(name).is_some_and(|tenant| !tenant.is_suspended))
    }

    /// The name of the tenant whose credentials have this tag.
    #[must_use]
    pub fn tagged(&self, tag: TenantTag) -> Option<String> {
        self.read(|machine| machine.tagged(tag).map(|tenant| tenant.name.clone()))
    }

    /// Tenants in the order of their names, after one of them.
    #[must_use]
    pub fn list(&self, after: Option<&str>, limit: usize) -> Vec<Tenant> {
        let is_after = |tenant: &&Tenant| after.is_none_or(|after| tenant.name.as_str() > after);
        self.read(|machine| machine.tenants.values().filter(is_after).take(limit).cloned().collect())
    }

    /// Makes a tenant; it has no accounts yet.
    ///
    /// # Errors
    /// [`TenantError`]; [`DecideError::NoCluster`] in a village that keeps nothing.
    pub async fn make(&self, name: &str) -> Result<(), TenantError> {
        self.decide(&Command::Make(name.to_owned())).await
    }

    /// Suspends a tenant, or lets it in again.
    ///
    /// # Errors
    /// As [`Tenants::make`].
    pub async fn suspend(&self, name: &str, is_suspended: bool) -> Result<(), TenantError> {
        self.decide(&Command::Suspend(name.to_owned(), is_suspended)).await
    }

    async fn decide(&self, command: &Command) -> Result<(), TenantError> {
        let cluster = self.0.cluster().ok_or(DecideError::NoCluster)?;
        let answer = cluster.command(NS, postcard::to_allocvec(command).unwrap_or_default()).await?;
        let unreadable = |error: postcard::Error| TenantRefused::Unreadable(error.to_string());
        Ok(postcard::from_bytes::<Result<(), TenantRefused>>(&answer).map_err(unreadable)??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(machine: &mut TenantMachine, command: &Command) -> Result<(), TenantRefused> {
        let answer = machine.apply(1, 7, &postcard::to_allocvec(command).unwrap());
        postcard::from_bytes(&answer).unwrap()
    }

    fn make(machine: &mut TenantMachine, name: &str) -> Result<(), TenantRefused> {
        send(machine, &Command::Make(name.to_owned()))
    }

    fn suspend(machine: &mut TenantMachine, name: &str) -> Result<(), TenantRefused> {
        send(machine, &Command::Suspend(name.to_owned(), true))
    }

    #[test]
    fn home_is_there_from_the_start_and_stays() {
        let mut machine = TenantMachine::default();
        assert_eq!(machine.tagged(TenantTag::of(HOME)).unwrap().name, HOME);
        assert_eq!(make(&mut machine, HOME), Err(TenantRefused::Exists));
        assert_eq!(suspend(&mut machine, HOME), Err(TenantRefused::Home));
    }

    #[test]
    fn a_name_that_could_be_read_as_two_is_refused() {
        let mut machine = TenantMachine::default();
        for name in ["", "a/b", "a:b", "Acme", "9a", "-a", "a b", "ä", &"a".repeat(64)] {
            assert_eq!(make(&mut machine, name), Err(TenantRefused::Name), "{name:?}");
        }
        assert_eq!(make(&mut machine, &"a".repeat(63)), Ok(()));
    }

    #[test]
    fn a_tag_names_one_tenant() {
        let mut machine = TenantMachine::default();
        machine.tags.insert(TenantTag::of("acme"), "other".to_owned());
        assert_eq!(make(&mut machine, "acme"), Err(TenantRefused::Tag));
    }

    #[test]
    fn there_are_not_too_many() {
        let mut machine = TenantMachine::default();
        for n in 1..MAX_TENANTS {
            make(&mut machine, &format!("t{n}")).unwrap();
        }
        assert_eq!(make(&mut machine, "more"), Err(TenantRefused::Full { max: 10_000 }));
        assert!(machine.save().len() < 1 << 20);
    }

    #[test]
    fn its_state_is_the_same_after_a_restart() {
        let mut machine = TenantMachine::default();
        make(&mut machine, "acme").unwrap();
        assert_eq!(suspend(&mut machine, "acme"), Ok(()));
        assert_eq!(suspend(&mut machine, "other"), Err(TenantRefused::Unknown));
        let mut again = TenantMachine::default();
        again.load(&machine.save()).unwrap();
        assert_eq!(again, machine);
        assert_eq!(again.get("acme"), Some(&Tenant { name: "acme".into(), made_ms: 7, is_suspended: true }));
        assert!(matches!(again.load(b"\xff"), Err(StoreError::Decode { what: "tenants", .. })));
    }

    #[test]
    fn what_cannot_be_read_is_answered() {
        let answer: Result<(), TenantRefused> =
            postcard::from_bytes(&TenantMachine::default().apply(1, 1, b"\xff")).unwrap();
        assert!(matches!(answer, Err(TenantRefused::Unreadable(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_village_without_a_cluster_has_one_tenant() {
        let village = Village::builder().start().await.unwrap();
        let tenants = Tenants::new(&village);
        assert!(tenants.is_live(HOME) && !tenants.is_live("acme"));
        assert_eq!(tenants.list(None, 9).len(), 1);
        assert!(matches!(tenants.make("acme").await, Err(TenantError::Undecided(DecideError::NoCluster))));
    }
}
