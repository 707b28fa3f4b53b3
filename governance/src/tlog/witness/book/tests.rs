use super::super::super::files::sim::{Fault, Sim};
use super::super::super::hash::Hash;
use super::super::super::log::Log;
use super::super::super::note::LogSigner;
use super::*;

fn cosigner() -> Cosigner {
    Cosigner::new("w", &[2; 32]).unwrap()
}

fn signer() -> LogSigner {
    LogSigner::new("example.com/log", &[1; 32]).unwrap()
}

fn open(sim: &Sim) -> Result<Book<Sim>, LogError> {
    Book::open(sim.clone(), cosigner(), vec![signer().public().clone()])
}

/// A log whose entries are those of `letter`.
fn grow(log: &mut Log<Sim>, letter: u8, size: u64) {
    while log.size() < size {
        log.append(&[vec![letter; 9].into()]).unwrap();
    }
    log.sign().unwrap();
}

fn log(letter: u8, size: u64) -> Log<Sim> {
    let mut log = Log::open(Sim::default(), signer(), Vec::new()).unwrap();
    grow(&mut log, letter, size);
    log
}

fn request(log: &Log<Sim>, old: u64) -> AddCheckpoint {
    let note = log.checkpoint().unwrap().clone();
    AddCheckpoint { old, proof: log.consistency(old, log.size()).unwrap(), note }
}

