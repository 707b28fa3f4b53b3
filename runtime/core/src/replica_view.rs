//! What a node makes of the events of a replicated kind, also where it does not lead: an index, a sum, a cache.
//!
//! An actor of a `Replicated` kind lives on the leader of its group only. A [`ReplicaView`] lives beside every copy of the
//! group, is told each event once it is applied there, and so can answer reads on any node and be warm when leadership
//! comes. It is behind the leader by as much as the copy is, and by its own queue.
//!
//! A group never waits for a view: when more waits for one than its queue holds, or a snapshot has replaced the copy, what
//! waits is dropped and the view is filled anew from the copy. It is filled so at its start, too.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use crate::durable::{self, Durable};
use crate::groups::feed::{Feed, Feeds, Next, Seen};
use crate::groups::store::ReadOnly;
use crate::raft::{GroupId, StateView};
use crate::store::{Batch, Level, Store, StoreError};
use crate::task::{Tasks, panic_message};

/// Pause before a view that panicked is made anew.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Follows the events of one kind in one group on one node.
///
/// For each key it gets the state at some event, if the key had any by then, and after it every event in order and once.
/// Its methods run one at a time on a task of their own; a panic costs the view, which is then made and filled anew. What
/// takes long belongs on [`Village::blocking`](crate::Village::blocking).
pub trait ReplicaView: Send + 'static {
    /// The state that the kind's actors keep.
    type State: Durable;

    /// Forgets everything: what is told from now on is the whole group.
    fn clear(&mut self) -> impl Future<Output = ()> + Send;

    /// Takes the state of a key as it is after its event number `seq`.
    fn restored(&mut self, key: &str, seq: u64, state: &Self::State) -> impl Future<Output = ()> + Send;

    /// Takes the next event of a key, number `seq`; the first of a key is number 1.
    fn applied(
        &mut self,
        key: &str,
        seq: u64,
        event: <Self::State as Durable>::Event,
    ) -> impl Future<Output = ()> + Send;
}

/// Starts the views of one kind in a group.
type Open = Box<dyn Fn(GroupId, &Tasks) -> Arc<Feed> + Send + Sync>;

/// All views that a node is to have.
#[derive(Default)]
pub(crate) struct Views(Vec<Open>);

impl Views {
    /// `make` gets the number of the group, from 1.
    pub(crate) fn add<V: ReplicaView>(&mut self, kind: &'static str, make: impl Fn(u8) -> V + Send + Sync + 'static) {
        let make = Arc::new(make);
        self.0.push(Box::new(move |group, tasks| {
            let feed = Arc::new(Feed::new(kind));
            let (shown, make) = (feed.clone(), make.clone());
            tasks.spawn("replica.view", show(shown, move || make(group.0))).detach();
            feed
        }));
    }

    /// Starts the views of a group.
    pub(crate) fn open(&self, group: GroupId, tasks: &Tasks) -> Feeds {
        self.0.iter().map(|open| open(group, tasks)).collect()
    }
}

async fn show<V: ReplicaView>(feed: Arc<Feed>, make: impl Fn() -> V + Send) {
    loop {
        let shown = Shown { view: make(), feed: &feed, copy: None, read: HashMap::new(), unread: BTreeSet::new() };
        let Err(panic) = AssertUnwindSafe(shown.run()).catch_unwind().await;
        tracing::error!(kind = feed.kind(), panic = panic_message(panic.as_ref()), "a replica view panicked");
        tokio::time::sleep(AFTER_PANIC).await;
        feed.refill();
    }
}

/// A view at work.
struct Shown<'a, V> {
    view: V,
    feed: &'a Feed,
    copy: Option<Arc<dyn Store>>,
    /// Up to which event the view knows a key from the copy. Gone with the first event after it: what was read may be ahead
    /// of what is told, and after a snapshot even of what is applied.
    read: HashMap<String, u64>,
    /// Keys that could not be read. A snapshot that was taken under load can be read only once what came after it is applied.
    unread: BTreeSet<String>,
}

