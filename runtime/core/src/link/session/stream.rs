//! The stream under a session. `ractor_cluster` pings but never gives up on a peer that does not answer, and queues without
//! end for one that does not read; this stream fails in both cases.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use crate::node_id::NodeId;
use crate::transport::{AuthStream, Io};

/// A peer is heard every 5 s at the latest: both sides ping at random after 1 to 5 s.
const SILENCE: Duration = Duration::from_secs(15);
/// Session frames are short; one is read in one go with its length.
const READ_BUFFER: usize = 8 * 1024;

/// A stream whose far end is a member, in the shape that `ractor_cluster` takes.
pub(super) struct SessionStream {
    io: Watched,
    peer: NodeId,
}

impl SessionStream {
    /// `permit` is given back when the stream is closed.
    pub(super) fn new(stream: AuthStream, permit: OwnedSemaphorePermit) -> Self {
        let peer = stream.peer.node_id();
        Self { io: Watched { io: stream.io, silent: Box::pin(sleep(SILENCE)), stuck: None, _permit: permit }, peer }
    }
}

impl ClusterBidiStream for SessionStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let (read, write) = tokio::io::split(self.io);
        (Box::new(BufReader::with_capacity(READ_BUFFER, read)), Box::new(write))
    }

    /// The owner of the key that TLS proved.
    fn peer_label(&self) -> Option<String> {
        Some(self.peer.to_string())
    }
}

struct Watched {
    io: Box<dyn Io>,
    /// Fires when nothing was read for [`SILENCE`].
    silent: Pin<Box<Sleep>>,
    /// Fires when something could not be written for [`SILENCE`].
    stuck: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Watched {
    fn write_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Box<dyn Io>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.io), cx);
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(SILENCE)));
        stuck.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.io).poll_read(cx, buf) {
            self.silent.as_mut().reset(Instant::now() + SILENCE);
            return Poll::Ready(read);
        }
        // An end like any other: the reader above makes no difference.
        let silent = self.silent.as_mut().poll(cx);
        silent.map(|()| Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer is silent")))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write_with(cx, |io, cx| io.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_with(cx, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_with(cx, AsyncWrite::poll_shutdown)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::identity::PublicKey;
    use crate::transport::Protocol;

    fn pair(streams: &Arc<Semaphore>) -> (BoxRead, BoxWrite, DuplexStream) {
        let (near, far) = duplex(64);
        let key = PublicKey([7; 32]);
        let stream = AuthStream { peer: key, protocol: Protocol::Session, remote: None, io: Box::new(near) };
        let stream = SessionStream::new(stream, streams.clone().try_acquire_owned().unwrap());
        assert_eq!(stream.peer_label(), Some(key.node_id().to_string()));
        let (read, write) = Box::new(stream).split();
        (read, write, far)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_the_stream_and_a_byte_does_not() {
        let streams = Arc::new(Semaphore::new(1));
        let (mut read, write, mut far) = pair(&streams);
        let start = Instant::now();
        let talks = async {
            tokio::time::sleep(Duration::from_secs(14)).await;
            far.write_u8(1).await.unwrap();
        };
        let ((), heard) = tokio::join!(talks, read.read_u8());
        assert_eq!(heard.unwrap(), 1);
        assert_eq!(read.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(start.elapsed().as_secs(), 14 + SILENCE.as_secs());
        assert_eq!(streams.available_permits(), 0);
        drop((read, write));
        assert_eq!(streams.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (_read, mut write, mut far) = pair(&Arc::new(Semaphore::new(1)));
        let start = Instant::now();
        let slow = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            far.read_exact(&mut [0; 64]).await.unwrap();
        };
        let writes = write.write_all(&[0; 200]);
        let ((), written) = tokio::join!(slow, writes);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), 10 + SILENCE.as_secs());
    }
}
