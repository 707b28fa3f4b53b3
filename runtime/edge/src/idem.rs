//! `edge.idem`: which idempotency keys were used, and what was answered.
//!
//! Key: `{tenant}:{shard 0..63}`. Durable: answers and the claims of requests that have none yet, for 24 h, replicated
//! ([`kept`]). Lost in a crash: how long a claim has been held; it is held for its full time again.
//!
//! A claim is held until it is given back, its request's deadline has passed, or the run of the node that made it has ended.
//! Then a repetition takes it over: it runs again, and the runtime's idempotency key, which the edge derives from the same
//! header, keeps the effect of durable actors exactly once. A key stays bound to its request also without an answer.
//!
//! An answer is sealed for whoever got it ([`StoredResponse`]) before it comes here, and opened where it is given again. What
//! claims have of a person are hashes.

mod data;
mod kept;

pub use data::AnswerData;

use std::collections::HashMap;
use std::time::Duration;

use aivillage_governance::keys::{Kept as Sealed, SubjectTag};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Kind, KindOptions, Mail, MsgCx,
    Reply, Run, clock,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use kept::Kept;

/// Activations that share the keys of a tenant.
pub(crate) const SHARDS: u8 = 64;
/// Claims one shard knows to be held at once; more requests than that never run, admission is far below 64 times this.
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
        /// Who executes.
        by: Run,
        /// What to do.
        reply: Reply<Begun>,
    },
    /// Stores the answer of a claim; durable before the reply. The first answer stays. Refused with `claim_lost` when
    /// another execution has the claim by now.
    Complete {
        /// The claimed key.
        key: [u8; 32],
        /// The execution that ended.
        claim: [u8; 16],
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
    /// Removes expired answers and claims, those from this key on; without one all.
    Sweep(Option<[u8; 32]>),
    /// The answers that one person got, who is erased or wants to see them, each with its key.
    Of(SubjectTag, Reply<Vec<([u8; 32], Answer)>>),
    /// Removes the answers that one person got, and tells how many.
    Forget(SubjectTag, Reply<u64>),
}

/// The outcome of a [`IdemMsg::Begin`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Begun {
    /// The key is claimed, the request runs now.
    New {
        /// When it was claimed first, Unix milliseconds; the same for every execution of the request.
        first_ms: u64,
    },
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
    /// A [`StoredResponse`].
    pub response: Sealed,
}

/// What was answered over HTTP, as it is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers that belong to the answer.
    pub headers: Vec<(String, ByteBuf)>,
    /// The body.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// What answers are kept for, as their keys name it.
pub(crate) const PURPOSE: &str = "answer";

/// A claim on a key, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claim {
    /// The execution.
    name: [u8; 16],
    /// Who executes.
    by: Run,
    /// SHA-256 of the request's query and body.
    hash: [u8; 32],
    /// When the key was claimed first, Unix milliseconds.
    first_ms: u64,
    /// How long it holds, by the clock of whoever looks after it: those of two nodes may differ.
    hold_ms: u64,
    /// It was given back without an answer.
    is_released: bool,
}

impl Claim {
    fn expired(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.first_ms) >= kept::KEEP_MS
    }
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
    const VERSION: u16 = 3;

    fn options() -> KindOptions {
        // Longer than any request may run: the next activation would hold its claim for its full time again.
        KindOptions::default().durable(Durability::Replicated).mailbox(4_096).idle(Duration::from_mins(30))
    }
}

/// The answers and claims, and how long those claims hold that this activation has seen.
#[derive(Debug)]
pub struct Claims {
    cx: ActorCx,
    kept: Kept,
    held: HashMap<[u8; 32], Held>,
}

/// How long a claim holds.
#[derive(Debug)]
struct Held {
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
        Ok(Claims { cx, kept, held: HashMap::new() })
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        claims: &mut Claims,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            IdemMsg::Begin { key, hash, claim, by, reply } => {
                reply.complete(claims.begin(key, hash, (claim, by), &mail.cx).await);
            }
            IdemMsg::Complete { key, claim, answer, reply } => {
                reply.complete(claims.complete(key, claim, answer).await);
            }
            IdemMsg::Abandon { key, claim } => claims.abandon(key, claim).await,
            IdemMsg::Sweep(from) => claims.sweep(&me, from).await,
            IdemMsg::Of(subject, reply) => reply.complete(claims.kept.of(subject)),
            IdemMsg::Forget(subject, reply) => reply.complete(claims.kept.forget(subject).await),
        }
        Ok(())
    }
}

