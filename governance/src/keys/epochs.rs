//! The epochs that a cluster agrees on: a machine of the control group. No key is in it.
//!
//! The nodes of a cluster have one root key, each in a file of its own. What they agree on here is which root that is, by its
//! [mark](super::root::Root), which epoch is the current one, and which one is the oldest that somebody needs. Each node then takes
//! its own root there, also one that was away for long.

use std::collections::BTreeMap;

use aivillage_runtime::StoreError;
use aivillage_runtime::control::ControlMachine;
use serde::{Deserialize, Serialize};

use super::scope::TenantId;

/// The machine's name.
pub const NS: &str = "governance.keys";
/// Most tenants with keys: the machine's state is one value of the store.
const MAX_TENANTS: usize = 100_000;

/// What is agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// The oldest epoch whose key is kept.
    pub first: u64,
    /// The epoch that new keys are wrapped in.
    pub current: u64,
    /// When that began, Unix milliseconds.
    pub since_ms: u64,
    /// The mark of the root at the current epoch.
    pub mark: [u8; 32],
}

/// The epochs of a cluster.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochMachine {
    agreed: Option<Agreed>,
    tenants: BTreeMap<TenantId, u64>,
}

/// What may be asked of the machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// This root, as it is, unless there is one already.
    Agree(Agreed, BTreeMap<TenantId, u64>),
    /// A tenant is about to have its first key wrapped in this epoch.
    Enroll(TenantId, u64),
    /// Goes on from epoch `from`; `mark` is that of the next.
    Begin { from: u64, mark: [u8; 32] },
    /// The oldest epochs that the keys of these tenants are wrapped in now.
    Moved(Vec<(TenantId, u64)>),
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum EpochRefused {
    /// There is no root that the cluster agreed on.
    #[error("the cluster has not agreed on a root key yet")]
    NoRoot,
    /// The epoch is over.
    #[error("epoch {epoch} is over: keys are kept from epoch {first} on")]
    Over {
        /// The epoch asked for.
        epoch: u64,
        /// The oldest one that is kept.
        first: u64,
    },
    /// There are too many tenants.
    #[error("at most {max} tenants have keys")]
    Full {
        /// How many there may be.
        max: u64,
    },
    /// The command or the answer is that of another version of the program.
    #[error("not a command of this version: {0}")]
    Unreadable(String),
}

impl EpochMachine {
    /// What is agreed on; none before a node had a root.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        self.agreed
    }

    /// Every tenant with keys, and the oldest epoch that they are wrapped in.
    #[must_use]
    pub fn tenants(&self) -> &BTreeMap<TenantId, u64> {
        &self.tenants
    }

    pub(crate) fn command(command: &Command) -> Vec<u8> {
        // Numbers and bytes always can be written.
        postcard::to_allocvec(command).unwrap_or_default()
    }

    pub(crate) fn answer(bytes: &[u8]) -> Result<Agreed, EpochRefused> {
        postcard::from_bytes(bytes).unwrap_or_else(|error| Err(EpochRefused::Unreadable(error.to_string())))
    }

    fn take(&mut self, now_ms: u64, command: &[u8]) -> Result<Agreed, EpochRefused> {
        let command = postcard::from_bytes(command).map_err(|error| EpochRefused::Unreadable(error.to_string()))?;
        match command {
            Command::Agree(root, tenants) => {
                if self.agreed.is_none() {
                    (self.agreed, self.tenants) = (Some(root), tenants);
                }
            }
            Command::Enroll(tenant, epoch) => self.enroll(tenant, epoch)?,
            Command::Begin { from, mark } => {
                let agreed = self.agreed.as_mut().ok_or(EpochRefused::NoRoot)?;
                // A repetition, and one that comes too late, changes nothing.
                if agreed.current == from {
                    (agreed.current, agreed.since_ms, agreed.mark) = (from + 1, now_ms, mark);
                }
            }
            Command::Moved(moved) => {
                for (tenant, epoch) in moved {
                    if let Some(noted) = self.tenants.get_mut(&tenant) {
                        *noted = epoch.max(*noted);
                    }
                }
                self.retire();
            }
        }
        self.agreed.ok_or(EpochRefused::NoRoot)
    }

    fn enroll(&mut self, tenant: TenantId, epoch: u64) -> Result<(), EpochRefused> {
        let Some(Agreed { first, .. }) = self.agreed else { return Err(EpochRefused::NoRoot) };
        if self.tenants.contains_key(&tenant) {
            return Ok(());
        }
        if epoch < first {
            return Err(EpochRefused::Over { epoch, first });
        }
        if self.tenants.len() >= MAX_TENANTS {
            return Err(EpochRefused::Full { max: MAX_TENANTS as u64 });
        }
        self.tenants.insert(tenant, epoch);
        Ok(())
    }

    /// Epochs that are neither kept nor needed have ended.
    fn retire(&mut self) {
        let Some(agreed) = &mut self.agreed else { return };
        let needed = self.tenants.values().copied().min().unwrap_or(u64::MAX);
        let kept = (agreed.current + 1).saturating_sub(super::root::KEPT_EPOCHS);
        agreed.first = agreed.first.max(needed.min(kept));
    }
}

