//! What travels to an actor: a [`Mail`] with its context, and the [`Reply`] port inside its body.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use pin_project_lite::pin_project;
use ractor::Message;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::{CallError, Failure};
use crate::principal::Principal;
use crate::trace_cx::TraceCx;
use crate::wire::{Codec, WirePort};

/// What can be a message body: any serde type.
pub trait Wire: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> Wire for T {}

/// A message in an actor's mailbox.
#[derive(Debug)]
pub struct Mail<B> {
    /// What the sender wrote.
    pub body: B,
    /// Who asked, until when, as part of which trace.
    pub cx: MsgCx,
    pub(crate) way: Way,
}

/// How a mail comes to the actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Out of the inbox, or as a plain ractor message.
    Queued,
    /// As a ractor message that wakes the actor and makes it holder of the inbox.
    Waking,
    /// As `Waking`, and without having waited anywhere.
    Straight,
    /// From the actor itself: of no use to another activation.
    Own,
}

impl<B> Mail<B> {
    pub(crate) fn new(body: B, cx: MsgCx) -> Self {
        Self { body, cx, way: Way::Queued }
    }
}

impl<B> From<B> for Mail<B> {
    fn from(body: B) -> Self {
        Self::new(body, MsgCx::default())
    }
}

impl<B: Wire> Message for Mail<B> {}

/// Names one intended effect, so that a repeated request has it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Idem(pub [u8; 16]);

impl Idem {
    /// Derives a key from parts; the parts' boundaries count.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        Self(key)
    }
}

/// The context of a message. A plain `tell` carries none, and a plain `ask` a deadline only: neither allocates for it.
#[derive(Debug, Clone, Default)]
pub struct MsgCx {
    deadline: Option<Instant>,
    more: Option<Arc<More>>,
}

/// What few messages carry.
#[derive(Debug, Clone, Default)]
pub(crate) struct More {
    pub(crate) trace: Option<TraceCx>,
    pub(crate) idem: Option<Idem>,
    pub(crate) principal: Option<Arc<Principal>>,
    pub(crate) taint: bool,
    /// Handled twice it does no harm. Its sender's business alone: it is not on the wire.
    pub(crate) repeatable: bool,
}

thread_local! {
    /// The context of the message whose handler is being polled on this thread.
    static CURRENT: RefCell<MsgCx> = const { RefCell::new(MsgCx { deadline: None, more: None }) };
}

pin_project! {
    struct Scoped<F> {
        cx: MsgCx,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.cx.enter(|| this.future.poll(task))
    }
}

impl MsgCx {
    /// The context of the message that the current task handles; empty outside a handler.
    #[must_use]
    #[inline]
    pub fn current() -> Self {
        CURRENT.try_with(|cx| cx.borrow().clone()).unwrap_or_default()
    }

