//! `edge.idem`: which idempotency keys were used, and what was answered.
//!
//! Key: `{tenant}:{shard 0..63}`. Durable: answers, for 24 h, replicated ([`kept`]); that a request is *running* is known in
//! memory only, until the request's deadline. Lost in a crash: the running claims. Their repetitions run again, and the
//! runtime's idempotency key, which the edge derives from the same header, keeps the effect of durable actors exactly once.

mod kept;

use std::collections::HashMap;
use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Durability, Kind, KindOptions, Mail, MsgCx, Reply, clock,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use kept::Kept;

/// Activations that share the keys of a tenant.
pub(crate) const SHARDS: u8 = 64;
/// Claims one shard holds at once; more requests than that never run, admission is far below 64 times this.
const MAX_RUNNING: usize = 16_384;
/// A claim holds this much longer than its request, whose answer may still be on its way.
const GRACE: Duration = Duration::from_secs(2);
/// How long a claim without deadline holds.
const NO_DEADLINE: Duration = Duration::from_mins(10);

/// What an [`Idem`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum IdemMsg {
    /// Claims a key for one execution, or says what became of an earlier claim. The claim ends with the message's deadline.
    Begin {
        /// SHA-256 of tenant, principal, method, path and the caller's key.
        key: [u8; 32],
        /// SHA-256 of query and body.
        hash: [u8; 32],
        /// Names the execution; a repeated message with the same is the same claim.
        claim: [u8; 16],
        /// What to do.
        reply: Reply<Begun>,
    },
    /// Stores the answer of a claim; durable before the reply. The first answer stays.
    Complete {
        /// The claimed key.
        key: [u8; 32],
        /// The answer.
        answer: Answer,
        /// Sent when it is stored.
        reply: Reply<()>,
    },
    /// Gives a claim back: the request ended without an answer worth keeping.
    Abandon {
        /// The claimed key.
        key: [u8; 32],
        /// The execution that ended.
        claim: [u8; 16],
    },
    /// Removes expired answers, those from this key on; without one all.
    Sweep(Option<[u8; 32]>),
}

/// The outcome of a [`IdemMsg::Begin`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Begun {
    /// The key is claimed, the request runs now.
    New,
    /// It ran before; this was the answer.
    Replay(Answer),
    /// It is running.
    InProgress,
    /// The key belongs to another body.
    Mismatch,
}

/// A kept answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// SHA-256 of the request's query and body.
    pub hash: [u8; 32],
    /// HTTP status.
    pub status: u16,
    /// Headers that belong to the answer.
    pub headers: Vec<(String, ByteBuf)>,
    /// The body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// The actor's key for a scope: a tenant's keys are spread over 64 activations.
pub(crate) fn shard(tenant: &str, key: [u8; 32]) -> String {
    let [first, ..] = key;
    shard_key(tenant, first % SHARDS)
}

/// The actor's key of a shard.
pub(crate) fn shard_key(tenant: &str, shard: u8) -> String {
    format!("{tenant}:{shard}")
}

/// The behaviour; its data is [`Claims`].
#[derive(Debug)]
pub struct Idem;

impl Kind for Idem {
    const NAME: &'static str = "edge.idem";
    type Body = IdemMsg;

    fn options() -> KindOptions {
        // Longer than any request may run, so that no claim is forgotten while its request runs.
        KindOptions::default().durable(Durability::Replicated).mailbox(4_096).idle(Duration::from_mins(30))
    }
}

/// The answers, and the running claims.
#[derive(Debug)]
pub struct Claims {
    cx: ActorCx,
    kept: Kept,
    running: HashMap<[u8; 32], Claim>,
}

/// A running execution.
#[derive(Debug)]
struct Claim {
    name: [u8; 16],
    until: Instant,
}

impl Actor for Idem {
    type Msg = Mail<IdemMsg>;
    type State = Claims;
    type Arguments = ActorCx;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Claims, ActorProcessingErr> {
        let kept = Kept::open(cx.store().clone(), cx.key()).await?;
        cx.tell_self(&me, IdemMsg::Sweep(None));
        Ok(Claims { cx, kept, running: HashMap::new() })
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        claims: &mut Claims,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            IdemMsg::Begin { key, hash, claim, reply } => reply.complete(claims.begin(key, hash, claim, &mail.cx)),
            IdemMsg::Complete { key, answer, reply } => reply.complete(claims.complete(key, answer).await),
            IdemMsg::Abandon { key, claim } => claims.abandon(key, claim),
            IdemMsg::Sweep(from) => claims.sweep(&me, from).await,
        }
        Ok(())
    }
}

impl Claims {
    fn begin(&mut self, key: [u8; 32], hash: [u8; 32], name: [u8; 16], cx: &MsgCx) -> Result<Begun, CallError> {
        let now = Instant::now();
        match self.running.get(&key) {
            Some(running) if running.name == name => return Ok(Begun::New),
            Some(running) if running.until > now => return Ok(Begun::InProgress),
            _ => {}
        }
        if let Some(answer) = self.kept.get(key, clock::unix_ms())? {
            return Ok(if answer.hash == hash { Begun::Replay(answer) } else { Begun::Mismatch });
        }
        if self.running.len() >= MAX_RUNNING {
            self.running.retain(|_, claim| claim.until > now);
        }
        if self.running.len() >= MAX_RUNNING {
            return Err(CallError::Overloaded { retry_after_ms: 1_000 });
        }
        let until = cx.deadline().unwrap_or_else(|| now + NO_DEADLINE) + GRACE;
        self.running.insert(key, Claim { name, until });
        Ok(Begun::New)
    }

