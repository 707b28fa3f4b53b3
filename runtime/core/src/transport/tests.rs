use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, Error, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;
use crate::identity::Identity;
use crate::task::Tasks;

/// What no step of a test takes, however busy the machine is.
const LONG: Duration = Duration::from_secs(30);

async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(LONG, work).await.expect("it takes too long")
}

/// A node that listens, and knows which others are members.
struct Node {
    identity: Identity,
    pins: Pins,
    tls: TlsTcp,
}

impl Node {
    async fn start(limits: ListenerLimits) -> Self {
        let (identity, pins) = (Identity::generate().unwrap(), Pins::default());
        let tasks = Tasks::default();
        let spawn = |work| tasks.spawn("cluster.listen", work).detach();
        let tls = TlsTcp::bind("127.0.0.1:0", &identity, &pins, limits, spawn).await.unwrap();
        Self { identity, pins, tls }
    }

    /// Two nodes that know each other.
    async fn pair() -> (Self, Self) {
        let nodes = (Self::start(ListenerLimits::default()).await, Self::start(ListenerLimits::default()).await);
        nodes.0.pins.replace([nodes.1.key()]);
        nodes.1.pins.replace([nodes.0.key()]);
        nodes
    }

    fn key(&self) -> PublicKey {
        self.identity.public_key()
    }

    fn addr(&self) -> SocketAddr {
        self.tls.local_addr().unwrap()
    }

    async fn dial(&self, other: &Self, protocol: Protocol) -> io::Result<AuthStream> {
        soon(self.tls.dial(&other.addr().to_string(), other.key(), protocol)).await
    }

    async fn accept(&self) -> AuthStream {
        soon(self.tls.accept()).await.unwrap()
    }

    /// Dials from a certain address of this machine.
    async fn dial_from(&self, ip: impl Into<IpAddr>, other: &Self, protocol: Protocol) -> io::Result<()> {
        let tcp = connect_from(ip, other.addr()).await?;
        soon(tls::connect(&self.identity, tcp, other.key(), protocol)).await.map(drop)
    }

    fn rejected(&self, reason: Rejected) -> u64 {
        self.tls.rejected().into_iter().find(|(each, _)| *each == reason).unwrap().1
    }

    /// A peer may see its refusal before it is counted.
    async fn wait_rejected(&self, reason: Rejected, count: u64) {
        let counted = async {
            while self.rejected(reason) < count {
                yield_now().await;
            }
        };
        soon(counted).await;
        assert_eq!(self.rejected(reason), count, "{:?}", self.tls.rejected());
    }

    /// Whether the next stream that comes out is that of a member: nothing of those before it got through.
    async fn assert_serves_only(&self, member: &Self) {
        let (dialled, accepted) = tokio::join!(member.dial(self, Protocol::Data), self.accept());
        assert_eq!((accepted.peer, dialled.unwrap().peer), (member.key(), self.key()));
    }
}

async fn connect_from(ip: impl Into<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(ip.into(), 0))?;
    soon(socket.connect(to)).await
}

fn alert_of(error: &io::Error) -> AlertDescription {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert but {error:?}"),
    }
}

/// Sends bytes and returns all that comes back until the other side closes.
async fn talk(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(to).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the alert ends the answer, too.
    let _ = soon(tcp.read_to_end(&mut answer)).await;
    answer
}

async fn tls_client(config: ClientConfig, to: SocketAddr) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(to).await?;
    let name = rustls::pki_types::ServerName::try_from("village").unwrap();
    soon(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
}

