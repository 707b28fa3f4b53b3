//! Who judges an appeal: drawn by a seed that nobody knew when the appeal was made, and that anybody can check later.
//!
//! ```text
//! seed   = SHA-256(root of the first checkpoint after the appeal || case id)
//! h(i)   = first 8 bytes, big endian, of SHA-256(seed || i as u32 big endian)
//! ```
//! From the eligible, in the order of tenant and subject, juror `k` is taken at place `h mod left`, and taken out. An `h` in the
//! last incomplete run of `left` is skipped, so that no place is likelier.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::case::CaseId;

/// Jurors of a case.
pub const JURORS: usize = 5;
/// Votes that decide.
pub const MAJORITY: usize = JURORS / 2 + 1;

/// Somebody who judges.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Juror {
    /// Of which tenant.
    pub tenant: String,
    /// Under which name there.
    pub subject: String,
}

impl Juror {
    /// Reads `tenant/subject`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (tenant, subject) = text.split_once('/')?;
        let is_one = !tenant.is_empty() && !subject.is_empty();
        is_one.then(|| Self { tenant: tenant.to_owned(), subject: subject.to_owned() })
    }
}

/// Who may be drawn. Clones see the same.
#[derive(Debug, Clone, Default)]
pub struct JurorPool {
    /// Those whom the configuration names.
    named: Arc<BTreeSet<Juror>>,
    /// Those who have the role, by tenant.
    by_role: Arc<ArcSwap<BTreeMap<String, BTreeSet<Juror>>>>,
}

impl JurorPool {
    /// A pool of those whom the configuration names.
    #[must_use]
    pub fn new(named: impl IntoIterator<Item = Juror>) -> Self {
        Self { named: Arc::new(named.into_iter().collect()), by_role: Arc::default() }
    }

    /// Tells who of a tenant has the role `juror` now; whoever follows the accounts calls this when it changes.
    pub fn show(&self, tenant: &str, subjects: impl IntoIterator<Item = String>) {
        let juror = |subject| Juror { tenant: tenant.to_owned(), subject };
        let jurors: BTreeSet<Juror> = subjects.into_iter().map(juror).collect();
        self.by_role.rcu(|old| {
            let mut all = BTreeMap::clone(old);
            all.insert(tenant.to_owned(), jurors.clone());
            all
        });
    }

    /// Who may judge a case of a tenant.
    #[must_use]
    pub fn eligible(&self, but_tenant: &str) -> BTreeSet<Juror> {
        let by_role = self.by_role.load();
        let all = self.named.iter().chain(by_role.values().flatten());
        all.filter(|juror| juror.tenant != but_tenant).cloned().collect()
    }
}

/// SHA-256 of those who were drawn from, a line `tenant/subject` each, hex: whoever is shown the list can tell that it is the one.
#[must_use]
pub fn digest(eligible: &BTreeSet<Juror>) -> String {
    let mut hash = Sha256::new();
    for Juror { tenant, subject } in eligible {
        hash.update(format!("{tenant}/{subject}\n"));
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

/// The seed of a case's draw.
#[must_use]
pub fn seed(root: &[u8; 32], case: CaseId) -> [u8; 32] {
    Sha256::new().chain_update(root).chain_update(case.as_bytes()).finalize().into()
}

/// Draws a jury without replacement; none if there are too few for one.
#[must_use]
pub fn draw(seed: &[u8; 32], eligible: &BTreeSet<Juror>) -> Option<Vec<Juror>> {
    if eligible.len() < JURORS {
        return None;
    }
    let mut left: Vec<&Juror> = eligible.iter().collect();
    let mut drawn = Vec::with_capacity(JURORS);
    let mut i = 0_u32;
    while drawn.len() < JURORS {
        let many = left.len() as u64;
        let number = number(seed, i);
        i = i.wrapping_add(1);
        if number >= u64::MAX - u64::MAX % many {
            continue;
        }
        let place = usize::try_from(number % many).unwrap_or_default();
        drawn.push(left.remove(place).clone());
    }
    Some(drawn)
}

fn number(seed: &[u8; 32], i: u32) -> u64 {
    let hash = Sha256::new().chain_update(seed).chain_update(i.to_be_bytes()).finalize();
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod unit {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::cases::Sender;

    fn pool(many: usize) -> BTreeSet<Juror> {
        (0..many).map(|n| Juror { tenant: format!("t{}", n % 7), subject: format!("j{n}") }).collect()
    }

    #[test]
    fn the_seed_is_that_of_root_and_case() {
        let case = CaseId::of(Uuid::from_u128(7 << 8), &Sender::new("acme", "ann"));
        let by_hand: [u8; 32] = Sha256::digest([&[9; 32][..], &case.as_bytes()[..]].concat()).into();
        assert_eq!(seed(&[9; 32], case), by_hand);
    }

    #[test]
    fn four_are_no_jury() {
        assert_eq!(draw(&[1; 32], &pool(4)), None);
        assert_eq!(draw(&[1; 32], &pool(5)).unwrap().into_iter().collect::<BTreeSet<_>>(), pool(5));
    }

    #[test]
    fn nobody_is_drawn_much_more_often_than_others() {
        let mut drawn: BTreeMap<Juror, u32> = BTreeMap::new();
        for n in 0..2_000_u32 {
            let seed: [u8; 32] = Sha256::digest(n.to_be_bytes()).into();
            for juror in draw(&seed, &pool(20)).unwrap() {
                *drawn.entry(juror).or_default() += 1;
            }
        }
        // 2,000 draws of 5 of 20: 500 each, with a deviation of 19; five of them.
        assert_eq!(drawn.len(), 20);
        assert!(drawn.values().all(|times| (405..=595).contains(times)), "{drawn:?}");
    }

    #[test]
    fn those_of_the_senders_tenant_are_not_eligible_wherever_they_come_from() {
        let juror = |text: &str| Juror::parse(text).unwrap();
        let pool = JurorPool::new([juror("acme/a"), juror("other/b")]);
        pool.clone().show("acme", ["c".to_owned()]);
        pool.clone().show("third", ["d".to_owned()]);
        assert_eq!(pool.eligible("acme"), [juror("other/b"), juror("third/d")].into());
        assert_eq!(pool.eligible("").len(), 4);
        assert_eq!([Juror::parse("a"), Juror::parse("/b"), Juror::parse("a/")], [None, None, None]);
    }

    #[test]
    fn the_list_that_was_drawn_from_is_told_by_its_digest() {
        let pool = |text: &str| text.split(' ').filter_map(Juror::parse).collect::<BTreeSet<_>>();
        let by_hand = data_encoding::HEXLOWER.encode(&Sha256::digest("a/b\nc/d\n"));
        assert_eq!(digest(&pool("c/d a/b")), by_hand);
        assert_ne!(digest(&pool("c/d")), by_hand);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_jury_has_five_different_ones_and_is_the_same_for_everybody(root: [u8; 32], id: u128, many in 5_usize..60) {
            let case = CaseId::of(Uuid::from_u128(id), &Sender::new("acme", "ann"));
            let jury = draw(&seed(&root, case), &pool(many)).unwrap();
            let different: BTreeSet<_> = jury.iter().cloned().collect();
            prop_assert_eq!(different.len(), JURORS);
            prop_assert!(different.is_subset(&pool(many)));
            prop_assert_eq!(draw(&seed(&root, case), &pool(many)), Some(jury));
        }
    }
}
