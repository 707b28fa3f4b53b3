//! Connections that have not sent a byte: kept by the accept loop itself, so that dropping one costs nothing and nobody
//! waits for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use rustix::net::{RecvFlags, recv};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::limits::Address;

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) stream: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) address: Address,
    /// When its handshake must have ended.
    pub(super) deadline: Instant,
}

impl Arrival {
    /// Whether it has sent anything, or has gone. Asks the socket itself: that it just was accepted means that the
    /// runtime may not know yet.
    pub(super) fn has_spoken(&self) -> bool {
        let mut byte = [0; 1];
        !matches!(recv(&self.stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(rustix::io::Errno::AGAIN))
    }
}

/// The silent ones, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    waiting: VecDeque<Arrival>,
}

impl Lobby {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, arrival: Arrival) {
        self.waiting.push_back(arrival);
    }

    /// How many are of that address.
    pub(super) fn count(&self, address: Address) -> usize {
        self.waiting.iter().filter(|arrival| arrival.address == address).count()
    }

    /// Takes out the oldest.
    pub(super) fn pop(&mut self) -> Option<Arrival> {
        self.waiting.pop_front()
    }

    /// Takes out the oldest of that address.
    pub(super) fn pop_of(&mut self, address: Address) -> Option<Arrival> {
        let at = self.waiting.iter().position(|arrival| arrival.address == address)?;
        self.waiting.remove(at)
    }

    /// Takes out the oldest if its time is over.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Arrival> {
        self.waiting.pop_front_if(|arrival| arrival.deadline <= now)
    }

    /// When the time of the oldest is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|arrival| arrival.deadline)
    }

    /// Takes out one that is silent no more. Asks all of them at each call: they are few.
    pub(super) fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        // Peeks, as the runtime may call a socket readable that has nothing to read.
        let peek = |arrival: &Arrival| arrival.stream.poll_peek(cx, &mut ReadBuf::new(&mut [0])).is_ready();
        let spoken = self.waiting.iter().position(peek);
        match spoken.and_then(|at| self.waiting.remove(at)) {
            Some(arrival) => Poll::Ready(arrival),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn arrival(listener: &TcpListener) -> (TcpStream, Arrival) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, remote) = listener.accept().await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        (client, Arrival { stream, remote, address: Address::of(remote.ip()), deadline })
    }

    #[tokio::test]
    async fn first_byte_is_seen_at_once_and_left_where_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut client, mut arrival) = arrival(&listener).await;
        assert!(!arrival.has_spoken());
        client.write_all(b"x").await.unwrap();
        while !arrival.has_spoken() {
            tokio::task::yield_now().await;
        }
        assert_eq!(arrival.stream.read(&mut [0; 8]).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn silent_ones_stay_and_the_gone_come_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut lobby = Lobby::default();
        let (_silent, first) = arrival(&listener).await;
        let (gone, second) = arrival(&listener).await;
        let (mut speaks, third) = arrival(&listener).await;
        let (second_at, third_at) = (second.remote, third.remote);
        for each in [first, second, third] {
            lobby.push(each);
        }
        for _ in 0..50 {
            tokio::task::yield_now().await;
            assert!(futures::poll!(std::future::poll_fn(|cx| lobby.poll_spoken(cx))).is_pending());
        }
        speaks.write_all(b"x").await.unwrap();
        assert_eq!(std::future::poll_fn(|cx| lobby.poll_spoken(cx)).await.remote, third_at);
        drop(gone);
        assert_eq!(std::future::poll_fn(|cx| lobby.poll_spoken(cx)).await.remote, second_at);
        assert_eq!(lobby.len(), 1);
    }
}
