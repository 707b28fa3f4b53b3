//! What is changed behind the log's back is found and named.

use super::*;

/// Every so many bytes of each file are changed; `TLOG_STRIDE=1` changes every one.
fn stride() -> usize {
    std::env::var("TLOG_STRIDE").ok().and_then(|stride| stride.parse().ok()).unwrap_or(61)
}

fn log_with_cosignature(sim: &Sim) -> AuditKeys {
    let mut log = grown(sim, 1_100);
    let line = witness().cosign(log.checkpoint().unwrap().text(), 1_700_000_000);
    log.add_cosignatures(&[line]).unwrap();
    AuditKeys { log: signer().public().clone(), witnesses: vec![witness().public().clone()] }
}

/// The entry that a byte of a file belongs to, where that can be said.
fn entry_at(sim: &Sim, name: &str, at: usize) -> Option<u64> {
    let path = TilePath::parse(name).filter(|path| path.width.is_none())?;
    match path.level {
        Some(0) => Some(path.index * 256 + at as u64 / 32),
        None => {
            let bytes = sim.read(name).unwrap();
            let mut end = 0;
            let found = bundle::split(&bytes)?.into_iter().position(|entry| {
                end += entry.len() + 2;
                at < end
            });
            Some(path.index * 256 + found? as u64)
        }
        _ => None,
    }
}

#[test]
fn a_flipped_byte_anywhere_is_found_and_named() {
    let sim = Sim::default();
    let keys = log_with_cosignature(&sim);
    assert_eq!(audit(&sim, &keys).unwrap().findings, []);
    for name in sim.list("").unwrap() {
        for at in (0..sim.read(&name).unwrap().len()).step_by(stride()) {
            let bad = sim.copy();
            bad.flip(&name, at * 8 + at % 8);
            let findings = audit(&bad, &keys).unwrap().findings;
            let first = findings.first().unwrap_or_else(|| panic!("byte {at} of {name} is not found"));
            assert_eq!(first.file, name, "byte {at}: {findings:?}");
            if let Some(index) = entry_at(&sim, &name, at) {
                assert_eq!(first.index, index, "byte {at} of {name}");
            }
        }
    }
}

#[test]
fn a_missing_file_is_found_and_named() {
    let sim = Sim::default();
    let keys = log_with_cosignature(&sim);
    for name in sim.list("tile").unwrap().into_iter().filter(|name| !name.contains(".p/")) {
        let mut bad = sim.copy();
        bad.remove(&name).unwrap();
        let findings = audit(&bad, &keys).unwrap().findings;
        assert!(findings.iter().any(|finding| finding.file == name), "{name}: {findings:?}");
    }
    let mut bad = sim.copy();
    bad.create("tile/notes.txt", b"?").unwrap();
    assert_eq!(audit(&bad, &keys).unwrap().findings[0].file, "tile/notes.txt");
}

#[test]
fn a_log_that_lost_signed_entries_does_not_start() {
    let sim = Sim::default();
    let older = {
        grown(&sim, 300);
        sim.copy()
    };
    grown(&sim, 320);
    for kept in ["signed", "checkpoint"] {
        let mut rolled_back = older.copy();
        let newer = sim.read(kept).unwrap();
        rolled_back.create(kept, &newer).unwrap();
        assert_eq!(open(&rolled_back, 512).unwrap_err(), LogError::Fork { index: 300 }, "by {kept}");
    }
}