    /// Runs `future` as if it handled a message with this context: its asks inherit deadline, trace and principal.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        Scoped { cx: self, future }
    }

    /// The context of a request that comes from outside the village; use it with [`MsgCx::scope`].
    #[must_use]
    pub fn request(deadline: Option<Instant>, trace: Option<TraceCx>, principal: Option<Arc<Principal>>) -> Self {
        Self { deadline, more: Some(Arc::new(More { trace, principal, ..More::default() })) }
    }

    /// Runs one poll in this context.
    #[inline]
    pub(crate) fn enter<T>(&self, poll: impl FnOnce() -> T) -> T {
        struct Restore(MsgCx);
        impl Drop for Restore {
            #[inline]
            fn drop(&mut self) {
                CURRENT.with(|current| current.replace(std::mem::take(&mut self.0)));
            }
        }
        let _restore = Restore(CURRENT.with(|current| current.replace(self.clone())));
        poll()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.deadline.is_none() && self.more.is_none()
    }

    /// The context of a message sent while this one is handled: all but the idempotency key.
    #[inline]
    pub(crate) fn inherited(mut self) -> Self {
        if self.idem().is_some() || self.is_repeatable() {
            let more = self.more_mut();
            (more.idem, more.repeatable) = (None, false);
        }
        self
    }

    #[inline]
    pub(crate) fn deadline_mut(&mut self) -> &mut Option<Instant> {
        &mut self.deadline
    }

    pub(crate) fn more_mut(&mut self) -> &mut More {
        Arc::make_mut(self.more.get_or_insert_default())
    }

    /// When the caller stops waiting.
    #[must_use]
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller still waits; zero once the deadline has passed.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The W3C trace this message belongs to.
    #[must_use]
    pub fn trace(&self) -> Option<TraceCx> {
        self.more.as_ref().and_then(|more| more.trace)
    }

    /// The idempotency key, if the caller gave one.
    #[must_use]
    pub fn idem(&self) -> Option<Idem> {
        self.more.as_ref().and_then(|more| more.idem)
    }

    pub(crate) fn is_repeatable(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.repeatable)
    }

    /// On whose behalf the message was sent.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        self.more.as_ref().and_then(|more| more.principal.as_deref())
    }

    /// Whether words from outside the principal's trust had a part in what led to this message.
    #[must_use]
    pub fn is_tainted(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.taint)
    }

    /// The same context, marked so that [`MsgCx::is_tainted`]; every message sent in its scope is, on any node. There is no way
    /// back.
    #[must_use]
    pub fn tainted(mut self) -> Self {
        if !self.is_tainted() {
            self.more_mut().taint = true;
        }
        self
    }

    #[inline]
    pub(crate) fn expired(&self) -> bool {
        self.deadline().is_some_and(|at| at <= Instant::now())
    }
}

/// Where the answer to an ask goes. Part of the body; at most one in each variant.
///
/// Dropped unsent, it tells the caller `NoReply` at once (`Panicked` while the actor unwinds). In JSON it is `null`.
pub struct Reply<T>(Cell<Option<Port<T>>>);

enum Port<T> {
    Typed(oneshot::Sender<Result<T, CallError>>),
    Json { to: JsonPort, encode: fn(&T) -> Result<serde_json::Value, serde_json::Error> },
    Wire { to: WirePort, send: fn(WirePort, Result<&T, Failure>) },
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// Receives an answer as JSON.
pub(crate) type JsonPort = oneshot::Sender<Result<serde_json::Value, CallError>>;

/// The port that a body brings along.
enum Incoming {
    Json(JsonPort),
    Wire(WirePort),
}

/// What becomes of the answer to a message that was sent on as bytes.
pub(crate) type Deliver = Box<dyn FnOnce(Result<Bytes, CallError>) + Send>;

struct Outgoing {
    codec: Codec,
    deliver: Option<Deliver>,
}

thread_local! {
    /// The port for the `Reply` of the body that is being decoded on this thread.
    static DECODING: RefCell<Option<Incoming>> = const { RefCell::new(None) };
    /// Takes the port out of the `Reply` of the body that is being encoded on this thread.
    static ENCODING: RefCell<Option<Outgoing>> = const { RefCell::new(None) };
    /// What callers hear of messages that are dropped on this thread, if not `NoReply`.
    static DROP_CAUSE: RefCell<Option<CallError>> = const { RefCell::new(None) };
}

impl<T> Reply<T> {
    pub(crate) fn typed(port: oneshot::Sender<Result<T, CallError>>) -> Self {
        Self(Cell::new(Some(Port::Typed(port))))
    }

    /// Answers the caller.
    pub fn send(self, value: T) {
        self.complete(Ok::<T, CallError>(value));
    }

    /// Answers the caller with an error.
    pub fn fail(self, error: impl Into<CallError>) {
        self.complete(Err(error));
    }

    /// Answers the caller with a result.
    pub fn complete<E: Into<CallError>>(mut self, result: Result<T, E>) {
        self.put(result.map_err(|error| Failure::by_handler(error.into())));
    }

    /// Whether the caller has stopped waiting.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let port = self.0.take();
        let closed = match &port {
            Some(Port::Typed(port)) => port.is_closed(),
            Some(Port::Json { to, .. }) => to.is_closed(),
            Some(Port::Wire { to, .. }) => to.is_closed(),
            None => true,
        };
        self.0.set(port);
        closed
    }