impl Claims {
    async fn begin(
        &mut self,
        key: [u8; 32],
        hash: [u8; 32],
        (name, by): ([u8; 16], Run),
        cx: &MsgCx,
    ) -> Result<Begun, CallError> {
        let (now, now_ms) = (Instant::now(), clock::unix_ms());
        if let Some(answer) = self.kept.get(key, now_ms)? {
            return Ok(if answer.hash == hash { Begun::Replay(answer) } else { Begun::Mismatch });
        }
        let mut first_ms = now_ms;
        if let Some(earlier) = self.kept.claim(key, now_ms)? {
            first_ms = earlier.first_ms;
            if earlier.hash != hash {
                return Ok(Begun::Mismatch);
            }
            if earlier.name == name && !earlier.is_released {
                return Ok(Begun::New { first_ms });
            }
            if self.is_held(key, &earlier, now) {
                return Ok(Begun::InProgress);
            }
        }
        if self.held.len() >= MAX_RUNNING {
            self.held.retain(|_, held| held.until > now);
        }
        if self.held.len() >= MAX_RUNNING {
            return Err(CallError::Overloaded { retry_after_ms: 1_000 });
        }
        let hold = cx.deadline().map_or(NO_DEADLINE, |deadline| deadline.saturating_duration_since(now)) + GRACE;
        let hold_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        let claim = Claim { name, by, hash, first_ms, hold_ms, is_released: false };
        self.kept.set_claim(key, &claim).await?;
        self.held.insert(key, Held { name, until: now + hold });
        Ok(Begun::New { first_ms })
    }

    /// Whether the execution that has a claim may still be under way.
    fn is_held(&mut self, key: [u8; 32], claim: &Claim, now: Instant) -> bool {
        if claim.is_released || self.cx.village().has_ended(claim.by) {
            return false;
        }
        if let Some(held) = self.held.get(&key).filter(|held| held.name == claim.name) {
            return held.until > now;
        }
        // Of an earlier activation, or known no more: from now on is never too short.
        self.held.insert(key, Held { name: claim.name, until: now + Duration::from_millis(claim.hold_ms) });
        true
    }

    async fn complete(&mut self, key: [u8; 32], name: [u8; 16], answer: Answer) -> Result<(), CallError> {
        let now = clock::unix_ms();
        if self.kept.get(key, now)?.is_none() {
            let is_lost = |claim: Claim| claim.name != name && !claim.is_released;
            if self.kept.claim(key, now)?.is_some_and(is_lost) {
                const WHY: &str = "the claim had ended before the answer came, and another execution has it";
                return Err(AppError::new("claim_lost", WHY).into());
            }
            self.kept.put(key, now, answer).await?;
        }
        self.held.remove(&key);
        Ok(())
    }

    async fn abandon(&mut self, key: [u8; 32], name: [u8; 16]) {
        if let Err(error) = self.release(key, name).await {
            tracing::debug!(%error, "idempotency key not given back, repetitions get 409 until it expires");
        }
    }

