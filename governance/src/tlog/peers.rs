//! Whose logs and witnesses there are: each node tells the others, by the control group, its keys and what convicts a log.
//!
//! | value of the control group | holds |
//! |---|---|
//! | `governance.tlog/keys/<node>` | keys of the node's log and witness and the node's signature, hex; a line each |
//! | `governance.tlog/fork/<node>` | an [`Evidence`] against the node's log |
//!
//! Nothing of it is believed because it is there. Keys count that the node signed itself, with the identity whose hash its id is, and
//! that have this node's names; evidence counts that convicts by such a key. Who is no member has no keys.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::control::KvEntry;
use aivillage_runtime::{Cluster, DecideError, NodeId, Village};
use data_encoding::HEXLOWER;
use parking_lot::Mutex;

use super::error::LogError;
use super::handle::LogHandle;
use super::note::VerifierKey;
use super::witness::{Book, Evidence};

const KEYS: &str = "governance.tlog/keys/";
const FORK: &str = "governance.tlog/fork/";
/// What a node's signature over its keys is for.
const PURPOSE: &str = "governance.tlog keys";
/// How often a node looks what the others told. The values are in its memory; nothing tells when they change.
const LOOK: Duration = Duration::from_secs(1);
/// The area of the problems that the cluster's status shows.
const AREA: &str = "governance.tlog";

/// The origin of a node's log.
pub(super) fn origin(node: &str) -> String {
    format!("village/{node}")
}

/// The name of the witness beside a log.
pub(super) fn witness_of(origin: &str) -> String {
    format!("{origin}/witness")
}

/// The keys of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keys {
    log: VerifierKey,
    witness: VerifierKey,
}

impl Keys {
    /// What the node signs.
    fn statement(&self) -> String {
        format!("{}\n{}\n", self.log, self.witness)
    }

    fn encode(&self, signature: &[u8; 64]) -> Vec<u8> {
        format!("{}{}\n", self.statement(), HEXLOWER.encode(signature)).into_bytes()
    }

    /// Reads what a node told; none when it is not of this node. `has_stated` checks a statement and its signature.
    fn read(node: NodeId, value: &[u8], has_stated: impl Fn(&[u8], &[u8]) -> bool) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let [log, witness, signature] = text.lines().collect::<Vec<_>>().try_into().ok()?;
        let keys = Self { log: log.parse().ok()?, witness: witness.parse().ok()? };
        let signature = HEXLOWER.decode(signature.as_bytes()).ok()?;
        let is_own = keys.log.is_log()
            && !keys.witness.is_log()
            && keys.log.name() == origin(&node.to_string())
            && keys.witness.name() == witness_of(keys.log.name());
        (is_own && has_stated(keys.statement().as_bytes(), &signature)).then_some(keys)
    }
}

/// Looks after whom a node's log and witness believe.
pub(super) struct Peers {
    pub(super) village: Village,
    pub(super) log: LogHandle,
    pub(super) book: Arc<Mutex<Book>>,
    /// The file with the keys that check this log.
    pub(super) public: PathBuf,
}

/// What was told last, by version, and by whom: while it stays the same nothing is read again.
type Seen = (Vec<(String, u64)>, Vec<NodeId>);