impl ControlMachine for EpochMachine {
    fn ns(&self) -> &'static str {
        NS
    }

    fn apply(&mut self, _: u64, now_ms: u64, command: &[u8]) -> Vec<u8> {
        postcard::to_allocvec(&self.take(now_ms, command)).unwrap_or_default()
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        *self = postcard::from_bytes(bytes)
            .map_err(|error| StoreError::Decode { what: "epochs of keys", detail: error.to_string() })?;
        Ok(())
    }
}

/// Milliseconds until an epoch that began at `since_ms` ends. A clock that was set back, or far ahead before that, makes no epoch
/// longer than `epoch_ms`.
#[must_use]
pub fn remaining(since_ms: u64, epoch_ms: u64, now_ms: u64) -> u64 {
    since_ms.saturating_add(epoch_ms).saturating_sub(now_ms).min(epoch_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::of(name)
    }

    fn agreed(current: u64, mark: u8) -> Agreed {
        Agreed { first: 1, current, since_ms: 5, mark: [mark; 32] }
    }

    fn ask(machine: &mut EpochMachine, now_ms: u64, command: &Command) -> Result<Agreed, EpochRefused> {
        EpochMachine::answer(&machine.apply(1, now_ms, &EpochMachine::command(command)))
    }

    fn machine() -> EpochMachine {
        let mut machine = EpochMachine::default();
        ask(&mut machine, 1, &Command::Agree(agreed(1, 1), BTreeMap::new())).unwrap();
        machine
    }

    #[test]
    fn the_first_root_stays() {
        let mut machine = machine();
        let late = ask(&mut machine, 1, &Command::Agree(agreed(7, 2), BTreeMap::from([(tenant("a"), 7)])));
        assert_eq!((late, machine.tenants().len()), (Ok(agreed(1, 1)), 0));
    }

    #[test]
    fn epochs_begin_once_and_end_when_nobody_needs_them() {
        let mut machine = machine();
        ask(&mut machine, 1, &Command::Enroll(tenant("a"), 1)).unwrap();
        ask(&mut machine, 1, &Command::Enroll(tenant("a"), 9)).unwrap();
        for _ in 0..2 {
            let begun = ask(&mut machine, 9, &Command::Begin { from: 1, mark: [2; 32] }).unwrap();
            assert_eq!(begun, Agreed { first: 1, current: 2, since_ms: 9, mark: [2; 32] });
        }
        ask(&mut machine, 10, &Command::Begin { from: 2, mark: [3; 32] }).unwrap();
        let moved = |machine: &mut _, epoch| ask(machine, 11, &Command::Moved(vec![(tenant("a"), epoch)])).unwrap();
        assert_eq!(moved(&mut machine, 1).first, 1, "one tenant still needs it");
        assert_eq!(moved(&mut machine, 3).first, 2, "the newest two are kept");
        let over = ask(&mut machine, 12, &Command::Enroll(tenant("b"), 1));
        assert_eq!(over, Err(EpochRefused::Over { epoch: 1, first: 2 }));
        let mut copy = EpochMachine::default();
        copy.load(&machine.save()).unwrap();
        assert_eq!(copy, machine);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut machine = EpochMachine::default();
        assert_eq!(ask(&mut machine, 1, &Command::Enroll(tenant("a"), 1)), Err(EpochRefused::NoRoot));
        assert_eq!(ask(&mut machine, 1, &Command::Begin { from: 1, mark: [0; 32] }), Err(EpochRefused::NoRoot));
        assert!(matches!(EpochMachine::answer(&machine.apply(1, 1, b"\x09")), Err(EpochRefused::Unreadable(_))));
        assert!(machine.load(b"\x01").is_err());
        ask(&mut machine, 1, &Command::Agree(agreed(1, 1), BTreeMap::new())).unwrap();
        for n in 0..MAX_TENANTS {
            machine.enroll(TenantId(uuid::Uuid::from_u128(n as u128)), 1).unwrap();
        }
        assert!(matches!(machine.enroll(tenant("a"), 1), Err(EpochRefused::Full { .. })));
        assert!(machine.save().len() < aivillage_runtime::store::MAX_VALUE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever comes in whatever order, no epoch ends that a tenant needs, nor one of the newest two.
        #[test]
        fn no_epoch_ends_early(steps in prop::collection::vec((0..3_u8, 0..4_u8, 0..9_u64), 1..60)) {
            let mut machine = machine();
            for (step, who, epoch) in steps {
                let tenant = tenant(&who.to_string());
                let before = machine.agreed().unwrap();
                let _ = match step {
                    0 => ask(&mut machine, 1, &Command::Enroll(tenant, epoch)),
                    1 => ask(&mut machine, 1, &Command::Begin { from: epoch, mark: [0; 32] }),
                    _ => ask(&mut machine, 1, &Command::Moved(vec![(tenant, epoch)])),
                };
                let after = machine.agreed().unwrap();
                prop_assert!(after.first >= before.first && after.current - before.current <= 1);
                prop_assert!(after.first == 1 || after.first < after.current);
                prop_assert!(machine.tenants().values().all(|needed| *needed >= after.first));
            }
        }

        #[test]
        fn an_epoch_is_never_longer_than_it_should_be(since in any::<u64>(), epoch in 1..u64::MAX, now in any::<u64>()) {
            let left = remaining(since, epoch, now);
            prop_assert!(left <= epoch);
            if now >= since {
                prop_assert_eq!(left, epoch.saturating_sub(now - since).min(u64::MAX - now));
            }
        }
    }
}
