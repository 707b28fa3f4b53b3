//! `edge.idem`: which idempotency keys were used, and what was answered.
//!
//! Key: `{tenant}:{shard 0..63}`. Durable: answers, for 24 h, as records of [`TREE`]; that a request is *running* is known
//! in memory only. Lost in a crash: the running claims. Their repetitions run again, and the runtime's idempotency key,
//! which the edge derives from the same header, keeps the effect of durable actors exactly once.

use std::collections::HashSet;
use std::time::Duration;

use aivillage_runtime::store::{Batch, Level, StoreError, TreeId};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Durability, Kind, KindOptions, Mail, Reply, Village, clock,
};
use serde::{Deserialize, Serialize};

/// Where the answers are kept: SHA-256 of the scope -> [`Stored`].
const TREE: TreeId = TreeId(65);
/// How long an answer is kept.
const KEEP_MS: u64 = 24 * 60 * 60 * 1_000;
/// How often expired answers are removed.
const SWEEP: Duration = Duration::from_hours(1);
/// Records looked at in one step of a sweep.
const SWEEP_BATCH: usize = 256;
/// Claims one shard holds at once; more requests than that never run, admission is far below 64 times this.
const MAX_RUNNING: usize = 16_384;

/// What an [`Idem`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum IdemMsg {
    /// Claims a key for one execution, or says what became of an earlier claim.
    Begin {
        /// SHA-256 of tenant, principal, method, path and the caller's key.
        key: [u8; 32],
        /// SHA-256 of query and body.
        hash: [u8; 32],
        /// What to do.
        reply: Reply<Begun>,
    },
    /// Stores the answer of a claim; durable before the reply.
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
    },
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
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A record of [`TREE`].
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    at_ms: u64,
    answer: Answer,
}

impl Stored {
    fn expired(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) >= KEEP_MS
    }
}

/// The actor's key for a scope: a tenant's keys are spread over 64 activations.
pub(crate) fn shard(tenant: &str, key: [u8; 32]) -> String {
    let [first, ..] = key;
    format!("{tenant}:{}", first % 64)
}

/// The behaviour; its data is [`Claims`].
#[derive(Debug)]
pub struct Idem;

impl Kind for Idem {
    const NAME: &'static str = "edge.idem";
    type Body = IdemMsg;

    fn options() -> KindOptions {
        // Longer than any request may run, so that no claim is forgotten while its request runs.
        KindOptions::default().durable(Durability::Local).mailbox(4_096).idle(Duration::from_mins(30))
    }
}

/// The running claims. Invariant: a key is here or in the store, never in both.
#[derive(Debug)]
pub struct Claims {
    village: Village,
    running: HashSet<[u8; 32]>,
}

impl Actor for Idem {
    type Msg = Mail<IdemMsg>;
    type State = Claims;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Claims, ActorProcessingErr> {
        Ok(Claims { village: cx.village().clone(), running: HashSet::new() })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        claims: &mut Claims,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            IdemMsg::Begin { key, hash, reply } => reply.complete(claims.begin(key, hash)),
            IdemMsg::Complete { key, answer, reply } => reply.complete(claims.complete(key, answer).await),
            IdemMsg::Abandon { key } => drop(claims.running.remove(&key)),
        }
        Ok(())
    }
}

impl Claims {
    fn begin(&mut self, key: [u8; 32], hash: [u8; 32]) -> Result<Begun, CallError> {
        if self.running.contains(&key) {
            return Ok(Begun::InProgress);
        }
        let stored =
            self.village.store().get(TREE, &key)?.and_then(|bytes| postcard::from_bytes::<Stored>(&bytes).ok());
        if let Some(stored) = stored.filter(|stored| !stored.expired(clock::unix_ms())) {
            return Ok(if stored.answer.hash == hash { Begun::Replay(stored.answer) } else { Begun::Mismatch });
        }
        if self.running.len() >= MAX_RUNNING {
            return Err(CallError::Overloaded { retry_after_ms: 1_000 });
        }
        self.running.insert(key);
        Ok(Begun::New)
    }

