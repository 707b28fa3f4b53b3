//! Where the members are, in their own words: what brings a cluster together again that has moved while it was stopped.
//!
//! The control state has addresses too, but it changes only once there is a leader, and there is none before the nodes have
//! found each other. So each node signs its address anew at every start, and hands on what it knows of the others whenever a
//! link comes up or something newer arrives. Of two records of a node the one of its later start counts; a record that its
//! member has not signed, or that is of no member, counts for nothing, whoever brings it.
//!
//! | tree | key | value |
//! |---|---|---|
//! | node | `node.addr.`, node id `u64 BE` | [`AddrRecord`], postcard |

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Inner;
use super::services::ADDRS;
use crate::control::{ADDR_MAX, NODES_MAX};
use crate::identity::{Identity, PublicKey};
use crate::node_id::NodeId;
use crate::router::Service;
use crate::store::{Batch, Level, Store, StoreError, TreeId};
use crate::wire::WirePort;

const KEY: &[u8] = b"node.addr.";
/// Begins what is signed, so that no other signature of a node's key can pass for this one.
const PURPOSE: &[u8] = b"village address 1\0";

/// A node's address since one of its starts, signed by the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AddrRecord {
    node: NodeId,
    incarnation: u64,
    addr: String,
    /// Of [`AddrRecord::signed`], Ed25519.
    signature: Vec<u8>,
}

impl AddrRecord {
    pub(crate) fn sign(identity: &Identity, cluster: u64, incarnation: u64, addr: &str) -> Self {
        let signature = identity.sign(&Self::signed(cluster, incarnation, addr)).to_vec();
        Self { node: identity.node_id(), incarnation, addr: addr.to_owned(), signature }
    }

    /// Purpose, cluster `u64 BE`, incarnation `u64 BE`, address to the end. The node is the one whose key signs.
    fn signed(cluster: u64, incarnation: u64, addr: &str) -> Vec<u8> {
        [PURPOSE, &cluster.to_be_bytes(), &incarnation.to_be_bytes(), addr.as_bytes()].concat()
    }

    fn is_signed(&self, cluster: u64, key: PublicKey) -> bool {
        key.node_id() == self.node
            && self.addr.len() <= ADDR_MAX
            && key.verify(&Self::signed(cluster, self.incarnation, &self.addr), &self.signature)
    }
}

/// The newest record of each node.
pub(crate) struct Addresses {
    cluster: u64,
    store: Arc<dyn Store>,
    records: Mutex<BTreeMap<NodeId, AddrRecord>>,
    changed: watch::Sender<()>,
}

impl Addresses {
    /// Reads what is kept, and keeps this node's own record.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn open(cluster: u64, store: Arc<dyn Store>, own: AddrRecord) -> Result<Self, StoreError> {
        let kept = store.scan(TreeId::NODE, KEY, NODES_MAX)?.into_iter().filter(|(key, _)| key.starts_with(KEY));
        // What this version cannot read is told again.
        let kept = kept.filter_map(|(_, value)| postcard::from_bytes::<AddrRecord>(&value).ok());
        let mut records: BTreeMap<_, _> = kept.map(|record| (record.node, record)).collect();
        store.commit(put(Batch::new(), &own), Level::Disk).await?;
        records.insert(own.node, own);
        Ok(Self { cluster, store, records: Mutex::new(records), changed: watch::Sender::new(()) })
    }

    /// Where a node is since a later start than `incarnation`, if that is known.
    pub(crate) fn since(&self, node: NodeId, incarnation: u64) -> Option<String> {
        let records = self.records.lock();
        records.get(&node).filter(|record| record.incarnation > incarnation).map(|record| record.addr.clone())
    }

    /// All records.
    pub(crate) fn all(&self) -> Vec<AddrRecord> {
        self.records.lock().values().cloned().collect()
    }

    /// Hears of newer records.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes over those records that are newer than the known ones and signed by the member that they are of. Returns them.
    pub(crate) fn learn(
        &self,
        records: Vec<AddrRecord>,
        member: impl Fn(NodeId) -> Option<PublicKey>,
    ) -> Vec<AddrRecord> {
        let mut learnt = Vec::new();
        for record in records.into_iter().take(NODES_MAX) {
            let known = self.records.lock().get(&record.node).map_or(0, |known| known.incarnation);
            // A signature is checked only where it would change something.
            if record.incarnation <= known
                || !member(record.node).is_some_and(|key| record.is_signed(self.cluster, key))
            {
                continue;
            }
            self.records.lock().insert(record.node, record.clone());
            learnt.push(record);
        }
        if !learnt.is_empty() {
            self.changed.send_replace(());
        }
        learnt
    }

    /// Keeps records over a restart.
    async fn keep(&self, records: &[AddrRecord]) {
        if let Err(error) = self.store.commit(records.iter().fold(Batch::new(), put), Level::Async).await {
            tracing::warn!(%error, "addresses of other nodes not kept");
        }
    }

    /// Forgets all but the members.
    pub(crate) async fn retain(&self, is_member: impl Fn(NodeId) -> bool) {
        let mut gone = Batch::new();
        self.records.lock().retain(|node, _| {
            let stays = is_member(*node);
            if !stays {
                gone = std::mem::take(&mut gone).delete(TreeId::NODE, key(*node));
            }
            stays
        });
        if !gone.is_empty()
            && let Err(error) = self.store.commit(gone, Level::Async).await
        {
            tracing::warn!(%error, "addresses of former members not forgotten");
        }
    }
}

