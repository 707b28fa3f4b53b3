//! [`TlsTcp`]: one TCP port, and the loop behind it that lets no stranger delay anybody.
//!
//! The loop accepts whatever comes, at once. A connection waits in the lobby until it has sent something; then its handshake
//! runs in a task of its own. How many there may be, and which go first, is said at [`ListenerLimits`].

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::limits::{Address, Buckets, ListenerLimits};
use super::lobby::{Arrival, Lobby};
use super::rejected::{Pace, Rejected, Rejections};
use super::tls::{self, Pins, TlsServer};
use super::{AuthStream, ClusterTransport, Protocol};
use crate::identity::{Identity, PublicKey};

/// Finished handshakes that nobody has asked for yet; those beyond wait in their tasks, inside `half_open`.
const READY: usize = 16;
/// Pause after an error of `accept` that will not go away by itself, such as no free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// TLS 1.3 over TCP, both sides known by their keys. Dropping it closes the port.
pub struct TlsTcp {
    identity: Identity,
    limits: ListenerLimits,
    local: SocketAddr,
    ready: tokio::sync::Mutex<mpsc::Receiver<AuthStream>>,
    rejections: Arc<Rejections>,
}

impl fmt::Debug for TlsTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTcp").field("identity", &self.identity).field("local", &self.local).finish_non_exhaustive()
    }
}

