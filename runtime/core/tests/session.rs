//! Sessions between real processes: this test program starts itself as further nodes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its set-up too")]
#![allow(clippy::print_stdout, reason = "figures are shown")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aivillage_runtime::cluster::Cluster;
use aivillage_runtime::control::{self, NodeRecord};
use aivillage_runtime::join::request_join;
use aivillage_runtime::ractor_cluster::node::NodeServerSessionInformation;
use aivillage_runtime::ractor_cluster::{
    BoxRead, BoxWrite, ClusterBidiStream, NodeEventSubscription, NodeServer, NodeServerMessage, RactorClusterMessage,
};
use aivillage_runtime::transport::{AuthStream, ClusterTransport, ListenerLimits, Pins, Protocol, TlsTcp};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Identity, JoinUrl, Kind, Mail, NodeId, Reply, Village,
};
use ractor::rpc::CallResult;
use ractor::{RpcReplyPort, pg};
use tokio::sync::mpsc::UnboundedSender;

/// `TOKEN@ADDR`: the program is a further node.
const JOIN: &str = "SESSION_TEST_JOIN";
/// The same: it holds a member's key and nothing else.
const STRANGER: &str = "SESSION_TEST_STRANGER";
const GROUP: &str = "adders";

/// Sessions belong to the process, and tests are its threads.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Echo;

