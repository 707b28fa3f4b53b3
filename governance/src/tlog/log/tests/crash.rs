//! What a crash at any operation leaves: `TLOG_SEEDS=100` looks at more of them.

use super::super::super::checkpoint::Checkpoint;
use super::super::super::files::sim::Dice;
use super::*;

/// What the log has told others by the time it crashes.
#[derive(Default)]
struct Told {
    acknowledged: u64,
    signed: Vec<Checkpoint>,
}

/// Appends batches of random size and signs now and then, until the disk fails.
fn work(sim: &Sim, seed: u64) -> Told {
    let (mut told, mut dice) = (Told::default(), Dice(seed));
    let Ok(mut log) = open(sim, 300) else { return told };
    for _ in 0..16 {
        let first = log.size();
        if log.append(&entries(first, first + 1 + dice.roll(120) as u64)).is_err() {
            return told;
        }
        told.acknowledged = log.size();
        if dice.roll(3) == 0 {
            match log.sign() {
                Ok(note) => told.signed.push(note.text().parse().unwrap()),
                Err(_) => return told,
            }
        }
    }
    told
}

/// What is found must hold what was told; `replay` names the crash.
fn check(sim: &Sim, told: &Told, replay: &str) {
    let mut log = open(sim, 300).unwrap_or_else(|error| panic!("{replay}: {error}"));
    assert!(log.size() >= told.acknowledged, "{replay}: {} of {} are left", log.size(), told.acknowledged);
    assert_eq!(all(&log), entries(0, log.size()), "{replay}");
    log.append(&entries(log.size(), log.size() + 700)).unwrap();
    log.sign().unwrap();
    for signed in &told.signed {
        let proof = log.consistency(signed.size, log.size()).unwrap();
        assert_eq!(verify_consistency(&proof, signed.size, signed.root, log.size(), log.root()), Ok(()), "{replay}");
    }
    assert_eq!(log.audit().unwrap().findings, [], "{replay}");
}

#[test]
fn crash_at_any_operation_loses_nothing_acknowledged_and_forks_nothing() {
    let seeds = std::env::var("TLOG_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2);
    for seed in 0..seeds {
        let whole = Sim::default();
        work(&whole, seed);
        for op in 1..=whole.ops() {
            let sim = Sim::default();
            sim.set(Fault::CrashAt(op));
            let told = work(&sim, seed);
            for found in 0..4 {
                check(
                    &sim.after_crash(seed ^ op << 8 ^ found << 32),
                    &told,
                    &format!("seed {seed}, op {op}, found {found}"),
                );
            }
        }
    }
}

#[test]
fn crash_while_recovering_is_recovered_from() {
    let sim = Sim::default();
    sim.set(Fault::CrashAt(60));
    let told = work(&sim, 5);
    for op in 1..12 {
        let again = sim.after_crash(7);
        again.set(Fault::CrashAt(op));
        let _ = open(&again, 300);
        check(&again.after_crash(op), &told, &format!("op {op} of the recovery"));
    }
}
