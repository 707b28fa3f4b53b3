use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use super::*;
use crate::blob::{BlobRef, Blobs};
use crate::identity::PublicKey;
use crate::store::MemoryStore;
use crate::task::Tasks;
use crate::telemetry::Metrics;

const MIB: usize = 1 << 20;

fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

/// Streams in memory to the lane of the far node.
struct Wires {
    far: Mutex<Option<Arc<BlobLane>>>,
    /// After how many bytes the next streams break; those beyond never do.
    cuts: Mutex<VecDeque<usize>>,
    tasks: Tasks,
}

impl ClusterTransport for Wires {
    fn dial(&self, _: &str, peer: PublicKey, protocol: Protocol) -> BoxFuture<'_, io::Result<AuthStream>> {
        let far = self.far.lock().clone();
        let left = self.cuts.lock().pop_front();
        async move {
            let far = far.ok_or(io::ErrorKind::ConnectionRefused)?;
            let (here, there) = duplex(64 * 1024);
            let theirs = AuthStream { peer: key(1), protocol, remote: None, io: Box::new(there) };
            self.tasks.spawn("serve", async move { far.serve(theirs).await }).detach();
            Ok(AuthStream { peer, protocol, remote: None, io: Box::new(Cut { io: here, left }) })
        }
        .boxed()
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<AuthStream>> {
        std::future::pending().boxed()
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }
}

/// A stream that breaks after some bytes have come.
struct Cut {
    io: DuplexStream,
    left: Option<usize>,
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(left) = self.left else { return Pin::new(&mut self.io).poll_read(cx, buf) };
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = left.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut part);
        let read = part.filled().len();
        buf.advance(read);
        self.left = Some(left - read);
        polled
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A node that fetches and one that has.
struct Pair {
    wires: Arc<Wires>,
    near: Blobs,
    far: Blobs,
    far_lane: Arc<BlobLane>,
    metrics: Metrics,
}

impl Pair {
    /// Blobs in `dir`, or on the heap; the far node sends `rate` bytes a second.
    fn new(dir: Option<&Path>, rate: u64) -> Self {
        let wires = Arc::new(Wires { far: Mutex::default(), cuts: Mutex::default(), tasks: Tasks::default() });
        let blobs = |number: u8| match dir {
            Some(dir) => {
                Blobs::open(key(number).node_id(), &dir.join(number.to_string()), Arc::<MemoryStore>::default())
                    .unwrap()
            }
            None => Blobs::in_memory(key(number).node_id(), Arc::<MemoryStore>::default()),
        };
        let (near, far, metrics) = (blobs(1), blobs(2), Metrics::new());
        let lane = |blobs: &Blobs, other: u8, metrics: &Metrics| {
            let counted = Counted { blobs: metrics.set(), links: metrics.set() };
            let lane = Arc::new(BlobLane::new(wires.clone(), blobs, rate, counted));
            let peer = Peer { key: key(other), addr: other.to_string() };
            lane.set_members(&[(key(other).node_id(), peer)].into());
            lane
        };
        near.connect(lane(&near, 2, &metrics));
        let far_lane = lane(&far, 1, &Metrics::new());
        *wires.far.lock() = Some(far_lane.clone());
        Self { wires, near, far, far_lane, metrics }
    }

    /// Bytes that have landed at the near node.
    fn received(&self) -> usize {
        let text = self.metrics.encode();
        let value = text.lines().find_map(|line| line.strip_prefix("village_blob_bytes_total{dir=\"in\"} "));
        value.unwrap().parse().unwrap()
    }

    async fn assert_has(&self, blob: &BlobRef, bytes: &[u8]) {
        assert!(self.near.get(blob.id).await.unwrap() == bytes, "another blob");
        assert_eq!(self.near.references(blob.id).unwrap(), 0);
    }