#[tokio::test]
async fn members_talk_and_know_each_other() {
    let (a, b) = Node::pair().await;
    for protocol in Protocol::ALL {
        let (dialled, mut accepted) = tokio::join!(a.dial(&b, protocol), b.accept());
        let mut dialled = dialled.unwrap();
        assert_eq!((dialled.peer, dialled.protocol, dialled.remote), (b.key(), protocol, Some(b.addr())));
        assert_eq!((accepted.peer, accepted.protocol), (a.key(), protocol));
        assert!(accepted.remote.is_some_and(|remote| remote.ip().is_loopback()));

        dialled.io.write_all(b"ping").await.unwrap();
        dialled.io.flush().await.unwrap();
        let mut word = [0; 4];
        accepted.io.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
        accepted.io.write_all(b"pong").await.unwrap();
        accepted.io.shutdown().await.unwrap();
        dialled.io.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"pong");
        assert_eq!(dialled.io.read(&mut word).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn unknown_key_gets_an_alert_with_its_first_read() {
    let (a, b) = Node::pair().await;
    let outsider = Node::start(ListenerLimits::default()).await;
    for protocol in [Protocol::Session, Protocol::Data, Protocol::Blob] {
        let mut stream = outsider.dial(&b, protocol).await.unwrap();
        let _ = stream.io.write_all(b"let me in").await;
        let error = soon(stream.io.read_u8()).await.unwrap_err();
        assert_eq!(alert_of(&error), AlertDescription::AccessDenied);
    }
    b.wait_rejected(Rejected::NotPinned, 3).await;
    b.assert_serves_only(&a).await;
}

#[tokio::test]
async fn any_key_may_ask_to_join() {
    let (_, b) = Node::pair().await;
    let outsider = Node::start(ListenerLimits::default()).await;
    let (dialled, accepted) = tokio::join!(outsider.dial(&b, Protocol::Join), b.accept());
    dialled.unwrap();
    assert_eq!((accepted.peer, accepted.protocol), (outsider.key(), Protocol::Join));
}

#[tokio::test]
async fn dialler_talks_to_the_expected_key_only() {
    let (a, b) = Node::pair().await;
    for protocol in [Protocol::Data, Protocol::Join] {
        let error = soon(a.tls.dial(&b.addr().to_string(), a.key(), protocol)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(&a.key().node_id().to_string()), "{error}");
    }
    b.wait_rejected(Rejected::Closed, 2).await;
}

#[tokio::test]
async fn removed_member_is_refused_from_then_on() {
    let (a, b) = Node::pair().await;
    b.assert_serves_only(&a).await;
    b.pins.replace([]);
    assert!(!b.pins.contains(&a.key()));
    let mut stream = a.dial(&b, Protocol::Data).await.unwrap();
    let error = soon(stream.io.read_u8()).await.unwrap_err();
    assert_eq!(alert_of(&error), AlertDescription::AccessDenied);
    b.pins.replace([a.key()]);
    b.assert_serves_only(&a).await;
}

/// Offers a raw key, then shows none.
#[derive(Debug)]
struct Shy;

impl ResolvesClientCert for Shy {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn client_without_a_key_gets_an_alert() {
    let (a, b) = Node::pair().await;
    for protocol in Protocol::ALL {
        let mut config = tls::client_config(&a.identity, b.key(), protocol);
        config.client_auth_cert_resolver = Arc::new(Shy);
        let mut stream = tls_client(config, b.addr()).await.unwrap();
        let error = soon(stream.read_u8()).await.unwrap_err();
        assert_eq!(alert_of(&error), AlertDescription::CertificateRequired);
    }
    b.wait_rejected(Rejected::NoRawKey, 4).await;
    b.assert_serves_only(&a).await;
}

#[tokio::test]
async fn client_with_certificates_gets_an_alert() {
    let (a, b) = Node::pair().await;
    let x509 = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth()
    };
    for protocol in Protocol::ALL {
        let mut config = x509();
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        let error = tls_client(config, b.addr()).await.unwrap_err();
        assert_eq!(alert_of(&error), AlertDescription::HandshakeFailure);
    }
    b.wait_rejected(Rejected::NoRawKey, 4).await;
    b.assert_serves_only(&a).await;
}

#[tokio::test]
async fn unknown_protocol_gets_an_alert() {
    let (a, b) = Node::pair().await;
    let offers: [&[&[u8]]; 3] = [&[], &[b"h2"], &[b"village/2", b"village"]];
    for offered in offers {
        let mut config = tls::client_config(&a.identity, b.key(), Protocol::Data);
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        let error = tls_client(config, b.addr()).await.unwrap_err();
        assert_eq!(alert_of(&error), AlertDescription::NoApplicationProtocol);
    }
    b.wait_rejected(Rejected::Protocol, 3).await;
    // The first one that is known counts.
    let mut config = tls::client_config(&a.identity, b.key(), Protocol::Data);
    config.alpn_protocols = vec![b"h2".to_vec(), Protocol::Blob.alpn().to_vec(), Protocol::Join.alpn().to_vec()];
    let (dialled, accepted) = tokio::join!(tls_client(config, b.addr()), b.accept());
    dialled.unwrap();
    assert_eq!(accepted.protocol, Protocol::Blob);
}

/// The first message of a TLS 1.2 client that names one of our protocols. RFC 5246 section 7.4.1.2.
fn tls12_hello() -> Vec<u8> {
    fn with_len(width: usize, body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[4 - width..], body].concat()
    }
    let alpn = with_len(2, &with_len(1, Protocol::Data.alpn()));
    let extensions = [
        [&[0x00, 0x10][..], &with_len(2, &alpn)].concat(), // ALPN
        [&[0x00, 0x0d][..], &with_len(2, &with_len(2, &[0x08, 0x07]))].concat(), // signatures: ed25519
        [&[0x00, 0x0a][..], &with_len(2, &with_len(2, &[0x00, 0x1d]))].concat(), // groups: x25519
        [&[0x00, 0x0b][..], &with_len(2, &with_len(1, &[0x00]))].concat(), // points: uncompressed
    ];
    let suites = with_len(2, &[0xc0, 0x2b, 0xc0, 0x2f]);
    let hello = [&[0x03, 0x03][..], &[7; 32], &[0], &suites, &[1, 0], &with_len(2, &extensions.concat())].concat();
    let handshake = [&[1][..], &with_len(3, &hello)].concat();
    [&[0x16, 0x03, 0x01][..], &with_len(2, &handshake)].concat()
}

#[tokio::test]
async fn tls12_gets_an_alert() {
    let (a, b) = Node::pair().await;
    // Fatal `protocol_version`.
    assert_eq!(talk(b.addr(), &tls12_hello()).await, [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 70]);
    b.wait_rejected(Rejected::Protocol, 1).await;
    b.assert_serves_only(&a).await;
}

#[tokio::test]
async fn garbage_gets_an_alert() {
    let (a, b) = Node::pair().await;
    let cut = |bytes: &[u8], flipped: usize| {
        let mut bytes = bytes.to_vec();
        bytes[flipped] ^= 0xff;
        bytes
    };
    let all: [&[u8]; 4] =
        [b"GET / HTTP/1.1\r\nHost: village\r\n\r\n", &[0; 64], &[0xff; 5000], &cut(&tls12_hello(), 5)];
    for bytes in all {
        let answer = talk(b.addr(), bytes).await;
        assert_eq!(answer.first(), Some(&0x15), "{bytes:?} got {answer:?}");
    }
    b.wait_rejected(Rejected::Garbage, 4).await;
    // Those that leave in the middle of something.
    for len in [0, 1, 20] {
        let mut tcp = TcpStream::connect(b.addr()).await.unwrap();
        tcp.write_all(&tls12_hello()[..len]).await.unwrap();
    }
    b.wait_rejected(Rejected::Closed, 3).await;
    b.assert_serves_only(&a).await;
}

#[tokio::test]
async fn silent_sockets_of_the_same_address_delay_nobody() {
    let (a, b) = Node::pair().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(b.addr()).await.unwrap());
    }
    let joined = async { tokio::join!(a.dial(&b, Protocol::Join), b.accept()) };
    let (dialled, accepted) = timeout(Duration::from_secs(4), joined).await.expect("no slower than without them");
    dialled.unwrap();
    assert_eq!(accepted.peer, a.key());
    // Four stay, less the one that the joiner may have put out before its first byte came.
    let read = async {
        for tcp in &mut silent[..296] {
            assert!(!matches!(tcp.read(&mut [0]).await, Ok(1..)));
        }
    };
    soon(read).await;
    assert!((296..=297).contains(&b.rejected(Rejected::HalfOpen)), "{:?}", b.tls.rejected());
    assert_eq!(b.rejected(Rejected::Timeout), 0, "nobody had to wait for the end of anybody's time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_silent_sockets_delays_nobody() {
    let (a, b) = Node::pair().await;
    let addr = b.addr();
    let flood = Tasks::default().spawn("flood", async move {
        let mut held = std::collections::VecDeque::new();
        loop {
            held.push_back(TcpStream::connect(addr).await.ok());
            if held.len() > 200 {
                held.pop_front();
            }
        }
    });
    for _ in 0..20 {
        let joined = async {
            // A first byte that is late in a flood of thousands a second may find its connection dropped.
            while a.dial(&b, Protocol::Data).await.is_err() {}
            b.accept().await
        };
        let accepted = timeout(Duration::from_secs(5), joined).await.expect("a member gets in");
        assert_eq!(accepted.peer, a.key());
    }
    flood.abort();
}