impl<V: ReplicaView> Shown<'_, V> {
    async fn run(mut self) -> std::convert::Infallible {
        loop {
            match self.feed.next().await {
                Next::Fill(state) => self.fill(state).await,
                Next::Event(seen) => self.event(&seen).await,
            }
        }
    }

    async fn fill(&mut self, state: StateView) {
        let copy: Arc<dyn Store> = Arc::new(ReadOnly(state));
        self.copy = Some(copy.clone());
        (self.read, self.unread) = (HashMap::new(), BTreeSet::new());
        self.view.clear().await;
        let kind = self.feed.kind();
        match keys(&*copy, kind).await {
            Ok(keys) => {
                for key in keys {
                    self.restore(key).await;
                }
            }
            Err(error) => tracing::warn!(kind, %error, "a replica view cannot be filled"),
        }
        if !self.unread.is_empty() {
            tracing::debug!(kind, unread = self.unread.len(), "states that cannot be read yet");
        }
    }

    /// Reads one key again.
    async fn restore(&mut self, key: String) {
        let Some(copy) = &self.copy else { return };
        match durable::read_only::<V::State>(copy, self.feed.kind(), &key).await {
            Ok((state, seq)) => {
                self.view.restored(&key, seq, &state).await;
                self.read.insert(key, seq);
            }
            Err(error) => {
                tracing::debug!(kind = self.feed.kind(), %error, "a state cannot be read");
                self.unread.insert(key);
            }
        }
    }

    async fn event(&mut self, seen: &Seen) {
        if self.unread.remove(&seen.key) {
            return self.restore(seen.key.clone()).await;
        }
        if self.read.get(&seen.key).is_some_and(|read| seen.seq <= *read) {
            return;
        }
        self.read.remove(&seen.key);
        match durable::read_event::<V::State>(&seen.stored) {
            Ok(event) => self.view.applied(&seen.key, seen.seq, event).await,
            Err(error) => {
                tracing::warn!(kind = self.feed.kind(), %error, "an event cannot be read");
                self.unread.insert(seen.key.clone());
            }
        }
    }
}

