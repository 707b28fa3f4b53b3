//! `sys.topic`: live events, from one publisher's actor to any number of readers.
//!
//! Key: the topic's name. Durable: no; an activation that starts anew starts a new epoch, and readers are told of the gap.
//! Readers pull: a `Read` beyond the newest event is parked until there is one. So a slow reader costs a place in the ring,
//! never memory, and the same message works from another node.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures::Stream;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::actor_cx::ActorCx;
use crate::addr::Addr;
use crate::clock;
use crate::error::CallError;
use crate::kind::{Kind, KindOptions};
use crate::mail::{Mail, Reply};

/// Events a topic keeps for readers that come back.
pub const RING: usize = 1024;
/// Events in one answer to a reader.
const BATCH: usize = 256;
/// How long a reader waits before it asks again.
const WAIT: Duration = Duration::from_secs(25);

/// Names an event of a topic. Written `epoch-seq`; ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct EventId {
    /// Start of the topic's activation, Unix milliseconds.
    pub epoch: u64,
    /// 1, 2, 3, … within the epoch; 0 stands before the first event.
    pub seq: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// The text is not `epoch-seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event id is `epoch-seq`, two numbers")]
pub struct BadEventId;

impl FromStr for EventId {
    type Err = BadEventId;

    fn from_str(text: &str) -> Result<Self, BadEventId> {
        let (epoch, seq) = text.split_once('-').ok_or(BadEventId)?;
        Ok(Self { epoch: epoch.parse().map_err(|_| BadEventId)?, seq: seq.parse().map_err(|_| BadEventId)? })
    }
}

/// What a [`TopicActor`] understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub enum TopicMsg {
    /// Appends an event.
    Publish(Value, Reply<EventId>),
    /// Appends an event; nobody waits.
    Post(Value),
    /// The events after an id, or after now when there is none; waits for one if there is none yet.
    Read(Option<EventId>, Reply<Batch>),
    /// The id of the newest event.
    Newest(Reply<EventId>),
}

/// Events in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Batch {
    /// True when events between the reader's id and the first one here are gone.
    pub gap: bool,
    /// The events.
    pub events: Vec<(EventId, Value)>,
}

/// What a subscriber sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicItem {
    /// An event.
    Event {
        /// Its id; give it to `subscribe` to go on after it.
        id: EventId,
        /// What was published.
        data: Value,
    },
    /// Events were lost to this reader.
    Gap {
        /// The last id it has seen.
        from: EventId,
        /// The first id it sees next.
        to: EventId,
    },
}

/// The behaviour; its data is [`Ring`].
#[derive(Debug)]
pub struct TopicActor;

impl Kind for TopicActor {
    const NAME: &'static str = "sys.topic";
    type Body = TopicMsg;

    fn options() -> KindOptions {
        KindOptions::default().mailbox(8192)
    }
}

/// The newest events and the readers that wait for the next.
#[derive(Debug)]
pub struct Ring {
    epoch: u64,
    newest: u64,
    events: VecDeque<Value>,
    parked: Vec<Reply<Batch>>,
}

impl Actor for TopicActor {
    type Msg = Mail<TopicMsg>;
    type State = Ring;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<Ring, ActorProcessingErr> {
        Ok(Ring { epoch: clock::unix_ms(), newest: 0, events: VecDeque::new(), parked: Vec::new() })
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, ring: &mut Ring) -> Result<(), ActorProcessingErr> {
        match mail.body {
            TopicMsg::Publish(event, reply) => reply.send(ring.push(event)),
            TopicMsg::Post(event) => drop(ring.push(event)),
            TopicMsg::Read(after, reply) => ring.read(after, reply),
            TopicMsg::Newest(reply) => reply.send(ring.newest_id()),
        }
        Ok(())
    }
}

impl Ring {
    fn newest_id(&self) -> EventId {
        EventId { epoch: self.epoch, seq: self.newest }
    }

    fn push(&mut self, event: Value) -> EventId {
        self.newest += 1;
        let id = self.newest_id();
        for reader in self.parked.drain(..) {
            reader.send(Batch { gap: false, events: vec![(id, event.clone())] });
        }
        if self.events.len() == RING {
            self.events.pop_front();
        }
        self.events.push_back(event);
        id
    }

    fn read(&mut self, after: Option<EventId>, reply: Reply<Batch>) {
        let oldest = self.newest + 1 - self.events.len() as u64;
        let (gap, from) = match after {
            None => (false, self.newest + 1),
            Some(id) if id.epoch == self.epoch && id.seq <= self.newest => {
                (id.seq + 1 < oldest, (id.seq + 1).max(oldest))
            }
            // Another epoch, or an id that was never given: everything kept is new to this reader.
            Some(_) => (true, oldest),
        };
        if from > self.newest && !gap {
            self.parked.retain(|reader| !reader.is_closed());
            self.parked.push(reply);
            return;
        }
        let skip = usize::try_from(from - oldest).unwrap_or(usize::MAX);
        let events = self.events.iter().skip(skip).take(BATCH).zip(from..);
        let events = events.map(|(data, seq)| (EventId { epoch: self.epoch, seq }, data.clone())).collect();
        reply.send(Batch { gap, events });
    }
}

