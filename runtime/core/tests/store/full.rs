//! Full disks: a small file system of its own, and a limit on the size of files.

use std::fs;
use std::path::Path;
use std::process::Command;

use aivillage_runtime::config::Size;
use aivillage_runtime::store::{Batch, DiskStore, Level, Store, StoreConfig, StoreError, TreeId};

use super::{open, runtime, small};

const TREE: TreeId = TreeId(50);

fn put(store: &dyn Store, n: u32) -> Result<(), StoreError> {
    let batch =
        Batch::new().put(TREE, n.to_be_bytes(), vec![n as u8 | 1; 10_000]).put(TREE, *b"newest", n.to_be_bytes());
    runtime().block_on(store.commit(batch, Level::Disk)).map(drop)
}

/// Writes numbers from `next` on until the disk is full, and returns the one that was refused.
fn fill(store: &dyn Store, mut next: u32) -> u32 {
    loop {
        match put(store, next) {
            Ok(()) => next += 1,
            Err(error) => {
                assert!(error.is_full(), "{error}");
                return next;
            }
        }
        assert!(next < 10_000, "the disk never gets full");
    }
}

fn assert_holds(store: &dyn Store, count: u32) {
    for n in 0..count {
        assert_eq!(store.get(TREE, &n.to_be_bytes()).unwrap().unwrap(), vec![n as u8 | 1; 10_000], "{n} of {count}");
    }
    assert_eq!(store.get(TREE, &count.to_be_bytes()).unwrap(), None);
    assert_eq!(store.get(TREE, b"newest").unwrap().unwrap(), (count - 1).to_be_bytes()[..]);
}

/// A mounted tmpfs, gone at the end.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"]).arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: a tmpfs cannot be mounted here (needs root)");
        }
        mounted.then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: an abandoned sled instance keeps its file open until the process ends.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn config() -> StoreConfig {
    StoreConfig { segment: Size::from_kib(256), ..small() }
}

#[test]
fn full_disk_refuses_writes_whole_and_takes_them_again_when_space_returns() {
    let Some(disk) = Tmpfs::mount(12) else { return };
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 4 << 20]).unwrap();
    let dir = disk.path().join("data");
    let store = DiskStore::open(&dir, &config()).unwrap();
    let refused = fill(&store, 0);
    assert!(refused > 10);
    assert!(store.stats().full);
    assert_holds(&store, refused);
    assert_eq!(store.stats().index, "sled", "the reserve for the index is too small");
    assert!(put(&store, refused).unwrap_err().is_full());
    fs::remove_file(&ballast).unwrap();
    put(&store, refused).unwrap();
    assert!(!store.stats().full);
    assert_holds(&store, refused + 1);
    drop(store);
    assert_holds(&DiskStore::open(&dir, &config()).unwrap(), refused + 1);
}

#[test]
fn space_that_others_take_loses_nothing() {
    let Some(disk) = Tmpfs::mount(12) else { return };
    let dir = disk.path().join("data");
    let store = DiskStore::open(&dir, &config()).unwrap();
    (0..20).for_each(|n| put(&store, n).unwrap());
    // Also what the store had left for its index.
    let ballast = disk.path().join("ballast");
    let _ = fs::write(&ballast, vec![1; 16 << 20]);
    let refused = fill(&store, 20);
    let _ = runtime().block_on(store.checkpoint());
    assert_holds(&store, refused);
    drop(store);
    fs::remove_file(&ballast).unwrap();
    let store = DiskStore::open(&dir, &config()).unwrap();
    assert_holds(&store, refused);
    put(&store, refused).unwrap();
}

#[test]
fn start_on_a_full_disk_serves_reads_from_memory_if_it_must() {
    let Some(disk) = Tmpfs::mount(12) else { return };
    let dir = disk.path().join("data");
    let store = DiskStore::open(&dir, &config()).unwrap();
    (0..20).for_each(|n| put(&store, n).unwrap());
    drop(store);
    fs::remove_dir_all(dir.join("sled")).unwrap();
    let ballast = disk.path().join("ballast");
    let _ = fs::write(&ballast, vec![1; 16 << 20]);
    let store = DiskStore::open(&dir, &config()).unwrap();
    assert_eq!(store.stats().index, "memory");
    let refused = fill(&store, 20);
    assert_holds(&store, refused);
    fs::remove_file(&ballast).unwrap();
    put(&store, refused).unwrap();
    drop(store);
    let store = DiskStore::open(&dir, &config()).unwrap();
    assert_eq!(store.stats().index, "sled");
    assert_holds(&store, refused + 1);
}

/// Runs in a child whose files may not be longer than half a segment.
#[test]
fn child_with_small_files() {
    let Ok(dir) = std::env::var("STORE_TEST_LIMITED") else { return };
    let store = open(Path::new(&dir));
    let refused = fill(&*store, 10);
    assert_holds(&*store, refused);
}

#[test]
fn file_size_limit_is_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (0..10).for_each(|n| put(&*store, n).unwrap());
    drop(store);
    let child = |limit| {
        // Ignoring the signal is inherited; a write over the limit then fails with EFBIG.
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" --exact full::child_with_small_files");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(std::env::current_exe().unwrap()).env("STORE_TEST_LIMITED", dir.path());
        shell.output().unwrap()
    };
    // 32 KiB in blocks of 512 bytes; a segment is 64 KiB.
    let output = child(64);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let store = open(dir.path());
    let next = store.get(TREE, b"newest").unwrap().unwrap();
    let next = u32::from_be_bytes(next[..].try_into().unwrap()) + 1;
    put(&*store, next).unwrap();
    assert_holds(&*store, next + 1);
}
