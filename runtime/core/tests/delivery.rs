//! Mail under load: nothing is lost, nothing overtakes, and ractor's own signals still get through.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Kind, KindOptions, Mail, Overflow, Reply, Village,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Serialize, Deserialize)]
enum LedgerMsg {
    Note {
        sender: usize,
        n: u32,
    },
    Entry {
        sender: usize,
        n: u32,
        done: Reply<()>,
    },
    Rest,
    Crash,
    Wait,
    /// Sends itself `Wait`.
    WaitLater,
    Stop,
}

/// What all activations saw.
#[derive(Default)]
struct Seen {
    /// The last number of each sender.
    last: Mutex<[u32; 8]>,
    starts: AtomicU32,
    handled: AtomicU32,
}

struct Ledger {
    seen: Arc<Seen>,
    gate: Arc<Semaphore>,
}

impl Kind for Ledger {
    const NAME: &'static str = "test.ledger";
    type Body = LedgerMsg;

    fn options() -> KindOptions {
        KindOptions::default().mailbox(100).overflow(Overflow::Wait)
    }
}

impl Actor for Ledger {
    type Msg = Mail<LedgerMsg>;
    type State = ActorCx;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<ActorCx, ActorProcessingErr> {
        self.seen.starts.fetch_add(1, Ordering::SeqCst);
        Ok(cx)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        mail: Self::Msg,
        cx: &mut ActorCx,
    ) -> Result<(), ActorProcessingErr> {
        self.seen.handled.fetch_add(1, Ordering::SeqCst);
        let (sender, n, done) = match mail.body {
            LedgerMsg::Note { sender, n } => (sender, n, None),
            LedgerMsg::Entry { sender, n, done } => (sender, n, Some(done)),
            other => {
                match other {
                    LedgerMsg::Rest => cx.passivate(),
                    LedgerMsg::Wait => self.gate.acquire().await?.forget(),
                    LedgerMsg::WaitLater => drop(cx.tell_self(&myself, LedgerMsg::Wait)),
                    LedgerMsg::Stop => myself.stop(None),
                    _ => return Err("on purpose".into()),
                }
                return Ok(());
            }
        };
        let last = std::mem::replace(&mut self.seen.last.lock().unwrap()[sender], n);
        if last + 1 != n {
            // Loud even when the message is only told.
            self.seen.last.lock().unwrap()[sender] = u32::MAX - 1;
        }
        if let Some(done) = done {
            done.send(());
        }
        Ok(())
    }
}

async fn village() -> (Village, Arc<Seen>, Arc<Semaphore>) {
    let (seen, gate) = (Arc::new(Seen::default()), Arc::new(Semaphore::new(0)));
    let (s, g) = (seen.clone(), gate.clone());
    let village = Village::builder().host(move |_| Ledger { seen: s.clone(), gate: g.clone() }).start().await.unwrap();
    (village, seen, gate)
}

/// Senders race each other and activations that end and start again all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_senders_lose_nothing_and_stay_in_order_while_activations_come_and_go() {
    const EACH: u32 = 12_000;
    let (village, seen, _) = village().await;
    let senders = (0..8).map(|sender| {
        let ledger = village.addr::<Ledger>("a");
        village.task("sender", async move {
            for n in 1..=EACH {
                match (n as usize + sender) % 16 {
                    0 => ledger.ask(|done| LedgerMsg::Entry { sender, n, done }).await?,
                    _ => ledger.tell(LedgerMsg::Note { sender, n }).await?,
                }
                if (n as usize * 7 + sender).is_multiple_of(40) {
                    ledger.tell(LedgerMsg::Rest).await?;
                }
            }
            ledger.ask(|done| LedgerMsg::Entry { sender, n: EACH + 1, done }).await
        })
    });
    for sender in futures::future::join_all(senders).await {
        sender.unwrap().unwrap();
    }
    assert_eq!(*seen.last.lock().unwrap(), [EACH + 1; 8]);
    assert!(seen.starts.load(Ordering::SeqCst) > 10);
}

#[tokio::test]
async fn a_crash_tells_those_who_queued_and_the_next_mail_starts_anew() {
    let (village, seen, gate) = village().await;
    let ledger = village.addr::<Ledger>("a");
    ledger.tell(LedgerMsg::Wait).await.unwrap();
    ledger.tell(LedgerMsg::Crash).await.unwrap();
    let queued = ledger.ask(|done| LedgerMsg::Entry { sender: 0, n: 1, done });
    let (queued, ()) = tokio::join!(queued, async { gate.add_permits(1) });
    assert_eq!(queued, Err(CallError::NoReply));
    assert_eq!(ledger.ask(|done| LedgerMsg::Entry { sender: 0, n: 1, done }).await, Ok(()));
    assert_eq!(seen.starts.load(Ordering::SeqCst), 2);
}

struct Wide;

impl Kind for Wide {
    const NAME: &'static str = "test.wide";
    type Body = Reply<()>;

    fn options() -> KindOptions {
        KindOptions::default().mailbox(300)
    }
}

impl Actor for Wide {
    type Msg = Mail<Reply<()>>;
    type State = ();
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        mail.body.send(());
        Ok(())
    }
}

#[tokio::test]
async fn a_burst_at_an_actor_that_is_starting_finds_its_whole_mailbox() {
    let village = Village::builder().host(|_: &ActorCx| Wide).start().await.unwrap();
    let wide = village.addr::<Wide>("a");
    let answers = futures::future::join_all((0..400).map(|_| wide.ask(|reply| reply))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 300);
}

/// What an actor sends itself goes past the inbox. Mail that waits behind it expires all the same.
#[tokio::test(start_paused = true)]
async fn mail_expires_behind_work_of_the_actor_itself() {
    let (village, seen, gate) = village().await;
    let ledger = village.addr::<Ledger>("a");
    ledger.tell(LedgerMsg::WaitLater).await.unwrap();
    while seen.handled.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let late = ledger.call().deadline(Duration::from_secs(1));
    assert_eq!(late.ask(|done| LedgerMsg::Entry { sender: 0, n: 1, done }).await, Err(CallError::Timeout));
    gate.add_permits(1);
    assert_eq!(ledger.ask(|done| LedgerMsg::Entry { sender: 1, n: 1, done }).await, Ok(()));
    assert_eq!(seen.handled.load(Ordering::SeqCst), 3, "the expired message was handled");
}

/// Mail that gathers behind the one in hand is handled in one turn of ractor, but the turn has an end.
#[tokio::test]
async fn a_stop_gets_through_a_full_mailbox() {
    let (village, seen, gate) = village().await;
    let ledger = village.addr::<Ledger>("a");
    ledger.tell(LedgerMsg::Wait).await.unwrap();
    while village.actors(Some("test.ledger")).first().is_none_or(|actor| actor.state != "running") {
        tokio::task::yield_now().await;
    }
    ledger.tell(LedgerMsg::Stop).await.unwrap();
    for n in 1..98 {
        ledger.tell(LedgerMsg::Note { sender: 0, n }).await.unwrap();
    }
    gate.add_permits(1);
    while seen.starts.load(Ordering::SeqCst) < 2 {
        // Dropped with the rest of the mailbox until the first activation has ended.
        let _ = ledger.ask(|done| LedgerMsg::Entry { sender: 1, n: 1, done }).await;
    }
    let handled = seen.handled.load(Ordering::SeqCst);
    assert!((3..40).contains(&handled), "{handled} messages of 100 were handled");
}
