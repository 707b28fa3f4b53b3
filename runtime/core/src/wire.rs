//! How bodies and answers are written when they leave the process, and the port an answer goes back through.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::error::{CallError, Failure};
use crate::link::lane::LanePort;

/// How the messages of a kind and their answers are written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// `MessagePack` with field names: any serde type, also those that need a format that describes itself
    /// (`serde_json::Value`, `untagged`, `flatten`, `skip_serializing_if`).
    #[default]
    Named,
    /// postcard: smaller and faster, for types that need none of that.
    Compact,
}

impl Codec {
    /// Writes a value behind what `out` has; after an error `out` is of no use.
    pub(crate) fn encode_into<T: Serialize + ?Sized>(self, value: &T, out: &mut Vec<u8>) -> Result<(), CallError> {
        match self {
            Self::Named => rmp_serde::encode::write_named(out, value).map_err(|e| decode_error(&e)),
            Self::Compact => {
                *out = postcard::to_extend(value, std::mem::take(out)).map_err(|e| decode_error(&e))?;
                Ok(())
            }
        }
    }

    /// Reads a value.
    pub(crate) fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, CallError> {
        match self {
            Self::Named => rmp_serde::from_slice(bytes).map_err(|e| decode_error(&e)),
            Self::Compact => postcard::from_bytes(bytes).map_err(|e| decode_error(&e)),
        }
    }
}

/// A buffer of this thread in which a message is encoded before it is copied into a lane: so most need none of their own.
pub(crate) struct Scratch(Vec<u8>);

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Scratch {
    /// A larger buffer is not kept for the next message.
    const MAX: usize = 64 << 10;

    /// The buffer, empty. Whoever encodes while another does gets a new one.
    pub(crate) fn take() -> Self {
        let mut buffer = SCRATCH.try_with(Cell::take).unwrap_or_default();
        buffer.clear();
        Self(buffer)
    }

    /// What was encoded, to be kept.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        if self.0.len() > Self::MAX { std::mem::take(&mut self.0).into() } else { Bytes::copy_from_slice(&self.0) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.capacity() <= Self::MAX {
            // A thread that ends keeps nothing.
            let _ = SCRATCH.try_with(|kept| kept.set(std::mem::take(&mut self.0)));
        }
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

fn decode_error(error: &dyn std::error::Error) -> CallError {
    CallError::Decode { detail: error.to_string() }
}

/// Receives an answer as bytes.
pub(crate) type BytesPort = oneshot::Sender<Result<Bytes, Failure>>;

/// Where the answer to a message that came as bytes goes. Dropped unsent, it tells `NoReply`.
#[derive(Debug)]
pub(crate) struct WirePort {
    to: Option<Way>,
    codec: Codec,
}

#[derive(Debug)]
enum Way {
    Lane(LanePort),
    Here(BytesPort),
}

impl WirePort {
    pub(crate) fn lane(port: LanePort, codec: Codec) -> Self {
        Self { to: Some(Way::Lane(port)), codec }
    }

    pub(crate) fn here(port: BytesPort, codec: Codec) -> Self {
        Self { to: Some(Way::Here(port)), codec }
    }

    /// Answers with a value or an error.
    pub(crate) fn complete<T: Serialize>(mut self, result: Result<&T, Failure>) {
        let codec = self.codec;
        let mut bytes = Scratch::take();
        let encoded = result.and_then(|value| codec.encode_into(value, &mut bytes).map_err(Failure::by_handler));
        match self.to.take() {
            Some(Way::Lane(port)) => port.complete(encoded.map(|()| bytes.as_slice())),
            // A caller that stopped waiting dropped the other end.
            Some(Way::Here(port)) => drop(port.send(encoded.map(|()| bytes.into_bytes()))),
            None => {}
        }
    }

    /// Answers with what is encoded already.
    pub(crate) fn complete_bytes(mut self, result: Result<Bytes, Failure>) {
        self.put(result);
    }

    fn put(&mut self, result: Result<Bytes, Failure>) {
        match self.to.take() {
            Some(Way::Lane(port)) => port.complete(result.as_deref().map_err(Failure::clone)),
            Some(Way::Here(port)) => drop(port.send(result)),
            None => {}
        }
    }

    /// Whether the caller has stopped waiting.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.to {
            Some(Way::Lane(port)) => port.is_closed(),
            Some(Way::Here(port)) => port.is_closed(),
            None => true,
        }
    }

    /// Completes when the caller stops waiting. Cancel safe.
    pub(crate) async fn closed(&mut self) {
        match &mut self.to {
            Some(Way::Lane(port)) => port.closed().await,
            Some(Way::Here(port)) => port.closed().await,
            None => {}
        }
    }
}

impl Drop for WirePort {
    fn drop(&mut self) {
        self.put(Err(CallError::NoReply.into()));
    }
}
