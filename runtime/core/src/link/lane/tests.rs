use std::sync::atomic::AtomicU32;

use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;

use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const TO: To<'static> = To { node: false, kind: 1, version: 1, key: "k" };

type Half = Tasks<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// Answers asks with their body, in the order they came, unless it is told to keep them.
struct Echo {
    told: mpsc::UnboundedSender<Bytes>,
    kept: Option<mpsc::UnboundedSender<LanePort>>,
    sheds: AtomicU32,
}

impl Dispatch for Echo {
    fn mail(&self, _: NodeId, _: &MailRecord<'_>, body: Body<'_>, port: Option<LanePort>) {
        let body = body.into_bytes();
        let _ = self.told.send(body.clone());
        match (port, &self.kept) {
            (Some(port), Some(kept)) => drop(kept.send(port)),
            (Some(port), None) => port.complete(Ok(&body)),
            (None, _) => {}
        }
    }

    fn shed(&self, _: NodeId, _: u32, _: &str, _: Duration) {
        self.sheds.fetch_add(1, Ordering::SeqCst);
    }
}

fn hello(node: NodeId) -> Hello {
    Hello { proto: record::PROTO, cluster: 7, node: node.0, incarnation: 3 }
}

async fn pair(buffer: usize) -> ((Arc<Lane>, Half), (Arc<Lane>, Half)) {
    let (a, b) = duplex(buffer);
    let (a, b) = tokio::join!(open(split(a), hello(A), B), open(split(b), hello(B), A));
    (a.unwrap(), b.unwrap())
}

fn echo() -> (Arc<Echo>, mpsc::UnboundedReceiver<Bytes>) {
    let (told, heard) = mpsc::unbounded_channel();
    (Arc::new(Echo { told, kept: None, sheds: AtomicU32::new(0) }), heard)
}

fn keeper() -> (Arc<Echo>, mpsc::UnboundedReceiver<LanePort>) {
    let (kept, ports) = mpsc::unbounded_channel();
    let (told, _) = mpsc::unbounded_channel();
    (Arc::new(Echo { told, kept: Some(kept), sheds: AtomicU32::new(0) }), ports)
}

#[allow(clippy::disallowed_methods, reason = "the lane has no supervisor here")]
fn run(half: Half, dispatch: Arc<Echo>) -> tokio::task::JoinHandle<io::Result<()>> {
    tokio::spawn(half.run(dispatch))
}

#[tokio::test]
async fn mail_arrives_in_order_and_answers_come_back() {
    let ((a, a_half), (_, b_half)) = pair(1024).await;
    let (dispatch, mut heard) = echo();
    run(a_half, echo().0);
    run(b_half, dispatch);
    for n in 0..1000_u32 {
        a.tell(&TO, &Envelope::default(), &n.to_le_bytes()).await.unwrap();
    }
    assert_eq!(a.ask(&TO, &Envelope::default(), b"last").await.unwrap(), &b"last"[..]);
    for n in 0..1000_u32 {
        assert_eq!(heard.recv().await.unwrap(), &n.to_le_bytes()[..]);
    }
    assert_eq!(a.incarnation(), 3);
}

#[tokio::test]
async fn large_bodies_go_in_parts_both_ways() {
    let ((a, a_half), (_, b_half)) = pair(64 << 10).await;
    run(a_half, echo().0);
    run(b_half, echo().0);
    for len in [PART, PART + 1, 3 * PART, 9 * PART + 17] {
        let body: Vec<u8> = (0..len).map(|n| n.to_le_bytes()[0]).collect();
        assert_eq!(a.ask(&TO, &Envelope::default(), &body).await.unwrap(), body);
    }
    let too_large = a.ask(&TO, &Envelope::default(), &vec![0; MAX_BODY + 1]).await;
    assert_eq!(too_large, Err(CallError::TooLarge { max: MAX_BODY as u64 }.into()));
}