    async fn complete(&mut self, key: [u8; 32], answer: Answer) -> Result<(), CallError> {
        let now = clock::unix_ms();
        if self.kept.get(key, now)?.is_none() {
            self.kept.put(key, now, answer).await?;
        }
        self.running.remove(&key);
        Ok(())
    }

    fn abandon(&mut self, key: [u8; 32], name: [u8; 16]) {
        if self.running.get(&key).is_some_and(|claim| claim.name == name) {
            self.running.remove(&key);
        }
    }

    /// One step of a sweep; between two of them other mail is handled.
    async fn sweep(&mut self, me: &ActorRef<Mail<IdemMsg>>, from: Option<[u8; 32]>) {
        match self.kept.sweep(from, clock::unix_ms()).await {
            Ok(Some(next)) => drop(self.cx.tell_self(me, IdemMsg::Sweep(Some(next)))),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "expired idempotency records not removed, trying again in an hour"),
        }
    }
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::testing::{asked, sent};
    use aivillage_runtime::{Addr, Village};

    use super::*;

    async fn village() -> Village {
        Village::builder().host(|_: &ActorCx| Idem).start().await.unwrap()
    }

    fn answer(hash: u8) -> Answer {
        let headers = vec![("etag".to_owned(), ByteBuf::from([b'"', 0xff, b'"']))];
        Answer { hash: [hash; 32], status: 200, headers, body: (0..=255).collect() }
    }

    async fn begin(idem: &Addr<Idem>, hash: u8, claim: u8) -> Begun {
        let begin = |reply| IdemMsg::Begin { key: [1; 32], hash: [hash; 32], claim: [claim; 16], reply };
        idem.ask(begin).await.unwrap()
    }

    #[tokio::test]
    async fn a_key_runs_once_and_is_replayed() {
        let village = village().await;
        let idem = village.addr::<Idem>("local:1");
        assert_eq!(begin(&idem, 1, 1).await, Begun::New);
        assert_eq!(begin(&idem, 1, 2).await, Begun::InProgress);
        assert_eq!(begin(&idem, 1, 1).await, Begun::New, "the same message again");
        let complete = |answer| idem.ask(|reply| IdemMsg::Complete { key: [1; 32], answer, reply });
        complete(answer(1)).await.unwrap();
        assert_eq!(begin(&idem, 1, 3).await, Begun::Replay(answer(1)));
        assert_eq!(begin(&idem, 2, 3).await, Begun::Mismatch);
        complete(answer(2)).await.unwrap();
        assert_eq!(begin(&idem, 1, 3).await, Begun::Replay(answer(1)), "the first answer stays");
    }

    #[tokio::test]
    async fn an_abandoned_key_runs_again() {
        let village = village().await;
        let idem = village.addr::<Idem>("local:1");
        assert_eq!(begin(&idem, 1, 1).await, Begun::New);
        idem.tell(IdemMsg::Abandon { key: [1; 32], claim: [2; 16] }).await.unwrap();
        assert_eq!(begin(&idem, 1, 2).await, Begun::InProgress, "it was not its claim");
        idem.tell(IdemMsg::Abandon { key: [1; 32], claim: [1; 16] }).await.unwrap();
        assert_eq!(begin(&idem, 1, 2).await, Begun::New);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_of_an_edge_that_died_ends_with_its_deadline() {
        let village = village().await;
        let idem = village.addr::<Idem>("local:1");
        let first = |reply| IdemMsg::Begin { key: [1; 32], hash: [1; 32], claim: [1; 16], reply };
        idem.call().deadline(Duration::from_secs(1)).ask(first).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(begin(&idem, 1, 2).await, Begun::InProgress);
        tokio::time::advance(GRACE).await;
        assert_eq!(begin(&idem, 1, 2).await, Begun::New);
    }

    #[test]
    fn messages_are_the_same_on_another_node() {
        let open = |body| match body {
            IdemMsg::Begin { key: [1, ..], hash: [255, ..], claim: [3, ..], reply } => reply,
            other => panic!("{other:?}"),
        };
        let begin = |reply| IdemMsg::Begin { key: [1; 32], hash: [255; 32], claim: [3; 16], reply };
        for begun in [Begun::New, Begun::Replay(answer(200)), Begun::InProgress, Begun::Mismatch] {
            assert_eq!(asked::<Idem, _>(begin, open, begun.clone()), Ok(begun));
        }
        let open = |body| match body {
            IdemMsg::Complete { key: [9, ..], answer: got, reply } => {
                assert_eq!(got, answer(9));
                reply
            }
            other => panic!("{other:?}"),
        };
        let complete = |reply| IdemMsg::Complete { key: [9; 32], answer: answer(9), reply };
        assert_eq!(asked::<Idem, _>(complete, open, ()), Ok(()));
        let abandon = sent::<Idem>(&IdemMsg::Abandon { key: [1; 32], claim: [2; 16] }).unwrap();
        assert!(matches!(abandon, IdemMsg::Abandon { key, claim } if key == [1; 32] && claim == [2; 16]));
        let sweep = sent::<Idem>(&IdemMsg::Sweep(Some([200; 32]))).unwrap();
        assert!(matches!(sweep, IdemMsg::Sweep(Some(from)) if from == [200; 32]));
    }
}
