//! Random command sequences against what must hold for any of them: rows replayed into a map make the same state again,
//! and a restart in the middle changes nothing that follows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::command::{Cluster, ControlCommand, ControlRefused, ControlReply, Cookie};
use super::machine::ControlMachine;
use super::member::{HostedRecord, MemberState, NodeRecord};
use super::state::ControlState;
use super::token::TokenRecord;
use crate::node_id::NodeId;
use crate::placement::Labels;
use crate::store::StoreError;

/// Adds up what it is told.
#[derive(Default)]
struct Sum(u64);

impl ControlMachine for Sum {
    fn ns(&self) -> &'static str {
        "sum"
    }

    fn apply(&mut self, index: u64, now_ms: u64, command: &[u8]) -> Vec<u8> {
        let told: u64 = command.iter().map(|byte| u64::from(*byte)).sum();
        self.0 = self.0.wrapping_mul(31).wrapping_add(index ^ now_ms ^ told);
        self.save()
    }

    fn save(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let sum = bytes.try_into().map_err(|_| StoreError::Decode { what: "sum", detail: "length".into() })?;
        self.0 = u64::from_be_bytes(sum);
        Ok(())
    }
}

fn machines() -> Vec<Box<dyn ControlMachine>> {
    vec![Box::<Sum>::default()]
}

fn record() -> impl Strategy<Value = NodeRecord> {
    // Two keys for each id, so that some are impostors.
    (1_u64..5, 0_u8..8, 0_u32..3, prop::bool::ANY).prop_map(|(id, key, weight, hosts)| NodeRecord {
        id: NodeId(id),
        public_key: [key.min(1); 32],
        addr: format!("10.0.0.{weight}:4100"),
        name: format!("node{id}"),
        labels: Labels::from([("zone".into(), weight.to_string())]),
        weight,
        kinds: if hosts { vec![HostedRecord { name: "agent".into(), version: 1 }] } else { Vec::new() },
        version: "0.1.0".into(),
    })
}

fn state() -> impl Strategy<Value = MemberState> {
    prop::sample::select(vec![MemberState::Joining, MemberState::Up, MemberState::Draining, MemberState::Down])
}

fn expect() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![3 => Just(None), 1 => (0_u64..40).prop_map(Some)]
}

/// A time, and what is proposed at it.
fn command() -> impl Strategy<Value = ControlCommand> {
    let hash = || (0_u8..3).prop_map(|byte| [byte.min(1); 32]);
    let now = || 0_u64..200_000;
    let cluster = |id| Cluster { id, cookie: Cookie([9; 32]), groups: 8, replicas: 3 };
    prop_oneof![
        1 => (1_u64..3, record(), now()).prop_map(move |(id, record, now_ms)| {
            ControlCommand::Found { cluster: cluster(id), record, incarnation: 1, now_ms }
        }),
        4 => (0_u64..3, hash(), record(), now()).prop_map(|(token_id, secret_hash, record, now_ms)| {
            ControlCommand::AddNode { token_id, secret_hash, record, now_ms }
        }),
        4 => (record(), 0_u64..4, now()).prop_map(|(record, incarnation, now_ms)| {
            ControlCommand::UpdateNode { record, incarnation, now_ms }
        }),
        8 => (1_u64..5, state(), 0_u64..3, now()).prop_map(|(node, state, incarnation, now_ms)| {
            let node = NodeId(node);
            ControlCommand::SetState { node, state, incarnation, up_epoch: None, now_ms, reason: state.to_string() }
        }),
        1 => (1_u64..5, prop::bool::ANY).prop_map(|(node, force)| {
            ControlCommand::RemoveNode { node: NodeId(node), force }
        }),
        2 => (0_u64..3, hash(), now(), 0_u32..3).prop_map(|(id, secret_hash, now_ms, uses_left)| {
            let token = TokenRecord { id, secret_hash, expires_at_ms: 150_000, uses_left, note: String::new() };
            ControlCommand::CreateToken { token, now_ms }
        }),
        1 => (0_u64..3).prop_map(|id| ControlCommand::RevokeToken { id }),
        3 => ("[a-c]", prop::collection::vec(any::<u8>(), 0..4), expect()).prop_map(|(key, value, expect)| {
            ControlCommand::Put { key, value, expect }
        }),
        2 => ("[a-c]", expect()).prop_map(|(key, expect)| ControlCommand::Delete { key, expect }),
        2 => ("(sum|none)", prop::collection::vec(any::<u8>(), 0..4), now()).prop_map(|(ns, command, now_ms)| {
            ControlCommand::Machine { ns, command, now_ms }
        }),
    ]
}