    /// A stream to the far node, from a node of that key.
    fn stream(&self, from: PublicKey) -> DuplexStream {
        let (here, there) = duplex(64 * 1024);
        let (lane, protocol) = (self.far_lane.clone(), Protocol::Blob);
        let theirs = AuthStream { peer: from, protocol, remote: None, io: Box::new(there) };
        self.wires.tasks.spawn("serve", async move { lane.serve(theirs).await }).detach();
        here
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes
}

async fn ask(stream: &mut DuplexStream, request: Request) -> io::Result<Answer> {
    stream.write_all(&request.encode()).await?;
    let mut bytes = [0; ANSWER];
    stream.read_exact(&mut bytes).await?;
    Ok(Answer::decode(&bytes).unwrap())
}

#[tokio::test]
async fn blobs_of_all_sizes_come_once() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [None, Some(dir.path())] {
        let pair = Pair::new(dir, 0);
        let mut all = 0;
        for len in [0, 1, 1000, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 21 * MIB] {
            let bytes = noise(len);
            let blob = pair.far.put(bytes.clone()).await.unwrap();
            let (one, other) = tokio::join!(pair.near.fetch(&blob), pair.near.fetch(&blob));
            one.and(other).unwrap();
            pair.near.fetch(&blob).await.unwrap();
            pair.assert_has(&blob, &bytes).await;
            all += len;
            assert_eq!(pair.received(), all);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lost_streams_cost_what_they_had_under_way() {
    let dir = tempfile::tempdir().unwrap();
    for dir in [None, Some(dir.path())] {
        let pair = Pair::new(dir, 0);
        let bytes = noise(30 * MIB);
        let blob = pair.far.put(bytes.clone()).await.unwrap();
        *pair.wires.cuts.lock() = [3 * MIB + 5, 100, 9 * MIB, 5 * MIB, 0, 2 * MIB].into();
        pair.near.fetch(&blob).await.unwrap();
        assert!(pair.wires.cuts.lock().is_empty());
        pair.assert_has(&blob, &bytes).await;
        assert_eq!(pair.received(), bytes.len());
    }
}

#[tokio::test(start_paused = true)]
async fn later_fetch_goes_on_where_one_that_failed_ended() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::new(Some(dir.path()), 0);
    let bytes = noise(30 * MIB);
    let blob = pair.far.put(bytes.clone()).await.unwrap();
    *pair.wires.cuts.lock() = [11 * MIB].into_iter().chain([5 * MIB; 3]).chain([0; 20]).collect();
    let failed = pair.near.fetch(&blob).await;
    assert!(matches!(failed, Err(BlobError::Unreachable { node, .. }) if node == blob.node), "{failed:?}");
    let partial = dir.path().join("1").join(format!("partial-{}", blob.id));
    let kept = usize::try_from(fs::metadata(&partial).unwrap().len()).unwrap();
    assert!(kept >= 4 * MIB, "{kept}");
    let before = pair.received();
    pair.wires.cuts.lock().clear();
    pair.near.fetch(&blob).await.unwrap();
    pair.assert_has(&blob, &bytes).await;
    assert_eq!(pair.received() - before, bytes.len() - kept);
    assert!(!partial.exists());
}

#[tokio::test]
async fn what_a_crash_left_of_a_fetch_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::new(Some(dir.path()), 0);
    let bytes = noise(MIB);
    let blob = pair.far.put(bytes.clone()).await.unwrap();
    for garbage in [vec![0; 1000], vec![0; 2 * MIB]] {
        fs::write(dir.path().join("1").join(format!("partial-{}", blob.id)), garbage).unwrap();
        pair.near.fetch(&blob).await.unwrap();
        pair.assert_has(&blob, &bytes).await;
        fs::remove_file(dir.path().join("1").join(blob.id.to_string())).unwrap();
    }
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::new(Some(dir.path()), 0);
    let blob = pair.far.put(noise(5 * MIB)).await.unwrap();
    let file = dir.path().join("2").join(blob.id.to_string());
    let mut damaged = noise(5 * MIB);
    damaged[3 * MIB] ^= 1;
    let longer = noise(6 * MIB).into_iter().rev().collect();
    for content in [damaged, noise(MIB), longer] {
        fs::write(&file, content).unwrap();
        let refused = pair.near.fetch(&blob).await;
        assert!(matches!(refused, Err(BlobError::Mismatch { id, .. }) if id == blob.id), "{refused:?}");
        assert_eq!(fs::read_dir(dir.path().join("1")).unwrap().count(), 0);
        assert!(matches!(pair.near.get(blob.id).await, Err(BlobError::NotFound { .. })));
    }
    let empty = BlobRef { len: 0, ..blob };
    assert!(matches!(pair.near.fetch(&empty).await, Err(BlobError::Mismatch { .. })));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_have_a_blob_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::new(Some(dir.path()), 0);
    let (here, far) = (key(1).node_id(), key(2).node_id());
    let blob = BlobRef { node: far, id: BlobId::of(b"nobody's"), len: 8 };
    assert!(matches!(pair.near.fetch(&blob).await, Err(BlobError::NotThere { node, .. }) if node == far));
    let own = pair.near.fetch(&BlobRef { node: here, ..blob }).await;
    assert!(matches!(own, Err(BlobError::NotFound { .. })));
    let stranger = key(3).node_id();
    let strange = pair.near.fetch(&BlobRef { node: stranger, ..blob }).await;
    assert!(matches!(strange, Err(BlobError::Unreachable { node, .. }) if node == stranger));
    *pair.wires.far.lock() = None;
    assert!(matches!(pair.near.fetch(&blob).await, Err(BlobError::Unreachable { .. })));
    let alone = Blobs::in_memory(here, Arc::<MemoryStore>::default());
    assert!(matches!(alone.fetch(&blob).await, Err(BlobError::Unreachable { .. })));
    assert_eq!(fs::read_dir(dir.path().join("1")).unwrap().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn bad_requests_get_an_answer_and_then_the_door() {
    let pair = Pair::new(None, 0);
    let id = pair.far.put(&b"twelve bytes"[..]).await.unwrap().id;
    let mut stream = pair.stream(key(1));
    let good = Request { id, offset: 2, len: 4 };
    let mut bytes = [0; 4];
    assert_eq!(ask(&mut stream, good).await.unwrap(), Answer { status: Status::Found, len: 4 });
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"elve");
    for (request, status) in [
        (Request { id: BlobId::of(b"other"), ..good }, Status::Unknown),
        (Request { offset: 13, ..good }, Status::OutOfRange),
        (Request { offset: u64::MAX, len: RANGE, ..good }, Status::OutOfRange),
        (Request { len: RANGE + 1, ..good }, Status::TooLong),
        (Request { len: u64::MAX, ..good }, Status::TooLong),
    ] {
        assert_eq!(ask(&mut stream, request).await.unwrap(), Answer { status, len: 0 });
    }
    let end = Request { offset: 12, len: RANGE, ..good };
    assert_eq!(ask(&mut stream, end).await.unwrap(), Answer { status: Status::Found, len: 0 });
    let unknown = Request { id: BlobId::of(b"other"), ..good };
    for _ in 5..REFUSED {
        assert_eq!(ask(&mut stream, unknown).await.unwrap().status, Status::Unknown);
    }
    assert!(ask(&mut stream, unknown).await.is_err(), "the stream is closed");
}

#[tokio::test(start_paused = true)]
async fn strangers_silent_and_stuck_peers_are_let_go() {
    let pair = Pair::new(None, 0);
    let id = pair.far.put(noise(MIB)).await.unwrap().id;
    let request = Request { id, offset: 0, len: MIB as u64 };
    let mut nothing = [0; 1];
    let start = Instant::now();
    assert_eq!(pair.stream(key(3)).read(&mut nothing).await.unwrap(), 0);
    assert_eq!(start.elapsed(), Duration::ZERO);

    assert_eq!(pair.stream(key(1)).read(&mut nothing).await.unwrap(), 0);
    assert_eq!(start.elapsed(), STALLED);

    let mut stuck = pair.stream(key(1));
    ask(&mut stuck, request).await.unwrap();
    sleep(STALLED).await;
    let mut rest = Vec::new();
    stuck.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < MIB, "it was given up");

    let streams: Vec<_> = (0..SERVED).map(|_| pair.stream(key(1))).collect();
    assert_eq!(pair.stream(key(1)).read(&mut nothing).await.unwrap(), 0);
    assert!(start.elapsed() < 3 * STALLED, "one more is closed at once");
    drop(streams);

    let mut removed = pair.stream(key(1));
    ask(&mut removed, Request { len: 0, ..request }).await.unwrap();
    pair.far_lane.set_members(&HashMap::new());
    assert!(ask(&mut removed, request).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_gets_no_more_than_its_rate() {
    let pair = Pair::new(None, MIB as u64);
    let blob = pair.far.put(noise(12 * MIB)).await.unwrap();
    let start = Instant::now();
    pair.near.fetch(&blob).await.unwrap();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(11_500) && took < Duration::from_secs(13), "{took:?}");
}

#[tokio::test]
async fn an_offer_ends_with_the_last_of_those_who_make_it() {
    let (offers, id) = (Offers::default(), BlobId::of(b"offered"));
    let file = || Served::Heap(b"offered"[..].into());
    let (one, other) = (offers.offer(id, file()), offers.offer(id, file()));
    drop(one);
    assert!(offers.find(id).is_some());
    drop(other);
    assert!(offers.find(id).is_none());
}
