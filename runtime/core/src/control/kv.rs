//! Small values that all nodes agree on, with compare-and-set.

use serde::{Deserialize, Serialize};

use super::command::ControlRefused;
use super::table::Table;

/// Longest key in bytes.
const KEY_MAX: usize = 512;
/// Longest value in bytes.
const VALUE_MAX: usize = 64 * 1024;
/// Keys that may exist at once.
const KEYS_MAX: usize = 4096;
/// Bytes of all keys and values.
const TOTAL_MAX: usize = 16 * 1024 * 1024;

/// A value and when it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvEntry {
    /// Grows with every write of any key: the index of its entry in the log, or more where an entry has several writes.
    pub version: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// All small values.
#[derive(Debug, Default)]
pub(super) struct Kv {
    pub(super) rows: Table<String, KvEntry>,
    /// Bytes of keys and values.
    size: usize,
}

impl Kv {
    /// Puts a value in that is in the store already.
    pub(super) fn load(&mut self, key: String, entry: KvEntry) {
        self.size += key.len() + entry.value.len();
        self.rows.load(key, entry);
    }

    pub(super) fn put(&mut self, key: String, entry: KvEntry, expect: Option<u64>) -> Result<(), ControlRefused> {
        ControlRefused::if_larger("key", key.len(), KEY_MAX)?;
        ControlRefused::if_larger("value", entry.value.len(), VALUE_MAX)?;
        self.expect(&key, expect)?;
        let replaced = self.rows.get(&key).map(|old| key.len() + old.value.len());
        if replaced.is_none() {
            ControlRefused::if_more("keys", self.rows.len() + 1, KEYS_MAX)?;
        }
        let size = self.size - replaced.unwrap_or(0) + key.len() + entry.value.len();
        ControlRefused::if_larger("the sum of all values", size, TOTAL_MAX)?;
        self.size = size;
        self.rows.insert(key, entry);
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &String, expect: Option<u64>) -> Result<(), ControlRefused> {
        self.expect(key, expect)?;
        if let Some(old) = self.rows.remove(key) {
            self.size -= key.len() + old.value.len();
        }
        Ok(())
    }

    fn expect(&self, key: &String, expect: Option<u64>) -> Result<(), ControlRefused> {
        let current = self.rows.get(key).map_or(0, |entry| entry.version);
        match expect {
            Some(expected) if expected != current => Err(ControlRefused::Conflict { current }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: u64, size: usize) -> KvEntry {
        KvEntry { version, value: vec![0; size] }
    }

    #[test]
    fn a_write_on_an_old_version_is_refused() {
        let mut kv = Kv::default();
        assert_eq!(kv.put("k".into(), entry(5, 1), Some(0)), Ok(()));
        assert_eq!(kv.put("k".into(), entry(6, 1), Some(0)), Err(ControlRefused::Conflict { current: 5 }));
        assert_eq!(kv.put("k".into(), entry(6, 1), Some(5)), Ok(()));
        assert_eq!(kv.delete(&"k".into(), Some(5)), Err(ControlRefused::Conflict { current: 6 }));
        assert_eq!(kv.delete(&"k".into(), Some(6)), Ok(()));
        assert_eq!(kv.delete(&"k".into(), Some(6)), Err(ControlRefused::Conflict { current: 0 }));
        assert_eq!(kv.delete(&"k".into(), None), Ok(()));
    }

    #[test]
    fn keys_and_values_over_the_limits_are_refused() {
        let mut kv = Kv::default();
        let refused = |result| matches!(result, Err(ControlRefused::TooLarge { .. }));
        assert!(refused(kv.put("k".repeat(513), entry(1, 0), None)));
        assert!(refused(kv.put("k".into(), entry(1, 64 * 1024 + 1), None)));
        for n in 0..255 {
            assert_eq!(kv.put(format!("{n:04}"), entry(1, 64 * 1024), None), Ok(()));
        }
        assert!(refused(kv.put("0255".into(), entry(1, 64 * 1024), None)));
        // What is replaced or deleted does not count.
        assert_eq!(kv.put("0000".into(), entry(2, 64 * 1024), None), Ok(()));
        assert_eq!(kv.delete(&"0000".into(), None), Ok(()));
        assert_eq!(kv.put("0255".into(), entry(3, 64 * 1024), None), Ok(()));
    }

    #[test]
    fn more_keys_than_the_limit_are_refused() {
        let mut kv = Kv::default();
        for n in 0..4096 {
            assert_eq!(kv.put(n.to_string(), entry(1, 0), None), Ok(()));
        }
        assert!(matches!(kv.put("more".into(), entry(1, 0), None), Err(ControlRefused::Limit { max: 4096, .. })));
        assert_eq!(kv.put("1".into(), entry(2, 1), None), Ok(()));
    }
}