impl Kind for Echo {
    const NAME: &'static str = "test.echo";
    const VERSION: u16 = 3;
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

#[derive(RactorClusterMessage)]
enum AdderMsg {
    Forget,
    #[rpc]
    Add(u64, RpcReplyPort<u64>),
}

/// An actor that knows nothing of the village.
struct Adder;

impl Actor for Adder {
    type Msg = AdderMsg;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<AdderMsg>, (): ()) -> Result<u64, ActorProcessingErr> {
        pg::join(GROUP.to_owned(), vec![me.get_cell()]);
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<AdderMsg>, msg: AdderMsg, sum: &mut u64) -> Result<(), ActorProcessingErr> {
        match msg {
            AdderMsg::Forget => *sum = 0,
            AdderMsg::Add(number, reply) => {
                *sum += number;
                reply.send(*sum)?;
            }
        }
        Ok(())
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn start(join: Option<&JoinUrl>) -> Village {
    let _ = tracing_subscriber::fmt().with_env_filter(std::env::var("RUST_LOG").unwrap_or_default()).try_init();
    let mut config = "node.listen = '127.0.0.1:0'\n".to_owned();
    if let Some(JoinUrl { token, addr }) = join {
        config += &format!("join.token = '{token}'\njoin.seeds = ['{addr}']");
    }
    let builder = Village::builder().host(|_: &ActorCx| Echo).config(config.parse().unwrap());
    builder.clustered().start().await.unwrap()
}

async fn invite(cluster: &Cluster) -> JoinUrl {
    let token = cluster.new_token(1, Duration::from_mins(1), "").await.unwrap();
    JoinUrl { token, addr: cluster.addr().to_owned() }
}

/// Looks again and again; what is waited for comes from another process.
async fn until<T>(what: &str, limit: Duration, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, looking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

const SOON: Duration = Duration::from_secs(30);

/// This program once more. It ends with its standard input.
struct Other {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Other {
    fn start(test: &str, variable: &str, join: &JoinUrl) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(variable, join.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Self { child, stdin, lines }
    }

    /// What stands behind this word in the next line that begins with it. The test harness prints too.
    fn said(&self, word: &str) -> String {
        let end = Instant::now() + SOON;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("never said: {word}"));
            if let Some((_, rest)) = line.split_once(&format!("{word}: ")) {
                return rest.to_owned();
            }
        }
    }

    fn end(mut self) {
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

async fn input_ends() {
    let reading = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    reading.await.unwrap().unwrap();
}

/// A further node, when this program is started as one.
#[test]
fn further_node() {
    let Ok(join) = std::env::var(JOIN) else { return };
    runtime().block_on(async {
        let village = start(Some(&join.parse().unwrap())).await;
        Actor::spawn(None, Adder, ()).await.unwrap();
        say(&format!("node: {}", village.node_id()));
        input_ends().await;
        village.shutdown().await.unwrap();
    });
}

fn adders() -> Vec<ActorRef<AdderMsg>> {
    pg::get_members(&GROUP.to_owned()).into_iter().filter(|cell| !cell.get_id().is_local()).map(Into::into).collect()
}

async fn add(adder: &ActorRef<AdderMsg>, number: u64) -> u64 {
    match adder.call(|reply| AdderMsg::Add(number, reply), Some(Duration::from_secs(10))).await.unwrap() {
        CallResult::Success(sum) => sum,
        other => panic!("{other:?}"),
    }
}

/// The part of a core that a process uses while nothing is asked of it. There is no event to wait for: it is about time.
async fn idle_cost(child: &Child) -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        // `utime` and `stime`, the 14th and 15th; the name before them may hold blanks. proc_pid_stat(5).
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        fields.map(|field| field.parse::<f64>().unwrap()).sum::<f64>()
    };
    let (begin, before) = (Instant::now(), ticks());
    tokio::time::sleep(Duration::from_secs(3)).await;
    (ticks() - before) / TICKS_PER_S / begin.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_see_each_other_until_one_is_killed() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let village = start(None).await;
    let (cluster, me) = (village.cluster().unwrap(), village.node_id());
    assert_eq!(cluster.hosts("test.echo"), [(me, 3)]);
    let first = Other::start("further_node", JOIN, &invite(cluster).await);
    let second = Other::start("further_node", JOIN, &invite(cluster).await);
    let nodes: Vec<NodeId> = [&first, &second].map(|other| other.said("node").parse().unwrap()).to_vec();
    // Presence and discovery.
    let mut all = [&nodes[..], &[me]].concat();
    all.sort_unstable();
    until("hosts", SOON, async || {
        let hosts = cluster.hosts("test.echo");
        (hosts.iter().map(|(node, _)| *node).eq(all.iter().copied()) && hosts.iter().all(|(_, v)| *v == 3))
            .then_some(())
    })
    .await;
    assert_eq!(cluster.hosts("test.ech"), []);
    assert_eq!(cluster.sessions().len(), 2);
    // Actors of other processes.
    let there = until("adders", SOON, async || Some(adders()).filter(|adders| adders.len() == 2)).await;
    for adder in &there {
        assert_eq!((add(adder, 2).await, add(adder, 3).await), (2, 5));
        adder.cast(AdderMsg::Forget).unwrap();
        assert_eq!(add(adder, 1).await, 1);
    }
    // Hints: each node tells the membership that it follows.
    until("news", SOON, async || {
        let (news, epoch) = (cluster.news(), cluster.status().epoch);
        let follows = |node| news.get(node).is_some_and(|news| news.epoch == epoch);
        (epoch >= 3 && nodes.iter().all(follows)).then_some(())
    })
    .await;
    let busy = idle_cost(&first.child).await;
    println!("an idle node of three takes {:.1} % of a core", busy * 100.0);
    assert!(busy < 0.2, "{busy}");
    // What keeps the sessions may crash; it starts again and they with it.
    let gateway = || pg::get_scoped_local_members(&"village".to_owned(), &format!("gw/{me}")).pop();
    let crashed = gateway().unwrap();
    crashed.kill();
    until("sessions after a crash", SOON, async || {
        let again = gateway().is_some_and(|gateway| gateway.get_id() != crashed.get_id());
        (again && cluster.hosts("test.echo").len() == 3 && adders().len() == 2).then_some(())
    })
    .await;
    // A kill is noticed at once, and by whoever looks.
    let mut first = first;
    let killed = Instant::now();
    first.child.kill().unwrap();
    until("one adder", Duration::from_secs(1), async || (adders().len() == 1).then_some(())).await;
    until("one session", Duration::from_secs(1), async || (cluster.sessions() == [nodes[1]]).then_some(())).await;
    println!("gone after {:?}", killed.elapsed());
    assert!(!cluster.hosts("test.echo").contains(&(nodes[0], 3)));
    assert!(!cluster.news().contains_key(&nodes[0]));
    // Those that are left go on; one that leaves is gone as well.
    let [left] = &adders()[..] else { panic!("one is left") };
    assert_eq!(add(left, 1).await, 2);
    second.end();
    until("no session", SOON, async || (cluster.sessions().is_empty() && adders().is_empty()).then_some(())).await;
    village.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_node_of_a_process_has_sessions_and_the_others_serve_all_the_same() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let a = start(None).await;
    let cluster = a.cluster().unwrap();
    let b = start(Some(&invite(cluster).await)).await;
    let both = until("both up", SOON, async || {
        let hosts = b.cluster().unwrap().hosts("test.echo");
        (hosts.len() == 2).then_some(hosts)
    })
    .await;
    assert!(both.contains(&(b.node_id(), 3)));
    assert_eq!(cluster.hosts("test.echo"), [(a.node_id(), 3)], "a has no session with b");
    until("mail", SOON, async || {
        let mut nodes = std::collections::BTreeSet::new();
        for key in 0..16 {
            nodes.extend(a.addr::<Echo>(format!("k{key}")).ask(|reply| reply).await.ok());
        }
        (nodes.len() == 2).then_some(())
    })
    .await;
    // The place is free again for a node that starts later.
    a.shutdown().await.unwrap();
    let c = start(None).await;
    assert_eq!(c.cluster().unwrap().hosts("test.echo"), [(c.node_id(), 3)]);
    for village in [b, c] {
        village.shutdown().await.unwrap();
    }
}

/// What happened to the only session of a node server.
#[derive(Debug, PartialEq)]
enum Fate {
    Authenticated,
    Ended,
}

struct Fates(UnboundedSender<Fate>);

impl NodeEventSubscription for Fates {
    fn node_session_opened(&self, _: NodeServerSessionInformation) {}
    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {
        let _ = self.0.send(Fate::Authenticated);
    }
    fn node_session_disconnected(&self, _: NodeServerSessionInformation) {
        let _ = self.0.send(Fate::Ended);
    }
}

struct Plain(AuthStream);

impl ClusterBidiStream for Plain {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        let (read, write) = tokio::io::split(self.0.io);
        (Box::new(read), Box::new(write))
    }
}

/// Opens a session under this name and with this secret, and waits for its end.
async fn try_session(door: &TlsTcp, join: &JoinUrl, name: &str, cookie: &str) -> Vec<Fate> {
    let server = NodeServer::new(0, cookie.to_owned(), name.to_owned(), name.to_owned(), None, None)
        .with_listen_addr([127, 0, 0, 1].into());
    let (server, _) = Actor::spawn(None, server, ()).await.unwrap();
    let (send, mut fates) = tokio::sync::mpsc::unbounded_channel();
    let subscription = Box::new(Fates(send));
    server.cast(NodeServerMessage::SubscribeToEvents { id: String::new(), subscription }).unwrap();
    let stream = door.dial(&join.addr, join.token.issuer, Protocol::Session).await.unwrap();
    let stream = Box::new(Plain(stream));
    server.cast(NodeServerMessage::ConnectionOpenedExternal { stream, is_server: false }).unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&Fate::Ended) {
        seen.push(tokio::time::timeout(SOON, fates.recv()).await.unwrap().unwrap());
    }
    server.stop_and_wait(None, None).await.unwrap();
    seen
}

