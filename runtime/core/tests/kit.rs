//! The kit from the outside: what its callers are promised.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its set-up too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, CallOptions, Durability, Durable, Entity, Expose, Idem,
    Kind, KindOptions, Mail, Overflow, Principal, PrincipalKind, Reply, StartError, Village, What,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Does as it is told.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
enum PuppetMsg {
    /// Answers with the same number.
    Echo(u64, Reply<u64>),
    /// Says how many messages this activation has seen.
    Seen(Reply<u64>),
    /// Panics with the message in hand.
    Panic(Reply<()>),
    /// Ends with an error.
    Fail(Reply<()>),
    /// Drops the reply.
    Ignore(Reply<()>),
    /// Waits for the gate.
    Wait(Reply<()>),
    /// Is only counted.
    Note,
    /// Stops when the mailbox is empty.
    Rest,
    /// Says who asked.
    Whoami(Reply<Option<String>>),
    /// Asks itself under another key whether the deadline came along.
    Remaining(Reply<Option<u64>>),
}

struct Puppet {
    gate: Arc<Semaphore>,
    starts: Arc<AtomicUsize>,
    refuse_start: bool,
}

struct PuppetState {
    seen: u64,
    cx: ActorCx,
}

impl Kind for Puppet {
    const NAME: &'static str = "test.puppet";
    type Body = PuppetMsg;

    fn options() -> KindOptions {
        KindOptions::default().mailbox(4).idle(Duration::from_mins(1))
    }
}

