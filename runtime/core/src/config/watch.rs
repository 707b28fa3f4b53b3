//! Following the configuration while the node runs: SIGHUP, or a file that changed (looked at every 2 s).
//!
//! The whole new configuration is read and checked first. A bad one changes nothing and is told with its place. Of a good one
//! only the hot keys take effect; the others keep their value until the node starts again, and a warning names them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use toml::{Table, Value};

use super::{ConfigError, Loaded};

/// How often the file is looked at. Two seconds are soon enough for a person and cost one `stat`.
const POLL: Duration = Duration::from_secs(2);

/// Reads the configuration again from all its sources and checks it.
type Load<T> = Box<dyn Fn() -> Result<Loaded<T>, ConfigError> + Send>;

/// Keeps a configuration up to date. Run it with [`ConfigWatch::run`]; values come out of the receivers.
pub struct ConfigWatch<T> {
    path: Option<PathBuf>,
    hot: Vec<&'static str>,
    load: Load<T>,
    /// What is in effect: the first configuration plus the hot changes since.
    effective: Table,
    seen: Option<Version>,
    values: watch::Sender<Arc<T>>,
}

/// What a reload did.
#[derive(Debug)]
pub enum Reload {
    /// The new configuration was good. Keys are dotted and sorted.
    Applied {
        /// Keys whose new value is in effect.
        changed: Vec<String>,
        /// Keys whose new value waits for a restart.
        restart: Vec<String>,
    },
    /// The new configuration was bad; the old one stays.
    Refused(ConfigError),
}

/// Tells one content of the file from another. The inode changes when a file is replaced rather than written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl<T: DeserializeOwned + Send + Sync + 'static> ConfigWatch<T> {
    /// Follows `path` from `first` on.
    ///
    /// `hot` lists the dotted keys that may change at run time; a key also covers the keys below it. `load` reads the
    /// configuration again from all its sources and checks it.
    pub fn new(
        path: Option<PathBuf>,
        first: Loaded<T>,
        hot: impl IntoIterator<Item = &'static str>,
        load: impl Fn() -> Result<Loaded<T>, ConfigError> + Send + 'static,
    ) -> Self {
        let seen = path.as_ref().and_then(version);
        Self {
            path,
            hot: hot.into_iter().collect(),
            load: Box::new(load),
            effective: first.table,
            seen,
            values: watch::Sender::new(Arc::new(first.value)),
        }
    }

    /// A view of what is in effect, told of each change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<T>> {
        self.values.subscribe()
    }

    /// Follows the file and SIGHUP until dropped.
    ///
    /// # Errors
    /// The operating system's, if it gives no handler for SIGHUP.
    ///
    /// # Cancel safety
    /// May be dropped at any point; a change is then either in effect or not.
    pub async fn run(mut self) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = hangup.recv() => { self.reload(); }
                _ = poll.tick() => if self.has_changed() { self.reload(); }
            }
        }
    }

    /// Says whether the file is another than when last asked. A file that is away counts as unchanged until it is back.
    pub fn has_changed(&mut self) -> bool {
        let Some(now) = self.path.as_ref().and_then(version) else { return false };
        self.seen.replace(now) != Some(now)
    }

    /// Reads the configuration again, applies it or refuses it, logs which, and returns it.
    pub fn reload(&mut self) -> Reload {
        let outcome = self.try_reload().unwrap_or_else(Reload::Refused);
        match &outcome {
            Reload::Refused(error) => tracing::error!(%error, "configuration refused, the old one stays"),
            Reload::Applied { changed, restart } => {
                if !changed.is_empty() {
                    tracing::info!(keys = changed.join(", "), "configuration reloaded");
                }
                if !restart.is_empty() {
                    tracing::warn!("restart needed: {}", restart.join(", "));
                }
            }
        }
        outcome
    }

    fn try_reload(&mut self) -> Result<Reload, ConfigError> {
        let new = (self.load)()?;
        let mut old_keys = leaves(&self.effective);
        let new_keys = leaves(&new.table);
        old_keys.retain(|(key, value)| !new_keys.iter().any(|(other, same)| other == key && same == value));
        let added = new_keys.into_iter().filter(|(key, value)| lookup(&self.effective, key) != Some(*value));
        let mut keys: Vec<String> = old_keys.into_iter().chain(added).map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        let (changed, restart): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| self.is_hot(key));
        if !changed.is_empty() {
            let mut effective = self.effective.clone();
            for key in &changed {
                put(&mut effective, key, lookup(&new.table, key).cloned());
            }
            // New hot values beside old cold ones: a combination that nobody has checked yet.
            let value = T::deserialize(effective.clone())
                .map_err(|error| ConfigError::invalid(changed.join(", "), error.to_string().trim_end()))?;
            self.effective = effective;
            self.values.send_replace(Arc::new(value));
        }
        Ok(Reload::Applied { changed, restart })
    }

    fn is_hot(&self, key: &str) -> bool {
        self.hot.iter().any(|hot| key.strip_prefix(hot).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }
}

impl<T> fmt::Debug for ConfigWatch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigWatch").field("path", &self.path).field("hot", &self.hot).finish_non_exhaustive()
    }
}

fn version(path: &PathBuf) -> Option<Version> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(Version { modified: metadata.modified().ok(), len: metadata.len(), inode: metadata.ino() })
}