/// The owner of a member's key who does not play by the rules, when this program is started as one.
#[test]
fn stranger() {
    let Ok(join) = std::env::var(STRANGER) else { return };
    let join: JoinUrl = join.parse().unwrap();
    runtime().block_on(async {
        let (identity, pins) = (Identity::generate().unwrap(), Pins::default());
        let spawn = |work| drop(tokio::task::JoinSet::new().spawn(work));
        let door = TlsTcp::bind("127.0.0.1:0", &identity, &pins, ListenerLimits::default(), spawn).await.unwrap();
        let record = NodeRecord {
            id: identity.node_id(),
            public_key: identity.public_key().0,
            addr: "127.0.0.1:9".to_owned(),
            name: "stranger".to_owned(),
            labels: aivillage_runtime::Labels::default(),
            weight: 1,
            kinds: Vec::new(),
            version: String::new(),
        };
        let record = postcard::to_allocvec(&record).unwrap();
        let answer = request_join(&door, &join, record).await.unwrap();
        let (cluster, _): (control::Cluster, Vec<NodeRecord>) = postcard::from_bytes(&answer).unwrap();
        let cookie: String = cluster.cookie.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let own = identity.node_id().to_string();
        // The key is pinned a moment after the answer; from then on the right secret is taken.
        let fates = until("pinned", SOON, async || {
            let fates = try_session(&door, &join, "00000000000000ff", &cookie).await;
            fates.contains(&Fate::Authenticated).then_some(fates)
        })
        .await;
        say(&format!("another name: {fates:?}"));
        say(&format!("no gateway: {:?}", try_session(&door, &join, &own, &cookie).await));
        say(&format!("wrong cookie: {:?}", try_session(&door, &join, &own, &"00".repeat(32)).await));
        input_ends().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_key_alone_makes_no_session() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let village = start(None).await;
    let cluster = village.cluster().unwrap();
    let stranger = Other::start("stranger", STRANGER, &invite(cluster).await);
    assert_eq!(stranger.said("another name"), "[Authenticated, Ended]");
    assert_eq!(stranger.said("no gateway"), "[Authenticated, Ended]");
    assert_eq!(stranger.said("wrong cookie"), "[Ended]");
    for reason in ["session_name", "session_gateway", "session_handshake"] {
        let counted = format!("village_link_rejected_total{{reason=\"{reason}\"}}");
        until(reason, SOON, async || village.encode_metrics().contains(&counted).then_some(())).await;
    }
    assert_eq!(cluster.sessions(), []);
    stranger.end();
    village.shutdown().await.unwrap();
}