#[test]
fn a_log_with_another_history_does_not_start_and_says_from_where() {
    let sim = Sim::default();
    grown(&sim, 1_100);
    // Entry 260 is another one, and its segment is written as if it always was.
    let mut forged = Sim::default();
    let mut log = open(&forged, 512).unwrap();
    let mut other = entries(0, 1_100);
    other[260] = Bytes::from_static(b"forged");
    log.append(&other).unwrap();
    drop(log);
    forged.create("signed", &sim.read("signed").unwrap()).unwrap();
    assert!(matches!(open(&forged, 512), Err(LogError::Fork { .. })));
    // With the true tiles the first forged entry shows.
    let bundle = TilePath::bundle(1).to_string();
    let mut bytes = sim.read(&bundle).unwrap();
    let at = bytes.windows(8).position(|window| window == 260_u64.to_be_bytes()).unwrap();
    bytes[at] ^= 1;
    let mut edited = sim.copy();
    edited.create(&bundle, &bytes).unwrap();
    let keys = AuditKeys { log: signer().public().clone(), witnesses: Vec::new() };
    let first = audit(&edited, &keys).unwrap().findings[0].clone();
    assert_eq!((first.index, first.file), (260, bundle));
}

#[test]
fn a_signer_does_not_contradict_itself() {
    let sim = Sim::default();
    let mut log = grown(&sim, 300);
    // As if another copy of this log had signed more meanwhile.
    log.signed = Some(LastSigned { size: 301, root: Hash::empty() });
    assert_eq!(log.sign(), Err(LogError::Fork { index: 300 }));
    log.append(&entries(300, 301)).unwrap();
    assert_eq!(log.sign(), Err(LogError::Fork { index: 301 }));
}

#[test]
fn damage_that_a_start_needs_to_see_stops_it() {
    let sim = Sim::default();
    grown(&sim, 1_100);
    let damaged = |change: &dyn Fn(&mut Sim)| {
        let mut bad = sim.copy();
        change(&mut bad);
        open(&bad, 512).unwrap_err()
    };
    let pending = pending::name(1_024);
    let in_tile = damaged(&|sim| sim.flip("tile/0/002", 5));
    assert_eq!(in_tile, LogError::Fork { index: 512 });
    let missing = damaged(&|sim| sim.remove("tile/0/002").unwrap());
    assert!(matches!(missing, LogError::Damaged { file, index: 512, .. } if file == "tile/0/002"));
    let signed = damaged(&|sim| sim.flip("signed", 3));
    assert!(matches!(signed, LogError::Damaged { file, .. } if file == "signed"));
    let gone = damaged(&|sim| sim.remove(&pending).unwrap());
    assert!(matches!(gone, LogError::Damaged { file, .. } if file == "pending"));
    let lost = damaged(&|sim| sim.flip(&pending, 300));
    assert_eq!(lost, LogError::Fork { index: 1_024 });
    let odd = damaged(&|sim| sim.create(&pending::name(2_000), b"").unwrap());
    assert!(matches!(odd, LogError::Damaged { index: 2_000, .. }));
}

#[test]
fn reading_again_while_it_is_written_finds_and_names_what_an_audit_does() {
    let sim = Sim::default();
    let log = grown(&sim, 1_100);
    let (size, root) = log.full().unwrap();
    assert_eq!(size, 1_024);
    let read = |sim: &Sim| {
        let mut reading = Rereading::new(size, root);
        while !reading.is_done() {
            reading.step(sim);
        }
        reading.finding(sim)
    };
    assert_eq!(read(&sim), None);
    let full = |name: &String| TilePath::parse(name).is_some_and(|path| path.width.is_none());
    for name in sim.list("tile").unwrap().into_iter().filter(full) {
        for at in (0..sim.read(&name).unwrap().len()).step_by(stride()) {
            let bad = sim.copy();
            bad.flip(&name, at * 8 + at % 8);
            let finding = read(&bad).unwrap_or_else(|| panic!("byte {at} of {name} is not found"));
            assert_eq!(finding.file, name, "byte {at}: {finding:?}");
            assert!(entry_at(&sim, &name, at).is_none_or(|index| index == finding.index), "byte {at} of {name}");
        }
    }
    // Files that fit each other and are not those of this log.
    let other = Sim::default();
    let mut log = open(&other, 512).unwrap();
    log.append(&vec![Bytes::from_static(b"forged"); 1_100]).unwrap();
    log.sign().unwrap();
    assert_eq!(read(&other).unwrap().what, "the entries have another root");
}