fn key(node: NodeId) -> Vec<u8> {
    [KEY, &node.0.to_be_bytes()].concat()
}

fn put(batch: Batch, record: &AddrRecord) -> Batch {
    batch.put(TreeId::NODE, key(record.node), postcard::to_allocvec(record).unwrap_or_default())
}

/// Tells one member where all are.
pub(crate) async fn tell(inner: &Inner, to: NodeId, records: &[AddrRecord]) {
    let body = postcard::to_allocvec(records).unwrap_or_default();
    // Who misses it hears it with the next link.
    let _ = inner.router.notify(to, ADDRS, &body).await;
}

/// Takes what other members know.
pub(crate) struct AddrsService(pub(crate) Weak<Inner>);

impl Service for AddrsService {
    fn serve(&self, from: NodeId, _: &str, body: Bytes, _: Option<WirePort>) {
        let Some(inner) = self.0.upgrade() else { return };
        let Ok(records) = postcard::from_bytes::<Vec<AddrRecord>>(&body) else { return };
        let learnt = inner.addresses.learn(records, |node| inner.key_of(node));
        if learnt.is_empty() {
            return;
        }
        let shared = inner.clone();
        let spreading = async move {
            shared.addresses.keep(&learnt).await;
            for lane in shared.router.lanes().into_iter().filter(|lane| lane.peer() != from) {
                tell(&shared, lane.peer(), &learnt).await;
            }
        };
        inner.router.tasks().spawn("addresses", spreading).detach();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    const CLUSTER: u64 = 7;

    struct Book {
        store: Arc<dyn Store>,
        addresses: Addresses,
        member: Identity,
    }

    async fn book() -> Book {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let own = AddrRecord::sign(&Identity::generate().unwrap(), CLUSTER, 1, "here:1");
        let addresses = Addresses::open(CLUSTER, store.clone(), own).await.unwrap();
        Book { store, addresses, member: Identity::generate().unwrap() }
    }

    impl Book {
        /// Whether a record is believed.
        fn learns(&self, record: AddrRecord) -> bool {
            let key = self.member.public_key();
            !self.addresses.learn(vec![record], |node| (node == key.node_id()).then_some(key)).is_empty()
        }

        fn addr(&self) -> Option<String> {
            self.addresses.since(self.member.node_id(), 0)
        }
    }

    #[tokio::test]
    async fn the_record_of_the_latest_start_counts() {
        let book = book().await;
        let record = |incarnation, addr| AddrRecord::sign(&book.member, CLUSTER, incarnation, addr);
        assert!(book.learns(record(2, "there:2")));
        assert!(!book.learns(record(2, "there:9")), "as old");
        assert!(!book.learns(record(1, "there:1")), "older");
        assert_eq!(book.addr().as_deref(), Some("there:2"));
        assert!(book.learns(record(3, "there:3")));
        assert_eq!(book.addr().as_deref(), Some("there:3"));
        // The membership knows of as late a start.
        assert_eq!(book.addresses.since(book.member.node_id(), 3), None);
    }

    #[tokio::test]
    async fn a_record_that_its_member_has_not_signed_counts_for_nothing() {
        let book = book().await;
        let true_one = AddrRecord::sign(&book.member, CLUSTER, 5, "there:5");
        let other = Identity::generate().unwrap();
        let mut forged = AddrRecord::sign(&other, CLUSTER, 5, "evil:5");
        assert!(!book.learns(forged.clone()), "of no member");
        forged.node = book.member.node_id();
        assert!(!book.learns(forged), "signed by another key");
        assert!(!book.learns(AddrRecord { addr: "evil:5".to_owned(), ..true_one.clone() }), "another address");
        assert!(!book.learns(AddrRecord { incarnation: 6, ..true_one.clone() }), "another start");
        assert!(!book.learns(AddrRecord::sign(&book.member, 8, 5, "there:5")), "of another cluster");
        assert!(!book.learns(AddrRecord::sign(&book.member, CLUSTER, 5, &"a".repeat(ADDR_MAX + 1))), "too long");
        assert_eq!(book.addr(), None);
        assert!(book.learns(true_one));
    }

    #[tokio::test]
    async fn records_are_kept_until_their_node_is_removed() {
        let book = book().await;
        let record = AddrRecord::sign(&book.member, CLUSTER, 2, "there:2");
        assert!(book.learns(record.clone()));
        book.addresses.keep(std::slice::from_ref(&record)).await;
        let open = async || {
            let own = AddrRecord::sign(&Identity::generate().unwrap(), CLUSTER, 2, "here:2");
            Addresses::open(CLUSTER, book.store.clone(), own).await.unwrap()
        };
        assert!(open().await.all().contains(&record));
        book.addresses.retain(|node| node != record.node).await;
        assert_eq!(book.addr(), None);
        assert!(!open().await.all().contains(&record));
    }
}