impl Peers {
    /// Looks again and again, until the node goes down.
    pub(super) async fn run(self) {
        let mut seen = None;
        while !self.village.is_draining() {
            if let Some(cluster) = self.village.cluster() {
                if let Err(error) = self.tell(cluster).await {
                    tracing::debug!(%error, "the other nodes are not told the log's keys yet");
                }
                let heard = async { self.learn(cluster, &mut seen).await.and(self.convict(cluster).await) };
                if let Err(error) = heard.await {
                    tracing::warn!(%error, "what other nodes told of their logs is not taken");
                }
                self.show(cluster);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn own(&self) -> Keys {
        Keys { log: self.log.key().clone(), witness: self.book.lock().key().clone() }
    }

    /// Tells this node's keys, unless they are told already.
    async fn tell(&self, cluster: &Cluster) -> Result<(), DecideError> {
        let me = self.village.node_id();
        let keys = self.own();
        let value = keys.encode(&cluster.state(PURPOSE, keys.statement().as_bytes()));
        let (key, members) = (format!("{KEYS}{me}"), cluster.members());
        let told = cluster.get(&key);
        let is_told = told.as_ref().is_some_and(|told| told.value == value);
        // Before it is a member nobody can check what it says.
        if !is_told && members.iter().any(|member| member.record.id == me) {
            cluster.put(&key, value, Some(told.map_or(0, |told| told.version))).await?;
        }
        if members.iter().map(|member| member.record.id).min() == Some(me) {
            self.forget(cluster).await?;
        }
        Ok(())
    }

    /// Removes what nodes told that are no members any more; one member does it for all.
    async fn forget(&self, cluster: &Cluster) -> Result<(), DecideError> {
        for prefix in [KEYS, FORK] {
            // The members are read behind the values: who told something then and is a member now is among them.
            let told = cluster.list(prefix);
            let members = cluster.members();
            let is_member =
                |key: &str| node_in(key, prefix).is_some_and(|id| members.iter().any(|m| m.record.id == id));
            for (key, entry) in told.iter().filter(|(key, _)| !is_member(key)) {
                cluster.delete(key, Some(entry.version)).await?;
            }
        }
        Ok(())
    }

    /// Takes the keys of the members.
    async fn learn(&self, cluster: &Cluster, seen: &mut Option<Seen>) -> Result<(), LogError> {
        let told = cluster.list(KEYS);
        let members: Vec<_> = cluster.members().into_iter().map(|member| member.record.id).collect();
        let now = (told.iter().map(|(key, entry)| (key.clone(), entry.version)).collect(), members.clone());
        if seen.as_ref() == Some(&now) {
            return Ok(());
        }
        let me = self.village.node_id();
        let read = |(key, entry): &(String, KvEntry)| {
            let node = node_in(key, KEYS).filter(|node| *node != me && members.contains(node))?;
            let has_stated = |said: &[u8], signature: &[u8]| cluster.has_stated(node, PURPOSE, said, signature);
            let keys = Keys::read(node, &entry.value, has_stated);
            if keys.is_none() {
                tracing::warn!(%node, "a node tells keys that are not its own");
            }
            keys
        };
        let keys: Vec<_> = told.iter().filter_map(read).collect();
        let witnesses: Vec<_> = keys.iter().map(|keys| keys.witness.clone()).collect();
        // The own log is among them: the others may have found what convicts it.
        let logs = keys.into_iter().map(|keys| keys.log).chain([self.log.key().clone()]).collect();
        let (book, public, known) = (Arc::clone(&self.book), self.public.clone(), witnesses.clone());
        let own = self.own();
        let kept = self.village.blocking("tlog.learn", move || {
            book.lock().set_logs(logs);
            super::home::publish(&public, &[own.log, own.witness], &known)
        });
        self.log.trust(witnesses).await?;
        match kept.await {
            Ok(Ok(())) => *seen = Some(now),
            Ok(Err(error)) => tracing::warn!(%error, "the keys of the log's witnesses are not kept"),
            Err(error) => tracing::error!(%error, "the keys of the log's witnesses are not kept"),
        }
        Ok(())
    }

    /// Tells what convicts a log and takes what others told. A log that is convicted signs no more.
    async fn convict(&self, cluster: &Cluster) -> Result<(), LogError> {
        let told: BTreeMap<_, _> = cluster.list(FORK).into_iter().collect();
        for entry in told.values() {
            if let Some(evidence) = read_evidence(&entry.value) {
                let book = Arc::clone(&self.book);
                let kept = self.village.blocking("tlog.convict", move || book.lock().accept(evidence)).await;
                kept.unwrap_or(Ok(false))?;
            }
        }
        let convicted = self.book.lock().convicted();
        for evidence in &convicted {
            let Some(node) = evidence.origin().strip_prefix("village/") else { continue };
            let key = format!("{FORK}{node}");
            let told = told.get(&key);
            if !told.is_some_and(|entry| self.convicts(&entry.value, evidence.origin())) {
                let version = Some(told.map_or(0, |told| told.version));
                if let Err(error) = cluster.put(&key, evidence.to_string().into_bytes(), version).await {
                    tracing::debug!(%error, "the other nodes are not told of a fork yet");
                }
            }
            if evidence.convicts(self.log.key()) {
                self.log.halt(LogError::Convicted).await?;
            }
        }
        Ok(())
    }

    /// Shows what is not well: logs that are convicted, and the own one if it takes nothing.
    fn show(&self, cluster: &Cluster) {
        let convicted = self.book.lock().convicted();
        if let Some(metrics) = self.log.metrics() {
            metrics.forks(convicted.len());
        }
        let names: BTreeMap<_, _> =
            cluster.members().into_iter().map(|m| (origin(&m.record.id.to_string()), m.record.name)).collect();
        let fork = |evidence: &Evidence| {
            let name = names.get(evidence.origin()).map_or(evidence.origin(), String::as_str);
            format!("the log of {name} has signed two histories; see `forks` of GET /v1/log")
        };
        let refuses = self.log.status().refuses.map(|error| format!("the log here takes nothing: {error}"));
        cluster.tell_problems(AREA, convicted.iter().map(fork).chain(refuses).collect());
    }

    /// Whether what is told of a log convicts it by its key of now.
    fn convicts(&self, told: &[u8], origin: &str) -> bool {
        read_evidence(told).is_some_and(|read| read.origin() == origin && self.book.lock().stands(&read))
    }
}

fn read_evidence(value: &[u8]) -> Option<Evidence> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn node_in(key: &str, prefix: &str) -> Option<NodeId> {
    key.strip_prefix(prefix)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::note::{Cosigner, LogSigner};
    use super::*;

    const NODE: NodeId = NodeId(7);

    fn keys(origin: &str) -> Keys {
        let log = LogSigner::new(origin, &[1; 32]).unwrap().public().clone();
        Keys { log, witness: Cosigner::new(&witness_of(origin), &[2; 32]).unwrap().public().clone() }
    }

    #[test]
    fn keys_are_read_as_their_node_told_them() {
        let keys = keys("village/0000000000000007");
        let value = keys.encode(&[5; 64]);
        let has_stated = |said: &[u8], signature: &[u8]| said == keys.statement().as_bytes() && signature == [5; 64];
        assert_eq!(Keys::read(NODE, &value, has_stated), Some(keys.clone()));
        assert_eq!(Keys::read(NODE, &value, |_, _| false), None);
    }

    #[test]
    fn keys_in_another_nodes_name_count_for_nothing() {
        let other = keys("village/0000000000000008");
        assert_eq!(Keys::read(NODE, &other.encode(&[5; 64]), |_, _| true), None);
        let own = keys("village/0000000000000007");
        let mixed = [Keys { witness: other.witness, ..own.clone() }, Keys { log: own.witness, witness: own.log }];
        for keys in mixed {
            assert_eq!(Keys::read(NODE, &keys.encode(&[5; 64]), |_, _| true), None);
        }
        assert_eq!(Keys::read(NODE, b"\xff", |_, _| true), None);
        assert_eq!(Keys::read(NODE, b"a\nb\nc\n", |_, _| true), None);
    }
}
