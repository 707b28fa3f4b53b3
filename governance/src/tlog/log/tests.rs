mod crash;
mod damage;

use super::super::audit::Rereading;
use super::super::files::sim::{Fault, Sim};
use super::super::note::Cosigner;
use super::super::tree::{verify_consistency, verify_inclusion};
use super::*;

fn signer() -> LogSigner {
    LogSigner::new("example.com/log", &[1; 32]).unwrap()
}

fn witness() -> Cosigner {
    Cosigner::new("w", &[2; 32]).unwrap()
}

fn open(sim: &Sim, roll: usize) -> Result<Log<Sim>, LogError> {
    Log::open_with(sim.clone(), signer(), vec![witness().public().clone()], roll)
}

fn entry(n: u64) -> Bytes {
    let len = usize::try_from(n % 23).unwrap();
    [&n.to_be_bytes()[..], &vec![b'x'; len]].concat().into()
}

fn entries(from: u64, to: u64) -> Vec<Bytes> {
    (from..to).map(entry).collect()
}

/// A log of `size` entries, appended 100 at a time and signed every now and then.
fn grown(sim: &Sim, size: u64) -> Log<Sim> {
    let mut log = open(sim, 512).unwrap();
    while log.size() < size {
        let first = log.size();
        log.append(&entries(first, size.min(first + 100))).unwrap();
        if first.is_multiple_of(300) {
            log.sign().unwrap();
        }
    }
    log.sign().unwrap();
    log
}

fn all(log: &Log<Sim>) -> Vec<Bytes> {
    let mut read = Vec::new();
    while (read.len() as u64) < log.size() {
        read.extend(log.read(read.len() as u64, 256).unwrap());
    }
    read
}

#[test]
fn entries_and_root_are_the_same_after_a_restart() {
    let sim = Sim::default();
    for size in [0, 1, 255, 256, 257, 1000, 1024] {
        let log = grown(&sim, size);
        let (root, note) = (log.root(), log.checkpoint().cloned());
        drop(log);
        let log = open(&sim, 512).unwrap();
        assert_eq!((log.size(), log.root(), log.checkpoint().cloned()), (size, root, note));
        assert_eq!(all(&log), entries(0, size));
        assert_eq!(log.audit().unwrap().findings, []);
    }
}

#[test]
fn every_entry_has_a_proof_across_memory_and_tiles() {
    let log = grown(&Sim::default(), 1_500);
    let root = log.root();
    for index in 0..1_500 {
        let proof = log.prove(index, 1_500).unwrap();
        assert_eq!(verify_inclusion(&proof, index, Hash::leaf(&entry(index)), 1_500, root), Ok(()), "{index}");
    }
    let mut frontier = Frontier::default();
    for old in 1..1_500 {
        frontier.push(Hash::leaf(&entry(old - 1)));
        let proof = log.consistency(old, 1_500).unwrap();
        assert_eq!(verify_consistency(&proof, old, frontier.root(), 1_500, root), Ok(()), "{old}");
    }
}

#[test]
fn files_of_a_tree_are_those_of_the_specification() {
    let sim = Sim::default();
    let mut log = open(&sim, ROLL).unwrap();
    for first in (0..70_000).step_by(1_000) {
        log.append(&entries(first, first + 1_000)).unwrap();
    }
    log.sign().unwrap();
    let names = sim.list("tile").unwrap();
    let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix) && !name.contains(".p/")).count();
    // C2SP tlog-tiles: a tree of 70,000 has 273 full tiles of level 0, one of level 1, and these partial ones.
    assert_eq!((count("tile/0/"), count("tile/entries/"), count("tile/1/"), count("tile/2/")), (273, 273, 1, 0));
    let partial: Vec<_> = names.iter().filter(|name| name.contains(".p/")).collect();
    assert_eq!(partial, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1", "tile/entries/273.p/112"]);
    assert_eq!(log.audit().unwrap().findings, []);
}

#[test]
fn partial_files_go_when_their_tile_is_full() {
    let sim = Sim::default();
    let mut log = open(&sim, 512).unwrap();
    for size in [1, 100, 255, 256, 300] {
        log.append(&entries(log.size(), size)).unwrap();
        log.sign().unwrap();
    }
    let partial: Vec<_> = sim.list("tile").unwrap().into_iter().filter(|name| name.contains(".p/")).collect();
    assert_eq!(partial, ["tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"]);
}

#[test]
fn proof_file_is_checked_without_the_log() {
    let mut log = grown(&Sim::default(), 700);
    let line = witness().cosign(log.checkpoint().unwrap().text(), 1_700_000_000);
    assert_eq!(log.add_cosignatures(std::slice::from_ref(&line)).unwrap(), 1);
    let file = log.proof(300).unwrap().to_string();
    let policy = super::super::proof::TrustPolicy {
        log: signer().public().clone(),
        witnesses: vec![witness().public().clone()],
        quorum: 1,
    };
    let verified = file.parse::<TlogProof>().unwrap().verify(Some(&entry(300)), &policy).unwrap();
    assert_eq!((verified.index, verified.checkpoint.size), (300, 700));
}

