//! A hosted kind without its type: what the village needs to list, call and drain it.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ractor::Actor;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actor_cx::ActorCx;
use crate::addr::{FULL, Target, await_reply};
use crate::directory::Directory;
use crate::entry::{Entry, Phase, Refused, Taken};
use crate::error::CallError;
use crate::home::Home;
use crate::kind::{Kind, Overflow};
use crate::kind_host::{Factory, HostMsg, KindHost};
use crate::mail::{Idem, Mail, MsgCx, Wire, decode_json, decode_wire, drop_because};
use crate::principal::Principal;
use crate::registry::MessageInfo;
use crate::supervisor::{ChildSpec, Shutdown};
use crate::telemetry::Handling;
use crate::trace_cx::TraceCx;
use crate::village::Village;
use crate::wire::{Codec, WirePort};

/// A kind as it is shown to people and programs.
#[derive(Debug, Serialize)]
pub struct KindInfo {
    /// Its name.
    pub kind: &'static str,
    /// Version of its messages.
    pub version: u16,
    /// Activations that live now.
    pub live: usize,
    /// Messages handled or dropped on this node since its start; up to 5 s old.
    pub handled: u64,
    /// Messages that wait or are in hand.
    pub waiting: u64,
    /// Restarts after crashes.
    pub restarts: u64,
    /// How long its actors took for a message, since the node's start.
    pub handling: Handling,
    /// Messages that may be called from outside.
    pub messages: Arc<[MessageInfo]>,
}

/// An actor as it is shown to people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActorInfo {
    /// Its kind.
    pub kind: &'static str,
    /// Its key.
    pub key: String,
    /// `idle`, `starting`, `running`, `ending`, `backing_off`, `quarantined` or `closed`.
    pub state: &'static str,
    /// Messages waiting or in hand.
    pub mailbox_depth: u64,
    /// Restarts after crashes.
    pub restarts: u32,
    /// Time since the activation started, milliseconds.
    pub uptime_ms: u64,
}

/// How a message given as JSON is sent.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// Longest wait for the answer; `None` takes `limits.call_timeout`.
    pub deadline: Option<Duration>,
    /// On whose behalf.
    pub principal: Option<Arc<Principal>>,
    /// Which trace it belongs to.
    pub trace: Option<TraceCx>,
    /// Names the effect, so that a repeated call has it once.
    pub idem: Option<Idem>,
}

pub(crate) trait HostedKind: Send + Sync {
    fn info(&self) -> KindInfo;
    fn messages(&self) -> Arc<[MessageInfo]>;
    fn actors(&self) -> Vec<ActorInfo>;
    fn actor(&self, key: &str) -> Option<ActorInfo>;
    /// The `Directory<Body>` of the kind.
    fn as_any(&self) -> Arc<dyn Any + Send + Sync>;
    fn child(self: Arc<Self>, village: Village) -> ChildSpec;
    fn send_json(
        &self,
        key: &str,
        body: Value,
        options: CallOptions,
    ) -> BoxFuture<'static, Result<Option<Value>, CallError>>;
    /// Short name on the wire.
    fn id(&self) -> u32;
    /// How its messages are written on the wire.
    fn codec(&self) -> Codec;
    /// Which node acts for its keys.
    fn home(&self) -> &Home;
    /// Takes a message that came as bytes. The port, if there is one, hears of every failure; so does the caller.
    fn receive(&self, key: &str, version: u16, cx: MsgCx, body: &[u8], port: Option<WirePort>)
    -> Result<(), CallError>;
    /// Stops the activations that this node may not act for any more, and waits for their end.
    fn rehome(&self) -> BoxFuture<'static, ()>;
    /// Lets mailboxes finish; false when some had to be cut short.
    fn drain(&self, deadline: Instant) -> BoxFuture<'_, bool>;
}

pub(crate) struct LocalKind<A: Kind> {
    directory: Arc<Directory<A::Body>>,
    factory: Factory<A>,
    messages: Arc<[MessageInfo]>,
}

impl<A: Kind> LocalKind<A> {
    pub(crate) fn new(directory: Arc<Directory<A::Body>>, factory: Factory<A>, messages: Vec<MessageInfo>) -> Self {
        Self { directory, factory, messages: messages.into() }
    }

    /// The entry of a key, if this node may act for it.
    fn admit(&self, key: &str, version: u16) -> Result<Arc<Entry<A::Body>>, CallError> {
        if version != A::VERSION {
            return Err(CallError::VersionMismatch { have: A::VERSION, got: version });
        }
        let entry = self.directory.entry(key)?;
        self.directory.home.admit(entry.slot_id)?;
        Ok(entry)
    }

