//! What waits to be told to a [`ReplicaView`](crate::ReplicaView): the way from a group's copy to whoever follows it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::durable;
use crate::raft::StateView;
use crate::store::{Batch, TreeId};

/// Events that wait for one view; with more it is cheaper to read the states.
pub(crate) const QUEUE: usize = 4096;
/// Bytes of the events that wait for one view.
const QUEUE_BYTES: usize = 4 << 20;

/// An event that is applied.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) key: String,
    pub(crate) seq: u64,
    /// As it is in the journal.
    pub(crate) stored: Bytes,
}

/// What a view is to do next.
pub(crate) enum Next {
    /// Forget everything and read this state.
    Fill(StateView),
    /// Take an event.
    Event(Seen),
}

/// The way to one view.
pub(crate) struct Feed {
    kind: &'static str,
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Where to read; none before the group's copy was opened.
    state: Option<StateView>,
    /// The view has to read. Until it begins to, an event need not wait: it is in what is read.
    fill: bool,
    events: VecDeque<Seen>,
    bytes: usize,
    /// Things to do so far, those the view has begun, and those it has done.
    told: u64,
    begun: u64,
    done: u64,
    /// Who waits for so many to be done.
    marks: Vec<(u64, oneshot::Sender<()>)>,
}

impl Waiting {
    fn fill(&mut self) {
        self.fill = self.state.is_some();
        self.events.clear();
        self.bytes = 0;
        self.told += u64::from(self.fill);
    }

    /// The view comes for more: what it had begun is done.
    fn done(&mut self) {
        self.done = self.begun;
        for (_, mark) in self.marks.extract_if(.., |(at, _)| *at <= self.done) {
            // Whoever is gone waits no more.
            let _ = mark.send(());
        }
    }
}

impl Feed {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, waiting: Mutex::default(), news: Notify::new() }
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Has the view filled anew.
    pub(crate) fn refill(&self) {
        self.waiting.lock().fill();
        self.news.notify_one();
    }

    fn reset(&self, state: &StateView) {
        self.waiting.lock().state = Some(state.clone());
        self.refill();
    }

    /// An event that is in the state by now.
    fn push(&self, seen: Seen) {
        let mut waiting = self.waiting.lock();
        if waiting.fill {
            return;
        }
        waiting.bytes += seen.stored.len();
        waiting.events.push_back(seen);
        waiting.told += 1;
        if waiting.events.len() > QUEUE || waiting.bytes > QUEUE_BYTES {
            tracing::debug!(kind = self.kind, "a replica view is far behind");
            waiting.fill();
        }
        drop(waiting);
        self.news.notify_one();
    }

    fn take(&self) -> Option<Next> {
        let mut waiting = self.waiting.lock();
        waiting.done();
        if std::mem::take(&mut waiting.fill) {
            // The events before it were dropped, those after it are still to come.
            waiting.begun = waiting.told;
            return waiting.state.clone().map(Next::Fill);
        }
        let seen = waiting.events.pop_front()?;
        waiting.bytes -= seen.stored.len();
        waiting.begun = waiting.told - waiting.events.len() as u64;
        Some(Next::Event(seen))
    }

    /// Completes once the view has done all that it is to do by now.
    pub(crate) async fn shown(&self) {
        let shown = {
            let mut waiting = self.waiting.lock();
            if waiting.done >= waiting.told {
                return;
            }
            let (mark, shown) = oneshot::channel();
            let at = waiting.told;
            waiting.marks.push((at, mark));
            shown
        };
        // The sender goes with the feed.
        let _ = shown.await;
    }

    /// Waits for what is to be done.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.news.notified().await;
        }
    }
}

/// The ways to all views of one group.
#[derive(Clone, Default)]
pub(crate) struct Feeds(Arc<[Arc<Feed>]>);

impl FromIterator<Arc<Feed>> for Feeds {
    fn from_iter<I: IntoIterator<Item = Arc<Feed>>>(feeds: I) -> Self {
        Self(feeds.into_iter().collect())
    }
}

/// Events of a batch, with the numbers of the views that want them.
pub(crate) type Wanted = Vec<(usize, Seen)>;

impl Feeds {
    /// The state was opened, or another one took its place.
    pub(crate) fn reset(&self, state: &StateView) {
        self.0.iter().for_each(|feed| feed.reset(state));
    }

    /// Completes once all views have done what they are to do by now.
    pub(crate) async fn shown(&self) {
        for feed in self.0.iter() {
            feed.shown().await;
        }
    }

    /// Has all views filled anew.
    pub(crate) fn refill(&self) {
        self.0.iter().for_each(|feed| feed.refill());
    }

    /// The events of a batch that is about to be written.
    pub(crate) fn wanted(&self, batch: &Batch) -> Wanted {
        let mut wanted = Wanted::new();
        if self.0.is_empty() {
            return wanted;
        }
        for (tree, key, value) in batch.writes() {
            let (TreeId::JOURNALS, Some(value)) = (tree, value) else { continue };
            let Some((kind, key, seq)) = durable::event_of(key) else { continue };
            let stored = Bytes::copy_from_slice(value);
            let wants = self.0.iter().enumerate().filter(|(_, feed)| feed.kind == kind);
            wanted.extend(wants.map(|(nth, _)| (nth, Seen { key: key.to_owned(), seq, stored: stored.clone() })));
        }
        wanted
    }

    /// They are written, and can be read.
    pub(crate) fn push(&self, wanted: Wanted) {
        for (nth, seen) in wanted {
            if let Some(feed) = self.0.get(nth) {
                feed.push(seen);
            }
        }
    }
}

/// A write of which the views are told, or, if nobody learns what became of it, after which they read the state again.
pub(crate) struct Told<'a> {
    feeds: &'a Feeds,
    wanted: Option<Wanted>,
}

impl<'a> Told<'a> {
    pub(crate) fn begin(feeds: &'a Feeds, batch: &Batch) -> Self {
        Self { feeds, wanted: Some(feeds.wanted(batch)) }
    }

    /// It is written.
    pub(crate) fn done(mut self) {
        self.feeds.push(self.wanted.take().unwrap_or_default());
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if self.wanted.as_ref().is_some_and(|wanted| !wanted.is_empty()) {
            self.feeds.refill();
        }
    }
}