impl Actor for Puppet {
    type Msg = Mail<PuppetMsg>;
    type State = PuppetState;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<PuppetState, ActorProcessingErr> {
        self.starts.fetch_add(1, Ordering::SeqCst);
        if self.refuse_start {
            return Err("no strings attached".into());
        }
        Ok(PuppetState { seen: 0, cx })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        state: &mut PuppetState,
    ) -> Result<(), ActorProcessingErr> {
        state.seen += 1;
        match mail.body {
            PuppetMsg::Echo(n, reply) => reply.send(n),
            PuppetMsg::Seen(reply) => reply.send(state.seen),
            PuppetMsg::Panic(_reply) => panic!("on purpose"),
            PuppetMsg::Fail(_reply) => return Err("on purpose".into()),
            PuppetMsg::Ignore(reply) => drop(reply),
            PuppetMsg::Wait(reply) => {
                self.gate.acquire().await?.forget();
                reply.send(());
            }
            PuppetMsg::Note => {}
            PuppetMsg::Rest => state.cx.passivate(),
            PuppetMsg::Whoami(reply) => reply.send(mail.cx.principal().map(|p| p.subject.clone())),
            PuppetMsg::Remaining(reply) => {
                if state.cx.key() == "inner" {
                    reply.send(mail.cx.remaining().map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
                } else {
                    let inner = state.cx.village().addr::<Self>("inner");
                    reply.complete(inner.ask(PuppetMsg::Remaining).await);
                }
            }
        }
        Ok(())
    }
}

struct Stage {
    village: Village,
    gate: Arc<Semaphore>,
    starts: Arc<AtomicUsize>,
}

async fn stage_with(refuse_start: bool) -> Stage {
    let (gate, starts) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (g, s) = (gate.clone(), starts.clone());
    let village = Village::builder()
        .host(move |_| Puppet { gate: g.clone(), starts: s.clone(), refuse_start })
        .expose::<Puppet>([Expose::new("Echo", "test.echo"), Expose::new("Rest", "test.rest")])
        .start()
        .await
        .unwrap();
    Stage { village, gate, starts }
}

async fn stage() -> Stage {
    stage_with(false).await
}

#[tokio::test]
async fn asks_and_tells_reach_one_activation_in_order() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    assert_eq!(puppet.ask(|r| PuppetMsg::Echo(7, r)).await, Ok(7));
    puppet.tell(PuppetMsg::Note).await.unwrap();
    assert_eq!(stage.village.addr::<Puppet>("a").ask(PuppetMsg::Seen).await, Ok(3));
    assert_eq!(stage.starts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_panic_costs_the_mail_in_hand_and_nothing_more() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    assert_eq!(puppet.ask(PuppetMsg::Panic).await, Err(CallError::Panicked));
    assert_eq!(puppet.ask(|r| PuppetMsg::Echo(1, r)).await, Ok(1));
    assert_eq!(stage.starts.load(Ordering::SeqCst), 2);
    assert_eq!(stage.village.actor("test.puppet", "a").unwrap().restarts, 1);
}

#[tokio::test]
async fn an_error_or_a_dropped_reply_is_told_at_once() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    assert_eq!(puppet.ask(PuppetMsg::Ignore).await, Err(CallError::NoReply));
    assert_eq!(puppet.ask(PuppetMsg::Fail).await, Err(CallError::NoReply));
    assert_eq!(puppet.ask(|r| PuppetMsg::Echo(1, r)).await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_keeps_crashing_is_quarantined_alone() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("bad");
    let mut refused = None;
    for _ in 0..20 {
        match puppet.ask(PuppetMsg::Panic).await {
            Err(CallError::Panicked) => {}
            other => {
                refused = Some(other);
                break;
            }
        }
    }
    assert!(
        matches!(refused, Some(Err(CallError::Overloaded { retry_after_ms })) if retry_after_ms > 30_000),
        "{refused:?}"
    );
    assert_eq!(stage.village.actor("test.puppet", "bad").unwrap().state, "quarantined");
    assert_eq!(stage.village.addr::<Puppet>("good").ask(|r| PuppetMsg::Echo(1, r)).await, Ok(1));
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(puppet.ask(|r| PuppetMsg::Echo(2, r)).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn crashes_and_the_quarantine_after_them_are_remembered() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("bad");
    while matches!(puppet.ask(PuppetMsg::Panic).await, Err(CallError::Panicked)) {}
    let [last, crashes] = &stage.village.history(10)[..] else { panic!("{:?}", stage.village.history(10)) };
    assert_eq!((last.what, &*last.about), (What::Quarantine, Puppet::NAME));
    assert_eq!((crashes.what, &*crashes.about, crashes.count > 1), (What::Crash, Puppet::NAME, true), "{crashes:?}");
    let trees = stage.village.supervision(0).await;
    let kind = trees[0].children.iter().find(|kind| kind.name == Puppet::NAME).unwrap();
    assert_eq!((kind.restarts, &*kind.children, kind.more), (crashes.count + 1, &[][..], 1));
}

#[tokio::test]
async fn handling_times_are_told_by_kind() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    for n in 0..70 {
        puppet.ask(|r| PuppetMsg::Echo(n, r)).await.unwrap();
    }
    let handling = stage.village.kind_info(Puppet::NAME).unwrap().handling;
    // The first 16, and then one in 64. A time is recorded after the reply, so the last may not be yet.
    assert_eq!(handling.samples, 17, "{handling:?}");
    assert!(handling.p50_us <= handling.p99_us && handling.p50_us.is_some(), "{handling:?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_keeps_failing_says_why() {
    let stage = stage_with(true).await;
    let failed = stage.village.addr::<Puppet>("a").ask(|r| PuppetMsg::Echo(1, r)).await;
    assert!(matches!(&failed, Err(CallError::NotStarted { reason }) if reason.contains("no strings")), "{failed:?}");
}

#[tokio::test]
async fn a_full_mailbox_refuses() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    puppet.ask(|r| PuppetMsg::Echo(0, r)).await.unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            stage.village.task("wait", {
                let p = puppet.clone();
                async move { p.ask(PuppetMsg::Wait).await }
            })
        })
        .collect();
    // Fills up as the tasks get to run.
    let refused = loop {
        match puppet.try_tell(PuppetMsg::Note) {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, CallError::Overloaded { .. }));
    stage.gate.add_permits(4);
    for task in waiting {
        // Those that came after the mailbox was full were refused, the others are answered.
        assert!(matches!(task.await.unwrap(), Ok(()) | Err(CallError::Overloaded { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_and_expires_the_mail() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    let slow = puppet.call().deadline(Duration::from_secs(1)).ask(PuppetMsg::Wait);
    let queued = puppet.call().deadline(Duration::from_secs(2)).ask(|r| PuppetMsg::Echo(1, r));
    let (slow, queued) = tokio::join!(slow, queued);
    assert_eq!(slow, Err(CallError::Timeout));
    assert_eq!(queued, Err(CallError::Timeout));
    stage.gate.add_permits(1);
    // The expired echo was dropped unseen: the wait and this message are all.
    assert_eq!(puppet.ask(PuppetMsg::Seen).await, Ok(2));
}

#[tokio::test]
async fn nested_asks_inherit_the_deadline() {
    let stage = stage().await;
    let outer = stage.village.addr::<Puppet>("outer");
    let left = outer.call().deadline(Duration::from_millis(1500)).ask(PuppetMsg::Remaining).await.unwrap();
    assert!(left.is_some_and(|left| left <= 1500), "{left:?}");
}

#[tokio::test]
async fn the_principal_travels_with_the_message() {
    let stage = stage().await;
    let who = Principal {
        tenant: "local".into(),
        subject: "ada".into(),
        kind: PrincipalKind::User,
        roles: vec![],
        scopes: vec![],
    };
    let puppet = stage.village.addr::<Puppet>("a");
    assert_eq!(puppet.call().principal(who).ask(PuppetMsg::Whoami).await, Ok(Some("ada".to_owned())));
    assert_eq!(puppet.ask(PuppetMsg::Whoami).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_changed_call_timeout_holds_at_once() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    stage.village.reconfigure(toml::toml! { limits = { call_timeout = "2s" } }).unwrap();
    let asked = Instant::now();
    assert_eq!(puppet.ask(PuppetMsg::Wait).await, Err(CallError::Timeout));
    assert_eq!(asked.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_idle_activation_rests_and_comes_back() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    puppet.ask(PuppetMsg::Seen).await.unwrap();
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(stage.village.actors(Some("test.puppet")), []);
    assert_eq!(puppet.ask(PuppetMsg::Seen).await, Ok(1));
    assert_eq!(stage.starts.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn passivation_loses_no_mail() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    for n in 0..200 {
        let _ = puppet.tell(PuppetMsg::Rest).await;
        assert_eq!(puppet.ask(|r| PuppetMsg::Echo(n, r)).await, Ok(n));
    }
    assert!(stage.starts.load(Ordering::SeqCst) > 1);
}

#[tokio::test]
async fn drain_finishes_the_mailbox_and_then_refuses() {
    let stage = stage().await;
    let puppet = stage.village.addr::<Puppet>("a");
    puppet.ask(|r| PuppetMsg::Echo(0, r)).await.unwrap();
    let queued = stage.village.task("ask", {
        let p = puppet.clone();
        async move { p.ask(PuppetMsg::Wait).await }
    });
    while stage.village.actor("test.puppet", "a").unwrap().mailbox_depth == 0 {
        tokio::task::yield_now().await;
    }
    let (drained, ()) = tokio::join!(stage.village.drain(), async { stage.gate.add_permits(1) });
    drained.unwrap();
    assert_eq!(queued.await.unwrap(), Ok(()));
    assert_eq!(puppet.ask(|r| PuppetMsg::Echo(1, r)).await, Err(CallError::Draining));
    assert_eq!(stage.village.addr::<Puppet>("new").ask(|r| PuppetMsg::Echo(1, r)).await, Err(CallError::Draining));
}

#[tokio::test]
async fn json_messages_reach_typed_actors() {
    let stage = stage().await;
    let send = |body| stage.village.send_json("test.puppet", "a", body, CallOptions::default());
    assert_eq!(send(json!({ "Echo": [3, null] })).await, Ok(Some(json!(3))));
    assert_eq!(send(json!("Rest")).await, Ok(None));
    assert!(matches!(send(json!({ "Echo": ["x", null] })).await, Err(CallError::Decode { .. })));
    let info = stage.village.kind_info("test.puppet").unwrap();
    assert_eq!(info.messages.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["Echo", "Rest"]);
}

#[tokio::test]
async fn unknown_kinds_and_overlong_keys_are_errors() {
    let stage = stage().await;
    let nobody = stage.village.send_json("nobody", "a", json!(1), CallOptions::default()).await;
    assert_eq!(nobody, Err(CallError::UnknownKind { kind: "nobody".into() }));
    let overlong = stage.village.addr::<Puppet>("k".repeat(513)).ask(PuppetMsg::Seen).await;
    assert!(matches!(overlong, Err(CallError::Decode { .. })));
}

#[tokio::test]
async fn kinds_hosted_twice_are_refused() {
    let host = |_: &ActorCx| Account;
    let twice = Village::builder().host(host).host(host).start().await;
    assert!(matches!(twice, Err(StartError::KindTwice("test.account"))));
}

/// A durable kind whose senders wait for room.
struct Account;

#[derive(Debug, Serialize, Deserialize)]
enum AccountMsg {
    Add(u64, Reply<u64>),
    Balance(Reply<u64>),
}

#[derive(Default, Serialize, Deserialize)]
struct Balance(u64);

impl Durable for Balance {
    type Event = u64;

    fn apply(&mut self, added: &u64) {
        self.0 += added;
    }
}

impl Kind for Account {
    const NAME: &'static str = "test.account";
    type Body = AccountMsg;

    fn options() -> KindOptions {
        KindOptions::default().mailbox(2).overflow(Overflow::Wait).durable(Durability::Local)
    }
}

impl Actor for Account {
    type Msg = Mail<AccountMsg>;
    type State = Entity<Balance>;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Self::State, ActorProcessingErr> {
        Ok(cx.recover().await?)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        balance: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            AccountMsg::Add(n, reply) => {
                reply.complete(balance.commit_once(mail.cx.idem(), n, |balance| balance.0).await);
            }
            AccountMsg::Balance(reply) => reply.send(balance.0),
        }
        Ok(())
    }
}

async fn bank(dir: &std::path::Path) -> Village {
    Village::builder().data_dir(dir).host(|_| Account).start().await.unwrap()
}

#[tokio::test]
async fn durable_state_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let village = bank(dir.path()).await;
    let node = village.node_id();
    assert_eq!(village.addr::<Account>("ada").ask(|r| AccountMsg::Add(5, r)).await, Ok(5));
    village.shutdown().await.unwrap();
    drop(village);
    let village = bank(dir.path()).await;
    assert_eq!(village.addr::<Account>("ada").ask(AccountMsg::Balance).await, Ok(5));
    assert_eq!(village.addr::<Account>("bob").ask(AccountMsg::Balance).await, Ok(0));
    assert_eq!(village.node_id(), node);
}

#[tokio::test]
async fn a_repeated_idempotent_ask_has_one_effect_even_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let idem = Idem::of(&[b"payment 1"]);
    for _ in 0..2 {
        let village = bank(dir.path()).await;
        let ada = village.addr::<Account>("ada");
        for _ in 0..3 {
            assert_eq!(ada.call().idem(idem).ask(|r| AccountMsg::Add(5, r)).await, Ok(5));
        }
        village.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn waiting_senders_all_get_through() {
    let dir = tempfile::tempdir().unwrap();
    let village = bank(dir.path()).await;
    let ada = village.addr::<Account>("ada");
    let adds = (0..100).map(|_| ada.ask(|r| AccountMsg::Add(1, r)));
    let done = futures::future::join_all(adds).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(ada.ask(AccountMsg::Balance).await, Ok(100));
}