    async fn release(&mut self, key: [u8; 32], name: [u8; 16]) -> Result<(), CallError> {
        let claim = self.kept.claim(key, clock::unix_ms())?;
        let Some(claim) = claim.filter(|claim| claim.name == name && !claim.is_released) else { return Ok(()) };
        self.kept.set_claim(key, &Claim { is_released: true, ..claim }).await?;
        self.held.remove(&key);
        Ok(())
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
    use aivillage_governance::keys::TenantId;
    use aivillage_runtime::testing::{asked, sent};
    use aivillage_runtime::{Addr, NodeId, Village};

    use super::*;

    async fn village() -> Village {
        Village::builder().host(|_: &ActorCx| Idem).start().await.unwrap()
    }

    fn answer(hash: u8) -> Answer {
        Answer { hash: [hash; 32], response: Sealed::Clear((0..=255).collect::<Vec<u8>>().into()) }
    }

    /// Of a node that nobody knows.
    const ELSEWHERE: Run = Run { node: NodeId(7), incarnation: 1 };

    async fn begin_by(idem: &Addr<Idem>, hash: u8, claim: u8, by: Run) -> Begun {
        let begin = |reply| IdemMsg::Begin { key: [1; 32], hash: [hash; 32], claim: [claim; 16], by, reply };
        idem.ask(begin).await.unwrap()
    }

    async fn begin(idem: &Addr<Idem>, hash: u8, claim: u8) -> Begun {
        begin_by(idem, hash, claim, ELSEWHERE).await
    }

    async fn complete(idem: &Addr<Idem>, claim: u8, answer: Answer) -> Result<(), CallError> {
        idem.ask(|reply| IdemMsg::Complete { key: [1; 32], claim: [claim; 16], answer, reply }).await
    }

    /// When a new claim was made first.
    fn first(begun: &Begun) -> u64 {
        match begun {
            Begun::New { first_ms } => *first_ms,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_key_runs_once_and_is_replayed() {
        let village = village().await;
        let idem = village.addr::<Idem>("local:1");
        let begun = begin(&idem, 1, 1).await;
        first(&begun);
        assert_eq!(begin(&idem, 1, 2).await, Begun::InProgress);
        assert_eq!(begin(&idem, 2, 2).await, Begun::Mismatch);
        assert_eq!(begin(&idem, 1, 1).await, begun, "the same message again");
        complete(&idem, 1, answer(1)).await.unwrap();
        assert_eq!(begin(&idem, 1, 3).await, Begun::Replay(answer(1)));
        assert_eq!(begin(&idem, 2, 3).await, Begun::Mismatch);
        complete(&idem, 1, answer(2)).await.unwrap();
        assert_eq!(begin(&idem, 1, 3).await, Begun::Replay(answer(1)), "the first answer stays");
    }

    #[tokio::test]
    async fn an_abandoned_key_runs_again_for_the_same_request_only() {
        let village = village().await;
        let idem = village.addr::<Idem>("local:1");
        let begun = begin(&idem, 1, 1).await;
        idem.tell(IdemMsg::Abandon { key: [1; 32], claim: [2; 16] }).await.unwrap();
        assert_eq!(begin(&idem, 1, 2).await, Begun::InProgress, "it was not its claim");
        idem.tell(IdemMsg::Abandon { key: [1; 32], claim: [1; 16] }).await.unwrap();
        assert_eq!(begin(&idem, 2, 2).await, Begun::Mismatch);
        assert_eq!(begin(&idem, 1, 2).await, begun);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_of_an_edge_that_is_not_heard_of_ends_with_its_deadline() {
        let village = village().await;
        let idem = village.addr::<Idem>("local:1");
        let first = |reply| IdemMsg::Begin { key: [1; 32], hash: [1; 32], claim: [1; 16], by: ELSEWHERE, reply };
        let begun = idem.call().deadline(Duration::from_secs(1)).ask(first).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(begin(&idem, 1, 2).await, Begun::InProgress);
        tokio::time::advance(GRACE).await;
        assert_eq!(begin(&idem, 1, 2).await, begun);
    }

    #[tokio::test]
    async fn a_claim_of_a_run_that_has_ended_is_taken_over_and_its_late_answer_refused() {
        let village = village().await;
        let idem = village.addr::<Idem>("local:1");
        let begun = begin_by(&idem, 1, 1, Run { incarnation: 0, ..village.run() }).await;
        assert_eq!(begin_by(&idem, 2, 2, village.run()).await, Begun::Mismatch);
        assert_eq!(begin_by(&idem, 1, 2, village.run()).await, begun);
        assert_eq!(begin(&idem, 1, 3).await, Begun::InProgress, "this run goes on");
        assert_eq!(complete(&idem, 1, answer(1)).await.unwrap_err().code(), "claim_lost");
        complete(&idem, 2, answer(1)).await.unwrap();
        assert_eq!(begin(&idem, 1, 3).await, Begun::Replay(answer(1)));
    }

    #[test]
    fn messages_are_the_same_on_another_node() {
        let open = |body| match body {
            IdemMsg::Begin { key: [1, ..], hash: [255, ..], claim: [3, ..], by: ELSEWHERE, reply } => reply,
            other => panic!("{other:?}"),
        };
        let begin = |reply| IdemMsg::Begin { key: [1; 32], hash: [255; 32], claim: [3; 16], by: ELSEWHERE, reply };
        for begun in [Begun::New { first_ms: u64::MAX }, Begun::Replay(answer(200)), Begun::InProgress, Begun::Mismatch]
        {
            assert_eq!(asked::<Idem, _>(begin, open, begun.clone()), Ok(begun));
        }
        let open = |body| match body {
            IdemMsg::Complete { key: [9, ..], claim: [4, ..], answer: got, reply } => {
                assert_eq!(got, answer(9));
                reply
            }
            other => panic!("{other:?}"),
        };
        let complete = |reply| IdemMsg::Complete { key: [9; 32], claim: [4; 16], answer: answer(9), reply };
        assert_eq!(asked::<Idem, _>(complete, open, ()), Ok(()));
        let abandon = sent::<Idem>(&IdemMsg::Abandon { key: [1; 32], claim: [2; 16] }).unwrap();
        assert!(matches!(abandon, IdemMsg::Abandon { key, claim } if key == [1; 32] && claim == [2; 16]));
        let sweep = sent::<Idem>(&IdemMsg::Sweep(Some([200; 32]))).unwrap();
        assert!(matches!(sweep, IdemMsg::Sweep(Some(from)) if from == [200; 32]));
        let ada = SubjectTag::of(TenantId::of("local"), "ada").unwrap();
        let open = |body| match body {
            IdemMsg::Of(subject, reply) if subject == ada => reply,
            other => panic!("{other:?}"),
        };
        let all = || vec![([7; 32], answer(3))];
        assert_eq!(asked::<Idem, _>(|reply| IdemMsg::Of(ada, reply), open, all()), Ok(all()));
        let open = |body| match body {
            IdemMsg::Forget(subject, reply) if subject == ada => reply,
            other => panic!("{other:?}"),
        };
        assert_eq!(asked::<Idem, _>(|reply| IdemMsg::Forget(ada, reply), open, 9), Ok(9));
    }
}
