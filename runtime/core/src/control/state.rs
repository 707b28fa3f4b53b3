//! The state of the control group as a whole, and its rows in the store.
//!
//! | key | value |
//! |---|---|
//! | `cluster` | what was fixed at the founding, and the counters |
//! | `member/` id `u64 BE` | [`Member`] |
//! | `token/` id `u64 BE` | [`TokenRecord`] |
//! | `kv/` key | [`KvEntry`] |
//! | `machine/` name | what the machine saved |
//!
//! Each value begins with the byte [`FORMAT`]; all but those of machines go on in postcard. Rows that commands changed are
//! handed out by [`ControlState::take_changes`]; from all rows [`ControlState::load`] makes the state again.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::command::{Cluster, ControlCommand, ControlRefused, ControlReply};
use super::kv::{Kv, KvEntry};
use super::machine::{ControlMachine, Machines};
use super::member::{Member, MemberState, NodeRecord};
use super::table::Table;
use super::token::{TokenRecord, Tokens};
use crate::node_id::NodeId;
use crate::placement::Candidate;
use crate::store::StoreError;

/// How values are written; a program refuses what it does not know.
const FORMAT: u8 = 1;
/// Members of a cluster: each is connected to each.
pub(crate) const NODES_MAX: usize = 64;
/// Voters of a shard group.
pub(crate) const REPLICAS_MAX: u8 = 5;

const CLUSTER_KEY: &[u8] = b"cluster";
const MEMBER: &[u8] = b"member/";
const TOKEN: &[u8] = b"token/";
const KV: &[u8] = b"kv/";
const MACHINE: &[u8] = b"machine/";

/// A row of the store; no value when it is deleted.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// What there is one of.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    cluster: Cluster,
    /// Number of the last change that could move placement.
    epoch: u64,
    /// Version of the last small value that was written.
    version: u64,
}

/// All that the control group has decided.
#[derive(Default)]
pub(crate) struct ControlState {
    head: Option<Head>,
    head_changed: bool,
    members: Table<NodeId, Member>,
    tokens: Tokens,
    kv: Kv,
    machines: Machines,
}

impl ControlState {
    /// Before the first command.
    pub(crate) fn new(machines: Vec<Box<dyn ControlMachine>>) -> Self {
        Self { machines: Machines::new(machines), ..Self::default() }
    }