/// Commands with their places in the log, several of which may share one. Most logs begin with a founding.
fn log() -> impl Strategy<Value = Vec<(u64, ControlCommand)>> {
    let record = NodeRecord { id: NodeId(1), ..empty_record() };
    let cluster = Cluster { id: 1, cookie: Cookie([9; 32]), groups: 8, replicas: 3 };
    let founding = ControlCommand::Found { cluster, record, incarnation: 1, now_ms: 0 };
    let first = prop_oneof![9 => Just(founding), 1 => command()];
    (first, prop::collection::vec((0_u64..3, command()), 0..60)).prop_map(|(first, rest)| {
        let mut index = 1;
        let rest = rest.into_iter().map(|(step, command)| {
            index += step;
            (index, command)
        });
        [(1, first)].into_iter().chain(rest).collect()
    })
}

fn empty_record() -> NodeRecord {
    NodeRecord {
        id: NodeId(0),
        public_key: [1; 32],
        addr: String::new(),
        name: String::new(),
        labels: Labels::new(),
        weight: 0,
        kinds: Vec::new(),
        version: String::new(),
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Applies commands and writes what changed, `every` so many of them, into the rows.
fn run(
    state: &mut ControlState,
    stored: &mut Rows,
    log: &[(u64, ControlCommand)],
    every: usize,
) -> Vec<Result<ControlReply, ControlRefused>> {
    let mut results = Vec::new();
    for batch in log.chunks(every) {
        results.extend(batch.iter().map(|(index, command)| state.apply(*index, command.clone())));
        for (key, value) in state.take_changes() {
            match value {
                Some(value) => drop(stored.insert(key, value)),
                None => drop(stored.remove(&key)),
            }
        }
    }
    results
}

fn rows(state: &ControlState) -> Rows {
    state.rows().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_rows_that_changed_make_the_same_state_again(log in log(), every in 1_usize..8) {
        let (mut state, mut stored) = (ControlState::new(machines()), Rows::new());
        run(&mut state, &mut stored, &log, every);
        let again = ControlState::load(&stored, machines()).unwrap();
        prop_assert_eq!(rows(&again), rows(&state));
        prop_assert_eq!(again.machine::<Sum>("sum").unwrap().0, state.machine::<Sum>("sum").unwrap().0);
        // A snapshot has the same rows, and those of machines that were never asked.
        prop_assert!(stored.iter().all(|(key, value)| rows(&state).get(key) == Some(value)));
        prop_assert!(rows(&state).keys().all(|key| stored.contains_key(key) || key.starts_with(b"machine/")));
    }

    #[test]
    fn a_restart_in_the_middle_changes_nothing_that_follows(log in log(), cut: prop::sample::Index, every in 1_usize..8) {
        let (mut whole, mut whole_rows) = (ControlState::new(machines()), Rows::new());
        let expected = run(&mut whole, &mut whole_rows, &log, 1);

        let (prefix, suffix) = log.split_at(cut.index(log.len() + 1));
        let (mut first, mut stored) = (ControlState::new(machines()), Rows::new());
        let mut results = run(&mut first, &mut stored, prefix, every);
        let mut second = ControlState::load(&stored, machines()).unwrap();
        results.extend(run(&mut second, &mut stored, suffix, every));

        prop_assert_eq!(results, expected);
        prop_assert_eq!(rows(&second), rows(&whole));
        prop_assert_eq!(stored, whole_rows);
    }

    #[test]
    fn a_refused_command_changes_nothing(log in log()) {
        let (mut state, mut stored) = (ControlState::new(machines()), Rows::new());
        let mut epoch = 0;
        for entry in &log {
            let before = rows(&state);
            let result = run(&mut state, &mut stored, std::slice::from_ref(entry), 1);
            if matches!(result.as_slice(), [Err(_)]) {
                prop_assert_eq!(rows(&state), before);
            }
            prop_assert!(state.epoch() >= epoch);
            epoch = state.epoch();
        }
    }

    #[test]
    fn commands_survive_the_log(command in command()) {
        let bytes = postcard::to_allocvec(&command).unwrap();
        prop_assert_eq!(postcard::from_bytes::<ControlCommand>(&bytes).unwrap(), command);
    }
}
