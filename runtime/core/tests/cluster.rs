//! Several nodes in one process, over real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its set-up too")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aivillage_runtime::blob::{BlobError, BlobId, BlobRef};
use aivillage_runtime::transport::{ClusterTransport, ListenerLimits, Pins, Protocol, TlsTcp};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Addr, Cluster, Durability, Durable, Entity, Idem, Identity, Kind,
    KindOptions, Mail, NodeId, PublicKey, ReplicaView, Reply, StartError, Village,
};
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

#[derive(Serialize, Deserialize)]
enum CounterMsg {
    Add(u64, Reply<u64>),
    Get(Reply<u64>),
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Count(u64);

impl Durable for Count {
    type Event = u64;
    fn apply(&mut self, added: &u64) {
        self.0 += added;
    }
}

struct Counter;

impl Kind for Counter {
    const NAME: &'static str = "test.counter";
    type Body = CounterMsg;
    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

impl Actor for Counter {
    type Msg = Mail<CounterMsg>;
    type State = Entity<Count>;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Self::State, ActorProcessingErr> {
        Ok(cx.recover().await?)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        count: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            CounterMsg::Add(n, reply) => reply.complete(count.commit_once(mail.cx.idem(), n, |count| count.0).await),
            CounterMsg::Get(reply) => reply.send(count.0),
        }
        Ok(())
    }
}

/// Keeps all it is told.
struct Pages;

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Written(Vec<String>);

impl Durable for Written {
    type Event = String;
    fn apply(&mut self, page: &String) {
        self.0.push(page.clone());
    }
}

#[derive(Serialize, Deserialize)]
enum PagesMsg {
    Write(String, Reply<usize>),
}

impl Kind for Pages {
    const NAME: &'static str = "test.pages";
    type Body = PagesMsg;
    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

impl Actor for Pages {
    type Msg = Mail<PagesMsg>;
    type State = Entity<Written>;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Self::State, ActorProcessingErr> {
        Ok(cx.recover().await?)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        pages: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let PagesMsg::Write(page, reply) = mail.body;
        reply.complete(pages.commit_once(mail.cx.idem(), page, |pages| pages.0.len()).await);
        Ok(())
    }
}

/// Keeps nothing.
struct Echo;

impl Kind for Echo {
    const NAME: &'static str = "test.echo";
    type Body = Reply<NodeId>;
}

impl Actor for Echo {
    type Msg = Mail<Reply<NodeId>>;
    type State = NodeId;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<NodeId, ActorProcessingErr> {
        Ok(cx.village().node_id())
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        node: &mut NodeId,
    ) -> Result<(), ActorProcessingErr> {
        mail.body.send(*node);
        Ok(())
    }
}

/// What the views of one node were told of each key.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, Vec<Told>>>>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    /// The state as it is after an event.
    Restored {
        seq: u64,
        count: u64,
    },
    Applied {
        seq: u64,
        added: u64,
    },
}

/// The part of one group.
struct Watch {
    seen: Seen,
    keys: BTreeSet<String>,
}

impl Watch {
    fn tell(&mut self, key: &str, told: Told) {
        self.keys.insert(key.to_owned());
        self.seen.0.lock().unwrap().entry(key.to_owned()).or_default().push(told);
    }
}

impl ReplicaView for Watch {
    type State = Count;
    async fn clear(&mut self) {
        let mut seen = self.seen.0.lock().unwrap();
        for key in std::mem::take(&mut self.keys) {
            seen.remove(&key);
        }
    }
    async fn restored(&mut self, key: &str, seq: u64, state: &Count) {
        self.tell(key, Told::Restored { seq, count: state.0 });
    }
    async fn applied(&mut self, key: &str, seq: u64, added: u64) {
        self.tell(key, Told::Applied { seq, added });
    }
}

async fn start(dir: &tempfile::TempDir, name: &str, join: Option<(&str, &str)>) -> Village {
    start_seen(dir, name, join, &Seen::default()).await
}

async fn start_seen(dir: &tempfile::TempDir, name: &str, join: Option<(&str, &str)>, seen: &Seen) -> Village {
    let mut config: toml::Table = "node.listen = '127.0.0.1:0'".parse().unwrap();
    if let Some((token, seed)) = join {
        config.insert("join".into(), toml::from_str(&format!("token = '{token}'\nseeds = ['{seed}']")).unwrap());
    }
    let seen = seen.clone();
    let builder = Village::builder()
        .host(|_: &ActorCx| Counter)
        .host(|_: &ActorCx| Echo)
        .host(|_: &ActorCx| Pages)
        .replica_view::<Counter, _>(move |_| Watch { seen: seen.clone(), keys: BTreeSet::new() });
    builder.config(config).data_dir(dir.path().join(name)).clustered().start().await.unwrap()
}

async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn ready(village: &Village) {
    until("ready", async || village.health().ready.then_some(())).await;
}

async fn three(dir: &tempfile::TempDir) -> [Village; 3] {
    three_seen(dir, &Default::default()).await
}

/// Three nodes, each group with three voters, none leading too much.
async fn three_seen(dir: &tempfile::TempDir, seen: &[Seen; 3]) -> [Village; 3] {
    let villages = three_joined(dir, seen).await;
    let cluster = villages[0].cluster().unwrap();
    until("no node leading too many groups", async || {
        let status = cluster.status();
        let spread = status.members.iter().all(|member| member.leads.iter().filter(|group| **group > 0).count() <= 3);
        (spread && status.health == "healthy").then_some(())
    })
    .await;
    villages
}

/// Three nodes that have just found each other.
async fn three_joined(dir: &tempfile::TempDir, seen: &[Seen; 3]) -> [Village; 3] {
    let a = start_seen(dir, "a", None, &seen[0]).await;
    ready(&a).await;
    // Written while there is one node.
    assert_eq!(a.addr::<Counter>("before").ask(|r| CounterMsg::Add(2, r)).await, Ok(2));
    let cluster = a.cluster().unwrap();
    let token = cluster.new_token(2, Duration::from_mins(1), "test").await.unwrap().to_string();
    let seed = cluster.addr().to_owned();
    let b = start_seen(dir, "b", Some((&token, &seed)), &seen[1]).await;
    let c = start_seen(dir, "c", Some((&token, &seed)), &seen[2]).await;
    for village in [&a, &b, &c] {
        ready(village).await;
    }
    [a, b, c]
}

async fn add(village: &Village, key: &str, n: u64) -> u64 {
    village.addr::<Counter>(key).ask(|r| CounterMsg::Add(n, r)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_make_one_village() {
    let dir = tempfile::tempdir().unwrap();
    let villages = three(&dir).await;
    let [a, b, c] = &villages;
    for village in [a, b, c] {
        assert_eq!(village.addr::<Counter>("before").ask(CounterMsg::Get).await, Ok(2));
    }
    for key in (0..20).map(|n| format!("k{n}")) {
        assert_eq!([add(a, &key, 1).await, add(b, &key, 2).await, add(c, &key, 3).await], [1, 3, 6]);
    }
    // Kinds without state are spread too, and all nodes agree on where.
    let mut hosts = BTreeSet::new();
    for key in (0..20).map(|n| format!("k{n}")) {
        let ask = async |village: &Village| village.addr::<Echo>(&key).ask(|r| r).await.unwrap();
        let at = ask(a).await;
        assert_eq!([at, at], [ask(b).await, ask(c).await]);
        hosts.insert(at);
    }
    assert_eq!(hosts.len(), 3);
    let metrics = a.encode_metrics();
    for series in [
        "village_raft_term{group=\"8\"}",
        "village_link_up{peer=\"",
        "village_link_rejected_total{reason=\"garbage\"} 0",
    ] {
        assert!(metrics.contains(series), "no {series} in {metrics}");
    }
    assert_eq!(
        metrics.lines().filter(|line| line.starts_with("village_member_state{") && line.contains("\"up\"")).count(),
        3
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_is_told_each_event_once_and_in_order() {
    const EVENTS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let seen: [Seen; 3] = Default::default();
    let [a, b, c] = three_seen(&dir, &seen).await;
    // The others got it as a snapshot, which took the place of an empty copy that their views had seen.
    until("what was there before, on every node", async || {
        let of = |seen: &Seen| seen.0.lock().unwrap().get("before").cloned().unwrap_or_default();
        let [first, others @ ..] = seen.each_ref().map(of);
        let told = first.last()?;
        let alone = [Told::Applied { seq: 1, added: 2 }, Told::Restored { seq: 1, count: 2 }].contains(told);
        (alone && others.iter().all(|told| *told == [Told::Restored { seq: 1, count: 2 }])).then_some(())
    })
    .await;
    let keys: Vec<_> = (0..10).map(|n| format!("k{n}")).collect();
    for n in 1..=EVENTS {
        for (nth, key) in keys.iter().enumerate() {
            add([&a, &b, &c][nth % 3], key, n).await;
        }
    }
    let all: Vec<_> = (1..=EVENTS).map(|n| Told::Applied { seq: n, added: n }).collect();
    for seen in &seen {
        for key in &keys {
            until("all events", async || (seen.0.lock().unwrap().get(key)? == &all).then_some(())).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_values_are_agreed_on() {
    let dir = tempfile::tempdir().unwrap();
    let villages = three(&dir).await;
    let [a, b, c] = villages.each_ref().map(|village| village.cluster().unwrap());
    let version = b.put("color", b"green".to_vec(), Some(0)).await.unwrap();
    assert!(c.put("color", b"red".to_vec(), Some(0)).await.is_err());
    c.put("color", b"red".to_vec(), Some(version)).await.unwrap();
    let red = |cluster: &Cluster| cluster.get("color").is_some_and(|entry| entry.value == b"red");
    until("the value everywhere", async || (red(a) && red(b) && red(c)).then_some(())).await;
    assert_eq!(a.list("col").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_leaves_in_good_order_fails_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = three(&dir).await;
    assert!(!a.has_ended(c.run()));
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let client: Addr<Counter> = a.addr("client");
    let load = async {
        for acked in 1_u64.. {
            let idem = Idem::of(&[b"load", &acked.to_le_bytes()]);
            let added = client.call().idem(idem).ask(|r| CounterMsg::Add(1, r)).await;
            assert_eq!(added, Ok(acked));
            if (&mut stopped).now_or_never().is_some() {
                return acked;
            }
        }
        unreachable!("the load ends with the leave")
    };
    let leave = async {
        c.shutdown().await.unwrap();
        stop.send(()).unwrap();
    };
    let (acked, ()) = tokio::join!(load, leave);
    assert_eq!(client.ask(CounterMsg::Get).await, Ok(acked));
    assert!(b.health().ready);
    until("the end of its run known", async || b.has_ended(c.run()).then_some(())).await;
    assert!(!a.has_ended(b.run()) && !a.has_ended(a.run()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_village_is_healthy_once_it_can_lose_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let villages = three_joined(&dir, &Default::default()).await;
    for village in &villages {
        let status = || village.cluster().unwrap().status();
        let healthy = async || Some(status()).filter(|it| it.health == "healthy" && it.members.len() == 3);
        let status = until("three nodes that are well", healthy).await;
        assert!(status.groups.iter().all(|group| group.voters.len() == 3), "{:?}", status.groups);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_village_that_was_shut_down_starts_again_in_the_same_process() {
    let dir = tempfile::tempdir().unwrap();
    for run in 1..=3 {
        let village = start(&dir, "a", None).await;
        ready(&village).await;
        assert_eq!(village.run().incarnation, run);
        assert_eq!(add(&village, "k", 1).await, run);
        village.shutdown().await.unwrap();
        assert!(village.addr::<Counter>("k").ask(CounterMsg::Get).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_wait_while_the_village_changes_under_them() {
    let dir = tempfile::tempdir().unwrap();
    let a = start(&dir, "a", None).await;
    ready(&a).await;
    let cluster = a.cluster().unwrap();
    let token = cluster.new_token(2, Duration::from_mins(1), "test").await.unwrap().to_string();
    let keys: Vec<_> = (0..40).map(|n| format!("k{n}")).collect();
    let asked = async |village: &Village| {
        let asks = keys.iter().map(async |key| {
            let idem = Idem::of(&[village.run().node.to_string().as_bytes(), key.as_bytes()]);
            village.addr::<Echo>(key).ask(|r| r).await.map_err(|error| format!("echo {key}: {error:?}"))?;
            let count = village.addr::<Counter>(key);
            count.call().idem(idem).ask(|r| CounterMsg::Add(1, r)).await.map_err(|error| format!("{key}: {error:?}"))
        });
        futures::future::join_all(asks).await.into_iter().collect::<Result<Vec<_>, _>>()
    };
    assert!(asked(&a).await.is_ok());
    for (name, members) in [("b", 2), ("c", 3)] {
        let joined = async {
            let village = start(&dir, name, Some((&token, cluster.addr()))).await;
            ready(&village).await;
            (asked(&village).await, village)
        };
        let meanwhile = async {
            loop {
                asked(&a).await?;
                if cluster.status().members.iter().filter(|member| member.state == "up").count() == members {
                    return Ok::<_, String>(());
                }
            }
        };
        let ((first, village), meanwhile) = tokio::join!(joined, meanwhile);
        assert_eq!(first.map(drop), Ok(()), "through {name}");
        assert_eq!(meanwhile, Ok(()), "while {name} joined");
        assert_eq!(village.run().incarnation, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_leader_of_five_hands_over() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(&dir, "n1", None).await;
    ready(&first).await;
    let cluster = first.cluster().unwrap();
    let token = cluster.new_token(4, Duration::from_mins(1), "test").await.unwrap().to_string();
    let mut villages = vec![first.clone()];
    for name in ["n2", "n3", "n4", "n5"] {
        villages.push(start(&dir, name, Some((&token, cluster.addr()))).await);
    }
    until("five voters in the control group", async || {
        let control = cluster.status().groups.swap_remove(0);
        (control.voters.len() == 5 && control.leader.as_deref() == Some(&*first.node_id().to_string())).then_some(())
    })
    .await;
    let term = cluster.status().groups[0].term;
    cluster.drain(first.node_id()).await.unwrap();
    let successor = until("another leader", async || {
        let control = villages[1].cluster().unwrap().status().groups.swap_remove(0);
        control.leader.filter(|leader| *leader != first.node_id().to_string()).map(|leader| (leader, control.term))
    })
    .await;
    assert_eq!(successor.1, term + 1, "one election, which the leader called");
    villages[2].cluster().unwrap().put("color", b"green".to_vec(), Some(0)).await.unwrap();
    until("the old leader without a vote", async || {
        let control = villages[1].cluster().unwrap().status().groups.swap_remove(0);
        (!control.voters.contains(&first.node_id().to_string())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn view_of_a_kind_without_replicas_is_refused() {
    let builder =
        Village::builder().replica_view::<Echo, _>(|_| Watch { seen: Seen::default(), keys: BTreeSet::new() });
    let refused = builder.start().await.map(drop);
    assert!(matches!(refused, Err(StartError::NotReplicated("test.echo"))), "{refused:?}");
}

#[tokio::test]
async fn revoked_token_is_denied() {
    let dir = tempfile::tempdir().unwrap();
    let a = start(&dir, "a", None).await;
    let cluster = a.cluster().unwrap();
    let token = cluster.new_token(1, Duration::from_mins(1), "").await.unwrap();
    cluster.revoke_token(token.token_id).await.unwrap();
    let config = format!("node.listen = '127.0.0.1:0'\njoin.token = '{token}'\njoin.seeds = ['{}']", cluster.addr());
    let refused = Village::builder().config(config.parse().unwrap()).clustered().start().await;
    let error = refused.map(|_| ()).unwrap_err();
    assert!(format!("{error:?}").contains("Denied"), "{error:?}");
}

/// Bytes of files that have come to a node, and gone from it.
fn moved(village: &Village) -> [u64; 2] {
    let metrics = village.encode_metrics();
    ["in", "out"].map(|dir| {
        let series = format!("village_blob_bytes_total{{dir=\"{dir}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_fetched_from_the_node_that_has_them_by_members_only() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = three(&dir).await;
    let before = [&a, &b].map(moved);
    let bytes: Vec<u8> = (0..30 << 20_u32).map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let blob = a.blobs().put(bytes.clone()).await.unwrap();
    assert_eq!(blob.node, a.node_id());
    for _ in 0..2 {
        b.blobs().fetch(&blob).await.unwrap();
    }
    assert!(b.blobs().get(blob.id).await.unwrap() == bytes, "another blob");
    let after = [&a, &b].map(moved);
    assert_eq!([after[0][1] - before[0][1], after[1][0] - before[1][0]], [30 << 20; 2], "it comes once");
    let nowhere = BlobRef { id: BlobId::of(b"nobody's"), ..blob };
    let error = c.blobs().fetch(&nowhere).await;
    assert!(matches!(error, Err(BlobError::NotThere { node, .. }) if node == a.node_id()), "{error:?}");

    let outsider = Identity::generate().unwrap();
    let mut door = None;
    let listener = |work| door = Some(work);
    let limits = ListenerLimits::default();
    let transport = TlsTcp::bind("127.0.0.1:0", &outsider, &Pins::default(), limits, listener).await.unwrap();
    let cluster = a.cluster().unwrap();
    let key = cluster.members().into_iter().find(|member| member.record.id == a.node_id()).unwrap().record.public_key;
    let dialled = transport.dial(cluster.addr(), PublicKey(key), Protocol::Blob).await;
    // A dialler learns of the refusal with its first read.
    let mut stream = dialled.unwrap();
    let read = stream.io.read_u8().await.unwrap_err();
    assert!(read.to_string().contains("AccessDenied"), "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_state_comes_to_a_new_node_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let a = start(&dir, "a", None).await;
    ready(&a).await;
    for n in 1..=60_usize {
        // Not to be compressed.
        let page: String =
            (0..100_000_u32).map(|at| char::from(33 + BlobId::of(&at.to_le_bytes()).as_bytes()[n % 32] % 90)).collect();
        assert_eq!(a.addr::<Pages>("book").ask(|r| PagesMsg::Write(page, r)).await, Ok(n));
    }
    let cluster = a.cluster().unwrap();
    let token = cluster.new_token(1, Duration::from_mins(1), "test").await.unwrap().to_string();
    let b = start(&dir, "b", Some((&token, cluster.addr()))).await;
    ready(&b).await;
    let group = usize::from(cluster.group_of("test.pages", "book"));
    until("the copy", async || {
        let applied = |village: &Village| village.cluster().unwrap().status().groups[group].applied;
        (applied(&b).is_some() && applied(&b) == applied(&a)).then_some(())
    })
    .await;
    let [into_b, _] = moved(&b);
    assert!(into_b > 6_000_000, "{into_b} bytes came as files");
    // What changes nodes meanwhile says so.
    let last = until("the book through the new node", async || {
        let call = b.addr::<Pages>("book");
        call.call().idem(Idem::of(&[b"last"])).ask(|r| PagesMsg::Write("last".to_owned(), r)).await.ok()
    })
    .await;
    assert_eq!(last, 61);
}