/// The keys of a kind's actors in a copy.
pub(crate) async fn keys(copy: &dyn Store, kind: &str) -> Result<BTreeSet<String>, StoreError> {
    // A commit of a village of one node may still be on its way; its event was told, or is not.
    copy.commit(Batch::new(), Level::Async).await?;
    durable::keys(copy, kind)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use serde::{Deserialize, Serialize};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::durable::Entity;
    use crate::groups::machine::{Command, ShardMachine};
    use crate::groups::store::Shard;
    use crate::raft::{Machine, Position, Writes};
    use crate::store::MemoryStore;

    const KIND: &str = "test.sum";
    const GROUP: GroupId = GroupId(3);

    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Sum(u64);

    impl Durable for Sum {
        type Event = u64;
        fn apply(&mut self, added: &u64) {
            self.0 += added;
        }
    }

    #[derive(Debug, Clone, PartialEq)]
    enum Told {
        Cleared,
        Restored(String, u64, u64),
        Applied(String, u64, u64),
    }

    /// Keeps what it is told, and waits for leave before each event.
    #[derive(Clone)]
    struct Witness {
        told: Arc<Mutex<Vec<Told>>>,
        news: Arc<tokio::sync::Notify>,
        leave: Arc<Semaphore>,
    }

    impl Witness {
        fn new() -> Self {
            Self { told: Arc::default(), news: Arc::default(), leave: Arc::new(Semaphore::new(0)) }
        }

        fn tell(&self, told: Told) {
            self.told.lock().push(told);
            self.news.notify_one();
        }

        async fn wait_for(&self, wanted: &Told) {
            while !self.told.lock().contains(wanted) {
                self.news.notified().await;
            }
        }
    }

    impl ReplicaView for Witness {
        type State = Sum;
        async fn clear(&mut self) {
            self.tell(Told::Cleared);
        }
        async fn restored(&mut self, key: &str, seq: u64, state: &Sum) {
            self.tell(Told::Restored(key.to_owned(), seq, state.0));
        }
        async fn applied(&mut self, key: &str, seq: u64, event: u64) {
            self.leave.acquire().await.unwrap().forget();
            assert_ne!(event, 13, "unlucky");
            self.tell(Told::Applied(key.to_owned(), seq, event));
        }
    }

    struct Bench {
        store: Arc<dyn Store>,
        state: StateView,
        witness: Witness,
        feeds: Feeds,
        _tasks: Tasks,
    }

    impl Bench {
        fn new() -> Self {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
            let state = StateView::alone(store.clone(), GROUP);
            let (witness, tasks, mut views) = (Witness::new(), Tasks::default(), Views::default());
            let made = witness.clone();
            views.add(KIND, move |group| {
                assert_eq!(group, GROUP.0);
                made.clone()
            });
            let feeds = views.open(GROUP, &tasks);
            Self { store, state, witness, feeds, _tasks: tasks }
        }

        async fn entity(&self, key: &str) -> Entity<Sum> {
            let shard = Arc::new(Shard::alone(self.state.clone(), self.store.clone(), self.feeds.clone()));
            Entity::recover(Arc::new(shard.activate(&(Arc::new(|| {}) as _)).await.unwrap()), KIND, key).await.unwrap()
        }

        fn machine(&self) -> ShardMachine {
            let mut machine = ShardMachine::new(self.feeds.clone());
            machine.reload(&self.state).unwrap();
            machine
        }

        /// Applies a batch as the replica of a group does.
        async fn apply(&self, machine: &mut ShardMachine, index: u64, batch: Batch) {
            let mut writes = Writes::outside(&self.state);
            let command = postcard::to_allocvec(&Command { term: 1, batch }).unwrap();
            machine.apply(Position { index, nth: 0, term: 1 }, &command, &mut writes);
            self.store.commit(writes.into_batch(), Level::Async).await.unwrap();
            machine.committed();
        }
    }

    fn restored(key: &str, seq: u64, sum: u64) -> Told {
        Told::Restored(key.to_owned(), seq, sum)
    }

    fn applied(key: &str, seq: u64, event: u64) -> Told {
        Told::Applied(key.to_owned(), seq, event)
    }

    /// The batch of one event, as an entity would commit it.
    async fn event(key: &str, seq: u64, event: u64) -> Batch {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let mut entity = Entity::<Sum>::recover(store.clone(), KIND, key).await.unwrap();
        for _ in 1..seq {
            entity.commit(0).await.unwrap();
        }
        entity.commit(event).await.unwrap();
        let (key, stored) = store.scan(crate::store::TreeId::JOURNALS, &[], usize::MAX).unwrap().pop().unwrap();
        Batch::new().put(crate::store::TreeId::JOURNALS, key.to_vec(), stored.to_vec())
    }

    #[tokio::test]
    async fn events_of_a_village_of_one_node_are_told_in_order() {
        let bench = Bench::new();
        bench.witness.leave.add_permits(100);
        let (mut a, mut b) = (bench.entity("a").await, bench.entity("b").await);
        a.commit(5).await.unwrap();
        // Another kind's.
        let shard = Arc::new(Shard::alone(bench.state.clone(), bench.store.clone(), bench.feeds.clone()));
        let other = Arc::new(shard.activate(&(Arc::new(|| {}) as _)).await.unwrap());
        Entity::<Sum>::recover(other, "test.summer", "a").await.unwrap().commit(1).await.unwrap();
        b.commit_all(vec![1, 2]).await.unwrap();
        bench.witness.wait_for(&restored("b", 2, 3)).await;
        a.commit(6).await.unwrap();
        bench.witness.wait_for(&applied("a", 2, 6)).await;
        let told = bench.witness.told.lock().clone();
        assert_eq!(told, [Told::Cleared, restored("a", 1, 5), restored("b", 2, 3), applied("a", 2, 6)]);
    }

    #[tokio::test]
    async fn what_was_read_from_the_copy_is_not_told_again() {
        let bench = Bench::new();
        bench.witness.leave.add_permits(100);
        bench.entity("a").await.commit_all(vec![1, 2, 3]).await.unwrap();
        let mut machine = bench.machine();
        bench.witness.wait_for(&restored("a", 3, 6)).await;
        // As after a snapshot that has seen more than what comes before it in the log.
        for (index, seq) in [(7, 2), (8, 3), (9, 4), (10, 5)] {
            bench.apply(&mut machine, index, event("a", seq, seq).await).await;
        }
        bench.witness.wait_for(&applied("a", 5, 5)).await;
        let told = bench.witness.told.lock().clone();
        assert_eq!(told[told.len() - 3..], [restored("a", 3, 6), applied("a", 4, 4), applied("a", 5, 5)]);
    }

    #[tokio::test]
    async fn a_fenced_command_is_not_told() {
        let bench = Bench::new();
        bench.witness.leave.add_permits(100);
        let mut machine = bench.machine();
        bench.witness.wait_for(&Told::Cleared).await;
        let command = postcard::to_allocvec(&Command { term: 0, batch: event("a", 1, 9).await }).unwrap();
        machine.apply(Position { index: 1, nth: 0, term: 1 }, &command, &mut Writes::outside(&bench.state));
        bench.apply(&mut machine, 2, event("a", 1, 4).await).await;
        bench.witness.wait_for(&applied("a", 1, 4)).await;
        assert_eq!(bench.witness.told.lock().clone(), [Told::Cleared, applied("a", 1, 4)]);
    }

    #[tokio::test]
    async fn a_view_that_falls_behind_is_filled_anew_and_holds_up_nobody() {
        let bench = Bench::new();
        let mut machine = bench.machine();
        bench.witness.wait_for(&Told::Cleared).await;
        let mut entity = bench.entity("a").await;
        bench.witness.told.lock().clear();
        bench.feeds.reset(&bench.state);
        bench.witness.wait_for(&Told::Cleared).await;
        // The view has no leave for the first of these.
        let many = u64::try_from(crate::groups::feed::QUEUE).unwrap() + 10;
        for _ in 0..many {
            entity.commit(1).await.unwrap();
        }
        bench.witness.leave.add_permits(usize::MAX >> 4);
        bench.witness.wait_for(&restored("a", many, many)).await;
        bench.apply(&mut machine, 1, event("b", 1, 2).await).await;
        bench.witness.wait_for(&applied("b", 1, 2)).await;
        let told = bench.witness.told.lock().clone();
        assert_eq!(told.iter().filter(|told| **told == Told::Cleared).count(), 2, "{}", told.len());
    }

    #[tokio::test]
    async fn a_state_that_cannot_be_read_yet_comes_with_a_later_event() {
        let bench = Bench::new();
        bench.witness.leave.add_permits(100);
        let mut machine = bench.machine();
        bench.witness.wait_for(&Told::Cleared).await;
        bench.apply(&mut machine, 1, event("a", 2, 7).await).await;
        bench.apply(&mut machine, 2, event("b", 1, 1).await).await;
        bench.witness.wait_for(&applied("b", 1, 1)).await;
        bench.feeds.reset(&bench.state);
        // Read after `a`, whose first event is missing.
        bench.witness.wait_for(&restored("b", 1, 1)).await;
        bench.apply(&mut machine, 3, event("a", 1, 5).await).await;
        bench.apply(&mut machine, 4, event("b", 2, 2).await).await;
        bench.witness.wait_for(&applied("b", 2, 2)).await;
        let told = bench.witness.told.lock().clone();
        assert_eq!(told[told.len() - 3..], [restored("b", 1, 1), restored("a", 2, 12), applied("b", 2, 2)]);
    }

    #[tokio::test]
    async fn what_is_to_be_told_is_waited_for() {
        let bench = Bench::new();
        let mut machine = bench.machine();
        bench.feeds.shown().await;
        bench.feeds.shown().await;
        bench.apply(&mut machine, 1, event("a", 1, 5).await).await;
        bench.apply(&mut machine, 2, event("a", 2, 6).await).await;
        let mut shown = std::pin::pin!(bench.feeds.shown());
        assert!(futures::poll!(&mut shown).is_pending());
        bench.witness.leave.add_permits(1);
        bench.witness.wait_for(&applied("a", 1, 5)).await;
        assert!(futures::poll!(&mut shown).is_pending(), "one of two");
        bench.witness.leave.add_permits(1);
        shown.await;
        assert_eq!(bench.witness.told.lock().last(), Some(&applied("a", 2, 6)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_that_panics_is_made_anew() {
        let bench = Bench::new();
        bench.witness.leave.add_permits(100);
        let mut machine = bench.machine();
        bench.witness.wait_for(&Told::Cleared).await;
        bench.apply(&mut machine, 1, event("a", 1, 13).await).await;
        bench.witness.wait_for(&restored("a", 1, 13)).await;
    }
}
