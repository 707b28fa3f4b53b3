//! `kill -9` of a process that appends, 200 times: every acknowledged entry is there, at its place, in one history.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use aivillage_governance::tlog::tree::verify_consistency;
use aivillage_governance::tlog::{Ack, AuditKeys, Checkpoint, Disk, Home, Note, TlogConfig, VerifierKey, audit};
use aivillage_runtime::clock;
use aivillage_runtime::config::Period;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::event;

const ROUNDS: u64 = 200;
const WRITERS: u64 = 4;
const NODE: &str = "00000000000000aa";

/// Checkpoints are signed all the time, so kills meet them too.
fn open(dir: &Path) -> Home {
    let (gather, checkpoint) = (Period::from_millis(1), Period::from_millis(3));
    let config = TlogConfig { batch: 8, gather, checkpoint, ..TlogConfig::default() };
    Home::open(dir, NODE, config, clock::unix_ms).unwrap()
}

/// The process that gets killed. It says on its standard output what was acknowledged, and what was signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_appends() {
    let Ok(dir) = std::env::var("TLOG_TEST_KILLED") else { return };
    let home = open(Path::new(&dir));
    join_all((0..WRITERS).map(|writer| append(&home, writer))).await;
}

async fn append(home: &Home, writer: u64) {
    for n in 0.. {
        let number = u64::from(std::process::id()) << 24 | writer << 20 | n;
        let receipt = home.log().append(event(number), Ack::Durable).await.unwrap();
        say(&format!("a {} {number}", receipt.index.unwrap()));
        if let Some(note) = home.log().status().checkpoint.filter(|_| n % 8 == 0) {
            let body: Checkpoint = note.text().parse().unwrap();
            say(&format!("s {} {}", body.size, body.root));
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// What the children had acknowledged.
#[derive(Default)]
struct Acknowledged {
    /// What is in which entry.
    entries: BTreeMap<u64, u64>,
    /// Which root was signed at which size.
    signed: BTreeMap<u64, String>,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["a", index, number] => {
                let before = self.entries.insert(index.parse().unwrap(), number.parse().unwrap());
                assert_eq!(before, None, "entry {index} was given twice");
            }
            ["s", size, root] => {
                let before = self.signed.entry(size.parse().unwrap()).or_insert_with(|| root.to_owned());
                assert_eq!(before, root, "a second root of size {size} was signed");
            }
            // What the test harness says itself.
            _ => {}
        }
    }

    /// Reads the whole log offline.
    fn check(&self, dir: &Path, round: u64) {
        let folder = Home::folder_in(dir);
        let text = std::fs::read_to_string(Home::keys_beside(&folder)).unwrap();
        let log: VerifierKey = text.lines().next().unwrap().parse().unwrap();
        let report = audit(&Disk::reading(&folder), &AuditKeys { log, witnesses: Vec::new() }).unwrap();
        // What no append returned from yet may be torn; nothing else is wrong.
        let is_torn = |what: &str| what == "it ends with a torn or changed batch";
        let wrong: Vec<_> = report.findings.iter().filter(|finding| !is_torn(&finding.what)).collect();
        assert!(wrong.is_empty(), "round {round}: {wrong:?}");
        let known = self.entries.last_key_value().map_or(0, |(last, _)| last + 1);
        assert!(report.entries >= known, "round {round}: {} entries, {known} acknowledged", report.entries);
        if let Ok(note) = std::fs::read_to_string(folder.join("checkpoint")) {
            let body: Checkpoint = note.parse::<Note>().unwrap().text().parse().unwrap();
            let signed = self.signed.last_key_value().map_or(0, |(size, _)| *size);
            assert!(body.size >= signed, "round {round}: a signed checkpoint is gone");
        }
    }
}

fn start(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "kill::child_that_appends", "--nocapture"]).env("TLOG_TEST_KILLED", dir);
    child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn killed_writer_loses_no_acknowledged_entry_and_forks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    let mut acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        let mut child = start(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some are killed while they start: the harness's own lines come before the log is opened.
        let wanted = if round % 10 == 9 { 1 } else { rng.random_range(4..60) };
        for line in lines.by_ref().take(wanted) {
            acknowledged.note(&line.unwrap());
        }
        child.kill().unwrap();
        // What is in the pipe was acknowledged before the kill; a line is one write, so none is torn.
        lines.for_each(|line| acknowledged.note(&line.unwrap()));
        child.wait().unwrap();
        if round % 20 == 19 {
            acknowledged.check(dir.path(), round);
        }
    }
    assert!(acknowledged.entries.len() as u64 > ROUNDS * 10, "hardly wrote: {}", acknowledged.entries.len());
    assert!(acknowledged.signed.len() as u64 > ROUNDS / 2, "hardly signed: {}", acknowledged.signed.len());
    let home = open(dir.path());
    for (index, number) in &acknowledged.entries {
        let entry = home.log().tail(*index, 1).await.unwrap().remove(0);
        let entry: serde_json::Value = serde_json::from_slice(&entry).unwrap();
        assert_eq!((&entry["seq"], &entry["payload"]["clear"]["n"]), (&(*index).into(), &(*number).into()));
    }
    // The signed roots are those of one history.
    let now: Checkpoint = home.log().checkpoint().await.unwrap().text().parse().unwrap();
    for (size, root) in &acknowledged.signed {
        let then: Checkpoint = format!("{}\n{size}\n{root}\n", now.origin).parse().unwrap();
        let proof = home.log().consistency(then.size, now.size).await.unwrap();
        verify_consistency(&proof, then.size, then.root, now.size, now.root).unwrap();
    }
    home.log().close().await.unwrap();
}