    /// Makes a state out of its rows.
    ///
    /// # Errors
    /// When a row is not one of this program's.
    pub(crate) fn load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        rows: impl IntoIterator<Item = (K, V)>,
        machines: Vec<Box<dyn ControlMachine>>,
    ) -> Result<Self, StoreError> {
        let mut state = Self::new(machines);
        for (key, value) in rows {
            state.load_row(key.as_ref(), value.as_ref())?;
        }
        Ok(state)
    }

    /// Carries out the command in the log at `index`.
    ///
    /// # Errors
    /// Why the command changed nothing.
    pub(crate) fn apply(&mut self, index: u64, command: ControlCommand) -> Result<ControlReply, ControlRefused> {
        match command {
            ControlCommand::Found { cluster, record, incarnation, now_ms } => {
                self.found(cluster, Member::founder(record, incarnation, index, now_ms))?;
            }
            _ if self.head.is_none() => return Err(ControlRefused::NotFounded),
            ControlCommand::AddNode { token_id, secret_hash, record, now_ms } => {
                self.add_node((token_id, secret_hash), Member::joining(record, index, now_ms), now_ms)?;
            }
            ControlCommand::UpdateNode { record, incarnation, now_ms } => {
                let alone = self.members.len() == 1;
                self.change_member(record.id, |member| {
                    member.update(record, incarnation, now_ms)?;
                    if alone {
                        member.needs_no_leave(now_ms);
                    }
                    Ok(())
                })?;
            }
            ControlCommand::SetState { node, state, incarnation, up_epoch, now_ms, reason } => {
                let held = self.change_member(node, |member| {
                    if up_epoch.is_some_and(|epoch| epoch != member.up_epoch) {
                        return Err(ControlRefused::StaleIncarnation { current: member.incarnation });
                    }
                    member.set(state, incarnation, now_ms, reason)
                })?;
                return Ok(held.map_or(ControlReply::Done, |until_ms| ControlReply::Held { until_ms }));
            }
            ControlCommand::RemoveNode { node, force } => self.remove_node(node, force)?,
            ControlCommand::CreateToken { token, now_ms } => self.tokens.create(token, now_ms)?,
            ControlCommand::RevokeToken { id } => self.tokens.revoke(id)?,
            ControlCommand::Put { key, value, expect } => {
                return self.put(index, key, value, expect).map(ControlReply::Version);
            }
            ControlCommand::Delete { key, expect } => self.kv.delete(&key, expect)?,
            ControlCommand::Machine { ns, command, now_ms } => {
                return self.machines.apply(index, now_ms, ns, &command).map(ControlReply::Machine);
            }
        }
        Ok(ControlReply::Done)
    }

    /// Rows that changed since the last call, to be written with the index of the last command.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if std::mem::take(&mut self.head_changed) {
            changes.push((CLUSTER_KEY.to_vec(), self.head.as_ref().map(encoded)));
        }
        let members = self.members.take_changed();
        changes.extend(members.map(|(id, member)| (key(MEMBER, &id.0.to_be_bytes()), member.map(encoded))));
        let tokens = self.tokens.rows.take_changed();
        changes.extend(tokens.map(|(id, token)| (key(TOKEN, &id.to_be_bytes()), token.map(encoded))));
        let values = self.kv.rows.take_changed();
        changes.extend(values.map(|(name, entry)| (key(KV, name.as_bytes()), entry.map(encoded))));
        let machines = self.machines.take_changed();
        changes.extend(machines.map(|(ns, state)| (key(MACHINE, ns.as_bytes()), Some(formatted(&state)))));
        changes
    }

    /// All rows.
    #[cfg(test)]
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let head = self.head.iter().map(|head| (CLUSTER_KEY.to_vec(), encoded(head)));
        let members = self.members.iter().map(|(id, member)| (key(MEMBER, &id.0.to_be_bytes()), encoded(member)));
        let tokens = self.tokens.rows.iter().map(|(id, token)| (key(TOKEN, &id.to_be_bytes()), encoded(token)));
        let values = self.kv.rows.iter().map(|(name, entry)| (key(KV, name.as_bytes()), encoded(entry)));
        let machines = self.machines.states().map(|(ns, state)| (key(MACHINE, ns.as_bytes()), formatted(&state)));
        head.chain(members).chain(tokens).chain(values).chain(machines)
    }

    /// What was fixed when the cluster was founded.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.head.as_ref().map(|head| &head.cluster)
    }

    /// Grows with every change that can move placement.
    pub(crate) fn epoch(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.epoch)
    }

    /// All members, by id.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|(_, member)| member)
    }

    /// One member.
    pub(crate) fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Members that are `Up` and host a kind.
    pub(crate) fn candidates(&self, kind: &str) -> Vec<Candidate<'_>> {
        let hosts = |member: &&Member| member.record.kinds.iter().any(|hosted| hosted.name == kind);
        self.members().filter(hosts).filter_map(Member::candidate).collect()
    }

    /// The member that joined first of those that host a kind, whatever its state.
    pub(crate) fn oldest_host(&self, kind: &str) -> Option<NodeId> {
        let hosts = |member: &&Member| member.record.kinds.iter().any(|hosted| hosted.name == kind);
        self.members().filter(hosts).min_by_key(|member| member.joined_index).map(|member| member.record.id)
    }

    /// All join tokens, those that are used up or have expired included.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &TokenRecord> {
        self.tokens.rows.iter().map(|(_, token)| token)
    }

    /// A small value.
    pub(crate) fn value(&self, key: &str) -> Option<&KvEntry> {
        self.kv.rows.get(&key.to_owned())
    }

    /// Small values whose key begins with `prefix`, in the order of their keys.
    pub(crate) fn values(&self, prefix: &str) -> impl Iterator<Item = (&str, &KvEntry)> {
        let values = self.kv.rows.iter_from(prefix.to_owned());
        values.map(|(key, entry)| (key.as_str(), entry)).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// A machine of an upper crate, to be read.
    pub(crate) fn machine<M: ControlMachine>(&self, ns: &str) -> Option<&M> {
        self.machines.get(ns)
    }

    fn found(&mut self, cluster: Cluster, founder: Member) -> Result<(), ControlRefused> {
        match &self.head {
            Some(head) if head.cluster.id == cluster.id => return Ok(()),
            Some(head) => return Err(ControlRefused::AlreadyFounded { id: head.cluster.id }),
            None => {}
        }
        if cluster.groups == 0 || !(1..=REPLICAS_MAX).contains(&cluster.replicas) {
            return Err(ControlRefused::BadCluster { max_replicas: REPLICAS_MAX });
        }
        founder.record.check()?;
        self.head = Some(Head { cluster, epoch: 1, version: 0 });
        self.head_changed = true;
        self.members.insert(founder.record.id, founder);
        Ok(())
    }

    fn add_node(&mut self, token: (u64, [u8; 32]), member: Member, now_ms: u64) -> Result<(), ControlRefused> {
        let NodeRecord { id, public_key, .. } = member.record;
        match self.members.get(&id) {
            Some(known) if known.record.public_key == public_key => return Ok(()),
            Some(_) => return Err(ControlRefused::IdTaken),
            None => {}
        }
        let (token_id, secret_hash) = token;
        // First, so that a stranger learns nothing else.
        self.tokens.check(token_id, &secret_hash, now_ms)?;
        member.record.check()?;
        ControlRefused::if_more("nodes", self.members.len() + 1, NODES_MAX)?;
        self.tokens.spend(token_id);
        self.members.insert(id, member);
        Ok(())
    }

    fn remove_node(&mut self, node: NodeId, force: bool) -> Result<(), ControlRefused> {
        let member = self.members.get(&node).ok_or(ControlRefused::NodeUnknown { node })?;
        if self.members.len() == 1 {
            return Err(ControlRefused::LastNode);
        }
        if !force && !member.is_down() {
            return Err(ControlRefused::NodeUp);
        }
        // What a node kept alone stays with it while it is down, and moves now.
        self.change_head(|head| head.epoch += 1);
        self.members.remove(&node);
        Ok(())
    }

    fn put(&mut self, index: u64, key: String, value: Vec<u8>, expect: Option<u64>) -> Result<u64, ControlRefused> {
        // An entry of the log may hold several writes, and each has a version of its own.
        let version = index.max(self.head.as_ref().map_or(0, |head| head.version + 1));
        self.kv.put(key, KvEntry { version, value }, expect)?;
        self.change_head(|head| head.version = version);
        Ok(version)
    }

    /// Changes a member, unless the change is refused, and the epoch if placement may move.
    fn change_member<T>(
        &mut self,
        node: NodeId,
        change: impl FnOnce(&mut Member) -> Result<T, ControlRefused>,
    ) -> Result<T, ControlRefused> {
        let before = self.members.get(&node).ok_or(ControlRefused::NodeUnknown { node })?;
        let (mut after, before_state) = (before.clone(), before.state);
        let result = change(&mut after)?;
        if *before != after {
            if before.moves_placement(&after) {
                self.change_head(|head| head.epoch += 1);
            }
            if after.state == MemberState::Up && before_state != MemberState::Up {
                after.up_epoch = self.epoch();
            }
            self.members.insert(node, after);
        }
        Ok(result)
    }

    fn change_head(&mut self, change: impl FnOnce(&mut Head)) {
        if let Some(head) = &mut self.head {
            change(head);
            self.head_changed = true;
        }
    }

    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if key == CLUSTER_KEY {
            self.head = Some(decode(value)?);
        } else if let Some(id) = key.strip_prefix(MEMBER) {
            self.members.load(NodeId(number(id)?), decode(value)?);
        } else if let Some(id) = key.strip_prefix(TOKEN) {
            self.tokens.rows.load(number(id)?, decode(value)?);
        } else if let Some(name) = key.strip_prefix(KV) {
            self.kv.load(text(name)?, decode(value)?);
        } else if let Some(ns) = key.strip_prefix(MACHINE) {
            self.machines.load(text(ns)?, unformatted(value)?)?;
        } else {
            return Err(bad(format!("unknown key {}", key.escape_ascii())));
        }
        Ok(())
    }
}

