//! For tests of messages: what becomes of them on the way to another node and back.

use tokio::sync::oneshot;

use crate::error::CallError;
use crate::kind::Kind;
use crate::mail::{Reply, decode_wire, encode_wire};
use crate::wire::WirePort;

/// A message without answer, as another node gets it.
///
/// # Errors
/// When it cannot be written, or what is written cannot be read.
pub fn sent<K: Kind>(body: &K::Body) -> Result<K::Body, CallError> {
    let mut bytes = Vec::new();
    encode_wire(K::CODEC, body, &mut bytes)?;
    decode_wire(K::CODEC, &bytes, None)
}

/// An answer as the asking node gets it. `ask` makes the message, `open` looks at it as the other node gets it and gives back
/// its port, through which `answer` is sent.
///
/// # Errors
/// When the message or the answer cannot be written, or what is written cannot be read.
pub fn asked<K: Kind, T: Send + 'static>(
    ask: impl FnOnce(Reply<T>) -> K::Body,
    open: impl FnOnce(K::Body) -> Reply<T>,
    answer: T,
) -> Result<T, CallError> {
    let (port, mut heard) = oneshot::channel();
    let mut bytes = Vec::new();
    let deliver = encode_wire(K::CODEC, &ask(Reply::typed(port)), &mut bytes)?;
    let deliver = deliver.ok_or_else(|| CallError::Decode { detail: "the message has no reply port".to_owned() })?;
    let (port, mut answered) = oneshot::channel();
    let body = decode_wire(K::CODEC, &bytes, Some(WirePort::here(port, K::CODEC)))?;
    open(body).send(answer);
    let answer = answered.try_recv().map_err(|_| CallError::NoReply)?;
    deliver(answer.map_err(CallError::from));
    heard.try_recv().unwrap_or(Err(CallError::NoReply))
}