/// A handle to one topic.
#[derive(Debug, Clone)]
pub struct Topic {
    addr: Addr<TopicActor>,
}

impl Topic {
    pub(crate) fn new(addr: Addr<TopicActor>) -> Self {
        Self { addr }
    }

    /// Appends an event and says its id.
    ///
    /// # Errors
    /// Any [`CallError`] of an ask.
    pub async fn publish(&self, event: Value) -> Result<EventId, CallError> {
        self.addr.ask(|reply| TopicMsg::Publish(event, reply)).await
    }

    /// Appends an event without waiting for the topic.
    ///
    /// # Errors
    /// Any [`CallError`] of a tell.
    pub async fn post(&self, event: Value) -> Result<(), CallError> {
        self.addr.tell(TopicMsg::Post(event)).await
    }

    /// The id of the newest event: subscribing from it misses nothing that is published later.
    ///
    /// # Errors
    /// Any [`CallError`] of an ask.
    pub async fn newest(&self) -> Result<EventId, CallError> {
        self.addr.query(TopicMsg::Newest).await
    }

    /// The events after `from` in order, or those from now on. Ends with the first error; dropping it unsubscribes.
    pub fn subscribe(&self, from: Option<EventId>) -> impl Stream<Item = Result<TopicItem, CallError>> + Send + use<> {
        let start = (self.addr.clone(), from, VecDeque::new(), false);
        futures::stream::unfold(start, |(addr, mut at, mut ready, failed)| async move {
            if failed {
                return None;
            }
            loop {
                if let Some(item) = ready.pop_front() {
                    return Some((Ok(item), (addr, at, ready, false)));
                }
                let read = async {
                    if at.is_none() {
                        at = Some(addr.query(TopicMsg::Newest).await?);
                    }
                    addr.call().deadline(WAIT).ask(|reply| TopicMsg::Read(at, reply)).await
                };
                match read.await {
                    Ok(batch) => {
                        let before = at;
                        at = batch.events.last().map(|(id, _)| *id).or(at);
                        ready.extend(items(before, batch));
                    }
                    // Nothing happened for a while.
                    Err(CallError::Timeout | CallError::Expired) => {}
                    Err(error) => return Some((Err(error), (addr, at, ready, true))),
                }
            }
        })
    }
}

fn items(before: Option<EventId>, batch: Batch) -> Vec<TopicItem> {
    let first = batch.events.first().map(|(id, _)| *id);
    let gap = batch.gap.then_some(()).and(before).zip(first).map(|(from, to)| TopicItem::Gap { from, to });
    let events = batch.events.into_iter().map(|(id, data)| TopicItem::Event { id, data });
    gap.into_iter().chain(events).collect()
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use serde_json::json;

    use super::*;
    use crate::village::Village;

    async fn village() -> Village {
        Village::builder().start().await.unwrap()
    }

    fn event(item: Option<Result<TopicItem, CallError>>) -> (EventId, Value) {
        match item.unwrap().unwrap() {
            TopicItem::Event { id, data } => (id, data),
            TopicItem::Gap { from, to } => panic!("gap from {from} to {to}"),
        }
    }

    #[tokio::test]
    async fn subscriber_sees_events_in_order_and_resumes() {
        let topic = village().await.topic("t");
        let start = topic.newest().await.unwrap();
        for n in 0..5 {
            topic.publish(json!(n)).await.unwrap();
        }
        let mut all = Box::pin(topic.subscribe(Some(start)));
        let mut last = start;
        for n in 0..3 {
            let (id, data) = event(all.next().await);
            assert_eq!(data, json!(n));
            last = id;
        }
        let mut rest = Box::pin(topic.subscribe(Some(last)));
        assert_eq!(event(rest.next().await).1, json!(3));
    }

    #[tokio::test]
    async fn waiting_reader_gets_the_next_event() {
        let topic = village().await.topic("t");
        let start = topic.newest().await.unwrap();
        let mut events = Box::pin(topic.subscribe(Some(start)));
        let (got, _) = tokio::join!(events.next(), topic.publish(json!("x")));
        assert_eq!(event(got).1, json!("x"));
    }

    #[tokio::test]
    async fn overrun_reader_is_told_of_the_gap() {
        let topic = village().await.topic("t");
        let start = topic.newest().await.unwrap();
        for n in 0..RING + 10 {
            topic.publish(json!(n)).await.unwrap();
        }
        let mut events = Box::pin(topic.subscribe(Some(start)));
        let gap = events.next().await.unwrap().unwrap();
        assert!(matches!(gap, TopicItem::Gap { from, to } if from == start && to.seq == 11));
        assert_eq!(event(events.next().await).1, json!(10));
    }

    #[tokio::test]
    async fn id_of_another_epoch_is_a_gap() {
        let topic = village().await.topic("t");
        topic.publish(json!(1)).await.unwrap();
        let mut events = Box::pin(topic.subscribe(Some(EventId { epoch: 1, seq: 99 })));
        assert!(matches!(events.next().await, Some(Ok(TopicItem::Gap { .. }))));
        assert_eq!(event(events.next().await).1, json!(1));
    }

    #[test]
    fn event_ids_read_what_they_write() {
        let id = EventId { epoch: 17, seq: 4 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("17".parse::<EventId>(), Err(BadEventId));
    }
}