    fn describe(entry: &Entry<A::Body>) -> ActorInfo {
        let live = entry.live.load();
        // A statement of its own: the guard must be gone before `depth` takes the lock again.
        let phase = entry.slot.lock().phase;
        ActorInfo {
            kind: A::NAME,
            key: entry.key.to_string(),
            state: state_name(phase),
            mailbox_depth: entry.depth(),
            restarts: entry.restarts(),
            uptime_ms: live
                .as_ref()
                .map_or(0, |live| u64::try_from(live.since.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

fn state_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "idle",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Ending => "ending",
        Phase::BackingOff => "backing_off",
        Phase::Quarantined(_) => "quarantined",
        Phase::Closed => "closed",
    }
}

impl<A> HostedKind for LocalKind<A>
where
    A: Kind + Actor<Msg = Mail<<A as Kind>::Body>, Arguments = ActorCx>,
{
    fn info(&self) -> KindInfo {
        let (directory, metrics) = (&self.directory, &self.directory.metrics);
        KindInfo {
            kind: A::NAME,
            version: directory.version,
            live: directory.live(),
            handled: metrics.messages_total(),
            waiting: directory.entries().iter().map(|entry| entry.depth()).sum(),
            restarts: metrics.restarts(),
            handling: metrics.handling(),
            messages: self.messages.clone(),
        }
    }

    fn messages(&self) -> Arc<[MessageInfo]> {
        self.messages.clone()
    }

    fn actors(&self) -> Vec<ActorInfo> {
        let live = self.directory.entries().into_iter().filter(|entry| entry.slot.lock().phase != Phase::Idle);
        live.map(|entry| Self::describe(&entry)).collect()
    }

    fn actor(&self, key: &str) -> Option<ActorInfo> {
        self.directory.find(key).map(|entry| Self::describe(&entry))
    }

    fn as_any(&self) -> Arc<dyn Any + Send + Sync> {
        self.directory.clone()
    }

    fn child(self: Arc<Self>, village: Village) -> ChildSpec {
        let start = move |supervisor| {
            let host =
                KindHost { village: village.clone(), directory: self.directory.clone(), factory: self.factory.clone() };
            async move { Actor::spawn_linked(None, host, (), supervisor).await.map(|(host, _)| host.get_cell()) }
                .boxed()
        };
        // A host is the supervisor of its activations, which have limits of their own.
        ChildSpec::new(A::NAME, start).shutdown(Shutdown::Infinite)
    }

    fn send_json(
        &self,
        key: &str,
        body: Value,
        options: CallOptions,
    ) -> BoxFuture<'static, Result<Option<Value>, CallError>> {
        let entry = self.directory.entry(key);
        let directory = self.directory.clone();
        async move { send_json(Target::Local(directory, entry?), body, options).await }.boxed()
    }

    fn id(&self) -> u32 {
        self.directory.route.id
    }

    fn codec(&self) -> Codec {
        A::CODEC
    }

    fn home(&self) -> &Home {
        &self.directory.home
    }

    fn receive(
        &self,
        key: &str,
        version: u16,
        cx: MsgCx,
        body: &[u8],
        port: Option<WirePort>,
    ) -> Result<(), CallError> {
        let entry = match self.admit(key, version) {
            Ok(entry) => entry,
            Err(error) => {
                if let Some(port) = port {
                    port.complete_bytes(Err(error.clone().into()));
                }
                return Err(error);
            }
        };
        let mail = Mail::new(decode_wire::<A::Body>(A::CODEC, body, port)?, cx);
        match entry.send(mail) {
            Ok(Taken::Delivered) => Ok(()),
            Ok(Taken::Activate) => self.directory.activate(&entry),
            Err(Refused::Error(error)) => Err(error),
            Err(Refused::Full(mail, _)) => {
                drop_because(FULL, mail);
                if self.directory.options().overflow == Overflow::DropNewest {
                    self.directory.dropped(key, "mailbox full", 1);
                    return Ok(());
                }
                Err(FULL)
            }
        }
    }

    fn rehome(&self) -> BoxFuture<'static, ()> {
        let (done, ended) = oneshot::channel();
        if let Some(host) = self.directory.host.load_full() {
            // A host that is being restarted has no activations.
            let _ = host.send_message(HostMsg::Rehome(done));
        }
        ended.map(|_| ()).boxed()
    }

    fn drain(&self, deadline: Instant) -> BoxFuture<'_, bool> {
        async move {
            let host = self.directory.host.load_full();
            let (tx, rx) = oneshot::channel();
            let asked = host.is_some_and(|host| host.send_message(HostMsg::Drain(tx)).is_ok());
            !asked || matches!(tokio::time::timeout_at(deadline, rx).await, Ok(Ok(true)))
        }
        .boxed()
    }
}

async fn send_json<B: Wire>(target: Target<B>, body: Value, options: CallOptions) -> Result<Option<Value>, CallError> {
    let (tx, rx) = oneshot::channel();
    let (body, unused) = decode_json::<B>(body, tx).map_err(|error| CallError::Decode { detail: error.to_string() })?;
    let deadline = options.deadline.map(|limit| Instant::now() + limit);
    let mut cx = MsgCx::request(deadline, options.trace, options.principal);
    cx.more_mut().idem = options.idem;
    let deadline = target.deadline(&mut cx);
    let posted = target.post(Mail::new(body, cx));
    target.settle(posted, Some(deadline)).await?;
    if unused.is_some() {
        return Ok(None);
    }
    await_reply(rx, deadline).await.map(Some)
}
