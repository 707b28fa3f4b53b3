//! Two villages in one process, with a lane between them.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{duplex, split};

use super::*;
use crate::actor_cx::ActorCx;
use crate::error::AppError;
use crate::hosted_kind::CallOptions;
use crate::kind::{Durability, KindOptions, Overflow};
use crate::link::lane;
use crate::link::record::{Hello, PROTO};
use crate::mail::Reply;
use crate::principal::{Principal, PrincipalKind};
use crate::village::Village;

#[derive(Serialize, Deserialize)]
enum Msg {
    Add(u64, Reply<u64>),
    Note(u64),
    WhoAsks(Reply<(String, Option<u64>)>),
    Json(Value, Reply<Value>),
    Refuse(Reply<u64>),
    Drop(Reply<u64>),
    Hold(Reply<u64>),
    Boom(Reply<u64>),
    AddAndFail(u64, CallError, Reply<u64>),
}

struct Counter;

impl Kind for Counter {
    const NAME: &'static str = "test.counter";
    type Body = Msg;
    fn options() -> KindOptions {
        KindOptions::default().mailbox(4)
    }
}

#[derive(Default)]
struct Count {
    sum: u64,
    held: Vec<Reply<u64>>,
}

impl Actor for Counter {
    type Msg = Mail<Msg>;
    type State = Count;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Mail<Msg>>, _: ActorCx) -> Result<Count, ActorProcessingErr> {
        Ok(Count::default())
    }

    async fn handle(
        &self,
        _: ActorRef<Mail<Msg>>,
        mail: Mail<Msg>,
        count: &mut Count,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            Msg::Add(n, reply) => {
                count.sum += n;
                reply.send(count.sum);
            }
            Msg::Note(n) => count.sum += n,
            Msg::WhoAsks(reply) => {
                let subject = mail.cx.principal().map(|who| who.subject.clone()).unwrap_or_default();
                reply.send((subject, mail.cx.idem().map(|idem| u64::from(idem.0[0]))));
            }
            Msg::Json(value, reply) => reply.send(json!({ "got": value })),
            Msg::Refuse(reply) => reply.fail(AppError::new("overdrawn", "too much")),
            Msg::Drop(reply) => drop(reply),
            Msg::Hold(reply) => count.held.push(reply),
            Msg::Boom(_reply) => panic!("on purpose"),
            Msg::AddAndFail(n, error, reply) => {
                count.sum += n;
                reply.fail(error);
            }
        }
        Ok(())
    }
}

/// Never takes its second message.
struct Slow;

impl Kind for Slow {
    const NAME: &'static str = "test.slow";
    type Body = Msg;
    fn options() -> KindOptions {
        KindOptions::default().mailbox(2).overflow(Overflow::Reject)
    }
}

impl Actor for Slow {
    type Msg = Mail<Msg>;
    type State = ();
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Mail<Msg>>, _: ActorCx) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Mail<Msg>>, _: Mail<Msg>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        std::future::pending().await
    }
}

async fn village() -> Village {
    Village::builder().host(|_: &ActorCx| Counter).host(|_: &ActorCx| Slow).start().await.unwrap()
}

fn link(a: &Village, b: &Village) -> impl Future<Output = (Arc<Lane>, Arc<Lane>)> {
    let (left, right) = duplex(1 << 16);
    let hello = |village: &Village| Hello { proto: PROTO, cluster: 1, node: village.node_id().0, incarnation: 1 };
    let (a, b) = (a.clone(), b.clone());
    async move {
        let opened = tokio::join!(
            lane::open(split(left), hello(&a), b.node_id()),
            lane::open(split(right), hello(&b), a.node_id())
        );
        let ((to_b, at_a), (to_a, at_b)) = (opened.0.unwrap(), opened.1.unwrap());
        for (village, lane, half) in [(&a, &to_b, at_a), (&b, &to_a, at_b)] {
            let router = village.router().clone();
            router.connect(lane.clone());
            village.task("lane", half.run(router)).detach();
        }
        (to_b, to_a)
    }
}

/// Two nodes; everything belongs to the second.
async fn pair() -> (Village, Village) {
    let (a, b) = (village().await, village().await);
    for village in [&a, &b] {
        let view = &village.router().view;
        view.set_alone(false);
        view.extend_lease(u64::MAX);
        view.settle(1);
        own(village, b.node_id());
    }
    link(&a, &b).await;
    (a, b)
}

