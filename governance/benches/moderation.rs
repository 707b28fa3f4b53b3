//! Moderation: latency, and ranking beside the peers on the same rows.
//!
//! `cargo bench -p aivillage-governance --bench moderation`; prints a table, then one line of JSON. Peers are asked
//! through `moderation_peers.py` with the Python that `VILLAGE_PYTHON` names, else `python3`; those not installed are
//! "missing".

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use aivillage_governance::moderation::engine::Voice;
use aivillage_governance::moderation::hashes::HashList;
use aivillage_governance::moderation::train::evaluate::{auroc, average_precision};
use aivillage_governance::moderation::{Engine, H2Action, Policy};
use serde::Deserialize;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
struct Suite {
    function: Vec<Function>,
}

#[derive(Deserialize)]
struct Function {
    harmful: bool,
    cases: Vec<String>,
}

#[derive(Deserialize)]
struct Peer {
    scores: Vec<f64>,
    us: f64,
}

fn main() {
    let engine = Engine::embedded(HashList::default()).expect("the model of this release loads");
    let rows = rows();
    let texts: Vec<&str> = rows.iter().map(|(text, _)| text.as_str()).collect();
    let latency = latency(&engine);
    let mut lines = vec![("village".to_owned(), ours(&engine, &texts))];
    let mut peers = peers(&texts);
    for name in ["alt-profanity-check", "better-profanity"] {
        lines.push((name.to_owned(), peers.remove(name)));
    }
    let mut table = format!("{} rows: functional suite and look-alikes\n", rows.len());
    table += &format!("{:<22} {:>8} {:>8} {:>12}\n", "", "AUROC", "AP", "us a text");
    let mut json = serde_json::Map::new();
    for (name, peer) in &lines {
        let Some(peer) = peer else {
            table += &format!("{name:<22} {:>8}\n", "missing");
            json.insert(name.clone(), "missing".into());
            continue;
        };
        let scores: Vec<(f64, bool)> =
            peer.scores.iter().copied().zip(rows.iter().map(|(_, harmful)| *harmful)).collect();
        let (area, precision) = (auroc(&scores), average_precision(&scores));
        table += &format!("{name:<22} {area:>8.3} {precision:>8.3} {:>12.1}\n", peer.us);
        json.insert(name.clone(), serde_json::json!({ "auroc": area, "ap": precision, "us": peer.us }));
    }
    for (name, value) in &latency {
        table += &format!("{name:<22} {value:>8.1}\n");
    }
    json.insert("latency".to_owned(), serde_json::json!(latency));
    let json = serde_json::Value::Object(json);
    let out = format!("{table}{json}\n");
    std::io::stdout().write_all(out.as_bytes()).expect("standard output is open");
}

/// The committed texts with whether they are harmful.
fn rows() -> Vec<(String, bool)> {
    let suite: Suite =
        toml::from_str(include_str!("../tests/moderation/functional.toml")).expect("the suite is committed");
    let groups =
        ["women", "Muslims", "Jews", "black people", "gay people", "immigrants", "disabled people", "trans people"];
    let mut rows = Vec::new();
    for function in suite.function {
        let cases = function.cases.iter().enumerate();
        rows.extend(cases.map(|(n, case)| (case.replace("{g}", groups[n % groups.len()]), function.harmful)));
    }
    let look_alikes = include_str!("../data/lookalike.txt").lines().filter(|line| !line.starts_with('#'));
    rows.extend(look_alikes.map(|line| (line.to_owned(), false)));
    rows
}

fn ours(engine: &Engine, texts: &[&str]) -> Option<Peer> {
    let start = Instant::now();
    let most = |text: &&str| engine.scores(text, Voice::Both).actionable.0.into_iter().fold(0.0, f32::max);
    let scores: Vec<f64> = texts.iter().map(|text| f64::from(most(text))).collect();
    let us = start.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(texts.len()).ok()?);
    Some(Peer { scores, us })
}

/// Microseconds of a check of 512 characters, of the same in disguise, and of 64 KiB.
fn latency(engine: &Engine) -> BTreeMap<&'static str, f64> {
    let policy = Policy::all(H2Action::Label);
    let line = "How do I kill the parent process without leaving zombies behind? My neighbours asked the council about \
        it, and the report says \"wait for the child\". ";
    let plain: String = line.chars().cycle().take(512).collect();
    let disguised: String =
        plain.chars().flat_map(|ch| [ch, if ch == 'i' { '\u{200b}' } else { 'о' }]).take(512).collect();
    let long: String = line.chars().cycle().take(64 * 1024).collect();
    let mut figures = BTreeMap::new();
    for (text, rounds, p50, p99) in [
        (&plain, 20_000, "512 chars, p50 us", "512 chars, p99 us"),
        (&disguised, 5_000, "disguised, p50 us", "disguised, p99 us"),
        (&long, 50, "64 KiB, p50 us", "64 KiB, p99 us"),
    ] {
        let mut times: Vec<f64> = (0..rounds)
            .map(|_| {
                let start = Instant::now();
                std::hint::black_box(engine.judge(std::hint::black_box(text), &policy).is_ok());
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        figures.insert(p50, times[times.len() / 2]);
        figures.insert(p99, times[times.len() * 99 / 100]);
        if rounds == 20_000 {
            figures.insert("checks a second", 1e6 * f64::from(rounds) / times.iter().sum::<f64>());
        }
    }
    figures
}

/// What the installed peers say; none where Python is missing.
fn peers(texts: &[&str]) -> BTreeMap<String, Peer> {
    let python = std::env::var("VILLAGE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/moderation_peers.py");
    let child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return BTreeMap::new() };
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ended early says so by its output.
        let _ = stdin.write_all(serde_json::json!(texts).to_string().as_bytes());
    }
    let output = child.wait_with_output().ok().filter(|output| output.status.success());
    output.and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default()
}
