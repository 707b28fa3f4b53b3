//! A disk in memory that can crash, fill up and break at any operation.
//!
//! At a crash the bytes of a file are those of its last sync and a random beginning of what was written since, the torn end
//! filled with garbage; of the names a random beginning of the changes since the folder's last sync is kept.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Files, folder};

#[derive(Debug, Clone, Default)]
struct Inode {
    now: Vec<u8>,
    safe: Vec<u8>,
}

/// A name that was given to a file or, without one, taken away.
#[derive(Debug, Clone)]
struct Change {
    name: String,
    inode: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    safe_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    /// Operations so far.
    ops: u64,
    fault: Fault,
}

/// What is to go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// The process dies in the middle of the operation with this number.
    CrashAt(u64),
    /// So many bytes can still be written.
    Space(usize),
    /// Syncs fail.
    Sync,
    /// The next operation panics.
    Panic,
}

/// A simulated disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sim(Arc<Mutex<State>>);

/// A small generator, so that a seed replays a crash.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let high = usize::try_from(self.0 >> 33).unwrap();
        high % below.max(1)
    }
}

impl Sim {
    pub(crate) fn set(&self, fault: Fault) {
        self.0.lock().fault = fault;
    }

    pub(crate) fn ops(&self) -> u64 {
        self.0.lock().ops
    }

    /// The disk as it is found after the loss of power.
    pub(crate) fn after_crash(&self, seed: u64) -> Self {
        let state = self.0.lock();
        let mut dice = Dice(seed);
        let mut names = state.safe_names.clone();
        for change in state.changes.iter().take(dice.roll(state.changes.len() + 1)) {
            change.apply(&mut names);
        }
        let inodes: Vec<_> = state.inodes.iter().map(|inode| inode.after_crash(&mut dice)).collect();
        Self(Arc::new(Mutex::new(State { inodes, safe_names: names.clone(), names, ..State::default() })))
    }

    /// Changes one bit of a file.
    pub(crate) fn flip(&self, name: &str, bit: usize) {
        let mut state = self.0.lock();
        let inode = state.names[name];
        state.inodes[inode].now[bit / 8] ^= 1 << (bit % 8);
    }

    /// Another disk with the same files.
    pub(crate) fn copy(&self) -> Self {
        let state = self.0.lock();
        let (inodes, names) = (state.inodes.clone(), state.names.clone());
        Self(Arc::new(Mutex::new(State { inodes, safe_names: names.clone(), names, ..State::default() })))
    }
}

impl Inode {
    fn after_crash(&self, dice: &mut Dice) -> Inode {
        let same = self.now.iter().zip(&self.safe).take_while(|(now, safe)| now == safe).count();
        let kept = same + dice.roll(self.now.len() - same + 1);
        let mut found = self.now[..kept].to_vec();
        // What was cut or not written yet is as it was, or a page of rubbish.
        found.extend(self.safe.iter().skip(kept));
        if kept < self.now.len() && dice.roll(2) == 0 {
            found.truncate(kept.max(self.safe.len().min(same)));
            found.resize(kept + dice.roll(40), 0);
        }
        Inode { now: found.clone(), safe: found }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self.inode {
            Some(inode) => names.insert(self.name.clone(), inode),
            None => names.remove(&self.name),
        };
    }
}

impl State {
    /// Counts an operation. `Ok(n)`: that many of its bytes are done, and it fails if that is not all.
    fn begin(&mut self, bytes: usize) -> io::Result<usize> {
        self.ops += 1;
        match &mut self.fault {
            Fault::CrashAt(op) if self.ops > *op => Err(io::Error::other("crashed")),
            Fault::CrashAt(op) if self.ops == *op => Ok(bytes / 2),
            Fault::Space(left) => {
                let taken = bytes.min(*left);
                *left -= taken;
                Ok(taken)
            }
            Fault::Panic => panic!("on purpose"),
            _ => Ok(bytes),
        }
    }

    /// The error of an operation that was begun and must not succeed.
    fn end(&self) -> io::Result<()> {
        match self.fault {
            Fault::CrashAt(op) if self.ops >= op => Err(io::Error::other("crashed")),
            _ => Ok(()),
        }
    }

    fn inode(&mut self, name: &str) -> io::Result<&mut Inode> {
        let inode = *self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(&mut self.inodes[inode])
    }

    fn change(&mut self, name: &str, inode: Option<usize>) {
        let change = Change { name: name.to_owned(), inode };
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn put(&mut self, name: &str, at: usize, bytes: &[u8]) -> io::Result<()> {
        let done = self.begin(bytes.len())?;
        let inode = self.inode(name)?;
        inode.now.resize(inode.now.len().max(at + done), 0);
        inode.now[at..at + done].copy_from_slice(&bytes[..done]);
        self.end()?;
        if done == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

impl Files for Sim {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().inode(name)?.now.clone())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        Ok(self.0.lock().names.keys().filter(|name| name.starts_with(&prefix)).cloned().collect())
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(0)?;
        state.end()?;
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.change(name, Some(inode));
        state.put(name, 0, bytes)
    }

    fn write_at(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().put(name, usize::try_from(at).unwrap(), bytes)
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(0)?;
        state.end()?;
        state.inode(name)?.now.truncate(usize::try_from(len).unwrap());
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(0)?;
        state.end()?;
        if matches!(state.fault, Fault::Sync) {
            return Err(io::Error::other("the disk is broken"));
        }
        let inode = state.inode(name)?;
        inode.safe = inode.now.clone();
        Ok(())
    }

    fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(0)?;
        state.end()?;
        let (safe, rest) =
            std::mem::take(&mut state.changes).into_iter().partition(|change| folder(&change.name) == dir);
        state.changes = rest;
        Vec::into_iter(safe).for_each(|change: Change| change.apply(&mut state.safe_names));
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(0)?;
        state.end()?;
        let inode = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change(from, None);
        state.change(to, Some(inode));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin(0)?;
        state.end()?;
        state.inode(name)?;
        state.change(name, None);
        Ok(())
    }
}