fn own(village: &Village, node: NodeId) {
    for kind in village.hosted() {
        kind.home().assign(1, false, |_| Some(node));
        drop(kind.rehome());
    }
    village.router().tell_news();
}

#[tokio::test]
async fn actor_of_another_node_answers() {
    let (a, b) = pair().await;
    let counter = a.addr::<Counter>("ada");
    assert_eq!(counter.ask(|r| Msg::Add(2, r)).await, Ok(2));
    counter.tell(Msg::Note(5)).await.unwrap();
    counter.try_tell(Msg::Note(1)).unwrap();
    assert_eq!(counter.ask(|r| Msg::Json(json!([1, null, "x"]), r)).await, Ok(json!({ "got": [1, null, "x"] })));
    assert_eq!(b.addr::<Counter>("ada").ask(|r| Msg::Add(0, r)).await, Ok(8));
    assert!(a.actors(None).is_empty());
    // As JSON too.
    let reply = a.send_json(Counter::NAME, "ada", json!({ "Add": [1, null] }), CallOptions::default()).await;
    assert_eq!(reply, Ok(Some(json!(9))));
}

#[tokio::test]
async fn context_travels() {
    let (a, _b) = pair().await;
    let principal = Principal {
        tenant: "local".to_owned(),
        subject: "ada".to_owned(),
        kind: PrincipalKind::User,
        roles: Vec::new(),
        scopes: Vec::new(),
    };
    let counter = a.addr::<Counter>("k");
    let call = counter.call().principal(principal.clone()).idem(Idem([7; 16]));
    assert_eq!(call.ask(Msg::WhoAsks).await, Ok(("ada".to_owned(), Some(7))));
    // What is asked in a scope is asked in its name, also when the question was made outside.
    let asked = counter.ask(Msg::WhoAsks);
    let answer = MsgCx::request(None, None, Some(Arc::new(principal))).scope(asked).await;
    assert_eq!(answer, Ok(("ada".to_owned(), None)));
}

#[tokio::test(start_paused = true)]
async fn every_failure_comes_back() {
    let (a, _b) = pair().await;
    let counter = a.addr::<Counter>("k");
    assert_eq!(counter.ask(Msg::Refuse).await, Err(CallError::App(AppError::new("overdrawn", "too much"))));
    assert_eq!(counter.ask(Msg::Drop).await, Err(CallError::NoReply));
    assert_eq!(counter.ask(Msg::Boom).await, Err(CallError::Panicked));
    let held = counter.call().deadline(Duration::from_millis(50)).ask(Msg::Hold).await;
    assert_eq!(held, Err(CallError::Timeout));
}

#[tokio::test(start_paused = true)]
async fn flooded_actor_is_overloaded_and_others_are_not() {
    let (a, _b) = pair().await;
    let slow = a.addr::<Slow>("k");
    let refused = loop {
        if let Err(error) = slow.tell(Msg::Note(1)).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(refused, CallError::Overloaded { retry_after_ms: 1.. }), "{refused:?}");
    let asked = slow.call().deadline(Duration::from_secs(1)).ask(|r| Msg::Add(1, r)).await;
    assert!(matches!(asked, Err(CallError::Overloaded { .. })), "{asked:?}");
    assert_eq!(a.addr::<Counter>("k").ask(|r| Msg::Add(1, r)).await, Ok(1));
}

#[tokio::test]
async fn sender_follows_an_actor_that_moves() {
    let (a, b) = pair().await;
    let counter = a.addr::<Counter>("ada");
    assert_eq!(counter.ask(|r| Msg::Add(2, r)).await, Ok(2));
    // The second node learns of the move first, then the first.
    own(&b, a.node_id());
    let asked = counter.ask(|r| Msg::Add(3, r));
    let learns = async {
        tokio::task::yield_now().await;
        own(&a, a.node_id());
    };
    let (answer, ()) = tokio::join!(asked, learns);
    // Its state was in memory, so it begins anew.
    assert_eq!(answer, Ok(3));
    assert_eq!(b.addr::<Counter>("ada").ask(|r| Msg::Add(1, r)).await, Ok(4));
}

