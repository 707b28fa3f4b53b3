//! Rows that remember which of them changed, so that only those are written.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V> Table<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    /// The row, to be changed.
    pub(super) fn change(&mut self, key: &K) -> Option<&mut V> {
        let row = self.rows.get_mut(key)?;
        self.changed.insert(key.clone());
        Some(row)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.changed.insert(key.clone());
        self.rows.insert(key, value)
    }

    /// Puts a row in that is in the store already.
    pub(super) fn load(&mut self, key: K, value: V) {
        self.rows.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let row = self.rows.remove(key)?;
        self.changed.insert(key.clone());
        Some(row)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.rows.retain(|key, row| {
            let kept = keep(row);
            if !kept {
                self.changed.insert(key.clone());
            }
            kept
        });
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    /// Rows whose key is `from` or greater.
    pub(super) fn iter_from(&self, from: K) -> impl Iterator<Item = (&K, &V)> {
        self.rows.range(from..)
    }

    /// Keys that changed since the last call, each with its row unless that is gone.
    pub(super) fn take_changed(&mut self) -> impl Iterator<Item = (K, Option<&V>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|key| {
            let row = self.rows.get(&key);
            (key, row)
        })
    }
}