/// All values that are no tables, with their dotted keys. Arrays count as one value.
fn leaves(table: &Table) -> Vec<(String, &Value)> {
    fn walk<'a>(prefix: &str, table: &'a Table, into: &mut Vec<(String, &'a Value)>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(inner) => walk(&key, inner, into),
                leaf => into.push((key, leaf)),
            }
        }
    }
    let mut all = Vec::new();
    walk("", table, &mut all);
    all
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
    }
}

/// Sets the value of a dotted key, or takes the key away.
fn put(table: &mut Table, key: &str, value: Option<Value>) {
    let Some((section, rest)) = key.split_once('.') else {
        match value {
            Some(value) => table.insert(key.to_owned(), value),
            None => table.remove(key),
        };
        return;
    };
    let inner = table.entry(section.to_owned()).or_insert_with(|| Value::Table(Table::new()));
    if !inner.is_table() {
        *inner = Value::Table(Table::new());
    }
    if let Value::Table(inner) = inner {
        put(inner, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{RuntimeConfig, load};
    use super::*;

    fn follow(path: &Path) -> ConfigWatch<RuntimeConfig> {
        let owned = path.to_owned();
        let read = move || {
            let loaded = load::<RuntimeConfig>(Some(&owned), std::iter::empty(), &[])?;
            loaded.value.validate()?;
            Ok(loaded)
        };
        let first = read().unwrap();
        ConfigWatch::new(Some(path.to_owned()), first, RuntimeConfig::HOT.iter().copied(), read)
    }

    /// Replaces the file the way editors and config maps do, so that a change shows even within one tick of the clock.
    fn replace(path: &Path, text: &str) {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn applied(reload: Reload) -> (Vec<String>, Vec<String>) {
        match reload {
            Reload::Applied { changed, restart } => (changed, restart),
            Reload::Refused(error) => panic!("{error}"),
        }
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn hot_keys_take_effect_and_cold_ones_wait_for_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.toml");
        std::fs::write(&path, "[limits]\nmailbox = 5\nblob_rate = '2MiB'\n").unwrap();
        let mut watch = follow(&path);
        let mut values = watch.subscribe();
        assert!(!watch.has_changed());

        replace(&path, "[limits]\nmailbox = 6\nblob_rate = '3MiB'\n[node]\ndata = 'elsewhere'\n");
        assert!(watch.has_changed());
        let expected = (keys(&["limits.mailbox"]), keys(&["limits.blob_rate", "node.data"]));
        assert_eq!(applied(watch.reload()), expected);
        assert!(values.has_changed().unwrap());
        let value = Arc::clone(&values.borrow_and_update());
        assert_eq!((value.limits.mailbox, value.limits.blob_rate.to_string().as_str()), (6, "2MiB"));
        assert_eq!(value.node.data, Path::new("./village-data"));
        assert!(!watch.has_changed());

        // A key taken out of the file goes back to its default; what still waits is told again.
        replace(&path, "[limits]\nblob_rate = '3MiB'\n");
        assert_eq!(applied(watch.reload()), (keys(&["limits.mailbox"]), keys(&["limits.blob_rate"])));
        assert_eq!(values.borrow_and_update().limits.mailbox, 1024);

        replace(&path, "[limits]\nblob_rate = '2MiB'\n");
        assert_eq!(applied(watch.reload()), (vec![], vec![]));
        assert!(!values.has_changed().unwrap());
    }

    #[test]
    fn a_bad_file_changes_nothing_and_is_told_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.toml");
        std::fs::write(&path, "[limits]\nmailbox = 5\n").unwrap();
        let mut watch = follow(&path);
        let values = watch.subscribe();
        for (text, told) in [
            ("[limits]\nmailbox = 7\nmax_actor = 1\n", ":3:1: unknown field `max_actor`"),
            ("[limits]\nmailbox = 0\n", "limits.mailbox: 0 is not in"),
            ("[limits", ":1:8: "),
        ] {
            replace(&path, text);
            match watch.reload() {
                Reload::Refused(error) => assert!(error.to_string().contains(told), "{error}"),
                applied @ Reload::Applied { .. } => panic!("{applied:?}"),
            }
        }
        assert!(!values.has_changed().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!watch.has_changed());
        assert!(matches!(watch.reload(), Reload::Refused(ConfigError::Read { .. })));
        replace(&path, "[limits]\nmailbox = 8\n");
        assert!(watch.has_changed());
        assert_eq!(applied(watch.reload()).0, keys(&["limits.mailbox"]));
    }

    #[tokio::test]
    async fn hangup_and_a_changed_file_are_both_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.toml");
        std::fs::write(&path, "[limits]\nmailbox = 1\n").unwrap();
        let watch = follow(&path);
        let mut values = watch.subscribe();
        let mut run = Box::pin(watch.run());
        // The first poll, at once, has the handler installed before the signal is sent.
        assert!(futures::poll!(&mut run).is_pending());
        replace(&path, "[limits]\nmailbox = 2\n");
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
        tokio::select! {
            _ = &mut run => panic!("ended"),
            changed = values.changed() => changed.unwrap(),
        }
        assert_eq!(values.borrow_and_update().limits.mailbox, 2);
        tokio::time::pause();
        replace(&path, "[limits]\nmailbox = 3\n");
        tokio::select! {
            _ = &mut run => panic!("ended"),
            changed = values.changed() => changed.unwrap(),
        }
        assert_eq!(values.borrow().limits.mailbox, 3);
    }
}
