//! How bodies and answers are written when they leave the process, and the port an answer goes back through.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::error::CallError;
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
    /// Writes a value.
    pub(crate) fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Vec<u8>, CallError> {
        match self {
            Self::Named => rmp_serde::to_vec_named(value).map_err(|e| decode_error(&e)),
            Self::Compact => postcard::to_allocvec(value).map_err(|e| decode_error(&e)),
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

fn decode_error(error: &dyn std::error::Error) -> CallError {
    CallError::Decode { detail: error.to_string() }
}

/// Receives an answer as bytes.
pub(crate) type BytesPort = oneshot::Sender<Result<Bytes, CallError>>;

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
    pub(crate) fn complete<T: Serialize>(self, result: Result<&T, CallError>) {
        let codec = self.codec;
        self.complete_bytes(result.and_then(|value| codec.encode(value)).map(Bytes::from));
    }

    /// Answers with what is encoded already.
    pub(crate) fn complete_bytes(mut self, result: Result<Bytes, CallError>) {
        self.put(result);
    }

    fn put(&mut self, result: Result<Bytes, CallError>) {
        match self.to.take() {
            Some(Way::Lane(port)) => port.complete(result),
            // A caller that stopped waiting dropped the other end.
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
        self.put(Err(CallError::NoReply));
    }
}
