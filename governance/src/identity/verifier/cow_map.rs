//! A map that is read without a lock while one writer changes it: a change copies one of many buckets.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A change copies this part of the map; an empty map has this many pointers.
const BUCKETS: usize = 32;

pub(super) struct CowMap<K, V> {
    buckets: [ArcSwap<HashMap<K, V>>; BUCKETS],
    hasher: RandomState,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        let empty = Arc::new(HashMap::new());
        Self { buckets: std::array::from_fn(|_| ArcSwap::new(empty.clone())), hasher: RandomState::new() }
    }
}

impl<K, V> fmt::Debug for CowMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: usize = self.buckets.iter().map(|bucket| bucket.load().len()).sum();
        write!(f, "CowMap({entries})")
    }
}

impl<K: Hash + Eq + Clone, V: Clone> CowMap<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.bucket(key)?.load().get(key).cloned()
    }

    /// Puts a value, or removes it.
    pub(super) fn set(&self, key: &K, value: Option<&V>) {
        let Some(bucket) = self.bucket(key) else { return };
        bucket.rcu(|entries| {
            let mut entries = HashMap::clone(entries);
            match value {
                Some(value) => drop(entries.insert(key.clone(), value.clone())),
                None => drop(entries.remove(key)),
            }
            entries
        });
    }

    fn bucket(&self, key: &K) -> Option<&ArcSwap<HashMap<K, V>>> {
        let hash = self.hasher.hash_one(key);
        // The low bits are those that the bucket's own map would take.
        self.buckets.get(usize::try_from(hash >> 59).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_a_map(changes in prop::collection::vec((0_u8..40, prop::option::of(0_u8..9)), 0..200)) {
            let (map, mut model) = (CowMap::default(), HashMap::new());
            for (key, value) in changes {
                map.set(&key, value.as_ref());
                match value {
                    Some(value) => drop(model.insert(key, value)),
                    None => drop(model.remove(&key)),
                }
            }
            for key in 0..40 {
                prop_assert_eq!(map.get(&key), model.get(&key).copied());
            }
        }
    }
}
