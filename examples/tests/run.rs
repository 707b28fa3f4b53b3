//! Every example runs, ends by itself and shows what it promises; all stay short.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its set-up too")]

use std::{fs, path::PathBuf, process::Command};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// Cargo builds examples before the tests of their package, beside the folder of the test programs.
fn output(example: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let program: PathBuf = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(example);
    let output = Command::new(&program).output().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{example}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn an_embedded_actor_adds_up() {
    assert_eq!(output("embed_an_actor"), "2 5\n");
}

#[test]
fn a_durable_counter_goes_on_where_it_was_killed() {
    let said = output("durable_counter");
    let mut lines = said.lines();
    let killed_after =
        lines.next().and_then(|line| line.split_whitespace().find_map(|word| word.trim_end_matches(';').parse().ok()));
    let killed_after: u64 = killed_after.filter(|count| *count >= 100).unwrap_or_else(|| panic!("no count in {said}"));
    let after: Vec<u64> = lines.map(|line| line.parse().unwrap()).collect();
    let first = *after.first().unwrap();
    assert!(first > killed_after, "{said}");
    assert_eq!(after, [first, first + 1, first + 2]);
}

#[test]
fn a_replicated_counter_survives_the_loss_of_a_node() {
    let said = output("three_nodes");
    let (before, after) = said.split_once("one of them was killed\n").unwrap_or_else(|| panic!("{said}"));
    assert!(before.starts_with("three nodes are one village\n"), "{said}");
    for key in ["here", "there", "elsewhere"] {
        let counted = |part: &str| -> Vec<u64> {
            let of_key = part.lines().filter_map(|line| line.strip_prefix(&format!("{key}: ")));
            of_key.map(|count| count.parse().unwrap()).collect()
        };
        assert_eq!(counted(before), [1, 2, 3, 4, 5], "{said}");
        assert_eq!(counted(after), [6, 7, 8, 9], "{said}");
    }
}

#[test]
fn an_agent_answers_from_the_notes_and_admits_what_they_do_not_say() {
    let said = output("ask_an_agent");
    assert!(said.contains("[1] kettle.md: “The kettle is descaled with vinegar every second month.”"), "{said}");
    let unanswered = said.split("Who painted the ceiling?").nth(1).unwrap();
    assert!(!unanswered.contains("[1]"), "{said}");
}

#[test]
fn a_plain_actor_is_called_from_another_process() {
    let said = output("native_ractor");
    let process = |line: usize, before: &str| {
        let line = said.lines().nth(line).unwrap_or_default();
        line.split(before).nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    assert!(said.contains("hello ada, this is process "), "{said}");
    assert_ne!(process(0, "process "), process(1, "process "), "{said}");
    assert!(process(2, "gone after ").parse::<u64>().unwrap() < 1_000, "{said}");
}

#[test]
fn examples_are_short() {
    let code = |name: &str| {
        let text = fs::read_to_string(format!("{FOLDER}/{name}.rs")).unwrap();
        text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//")).count()
    };
    assert!(code("embed_an_actor") <= 25, "embed_an_actor has {} lines of code", code("embed_an_actor"));
    for name in ["durable_counter", "ask_an_agent", "three_nodes", "native_ractor"] {
        assert!(code(name) < 80, "{name} is too long");
    }
}