fn refused(added: Result<SignatureLine, BookError>) -> (u16, Option<u64>) {
    match added {
        Err(BookError::Refused(refusal)) => {
            let size = if let Refusal::Conflict { size } = refusal { Some(size) } else { None };
            assert_eq!(refusal.body().trim_end().parse().ok(), size);
            (refusal.status(), size)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_growing_log_is_cosigned_step_by_step() {
    let (sim, mut log) = (Sim::default(), log(b'a', 3));
    let mut old = 0;
    for size in [3, 4, 4, 40] {
        grow(&mut log, b'a', size);
        // A new book each time: what it knows is on the disk.
        let mut book = open(&sim.after_crash(size)).unwrap();
        let line = open(&sim).unwrap().add(&request(&log, old), 1_700_000_000).unwrap();
        assert_eq!(book.add(&request(&log, old), 1_700_000_000), Ok(line.clone()));
        let note = Note::new(log.checkpoint().unwrap().text().to_owned(), line);
        assert_eq!(note.verify([cosigner().public()]).unwrap()[0].unix_s, Some(1_700_000_000));
        assert_eq!(open(&sim.after_crash(1)).unwrap().latest("example.com/log").unwrap().size, size);
        old = size;
    }
}

#[test]
fn each_refusal_has_the_status_of_the_specification() {
    let mut book = open(&Sim::default()).unwrap();
    let log = log(b'a', 5);
    book.add(&request(&log, 0), 1).unwrap();
    let good = request(&log, 5);
    let sign = |by: &LogSigner, body: &Checkpoint| {
        let text = body.to_string();
        AddCheckpoint { note: Note::new(text.clone(), by.sign(&text)), ..good.clone() }
    };
    let body: Checkpoint = good.note.text().parse().unwrap();
    let stranger = Checkpoint { origin: "other".to_owned(), ..body.clone() };
    assert_eq!(refused(book.add(&sign(&signer(), &stranger), 1)), (404, None));
    let impostor = LogSigner::new("example.com/log", &[9; 32]).unwrap();
    assert_eq!(refused(book.add(&sign(&impostor, &body), 1)), (403, None));
    assert_eq!(refused(book.add(&AddCheckpoint { old: 6, ..good.clone() }, 1)), (400, None));
    assert_eq!(refused(book.add(&AddCheckpoint { old: 0, ..good.clone() }, 1)), (409, Some(5)));
    let larger = Checkpoint { size: 6, ..body.clone() };
    assert_eq!(refused(book.add(&sign(&signer(), &larger), 1)), (422, None));
    let text = "no checkpoint\n";
    let none = AddCheckpoint { note: Note::new(text.to_owned(), signer().sign(text)), ..good.clone() };
    assert_eq!(refused(book.add(&none, 1)), (400, None));
    assert!(book.add(&good, 1).is_ok(), "none of that counts");
    assert_eq!(book.evidence().unwrap(), []);
}

#[test]
fn two_histories_of_one_size_are_not_cosigned_and_kept_as_evidence() {
    let sim = Sim::default();
    let mut book = open(&sim).unwrap();
    let (ours, theirs) = (log(b'a', 5), log(b'b', 5));
    book.add(&request(&ours, 0), 1).unwrap();
    for _ in 0..2 {
        assert_eq!(refused(book.add(&request(&theirs, 5), 1)), (409, Some(5)));
    }
    let evidence = open(&sim.after_crash(3)).unwrap().evidence().unwrap();
    assert_eq!(evidence.len(), 1);
    for note in [&evidence[0].ours, &evidence[0].theirs] {
        assert!(note.verify([signer().public()]).is_ok());
    }
    assert_ne!(evidence[0].ours.text(), evidence[0].theirs.text());
    // A longer history that is another one has no proof.
    let longer = log(b'b', 9);
    assert_eq!(refused(book.add(&request(&longer, 5), 1)), (422, None));
    sim.flip(&sim.list(EVIDENCE).unwrap()[0], 77);
    assert!(matches!(book.evidence(), Err(LogError::Damaged { .. })));
}

#[test]
fn a_cosignature_that_left_is_remembered_whenever_the_power_goes() {
    let mut log = log(b'a', 5);
    let notes: Vec<_> = [5, 6, 9]
        .map(|size| {
            grow(&mut log, b'a', size);
            log.checkpoint().unwrap().clone()
        })
        .into();
    for op in 1..14 {
        let sim = Sim::default();
        sim.set(Fault::CrashAt(op));
        let (mut told, mut book) = (0, open(&sim).unwrap());
        for note in &notes {
            let size = note.text().parse::<Checkpoint>().unwrap().size;
            let request = AddCheckpoint { old: told, proof: log.consistency(told, size).unwrap(), note: note.clone() };
            if let Err(error) = book.add(&request, 1) {
                assert!(matches!(error, BookError::Log(LogError::Io { .. })), "{error}");
                break;
            }
            told = size;
        }
        for seed in 0..8 {
            let found = open(&sim.after_crash(seed)).unwrap();
            assert!(found.latest("example.com/log").map_or(0, |latest| latest.size) >= told, "op {op}, seed {seed}");
        }
    }
}

#[test]
fn a_changed_book_is_not_believed() {
    let sim = Sim::default();
    open(&sim).unwrap().add(&request(&log(b'a', 5), 0), 1).unwrap();
    let name = sim.list(LATEST).unwrap().pop().unwrap();
    for at in 0..sim.read(&name).unwrap().len() {
        let bad = sim.copy();
        bad.flip(&name, at * 8 + at % 8);
        // What is changed is named; a line of the log that is unreadable does not touch what the witness said.
        let book = open(&bad);
        let kept = book.as_ref().ok().and_then(|book| book.latest("example.com/log")).map(|latest| latest.size);
        assert!(matches!(&book, Err(LogError::Damaged { file, .. }) if *file == name) || kept == Some(5), "byte {at}");
    }
}

#[test]
fn requests_are_read_as_they_are_written() {
    let log = log(b'a', 7);
    let request = request(&log, 3);
    let text = request.to_string();
    assert_eq!(text.parse(), Ok(request.clone()));
    let packed = postcard::to_allocvec(&request).unwrap();
    assert_eq!(postcard::from_bytes::<AddCheckpoint>(&packed).unwrap(), request);
    let hash = format!("{}\n", Hash::empty());
    for bad in [
        text.replacen("old 3", "old 03", 1),
        text.replacen("old 3", "3", 1),
        text.replacen("old 3\n", "old 3\nAAAA\n", 1),
        text.replacen("old 3\n", &format!("old 3\n{}", hash.repeat(64)), 1),
        "old 3\n".to_owned(),
        String::new(),
    ] {
        assert!(bad.parse::<AddCheckpoint>().is_err(), "{bad}");
    }
}

/// Evidence against the log of `signer`, which forked at `size`.
fn fork(size: u64) -> Evidence {
    let [ours, theirs] = [b'a', b'b'].map(|letter| log(letter, size).checkpoint().unwrap().clone());
    Evidence { ours, theirs }
}

#[test]
fn evidence_of_another_witness_is_kept_once_and_only_if_it_convicts() {
    let (sim, evidence) = (Sim::default(), fork(3));
    let mut book = open(&sim).unwrap();
    let harmless = Evidence { theirs: evidence.ours.clone(), ..evidence.clone() };
    assert_eq!(book.accept(harmless), Ok(false));
    assert_eq!(book.accept(evidence.clone()), Ok(true));
    assert_eq!(book.accept(fork(5)), Ok(false), "one pair convicts a log");
    assert!(book.stands(&evidence));
    // It is there after a crash, and stands as long as the log keeps its key.
    let mut book = open(&sim.after_crash(1)).unwrap();
    assert_eq!(book.convicted(), std::slice::from_ref(&evidence));
    book.set_logs(vec![LogSigner::new("example.com/log", &[9; 32]).unwrap().public().clone()]);
    assert_eq!((book.convicted(), book.accept(evidence)), (Vec::new(), Ok(false)));
}

#[test]
fn a_log_under_a_new_key_begins_anew_and_a_removed_one_is_unknown() {
    let mut book = open(&Sim::default()).unwrap();
    book.add(&request(&log(b'a', 9), 0), 1).unwrap();
    let signer = LogSigner::new("example.com/log", &[9; 32]).unwrap();
    let mut anew = Log::open(Sim::default(), signer.clone(), Vec::new()).unwrap();
    grow(&mut anew, b'b', 2);
    book.set_logs(vec![signer.public().clone()]);
    assert_eq!(refused(book.add(&request(&log(b'a', 9), 9), 2)), (403, None));
    book.add(&request(&anew, 0), 2).unwrap();
    book.set_logs(Vec::new());
    assert_eq!(refused(book.add(&request(&anew, 2), 3)), (404, None));
}