#[tokio::test(start_paused = true)]
async fn node_without_lease_acts_for_nothing() {
    let (a, b) = (village().await, village().await);
    for village in [&a, &b] {
        village.router().view.set_alone(false);
        village.router().view.settle(1);
        own(village, b.node_id());
    }
    let _lanes = link(&a, &b).await;
    let started = Instant::now();
    let answer = b.addr::<Counter>("k").ask(|r| Msg::Add(1, r)).await;
    assert!(matches!(answer, Err(CallError::NoQuorum { .. })), "{answer:?}");
    let call = a.addr::<Counter>("k");
    let answer = call.call().deadline(Duration::from_secs(3)).ask(|r| Msg::Add(1, r)).await;
    assert!(matches!(answer, Err(CallError::SlotUnavailable { .. } | CallError::Timeout)), "{answer:?}");
    assert!(started.elapsed() <= 2 * NOBODY + Duration::from_secs(1));
}

/// Where the leader of its group is.
struct Kept;

impl Kind for Kept {
    const NAME: &'static str = "test.kept";
    type Body = Msg;
    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

impl Actor for Kept {
    type Msg = Mail<Msg>;
    type State = ();
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Mail<Msg>>, _: ActorCx) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_node_among_a_majority_waits_long_for_a_leader() {
    let village = Village::builder().host(|_: &ActorCx| Kept).start().await.unwrap();
    let view = &village.router().view;
    view.set_alone(false);
    let waits = async || {
        let started = Instant::now();
        let answer = village.addr::<Kept>("k").query(|r| Msg::Add(1, r)).await;
        assert!(matches!(answer, Err(CallError::NoQuorum { .. })), "{answer:?}");
        started.elapsed()
    };
    let about = |waited: Duration, limit| waited >= limit && waited < limit + Duration::from_millis(500);
    assert!(about(waits().await, NOBODY));
    // The clock of leases is not paused: this stays true.
    view.acked(crate::clock::boot_ms());
    assert!(about(waits().await, ELECTION));
}

#[tokio::test(start_paused = true)]
async fn lost_link_is_told_and_its_return_is_used() {
    let (a, b) = pair().await;
    let counter = a.addr::<Counter>("k");
    let asked = counter.ask(Msg::Hold);
    tokio::pin!(asked);
    let lane = a.router().lane(b.node_id()).unwrap();
    let there = b.addr::<Counter>("k");
    tokio::select! {
        _ = &mut asked => panic!("answered"),
        held = there.ask(|r| Msg::Add(1, r)) => assert_eq!(held, Ok(1)),
    }
    lane.close();
    assert_eq!(asked.await, Err(CallError::Unreachable { node: b.node_id(), sent: true }));
    a.router().disconnect(&lane);
    let asked = counter.ask(|r| Msg::Add(1, r));
    let (answer, _lanes) = tokio::join!(asked, link(&a, &b));
    assert_eq!(answer, Ok(2));
}

/// Nobody hosts it here.
struct Elsewhere;

impl Kind for Elsewhere {
    const NAME: &'static str = "test.elsewhere";
    type Body = Msg;
}

#[tokio::test]
async fn kind_that_nobody_hosts_is_unknown() {
    let village = village().await;
    let answer = village.addr::<Elsewhere>("k").ask(|r| Msg::Add(1, r)).await;
    assert_eq!(answer, Err(CallError::UnknownKind { kind: Elsewhere::NAME.to_owned() }));
}

#[tokio::test]
async fn what_a_handler_passes_on_of_its_own_asks_does_not_repeat_it() {
    let (a, b) = pair().await;
    let addr = a.addr::<Counter>("k");
    let passed_on = [
        CallError::Draining,
        CallError::NotPlaced { kind: "test.other".into(), missing: "gpu".into() },
        CallError::Unreachable { node: b.node_id(), sent: false },
        CallError::Overloaded { retry_after_ms: 1 },
    ];
    for (sum, error) in (1..).zip(passed_on) {
        let answer = addr.ask(|r| Msg::AddAndFail(1, error.clone(), r)).await;
        assert_eq!((answer, addr.ask(|r| Msg::Add(0, r)).await), (Err(error), Ok(sum)));
    }
}