impl TlsTcp {
    /// Listens on `listen`. Members are those that `pins` names at the time of a handshake. `spawn` gets the accept loop,
    /// to be run as a task; if that is stopped, nobody is accepted any more.
    ///
    /// # Errors
    /// When the address cannot be bound, or the operating system gives no random bytes.
    pub async fn bind(
        listen: impl ToSocketAddrs,
        identity: &Identity,
        pins: &Pins,
        limits: ListenerLimits,
        spawn: impl FnOnce(BoxFuture<'static, ()>),
    ) -> io::Result<Self> {
        // The first random byte of a process costs 40 to 50 ms, which no handshake should pay.
        aws_lc_rs::rand::fill(&mut [0]).map_err(|_| io::Error::other("no random bytes"))?;
        let listener = TcpListener::bind(listen).await?;
        let local = listener.local_addr()?;
        let (done, ready) = mpsc::channel(READY);
        let rejections = Arc::new(Rejections::default());
        let shared = Shared {
            tls: TlsServer::new(identity, pins),
            joins: Mutex::new(Buckets::new(&limits)),
            rejections: Arc::clone(&rejections),
            done,
        };
        let accept_loop = AcceptLoop {
            listener,
            limits,
            shared: Arc::new(shared),
            lobby: Lobby::default(),
            handshakes: JoinSet::new(),
            running: Vec::new(),
            paused_until: None,
            complaints: Pace::default(),
        };
        spawn(Box::pin(accept_loop.run()));
        Ok(Self { identity: identity.clone(), limits, local, ready: tokio::sync::Mutex::new(ready), rejections })
    }

    /// How many connections were turned away since the start, by reason.
    #[must_use]
    pub fn rejected(&self) -> [(Rejected, u64); Rejected::ALL.len()] {
        self.rejections.snapshot()
    }

    async fn connect(&self, addr: &str, peer: PublicKey, protocol: Protocol) -> io::Result<AuthStream> {
        let tcp = TcpStream::connect(addr).await?;
        tcp.set_nodelay(true)?;
        let remote = tcp.peer_addr().ok();
        let stream = tls::connect(&self.identity, tcp, peer, protocol).await?;
        Ok(AuthStream { peer, protocol, remote, io: Box::new(stream) })
    }
}

impl ClusterTransport for TlsTcp {
    fn dial(&self, addr: &str, peer: PublicKey, protocol: Protocol) -> BoxFuture<'_, io::Result<AuthStream>> {
        let addr = addr.to_owned();
        Box::pin(async move {
            let dialled = timeout(self.limits.handshake, self.connect(&addr, peer, protocol)).await;
            dialled.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {addr}"))))
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<AuthStream>> {
        Box::pin(async {
            let stream = self.ready.lock().await.recv().await;
            stream.ok_or_else(|| io::Error::new(io::ErrorKind::BrokenPipe, "the listener has ended"))
        })
    }

    fn rejected(&self) -> Vec<(&'static str, u64)> {
        self.rejections.snapshot().map(|(reason, count)| (reason.as_str(), count)).to_vec()
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Some(self.local)
    }
}

/// What the handshakes need.
struct Shared {
    tls: TlsServer,
    joins: Mutex<Buckets>,
    rejections: Arc<Rejections>,
    done: mpsc::Sender<AuthStream>,
}

impl Shared {
    /// One connection, from its first byte to its delivery.
    async fn serve(&self, arrival: Arrival) {
        let Arrival { stream, remote, address, deadline } = arrival;
        let admit = |protocol| self.admit(protocol, address);
        let accepted = timeout_at(deadline, self.tls.accept(stream, admit)).await;
        match accepted.unwrap_or(Err(Rejected::Timeout)) {
            Ok(tls::Accepted { peer, protocol, stream }) => {
                let stream = AuthStream { peer, protocol, remote: Some(remote), io: Box::new(stream) };
                // Fails only when the transport was dropped.
                let _ = self.done.send(stream).await;
            }
            Err(reason) => self.rejections.count(reason, remote.ip()),
        }
    }

    fn admit(&self, protocol: Protocol, address: Address) -> Result<(), Rejected> {
        let admitted = protocol != Protocol::Join || self.joins.lock().take(address, Instant::now());
        if admitted { Ok(()) } else { Err(Rejected::RateLimited) }
    }
}

/// A handshake that runs.
#[derive(Debug)]
struct Running {
    remote: SocketAddr,
    address: Address,
    task: AbortHandle,
}

enum Event {
    /// The transport was dropped.
    Dropped,
    /// A handshake ended, in one way or another.
    Ended(Result<(Id, ()), JoinError>),
    /// A silent connection sent something.
    Spoken(Arrival),
    /// The time of the oldest silent connection is over.
    Expired,
    Accepted(io::Result<(TcpStream, SocketAddr)>),
}

/// Invariant: `lobby.len() + handshakes.len() <= limits.half_open`, or 1 if that is 0.
struct AcceptLoop {
    listener: TcpListener,
    limits: ListenerLimits,
    shared: Arc<Shared>,
    lobby: Lobby,
    /// Dropped with the loop, which ends them.
    handshakes: JoinSet<()>,
    /// The same, the oldest first.
    running: Vec<Running>,
    paused_until: Option<Instant>,
    complaints: Pace,
}

impl AcceptLoop {
    async fn run(mut self) {
        loop {
            match self.next().await {
                Event::Dropped => return,
                Event::Ended(ended) => self.forget(ended),
                Event::Spoken(arrival) => self.greet(arrival),
                Event::Expired => {
                    while let Some(arrival) = self.lobby.pop_expired(Instant::now()) {
                        self.shared.rejections.count(Rejected::Timeout, arrival.remote.ip());
                    }
                }
                Event::Accepted(Ok((stream, remote))) => {
                    self.paused_until = None;
                    self.take_in(stream, remote).await;
                }
                Event::Accepted(Err(error)) => self.pause(&error),
            }
        }
    }

    /// Accepting comes last, so that it sees what all earlier ones have become.
    async fn next(&mut self) -> Event {
        let expiry = self.lobby.deadline();
        tokio::select! {
            biased;
            () = self.shared.done.closed() => Event::Dropped,
            Some(ended) = self.handshakes.join_next_with_id() => Event::Ended(ended),
            arrival = poll_fn(|cx| self.lobby.poll_spoken(cx)) => Event::Spoken(arrival),
            () = at(expiry), if expiry.is_some() => Event::Expired,
            accepted = accept(&self.listener, self.paused_until) => Event::Accepted(accepted),
        }
    }

    /// Makes room for a newcomer and puts it into the lobby.
    async fn take_in(&mut self, stream: TcpStream, remote: SocketAddr) {
        if stream.set_nodelay(true).is_err() {
            // It has gone already.
            return self.shared.rejections.count(Rejected::Closed, remote.ip());
        }
        let address = Address::of(remote.ip());
        while self.lobby.count(address) >= self.limits.silent_per_address.max(1) {
            let oldest = self.lobby.pop_of(address);
            self.drop_if_silent(oldest);
        }
        while self.lobby.len() + self.handshakes.len() >= self.limits.half_open.max(1) {
            self.make_room().await;
        }
        let deadline = Instant::now() + self.limits.handshake;
        self.lobby.push(Arrival { stream, remote, address, deadline });
    }

    /// Drops one connection, or finds out that one has ended, or that one is not silent any more.
    async fn make_room(&mut self) {
        // A quarter of the table is theirs: enough for those whose first byte is on its way.
        let silent = self.lobby.len() >= self.limits.half_open.div_ceil(4) || self.handshakes.is_empty();
        if silent && self.lobby.len() > 0 {
            let oldest = self.lobby.pop();
            return self.drop_if_silent(oldest);
        }
        if let Some(victim) = self.victim() {
            let Running { remote, task, .. } = self.running.remove(victim);
            task.abort();
            self.shared.rejections.count(Rejected::HalfOpen, remote.ip());
        }
        // Never long: one was told to end, and its task does nothing else than to wait for the network.
        if let Some(ended) = self.handshakes.join_next_with_id().await {
            self.forget(ended);
        }
    }

    fn drop_if_silent(&mut self, oldest: Option<Arrival>) {
        match oldest {
            Some(arrival) if arrival.has_spoken() => self.greet(arrival),
            Some(arrival) => self.shared.rejections.count(Rejected::HalfOpen, arrival.remote.ip()),
            None => {}
        }
    }

    /// The oldest handshake of the address that has the most.
    fn victim(&self) -> Option<usize> {
        let of = |address| self.running.iter().filter(|running| running.address == address).count();
        // `max_by_key` takes the last of equals: looked at from the end, that is the oldest.
        let crowded = self.running.iter().enumerate().rev().max_by_key(|(_, running)| of(running.address));
        crowded.map(|(index, _)| index)
    }

    /// Starts the handshake of one that has sent something.
    fn greet(&mut self, arrival: Arrival) {
        let (remote, address) = (arrival.remote, arrival.address);
        let shared = Arc::clone(&self.shared);
        let task = self.handshakes.spawn(async move { shared.serve(arrival).await });
        self.running.push(Running { remote, address, task });
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!("a handshake panicked");
                }
                error.id()
            }
        };
        self.running.retain(|running| running.task.id() != id);
    }

    /// After an error of `accept`: the loop goes on, and gives a descriptor back if there are too few.
    fn pause(&mut self, error: &io::Error) {
        let Some(pause) = pause_after(error) else { return };
        let now = Instant::now();
        if self.complaints.is_due(now) {
            tracing::warn!(%error, "cannot accept connections");
        }
        self.paused_until = Some(now + pause);
        let oldest = self.lobby.pop();
        self.drop_if_silent(oldest);
    }
}

/// How long to wait after an error of `accept`; none if it was about that one connection.
fn pause_after(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    (!matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)).then_some(ACCEPT_PAUSE)
}

async fn accept(listener: &TcpListener, paused_until: Option<Instant>) -> io::Result<(TcpStream, SocketAddr)> {
    at(paused_until).await;
    listener.accept().await
}

/// Waits until then, if there is a then.
async fn at(then: Option<Instant>) {
    if let Some(then) = then {
        sleep_until(then).await;
    }
}