    /// Completes when the caller stops waiting. Cancel safe.
    pub async fn closed(&mut self) {
        match self.0.get_mut() {
            Some(Port::Typed(port)) => port.closed().await,
            Some(Port::Json { to, .. }) => to.closed().await,
            Some(Port::Wire { to, .. }) => to.closed().await,
            None => {}
        }
    }

    fn put(&mut self, result: Result<T, Failure>) {
        match self.0.take() {
            // A caller that stopped waiting dropped the other end; nobody misses the value.
            Some(Port::Typed(port)) => drop(port.send(result.map_err(CallError::from))),
            Some(Port::Json { to, encode }) => {
                let json = result.map_err(CallError::from).and_then(|value| encode(&value).map_err(|e| no_json(&e)));
                drop(to.send(json));
            }
            Some(Port::Wire { to, send }) => match result {
                Ok(value) => send(to, Ok(&value)),
                Err(failure) => send(to, Err(failure)),
            },
            None => {}
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if self.0.get_mut().is_some() {
            let cause = || DROP_CAUSE.with_borrow(Clone::clone).unwrap_or(CallError::NoReply);
            let error = if std::thread::panicking() { CallError::Panicked } else { cause() };
            self.put(Err(error.into()));
        }
    }
}

/// Drops messages so that their callers hear `cause` and not `NoReply`.
pub(crate) fn drop_because<M>(cause: CallError, mail: M) {
    DROP_CAUSE.set(Some(cause));
    drop(mail);
    DROP_CAUSE.set(None);
}

/// Decodes a body from JSON. Its `Reply`, if it has one, is bound to `port`; otherwise the port comes back.
pub(crate) fn decode_json<B: DeserializeOwned>(
    body: serde_json::Value,
    port: JsonPort,
) -> Result<(B, Option<JsonPort>), serde_json::Error> {
    DECODING.set(Some(Incoming::Json(port)));
    let decoded = serde_json::from_value(body);
    let unused = match DECODING.take() {
        Some(Incoming::Json(port)) => Some(port),
        _ => None,
    };
    decoded.map(|body| (body, unused))
}

/// Decodes a body that came as bytes. Its `Reply`, if it has one, is bound to `port`; a port that finds none, or no
/// message at all, tells its caller.
pub(crate) fn decode_wire<B: DeserializeOwned>(
    codec: Codec,
    body: &[u8],
    port: Option<WirePort>,
) -> Result<B, CallError> {
    DECODING.set(port.map(Incoming::Wire));
    let decoded = codec.decode(body);
    if let (Some(Incoming::Wire(unused)), Err(error)) = (DECODING.take(), &decoded) {
        unused.complete_bytes(Err(CallError::clone(error).into()));
    }
    decoded
}

/// Encodes a body for another node into `out`. The port of its `Reply`, if it has one, is taken out: the answer goes there.
pub(crate) fn encode_wire<B: Serialize>(
    codec: Codec,
    body: &B,
    out: &mut Vec<u8>,
) -> Result<Option<Deliver>, CallError> {
    ENCODING.set(Some(Outgoing { codec, deliver: None }));
    let encoded = codec.encode_into(body, out);
    let deliver = ENCODING.take().and_then(|outgoing| outgoing.deliver);
    match (encoded, deliver) {
        (Ok(()), deliver) => Ok(deliver),
        (Err(error), deliver) => {
            if let Some(deliver) = deliver {
                deliver(Err(error.clone()));
            }
            Err(error)
        }
    }
}

impl<T: DeserializeOwned + Send + 'static> Serialize for Reply<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODING.with_borrow_mut(|outgoing| {
            let Some(outgoing) = outgoing else { return Ok(()) };
            if outgoing.deliver.is_some() {
                return Err(S::Error::custom("a message has at most one reply port"));
            }
            outgoing.deliver = self.0.take().map(|port| port.deliver(outgoing.codec));
            Ok(())
        })?;
        serializer.serialize_unit()
    }
}