fn key(table: &[u8], name: &[u8]) -> Vec<u8> {
    [table, name].concat()
}

fn encoded(row: &impl Serialize) -> Vec<u8> {
    // Rows are maps, lists, texts and numbers in memory, all of which postcard writes.
    postcard::to_extend(row, vec![FORMAT]).expect("a row can be written")
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(unformatted(value)?).map_err(|error| bad(error.to_string()))
}

fn formatted(state: &[u8]) -> Vec<u8> {
    [&[FORMAT], state].concat()
}

fn unformatted(value: &[u8]) -> Result<&[u8], StoreError> {
    match value.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        Some((found, _)) => Err(StoreError::Schema { found: u16::from(*found), known: u16::from(FORMAT) }),
        None => Err(bad("empty value".into())),
    }
}

fn number(id: &[u8]) -> Result<u64, StoreError> {
    id.try_into().map(u64::from_be_bytes).map_err(|_| bad(format!("id of {} bytes", id.len())))
}

fn text(name: &[u8]) -> Result<String, StoreError> {
    String::from_utf8(name.to_vec()).map_err(|error| bad(error.to_string()))
}

fn bad(detail: String) -> StoreError {
    StoreError::Decode { what: "control state", detail }
}

#[cfg(test)]
mod tests {
    use super::super::command::Cookie;
    use super::super::member::HostedRecord;
    use super::*;
    use crate::placement::Labels;