#[test]
fn cosignatures_survive_a_restart_and_foreign_ones_are_ignored() {
    let sim = Sim::default();
    let mut log = grown(&sim, 10);
    let text = log.checkpoint().unwrap().text().to_owned();
    let stranger = Cosigner::new("w", &[9; 32]).unwrap().cosign(&text, 1);
    assert_eq!(log.add_cosignatures(&[stranger, witness().cosign(&text, 1)]), Ok(1));
    let wrong = witness().cosign("other\n", 1);
    assert!(matches!(log.add_cosignatures(&[wrong]), Err(LogError::BadCosignature { .. })));
    let note = log.checkpoint().cloned();
    assert_eq!(note.as_ref().unwrap().signatures().len(), 2);
    drop(log);
    let log = open(&sim, 512).unwrap();
    assert_eq!((log.checkpoint().cloned(), log.cosigned()), (note, 1));
    assert_eq!(log.audit().unwrap().findings, []);
    let mut unsigned = open(&Sim::default(), 512).unwrap();
    assert!(matches!(unsigned.add_cosignatures(&[]), Err(LogError::BadCosignature { .. })));
}

#[test]
fn what_is_not_there_is_out_of_range() {
    let mut log = open(&Sim::default(), 512).unwrap();
    log.append(&entries(0, 10)).unwrap();
    assert_eq!(log.prove(10, 10), Err(LogError::OutOfRange { asked: 10, size: 10 }));
    assert_eq!(log.prove(0, 11), Err(LogError::OutOfRange { asked: 11, size: 10 }));
    assert_eq!(log.consistency(3, 11), Err(LogError::OutOfRange { asked: 11, size: 10 }));
    assert_eq!(log.read(11, 1), Err(LogError::OutOfRange { asked: 11, size: 10 }));
    assert_eq!(log.read(10, 1), Ok(Vec::new()));
    assert_eq!(log.proof(0), Err(LogError::OutOfRange { asked: 0, size: 0 }));
    log.sign().unwrap();
    log.append(&entries(10, 11)).unwrap();
    assert_eq!(log.proof(10), Err(LogError::OutOfRange { asked: 10, size: 10 }));
}

#[test]
fn too_large_an_entry_appends_nothing_of_its_batch() {
    let mut log = open(&Sim::default(), 512).unwrap();
    let large = Bytes::from(vec![0; MAX_ENTRY + 1]);
    assert_eq!(log.append(&[entry(0), large]), Err(LogError::TooLarge { bytes: MAX_ENTRY + 1, max: MAX_ENTRY }));
    assert_eq!(log.append(&[Bytes::from(vec![0; MAX_ENTRY]), Bytes::new()]), Ok(0));
    assert_eq!((log.size(), log.read(0, 2).unwrap()[1].len()), (2, 0));
}

#[test]
fn full_disk_appends_nothing_and_more_space_mends_it() {
    for space in (0..20_000).step_by(523) {
        let sim = Sim::default();
        let mut log = grown(&sim, 400);
        sim.set(Fault::Space(space));
        let mut size = log.size();
        let error = loop {
            match log.append(&entries(size, size + 50)).and_then(|_| log.sign()) {
                Ok(_) => size = log.size(),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, LogError::Full { .. }), "{error}");
        assert_eq!(all(&log), entries(0, log.size()));
        sim.set(Fault::None);
        let size = log.size();
        assert_eq!(log.append(&entries(size, size + 600)), Ok(size), "{space} bytes were left");
        log.sign().unwrap();
        assert_eq!(log.audit().unwrap().findings, []);
        drop(log);
        assert_eq!(all(&open(&sim, 512).unwrap()), entries(0, size + 600));
    }
}

#[test]
fn failed_sync_stops_the_log_until_a_restart() {
    let sim = Sim::default();
    let mut log = grown(&sim, 300);
    sim.set(Fault::Sync);
    assert!(matches!(log.append(&entries(300, 301)), Err(LogError::Io { .. })));
    sim.set(Fault::None);
    assert!(matches!(log.append(&entries(300, 301)), Err(LogError::Stopped { .. })));
    assert!(matches!(log.sign(), Err(LogError::Stopped { .. })));
    assert_eq!(log.size(), 300, "reads go on");
    drop(log);
    assert!(open(&sim.after_crash(1), 512).unwrap().size() >= 300);
}

#[test]
fn a_log_on_disk_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(Disk::open(dir.path()).unwrap(), signer(), Vec::new()).unwrap();
    log.append(&entries(0, 600)).unwrap();
    log.sign().unwrap();
    assert_eq!(Disk::open(dir.path()).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let keys = AuditKeys { log: signer().public().clone(), witnesses: Vec::new() };
    assert_eq!(audit(&Disk::reading(dir.path()), &keys).unwrap(), log.audit().unwrap());
    drop(log);
    let log = Log::open(Disk::open(dir.path()).unwrap(), signer(), Vec::new()).unwrap();
    assert_eq!((log.size(), log.audit().unwrap().is_clean()), (600, true));
}