#[tokio::test]
async fn silent_sockets_go_after_their_time() {
    let limits = ListenerLimits { handshake: Duration::from_millis(50), ..ListenerLimits::default() };
    let b = Node::start(limits).await;
    let mut silent = TcpStream::connect(b.addr()).await.unwrap();
    let mut slow = TcpStream::connect(b.addr()).await.unwrap();
    slow.write_all(&tls12_hello()[..20]).await.unwrap();
    assert!(!matches!(soon(silent.read(&mut [0])).await, Ok(1..)));
    assert!(!matches!(soon(slow.read(&mut [0])).await, Ok(1..)));
    b.wait_rejected(Rejected::Timeout, 2).await;

    // A dialler does not wait for ever, either: nobody accepts here.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = mute.local_addr().unwrap().to_string();
    let error = soon(b.tls.dial(&addr, b.key(), Protocol::Data)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[cfg(target_os = "linux")] // the whole of 127/8 is one's own there
#[tokio::test]
async fn half_open_connections_are_bounded_over_all_addresses() {
    let (a, b) = Node::pair().await;
    let mut silent = Vec::new();
    for host in 1..=20 {
        for _ in 0..5 {
            silent.push(connect_from([127, 0, 1, host], b.addr()).await.unwrap());
        }
    }
    // 20 are the fifth of their address, 16 more are beyond 64.
    b.wait_rejected(Rejected::HalfOpen, 36).await;
    a.dial_from([127, 0, 0, 1], &b, Protocol::Data).await.unwrap();
    assert_eq!(b.accept().await.peer, a.key());
    assert!((36..=37).contains(&b.rejected(Rejected::HalfOpen)));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unfinished_handshakes_of_one_address_shut_nobody_out() {
    let (a, b) = Node::pair().await;
    let mut stalled = Vec::new();
    for _ in 0..100 {
        let mut tcp = connect_from([127, 0, 1, 1], b.addr()).await.unwrap();
        tcp.write_all(&[0x16]).await.unwrap();
        stalled.push(tcp);
    }
    // Another address first, then the very same.
    for host in [2, 1] {
        a.dial_from([127, 0, 1, host], &b, Protocol::Data).await.unwrap();
        assert_eq!(b.accept().await.peer, a.key());
    }
    assert_eq!(b.rejected(Rejected::Timeout), 0);
}

#[tokio::test]
async fn many_members_at_one_address_connect_at_once() {
    let (a, b) = Node::pair().await;
    let dialled = futures::future::join_all((0..30).map(|_| a.dial(&b, Protocol::Data)));
    let accepted = async {
        for _ in 0..30 {
            b.accept().await;
        }
    };
    let (dialled, ()) = tokio::join!(dialled, accepted);
    assert!(dialled.iter().all(Result::is_ok));
    assert_eq!(b.rejected(Rejected::HalfOpen), 0);
}

#[tokio::test]
async fn streams_that_nobody_accepts_are_bounded_and_do_not_stop_the_listener() {
    let limits = ListenerLimits { half_open: 4, ..ListenerLimits::default() };
    let (a, b) = (Node::start(ListenerLimits::default()).await, Node::start(limits).await);
    b.pins.replace([a.key()]);
    let mut dialled = Vec::new();
    for _ in 0..50 {
        dialled.push(a.dial(&b, Protocol::Data).await);
    }
    // 16 are ready, at most 4 wait; the others were told by a closed stream.
    let kept = async {
        while b.rejected(Rejected::HalfOpen) < 29 {
            yield_now().await;
        }
    };
    soon(kept).await;
    for _ in 0..16 {
        b.accept().await;
    }
    b.assert_serves_only(&a).await;
}

#[tokio::test]
async fn attempts_to_join_are_rate_limited_but_members_are_not() {
    let limits = ListenerLimits { join_burst: 3, join_refill: Duration::from_hours(1), ..ListenerLimits::default() };
    let (a, b) = (Node::start(ListenerLimits::default()).await, Node::start(limits).await);
    b.pins.replace([a.key()]);
    for _ in 0..3 {
        a.dial(&b, Protocol::Join).await.unwrap();
    }
    for _ in 0..2 {
        let error = a.dial(&b, Protocol::Join).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
    b.wait_rejected(Rejected::RateLimited, 2).await;
    for _ in 0..3 {
        assert_eq!(b.accept().await.protocol, Protocol::Join);
    }
    b.assert_serves_only(&a).await;
}

#[tokio::test]
async fn dropped_transport_closes_its_port() {
    let (a, b) = Node::pair().await;
    let (addr, key) = (b.addr(), b.key());
    drop(b);
    let refused = async {
        loop {
            match a.tls.dial(&addr.to_string(), key, Protocol::Data).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                _ => yield_now().await,
            }
        }
    };
    soon(refused).await;
}

#[tokio::test]
async fn stopped_accept_loop_is_an_error_of_accept() {
    let (identity, pins) = (Identity::generate().unwrap(), Pins::default());
    let spawn = |work| drop::<BoxFuture<'static, ()>>(work);
    let tls = TlsTcp::bind("127.0.0.1:0", &identity, &pins, ListenerLimits::default(), spawn).await;
    let error = soon(tls.unwrap().accept()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

/// The limit is one of the whole process, so the test runs itself in a process of its own.
#[cfg(target_os = "linux")]
#[test]
fn lack_of_descriptors_is_survived() {
    const CHILD: &str = "VILLAGE_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(run_out_of_descriptors());
    }
    let name = "transport::tests::lack_of_descriptors_is_survived";
    let child =
        std::process::Command::new(std::env::current_exe().unwrap()).args(["--exact", name]).env(CHILD, "1").output();
    let child = child.unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "the child ran the test");
}

#[cfg(target_os = "linux")]
async fn run_out_of_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let (a, b) = Node::pair().await;
    let socket = TcpSocket::new_v4().unwrap();
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).unwrap();
    let held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();

    let tcp = soon(socket.connect(b.addr())).await.unwrap();
    let connected = async {
        // Nothing can come while there is no descriptor: the loop fails a few times in this while.
        let accepted = timeout(Duration::from_millis(250), b.tls.accept()).await;
        assert!(accepted.is_err(), "{accepted:?}");
        drop(held);
        b.accept().await
    };
    let (dialled, accepted) = tokio::join!(tls::connect(&a.identity, tcp, b.key(), Protocol::Data), connected);
    dialled.unwrap();
    assert_eq!(accepted.peer, a.key());
}