    const KEY: [u8; 32] = [7; 32];

    fn record(id: u8) -> NodeRecord {
        NodeRecord {
            id: NodeId(u64::from(id)),
            public_key: [id; 32],
            addr: format!("10.0.0.{id}:4100"),
            name: format!("node{id}"),
            labels: Labels::new(),
            weight: 1,
            kinds: vec![HostedRecord { name: "agent".into(), version: 1 }],
            version: "0.1.0".into(),
        }
    }

    fn found(id: u64) -> ControlCommand {
        let cluster = Cluster { id, cookie: Cookie(KEY), groups: 8, replicas: 3 };
        ControlCommand::Found { cluster, record: record(1), incarnation: 1, now_ms: 0 }
    }

    fn token(uses_left: u32) -> ControlCommand {
        let token = TokenRecord { id: 1, secret_hash: KEY, expires_at_ms: 1_000, uses_left, note: String::new() };
        ControlCommand::CreateToken { token, now_ms: 0 }
    }

    fn add(id: u8) -> ControlCommand {
        ControlCommand::AddNode { token_id: 1, secret_hash: KEY, record: record(id), now_ms: 0 }
    }

    fn update(record: NodeRecord, incarnation: u64) -> ControlCommand {
        ControlCommand::UpdateNode { record, incarnation, now_ms: 0 }
    }

    fn set(id: u8, state: MemberState) -> ControlCommand {
        let node = NodeId(u64::from(id));
        ControlCommand::SetState { node, state, incarnation: 1, up_epoch: None, now_ms: 0, reason: "test".into() }
    }

    fn remove(id: u8, force: bool) -> ControlCommand {
        ControlCommand::RemoveNode { node: NodeId(u64::from(id)), force }
    }

    fn put(key: &str, expect: Option<u64>) -> ControlCommand {
        ControlCommand::Put { key: key.into(), value: vec![1], expect }
    }

    /// Applies commands that must not be refused, at indexes from 1 on.
    fn after(commands: impl IntoIterator<Item = ControlCommand>) -> ControlState {
        let mut state = ControlState::new(Vec::new());
        for (index, command) in (1..).zip(commands) {
            state.apply(index, command).unwrap();
        }
        state
    }

