use std::net::SocketAddr;

use futures::future::BoxFuture;
use proptest::prelude::*;

use super::*;
use crate::identity::Identity;
use crate::task::Tasks;
use crate::transport::{Io, ListenerLimits, Pins, TlsTcp};

fn token() -> JoinToken {
    JoinToken { cluster_id: 1, token_id: 0x0203, issuer: PublicKey([9; 32]), secret: [7; 16] }
}

#[test]
fn token_round_trip() {
    let text = "vj1.AAAAAAAAAAEAAAAAAAACAwcHBwcHBwcHBwcHBwcHBwcJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQ";
    assert_eq!(token().to_string(), text);
    assert_eq!(text.parse::<JoinToken>().unwrap(), token());
    assert_eq!(token().secret_hash(), <[u8; 32]>::from(Sha256::digest([7; 16])));
    let drawn = JoinToken::generate(5, PublicKey([1; 32])).unwrap();
    assert_eq!(drawn.to_string().parse::<JoinToken>().unwrap(), drawn);
    assert_ne!(drawn, JoinToken::generate(5, PublicKey([1; 32])).unwrap());
}

#[test]
fn malformed_tokens_are_told_apart() {
    let good = token().to_string();
    let parse = |text: &str| text.parse::<JoinToken>().unwrap_err();
    assert_eq!(parse(""), TokenError::Prefix);
    assert_eq!(parse(&good[4..]), TokenError::Prefix);
    assert_eq!(parse(&good.replace("vj1", "vj2")), TokenError::Prefix);
    assert_eq!(parse("vj1."), TokenError::Length { found: 0 });
    assert_eq!(parse(&good[..good.len() - 1]), TokenError::Length { found: 85 });
    assert_eq!(parse(&format!("{good}=")), TokenError::Length { found: 87 });
    assert_eq!(parse(&format!("{good}\n")), TokenError::Length { found: 87 });
    assert_eq!(parse(&good.replacen('B', "+", 1)), TokenError::Character { at: good.find('B').unwrap() + 1 });
    assert_eq!(parse(&good.replacen('B', "é", 1)), TokenError::Character { at: good.find('B').unwrap() + 1 });
    // 86 characters hold 4 bits more than 64 bytes: they must be zero, so that a token has one text.
    let loose = format!("{}R", &good[..good.len() - 1]);
    assert_eq!(parse(&loose), TokenError::Character { at: good.len() });
}

#[test]
fn secrets_are_not_shown() {
    let url = JoinUrl { token: token(), addr: "host:1".into() };
    let request = JoinRequest { token_id: 1, secret: [7; 16], record: vec![] };
    for shown in [format!("{:?}", token()), format!("{url:?}"), format!("{request:?}")] {
        assert!(!shown.contains("7, 7") && !shown.contains("0707") && !shown.contains("BwcH"), "{shown}");
    }
    let error = format!("{}x", token()).parse::<JoinUrl>().unwrap_err();
    assert!(!error.to_string().contains("BwcH"));
}

#[test]
fn urls_name_a_host_and_a_port() {
    for addr in ["127.0.0.1:4100", "node-1.example_net:1", "[::1]:65535"] {
        let url: JoinUrl = format!(" {}@{addr}\n", token()).parse().unwrap();
        assert_eq!(url, JoinUrl { token: token(), addr: addr.into() });
        assert_eq!(url.to_string().parse::<JoinUrl>().unwrap(), url);
    }
    for addr in
        ["", "host", "host:", ":1", "host:0", "host:65536", "host:+1", "::1:80", "[::1]", "[x]:1", "a b:1", "@h:1"]
    {
        let error = format!("{}@{addr}", token()).parse::<JoinUrl>().unwrap_err();
        assert_eq!(error, JoinUrlError::Address(addr.into()));
    }
    assert_eq!(token().to_string().parse::<JoinUrl>().unwrap_err(), JoinUrlError::NoHost);
    let error = "vj1.x@host:1".parse::<JoinUrl>().unwrap_err();
    assert_eq!(error, JoinUrlError::Token(TokenError::Length { found: 1 }));
}

proptest! {
    #[test]
    fn any_token_round_trips(cluster_id: u64, token_id: u64, issuer: [u8; 32], secret: [u8; 16]) {
        let token = JoinToken { cluster_id, token_id, issuer: PublicKey(issuer), secret };
        prop_assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token));
    }

    #[test]
    fn no_text_panics(text in "(vj1\\.)?\\PC{0,100}", addr in "\\PC{0,20}") {
        let _ = text.parse::<JoinToken>();
        let _ = format!("{text}@{addr}").parse::<JoinUrl>();
        let _ = format!("{}@{addr}", token()).parse::<JoinUrl>();
    }

    #[test]
    fn what_parses_has_one_text(code in "[A-Za-z0-9_-]{86}") {
        let text = format!("vj1.{code}");
        if let Ok(token) = text.parse::<JoinToken>() {
            prop_assert_eq!(token.to_string(), text);
        }
    }

    #[test]
    fn foreign_frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let _ = read::<JoinRequest>(&bytes[..]).await;
            let _ = read::<JoinAnswer>(&bytes[..]).await;
        });
    }
}