#[tokio::test]
async fn closing_ends_every_ask_and_says_whether_it_went_out() {
    let ((a, a_half), (b, b_half)) = pair(1024).await;
    let (dispatch, mut ports) = keeper();
    let running = run(a_half, echo().0);
    run(b_half, dispatch);
    let (envelope, ask) = (Envelope::default(), b"x");
    let asked = a.ask(&TO, &envelope, ask);
    tokio::pin!(asked);
    let port = tokio::select! {
        _ = &mut asked => panic!("answered"),
        port = ports.recv() => port.unwrap(),
    };
    b.close();
    assert_eq!(asked.await, Err(CallError::Unreachable { node: B, sent: true }.into()));
    running.await.unwrap().unwrap();
    // Nothing is taken by a lane that has closed, and an answer to nobody does no harm.
    assert_eq!(a.ask(&TO, &envelope, ask).await, Err(CallError::Unreachable { node: B, sent: false }.into()));
    assert_eq!(a.tell(&TO, &envelope, ask).await, Err(CallError::Unreachable { node: B, sent: false }));
    port.complete(Ok(&[]));
}

#[tokio::test]
async fn ask_that_was_never_written_is_known_to_be_unsent() {
    let ((a, _half), _b) = pair(1024).await;
    // The lane's writer does not run.
    let envelope = Envelope::default();
    let asked = a.ask(&TO, &envelope, b"x");
    let closed = async { a.close() };
    let (answer, ()) = tokio::join!(asked, closed);
    assert_eq!(answer, Err(CallError::Unreachable { node: B, sent: false }.into()));
}

#[tokio::test]
async fn dropped_ask_is_cancelled_at_the_other_end() {
    let ((a, a_half), (_, b_half)) = pair(1024).await;
    let (dispatch, mut ports) = keeper();
    run(a_half, echo().0);
    run(b_half, dispatch);
    let envelope = Envelope::default();
    let mut port = tokio::select! {
        biased;
        _ = a.ask(&TO, &envelope, b"x") => panic!("answered"),
        port = ports.recv() => port.unwrap(),
    };
    port.closed().await;
    assert!(port.is_closed());
}

#[tokio::test(start_paused = true)]
async fn sender_waits_for_room_until_its_deadline() {
    let ((a, a_half), (_, b_half)) = pair(1024).await;
    // The peer reads nothing, so at most the pipe's buffer and the lane's room are taken.
    run(a_half, echo().0);
    let body = vec![0; PART];
    let deadline = Instant::now() + Duration::from_secs(5);
    let envelope = Envelope::of(&crate::mail::MsgCx::request(Some(deadline), None, None)).unwrap();
    let mut taken = 0;
    let refused = loop {
        match a.tell(&TO, &envelope, &body).await {
            Ok(()) => taken += body.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, CallError::Expired);
    assert!(taken <= ROOM + PART, "{taken}");
    // Answers and node services still go in; and once the peer reads, so does everything else.
    let node = To { node: true, ..TO };
    a.tell(&node, &Envelope::default(), b"beat").await.unwrap();
    let (dispatch, mut heard) = echo();
    run(b_half, dispatch);
    while heard.recv().await.unwrap() != b"beat"[..] {}
    a.tell(&TO, &Envelope::default(), &body).await.unwrap();
}

#[tokio::test]
async fn abandoned_parts_are_forgotten() {
    let mut parts = Parts::default();
    for id in 0..1000 {
        parts.add(id, &[1; 100]).unwrap();
        parts.add(id, &[]).unwrap();
    }
    assert_eq!((parts.bytes, parts.partial.len()), (0, 0));
    for id in 0..PARTIAL as u64 {
        parts.add(id, &[1]).unwrap();
    }
    assert!(parts.add(PARTIAL as u64, &[1]).is_err());
    assert!(parts.whole(Some(1000), &[]).is_err());
}

#[tokio::test]
async fn garbage_closes_the_lane() {
    let (mut foreign, b) = duplex(1024);
    let mut greeting = Vec::new();
    record::write_hello(&mut greeting, &hello(A));
    foreign.write_all(&greeting).await.unwrap();
    let (_, half) = open(split(b), hello(B), A).await.unwrap();
    let running = run(half, echo().0);
    foreign.write_all(&[255; 64]).await.unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test(start_paused = true)]
async fn strangers_and_the_silent_get_no_lane() {
    for (node, cluster, proto) in [(9, 7, record::PROTO), (1, 8, record::PROTO), (1, 7, record::PROTO + 1)] {
        let (mut foreign, b) = duplex(1024);
        let mut greeting = Vec::new();
        record::write_hello(&mut greeting, &Hello { proto, cluster, node, incarnation: 1 });
        foreign.write_all(&greeting).await.unwrap();
        assert!(open(split(b), hello(B), A).await.is_err());
    }
    let (_silent, b) = duplex(1024);
    assert!(open(split(b), hello(B), A).await.is_err());
}