    /// Two members that are up.
    fn pair() -> ControlState {
        after([found(1), token(9), add(2), update(record(2), 1), set(2, MemberState::Up)])
    }

    #[test]
    fn a_lone_member_takes_part_however_often_it_restarted() {
        let mut state = after([found(1)]);
        let restart = |incarnation| update(record(1), incarnation);
        for (index, incarnation) in (2..).zip(2..9) {
            state.apply(index, restart(incarnation)).unwrap();
            assert_eq!(state.member(NodeId(1)).unwrap().state, MemberState::Up);
        }
        // What it did alone is not held against it among others.
        let crowd = [token(9), add(2), update(record(2), 1), set(2, MemberState::Up), restart(9)];
        for (index, command) in (20..).zip(crowd) {
            state.apply(index, command).unwrap();
        }
        let up = ControlCommand::SetState {
            node: NodeId(1),
            state: MemberState::Up,
            incarnation: 9,
            up_epoch: None,
            now_ms: 0,
            reason: "test".into(),
        };
        assert_eq!(state.apply(30, up), Ok(ControlReply::Done));
    }

    #[test]
    fn nothing_is_decided_before_the_founding() {
        let mut state = ControlState::default();
        assert_eq!(state.apply(1, put("k", None)), Err(ControlRefused::NotFounded));
        assert!(state.take_changes().is_empty());
        assert_eq!(state.apply(2, found(1)), Ok(ControlReply::Done));
        assert_eq!(state.apply(3, found(1)), Ok(ControlReply::Done));
        assert_eq!(state.apply(4, found(2)), Err(ControlRefused::AlreadyFounded { id: 1 }));
        assert_eq!(state.member(NodeId(1)).map(|member| member.joined_index), Some(2));
    }

    #[test]
    fn a_cluster_without_groups_or_voters_is_refused() {
        for (groups, replicas) in [(0, 3), (8, 0), (8, 6)] {
            let cluster = Cluster { id: 1, cookie: Cookie(KEY), groups, replicas };
            let found = ControlCommand::Found { cluster, record: record(1), incarnation: 1, now_ms: 0 };
            let refused = ControlState::default().apply(1, found);
            assert_eq!(refused, Err(ControlRefused::BadCluster { max_replicas: 5 }));
        }
    }

    #[test]
    fn a_member_that_joins_again_uses_no_token() {
        let mut state = after([found(1), token(1), add(2)]);
        assert_eq!(state.apply(9, add(2)), Ok(ControlReply::Done));
        assert_eq!(state.apply(10, add(3)), Err(ControlRefused::TokenUsed));
        let impostor = NodeRecord { public_key: [3; 32], ..record(2) };
        let add = ControlCommand::AddNode { token_id: 1, secret_hash: KEY, record: impostor, now_ms: 0 };
        assert_eq!(state.apply(11, add), Err(ControlRefused::IdTaken));
    }

    #[test]
    fn a_refused_node_uses_no_token() {
        let mut state = after([found(1), token(1)]);
        let long = NodeRecord { addr: "x".repeat(999), ..record(2) };
        let refused = ControlCommand::AddNode { token_id: 1, secret_hash: KEY, record: long, now_ms: 0 };
        assert!(matches!(state.apply(3, refused), Err(ControlRefused::TooLarge { .. })));
        assert_eq!(state.apply(4, add(2)), Ok(ControlReply::Done));
    }

    #[test]
    fn the_65th_node_is_refused() {
        let mut state = after([found(1), token(99)].into_iter().chain((2..=64).map(add)));
        assert!(matches!(state.apply(99, add(65)), Err(ControlRefused::Limit { max: 64, .. })));
    }