    async fn complete(&mut self, key: [u8; 32], answer: Answer) -> Result<(), CallError> {
        let stored = Stored { at_ms: clock::unix_ms(), answer };
        let bytes = postcard::to_allocvec(&stored).map_err(|e| CallError::Decode { detail: e.to_string() })?;
        self.village.store().commit(Batch::new().put(TREE, key, bytes), Level::Disk).await?;
        self.running.remove(&key);
        Ok(())
    }
}

/// Removes expired answers, at the start and then hourly.
pub(crate) async fn sweep(village: Village) {
    loop {
        match sweep_once(&village, clock::unix_ms()).await {
            Ok(removed) if removed > 0 => tracing::debug!(removed, "expired idempotency records removed"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "expired idempotency records not removed, trying again in an hour"),
        }
        tokio::time::sleep(SWEEP).await;
    }
}

async fn sweep_once(village: &Village, now_ms: u64) -> Result<usize, StoreError> {
    let mut from = Vec::new();
    let mut removed = 0;
    loop {
        let page = village.store().scan(TREE, &from, SWEEP_BATCH)?;
        let mut batch = Batch::new();
        for (key, value) in &page {
            let keep = postcard::from_bytes::<Stored>(value).is_ok_and(|stored| !stored.expired(now_ms));
            if !keep {
                batch = batch.delete(TREE, key.to_vec());
                removed += 1;
            }
        }
        if !batch.is_empty() {
            village.store().commit(batch, Level::Async).await?;
        }
        match page.last() {
            Some((last, _)) if page.len() == SWEEP_BATCH => {
                from = last.to_vec();
                from.push(0);
            }
            _ => return Ok(removed),
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn village() -> Village {
        Village::builder().host(|_: &ActorCx| Idem).start().await.unwrap()
    }

    fn answer(hash: u8) -> Answer {
        Answer { hash: [hash; 32], status: 200, headers: Vec::new(), body: b"ok".to_vec() }
    }

    #[tokio::test]
    async fn a_key_runs_once_and_is_replayed() {
        let village = village().await;
        let idem = village.addr::<Idem>("local:1");
        let begin = |hash: u8| {
            let idem = idem.clone();
            async move { idem.ask(|reply| IdemMsg::Begin { key: [1; 32], hash: [hash; 32], reply }).await.unwrap() }
        };
        assert_eq!(begin(1).await, Begun::New);
        assert_eq!(begin(1).await, Begun::InProgress);
        idem.ask(|reply| IdemMsg::Complete { key: [1; 32], answer: answer(1), reply }).await.unwrap();
        assert_eq!(begin(1).await, Begun::Replay(answer(1)));
        assert_eq!(begin(2).await, Begun::Mismatch);
    }

    #[tokio::test]
    async fn an_abandoned_key_runs_again() {
        let village = village().await;
        let idem = village.addr::<Idem>("local:1");
        for _ in 0..2 {
            let begun = idem.ask(|reply| IdemMsg::Begin { key: [1; 32], hash: [1; 32], reply }).await.unwrap();
            assert_eq!(begun, Begun::New);
            idem.tell(IdemMsg::Abandon { key: [1; 32] }).await.unwrap();
        }
    }

    #[tokio::test]
    async fn sweep_removes_only_what_expired() {
        let village = village().await;
        let put = |key: u8, at_ms: u64| {
            let bytes = postcard::to_allocvec(&Stored { at_ms, answer: answer(key) }).unwrap();
            village.store().commit(Batch::new().put(TREE, [key; 32], bytes), Level::Disk)
        };
        let day = KEEP_MS;
        put(1, 0).await.unwrap();
        put(2, 10).await.unwrap();
        assert_eq!(sweep_once(&village, day + 5).await.unwrap(), 1);
        assert!(village.store().get(TREE, &[1; 32]).unwrap().is_none());
        assert!(village.store().get(TREE, &[2; 32]).unwrap().is_some());
    }
}
