//! Streams between nodes whose far end is proven: whoever reads from an [`AuthStream`] knows the key that wrote it.
//!
//! [`TlsTcp`] is the default: TLS 1.3 on one TCP port, both sides show their raw Ed25519 key (RFC 7250), and the ALPN name
//! says what the stream is for. Other transports implement [`ClusterTransport`] and owe the same proof.
//!
//! ```text
//! accept loop (listener) -> lobby: says nothing yet -> handshake task (tls): picks the config by ALPN -> accept()
//!                              limits: who is dropped when there are too many; how often one address may try to join
//! ```
//!
//! An outsider gets a TLS alert and a closed socket; no byte of his is parsed but those of the handshake. In TLS 1.3 a
//! refused dialler believes that the handshake succeeded, and gets the alert with its first read.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::identity::PublicKey;

mod limits;
mod listener;
mod lobby;
mod rejected;
mod tls;

pub use limits::ListenerLimits;
pub use listener::TlsTcp;
pub use rejected::Rejected;
pub use tls::Pins;
pub(crate) use tls::{is_refusal, locked};

/// What a stream between nodes is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Presence and discovery. Members only.
    Session,
    /// Mail. Members only.
    Data,
    /// Bulk bytes. Members only.
    Blob,
    /// Asking to become a member. Any key.
    Join,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Session, Self::Data, Self::Blob, Self::Join];

    /// Its name in the TLS handshake.
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Session => b"village/1",
            Self::Data => b"village-data/1",
            Self::Blob => b"village-blob/1",
            Self::Join => b"village-join/1",
        }
    }

    /// The protocol of that name.
    #[must_use]
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.alpn() == name)
    }
}

/// Bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// A stream whose far end has proven its key.
pub struct AuthStream {
    /// The key of the other node.
    pub peer: PublicKey,
    /// What both sides agreed to speak.
    pub protocol: Protocol,
    /// Where the other node is, if the transport knows.
    pub remote: Option<SocketAddr>,
    /// The bytes.
    pub io: Box<dyn Io>,
}

impl fmt::Debug for AuthStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthStream")
            .field("peer", &self.peer)
            .field("protocol", &self.protocol)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// Makes authenticated streams to other nodes, and takes theirs.
pub trait ClusterTransport: Send + Sync + 'static {
    /// Opens a stream to the owner of the key `peer` at `addr`, and to nobody else. Bounded in time.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`]: somebody else is there. [`io::ErrorKind::PermissionDenied`]: the peer refuses this
    /// node already in the handshake; a refusal of its key shows with the first read only.
    /// [`io::ErrorKind::TimedOut`] and the errors of connecting, as they are.
    fn dial(&self, addr: &str, peer: PublicKey, protocol: Protocol) -> BoxFuture<'_, io::Result<AuthStream>>;

    /// The next stream that another node opened. Its key is a member's, except for [`Protocol::Join`].
    ///
    /// # Cancel safety
    /// A dropped future loses no stream.
    ///
    /// # Errors
    /// When the transport has ended: there will be no further stream.
    fn accept(&self) -> BoxFuture<'_, io::Result<AuthStream>>;

    /// Where it listens, if that is a socket address.
    fn local_addr(&self) -> Option<SocketAddr>;

    /// How many streams were turned away since the start, by reason.
    fn rejected(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