    #[test]
    fn the_epoch_follows_what_can_move_placement() {
        let mut state = pair();
        let mut epoch = state.epoch();
        let mut moves = |state: &mut ControlState, command| {
            state.apply(50, command).unwrap();
            let moved = state.epoch() > epoch;
            epoch = state.epoch();
            moved
        };
        assert!(!moves(&mut state, add(3)));
        assert!(!moves(&mut state, update(record(3), 1)));
        assert!(moves(&mut state, set(3, MemberState::Up)));
        assert!(!moves(&mut state, set(3, MemberState::Up)));
        assert!(!moves(&mut state, update(NodeRecord { addr: "b:1".into(), ..record(3) }, 1)));
        assert!(moves(&mut state, update(NodeRecord { weight: 4, ..record(3) }, 1)));
        assert!(moves(&mut state, update(NodeRecord { kinds: Vec::new(), ..record(3) }, 1)));
        assert!(moves(&mut state, update(record(3), 2)));
        assert!(moves(&mut state, remove(3, true)));
        assert!(!moves(&mut state, put("k", None)));
        assert!(moves(&mut state, set(2, MemberState::Draining)));
        assert!(!moves(&mut state, set(2, MemberState::Down)));
        assert!(moves(&mut state, remove(2, false)), "what it alone kept");
    }

    #[test]
    fn only_a_node_that_is_down_is_removed_without_force() {
        let mut state = pair();
        assert_eq!(state.apply(9, remove(2, false)), Err(ControlRefused::NodeUp));
        assert_eq!(state.apply(9, remove(2, true)), Ok(ControlReply::Done));
        assert_eq!(state.apply(9, remove(2, true)), Err(ControlRefused::NodeUnknown { node: NodeId(2) }));
        assert_eq!(state.apply(9, remove(1, true)), Err(ControlRefused::LastNode));
        assert_eq!(state.apply(9, update(record(2), 2)), Err(ControlRefused::NodeUnknown { node: NodeId(2) }));
    }

    #[test]
    fn candidates_are_up_and_host_the_kind() {
        let mut state = pair();
        state.apply(9, update(NodeRecord { kinds: Vec::new(), ..record(2) }, 1)).unwrap();
        state.apply(9, add(3)).unwrap();
        let ids: Vec<u64> = state.candidates("agent").iter().map(|node| node.id.0).collect();
        assert_eq!(ids, [1]);
    }

    #[test]
    fn two_writes_of_one_log_entry_have_two_versions() {
        let mut state = after([found(1)]);
        assert_eq!(state.apply(7, put("k", Some(0))), Ok(ControlReply::Version(7)));
        assert_eq!(state.apply(7, put("k", None)), Ok(ControlReply::Version(8)));
        assert_eq!(state.apply(7, put("k", Some(7))), Err(ControlRefused::Conflict { current: 8 }));
        assert_eq!(state.apply(8, put("l", None)), Ok(ControlReply::Version(9)));
        let keys: Vec<_> = state.values("k").map(|(key, entry)| (key, entry.version)).collect();
        assert_eq!(keys, [("k", 8)]);
        assert_eq!(state.value("l").map(|entry| entry.version), Some(9));
    }

    #[test]
    fn an_unknown_machine_is_refused_and_its_stored_state_kept() {
        let mut state = after([found(1)]);
        let command = ControlCommand::Machine { ns: "fog".into(), command: vec![1], now_ms: 0 };
        assert_eq!(state.apply(2, command), Err(ControlRefused::UnknownMachine { ns: "fog".into() }));
        let row = (b"machine/fog".to_vec(), vec![FORMAT, 5]);
        let state = ControlState::load([row.clone()], Vec::new()).unwrap();
        assert_eq!(state.rows().collect::<Vec<_>>(), [row]);
    }

    #[test]
    fn rows_of_another_format_or_table_are_refused() {
        let load = |key: &[u8], value: &[u8]| ControlState::load([(key, value)], Vec::new()).err();
        assert!(matches!(load(b"kv/a", &[2, 0]), Some(StoreError::Schema { found: 2, known: 1 })));
        for (key, value) in [(&b"kv/a"[..], &b""[..]), (b"kv/a", b"\x01"), (b"member/1", b"\x01"), (b"other", b"\x01")]
        {
            assert!(matches!(load(key, value), Some(StoreError::Decode { .. })), "{}", key.escape_ascii());
        }
    }

    #[test]
    fn the_cookie_is_not_shown() {
        assert_eq!(format!("{:?}", Cookie(KEY)), "Cookie(..)");
    }
}
