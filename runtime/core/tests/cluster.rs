//! Several nodes in one process, over real sockets on loopback.

use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Addr, CallError, Durability, Durable, Entity, Idem, Kind,
    KindOptions, Mail, NodeId, Reply, Village,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum CounterMsg {
    Add(u64, Reply<u64>),
    Get(Reply<u64>),
    Where(Reply<NodeId>),
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
    type State = (Entity<Count>, NodeId);
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Self::State, ActorProcessingErr> {
        Ok((cx.recover().await?, cx.village().node_id()))
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (count, node) = state;
        match mail.body {
            CounterMsg::Add(n, reply) => reply.complete(count.commit_once(mail.cx.idem(), n, |count| count.0).await),
            CounterMsg::Get(reply) => reply.send(count.0),
            CounterMsg::Where(reply) => reply.send(*node),
        }
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

async fn start(dir: &tempfile::TempDir, name: &str, join: Option<(&str, &str)>) -> Village {
    let mut config: toml::Table = "node.listen = '127.0.0.1:0'".parse().unwrap();
    if let Some((token, seed)) = join {
        config.insert("join".into(), toml::from_str(&format!("token = '{token}'\nseeds = ['{seed}']")).unwrap());
    }
    let builder = Village::builder().host(|_: &ActorCx| Counter).host(|_: &ActorCx| Echo);
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

fn log() {
    let _ = tracing_subscriber::fmt().with_env_filter(std::env::var("RUST_LOG").unwrap_or_default()).try_init();
}

async fn ready(village: &Village) {
    until("ready", async || village.health().ready.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_make_one_village() {
    log();
    let dir = tempfile::tempdir().unwrap();
    let a = start(&dir, "a", None).await;
    ready(&a).await;
    let visits: Addr<Counter> = a.addr("visits");
    assert_eq!(visits.ask(|r| CounterMsg::Add(2, r)).await, Ok(2));
    let token = a.cluster().unwrap().new_token(2, Duration::from_secs(60), "test").await.unwrap().to_string();
    let seed = a.cluster().unwrap().addr().to_owned();
    let b = start(&dir, "b", Some((&token, &seed))).await;
    ready(&b).await;
    let c = start(&dir, "c", Some((&token, &seed))).await;
    ready(&c).await;
    // What was written while there was one node is there, from each of them.
    for village in [&a, &b, &c] {
        let there = village.addr::<Counter>("visits");
        let got = until("the counter", async || there.ask(CounterMsg::Get).await.ok()).await;
        assert_eq!(got, 2);
    }
    // Three copies, leadership spread.
    until("three voters in each group and no node leading too many", async || {
        let status = a.cluster().unwrap().status();
        let voters = status.groups.iter().all(|group| group.voters.len() == 3);
        let spread = status.members.iter().all(|member| member.leads.iter().filter(|group| **group > 0).count() <= 3);
        (voters && spread && status.health == "healthy").then_some(())
    })
    .await;
    for key in 0..20 {
        let add = |village: &Village, n| {
            let addr = village.addr::<Counter>(format!("k{key}"));
            async move { addr.ask(|r| CounterMsg::Add(n, r)).await }
        };
        assert_eq!(add(&a, 1).await, Ok(1));
        assert_eq!(add(&b, 2).await, Ok(3));
        assert_eq!(add(&c, 3).await, Ok(6));
    }
    // Kinds without state are spread too, and all nodes agree on where.
    let mut hosts = std::collections::BTreeSet::new();
    for key in 0..20 {
        let ask = |village: &Village| {
            let addr = village.addr::<Echo>(format!("k{key}"));
            async move { addr.ask(|r| r).await }
        };
        let (at_a, at_b, at_c) = (ask(&a).await, ask(&b).await, ask(&c).await);
        assert_eq!((&at_a, &at_a), (&at_b, &at_c));
        hosts.insert(at_a.unwrap());
    }
    assert_eq!(hosts.len(), 3);
    // The small shared values.
    let version = b.cluster().unwrap().put("color", b"green".to_vec(), Some(0)).await.unwrap();
    assert!(c.cluster().unwrap().put("color", b"red".to_vec(), Some(0)).await.is_err());
    c.cluster().unwrap().put("color", b"red".to_vec(), Some(version)).await.unwrap();
    until("the value everywhere", async || {
        let at = |village: &Village| village.cluster().unwrap().get("color").map(|entry| entry.value);
        (at(&a) == Some(b"red".to_vec()) && at(&b) == at(&a) && at(&c) == at(&a)).then_some(())
    })
    .await;
    // One leaves in good order: nothing fails meanwhile.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let client = a.addr::<Counter>("client");
    let load = async {
        let mut acked = 0_u64;
        tokio::pin!(stopped);
        loop {
            let idem = Idem::of(&[b"load", &acked.to_le_bytes()]);
            let added = client.call().idem(idem).ask(|r| CounterMsg::Add(1, r)).await;
            acked += 1;
            assert_eq!(added, Ok(acked));
            if stopped.as_mut().now_or_never().is_some() {
                return acked;
            }
        }
    };
    let leave = async {
        c.shutdown().await.unwrap();
        stop.send(()).unwrap();
    };
    let (acked, ()) = tokio::join!(load, leave);
    assert_eq!(client.ask(CounterMsg::Get).await, Ok(acked));
    for village in [a, b] {
        village.shutdown().await.unwrap();
    }
}

use futures::FutureExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_are_denied() {
    let dir = tempfile::tempdir().unwrap();
    let a = start(&dir, "a", None).await;
    let cluster = a.cluster().unwrap();
    let token = cluster.new_token(1, Duration::from_secs(60), "").await.unwrap();
    cluster.revoke_token(token.token_id).await.unwrap();
    let config = format!("node.listen = '127.0.0.1:0'\njoin.token = '{token}'\njoin.seeds = ['{}']", cluster.addr());
    let refused = Village::builder().config(config.parse().unwrap()).clustered().start().await;
    let error = refused.map(|_| ()).unwrap_err();
    assert!(format!("{error:?}").contains("Denied"), "{error:?}");
    let _unused = CallError::Timeout;
}