impl<T: DeserializeOwned + Send + 'static> Port<T> {
    /// Hands on an answer that comes as bytes.
    fn deliver(self, codec: Codec) -> Deliver {
        match self {
            Self::Typed(port) => Box::new(move |answer| drop(port.send(answer.and_then(|bytes| codec.decode(&bytes))))),
            Self::Json { to, encode } => Box::new(move |answer| {
                let value = answer.and_then(|bytes| codec.decode(&bytes));
                drop(to.send(value.and_then(|value| encode(&value).map_err(|e| no_json(&e)))));
            }),
            // The actor that sent the message on has handled it.
            Self::Wire { to, .. } => Box::new(move |answer| to.complete_bytes(answer.map_err(Failure::by_handler))),
        }
    }
}

fn no_json(error: &serde_json::Error) -> CallError {
    CallError::Decode { detail: format!("the reply has no JSON form: {error}") }
}

impl<'de, T: Serialize> Deserialize<'de> for Reply<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <() as Deserialize>::deserialize(deserializer)?;
        let port = match DECODING.take() {
            Some(Incoming::Json(to)) => Port::Json { to, encode: |value| serde_json::to_value(value) },
            Some(Incoming::Wire(to)) => Port::Wire { to, send: |to, result| to.complete(result) },
            None => return Err(D::Error::custom("a reply port exists only in a message that is being received")),
        };
        Ok(Self(Cell::new(Some(port))))
    }
}

/// The JSON schema of a reply slot is `null`; under this keyword it carries the schema of the answer.
pub(crate) const REPLY_KEYWORD: &str = "x-reply";

impl<T: JsonSchema> JsonSchema for Reply<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Reply_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let answer = generator.subschema_for::<T>();
        json_schema!({ "type": "null", (REPLY_KEYWORD): answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unsent_reply_tells_no_reply() {
        let (tx, rx) = oneshot::channel::<Result<u8, CallError>>();
        drop(Reply::typed(tx));
        assert_eq!(rx.await.unwrap(), Err(CallError::NoReply));
    }

    #[tokio::test]
    async fn reply_dropped_by_a_panic_tells_panicked() {
        let (tx, rx) = oneshot::channel::<Result<u8, CallError>>();
        let reply = Reply::typed(tx);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = reply;
            panic!("on purpose");
        }));
        assert!(caught.is_err());
        assert_eq!(rx.await.unwrap(), Err(CallError::Panicked));
    }

    #[tokio::test]
    async fn expired_body_tells_expired() {
        let (tx, rx) = oneshot::channel::<Result<u8, CallError>>();
        drop_because(CallError::Expired, (7, Reply::typed(tx)));
        assert_eq!(rx.await.unwrap(), Err(CallError::Expired));
    }

    #[derive(Serialize, Deserialize)]
    enum Msg {
        Add(u64, Reply<u64>),
        Tick,
    }

    #[tokio::test]
    async fn json_body_binds_its_reply_slot() {
        let (tx, rx) = oneshot::channel();
        let (body, unused) = decode_json::<Msg>(serde_json::json!({ "Add": [2, null] }), tx).unwrap();
        assert!(unused.is_none());
        let Msg::Add(n, reply) = body else { panic!("wrong variant") };
        reply.send(n + 1);
        assert_eq!(rx.await.unwrap(), Ok(serde_json::json!(3)));
    }

    #[test]
    fn json_body_without_reply_gives_the_port_back() {
        let (tx, _rx) = oneshot::channel();
        let (body, unused) = decode_json::<Msg>(serde_json::json!("Tick"), tx).unwrap();
        assert!(matches!(body, Msg::Tick));
        assert!(unused.is_some());
    }

    #[test]
    fn reply_outside_a_message_is_an_error() {
        assert!(serde_json::from_value::<Msg>(serde_json::json!({ "Add": [2, null] })).is_err());
    }

    #[test]
    fn idem_parts_have_boundaries() {
        assert_ne!(Idem::of(&[b"ab", b"c"]), Idem::of(&[b"a", b"bc"]));
    }
}