async fn listen(limits: ListenerLimits) -> (Identity, TlsTcp) {
    let identity = Identity::generate().unwrap();
    let tasks = Tasks::default();
    let spawn = |work| tasks.spawn("cluster.listen", work).detach();
    let tls = TlsTcp::bind("127.0.0.1:0", &identity, &Pins::default(), limits, spawn).await.unwrap();
    (identity, tls)
}

fn url(issuer: &Identity, addr: SocketAddr) -> JoinUrl {
    JoinUrl { token: JoinToken::generate(1, issuer.public_key()).unwrap(), addr: addr.to_string() }
}

#[tokio::test]
async fn good_token_joins_and_any_other_is_denied() {
    let (issuer, server) = listen(ListenerLimits::default()).await;
    let (newcomer, client) = listen(ListenerLimits::default()).await;
    let good = url(&issuer, server.local_addr().unwrap());
    let serve_one = async || {
        let stream = server.accept().await.unwrap();
        let peer = stream.peer;
        let decide = async |request: JoinRequest| {
            assert_eq!((peer, &request.record[..]), (newcomer.public_key(), &b"me"[..]));
            let known = request.token_id == good.token.token_id && request.secret_hash() == good.token.secret_hash();
            known.then(|| vec![5; MAX_FRAME - 10])
        };
        serve_join(stream, decide).await.unwrap();
    };
    let (joined, ()) = tokio::join!(request_join(&client, &good, b"me".to_vec()), serve_one());
    assert_eq!(joined.unwrap(), vec![5; MAX_FRAME - 10]);

    let guessed = JoinToken { secret: [0; 16], ..good.token.clone() };
    let unknown = JoinToken { token_id: 0, ..good.token.clone() };
    for token in [guessed, unknown] {
        let bad = JoinUrl { token, ..good.clone() };
        let (joined, ()) = tokio::join!(request_join(&client, &bad, b"me".to_vec()), serve_one());
        assert!(matches!(joined, Err(JoinError::Denied)));
    }
}

#[tokio::test]
async fn nonsense_is_denied_without_a_decision() {
    let (issuer, server) = listen(ListenerLimits::default()).await;
    let (_, client) = listen(ListenerLimits::default()).await;
    let addr = server.local_addr().unwrap().to_string();
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes();
    for nonsense in [&[1, 0, 0, 0, 0xff][..], &[0; 4], &too_long, &[255; 4]] {
        let ask = async {
            let mut stream = client.dial(&addr, issuer.public_key(), Protocol::Join).await.unwrap();
            write(&mut stream.io, nonsense).await.unwrap();
            read::<JoinAnswer>(&mut stream.io).await.unwrap()
        };
        let serve = async {
            let decide = async |_: JoinRequest| unreachable!("there is no request");
            serve_join(server.accept().await.unwrap(), decide).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask, serve);
        assert_eq!(answer, JoinAnswer::Denied);
    }
}

#[tokio::test]
async fn joiner_learns_why_it_got_no_answer() {
    let limits = ListenerLimits { join_burst: 1, ..ListenerLimits::default() };
    let (issuer, server) = listen(limits).await;
    let (other, client) = listen(ListenerLimits::default()).await;
    let addr = server.local_addr().unwrap();

    let foreign = url(&other, addr);
    assert!(matches!(request_join(&client, &foreign, vec![]).await, Err(JoinError::WrongNode { .. })));
    let good = url(&issuer, addr);
    assert!(matches!(request_join(&client, &good, vec![]).await, Err(JoinError::RateLimited { .. })));
    assert!(matches!(request_join(&client, &good, vec![0; MAX_FRAME]).await, Err(JoinError::TooLarge)));

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = url(&issuer, closed);
    assert!(matches!(request_join(&client, &nobody, vec![]).await, Err(JoinError::Unreachable { .. })));
}

/// Pipes instead of sockets, so that the clock can be turned.
struct Pipe(parking_lot::Mutex<Option<Box<dyn Io>>>);

impl ClusterTransport for Pipe {
    fn dial(&self, _: &str, peer: PublicKey, protocol: Protocol) -> BoxFuture<'_, io::Result<AuthStream>> {
        let io = self.0.lock().take().expect("dialled once");
        Box::pin(async move { Ok(AuthStream { peer, protocol, remote: None, io }) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<AuthStream>> {
        Box::pin(std::future::pending())
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn neither_side_waits_for_ever() {
    let issuer = Identity::generate().unwrap();
    let (near, far) = tokio::io::duplex(MAX_FRAME * 2);
    let transport = Pipe(parking_lot::Mutex::new(Some(Box::new(near))));
    let url = url(&issuer, ([127, 0, 0, 1], 1).into());
    let error = request_join(&transport, &url, vec![]).await.unwrap_err();
    assert!(matches!(error, JoinError::Interrupted { source, .. } if source.kind() == io::ErrorKind::TimedOut));
    drop(far);

    let (_near, far) = tokio::io::duplex(64);
    let peer = issuer.public_key();
    let stream = AuthStream { peer, protocol: Protocol::Join, remote: None, io: Box::new(far) };
    let error = serve_join(stream, async |_| None).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
