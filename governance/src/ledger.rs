//! `gov.ledger`: who owes whom. Double entry in two phases, in the manner of `TigerBeetle`.
//!
//! Key: `main`. Durable: replicated. A group commit makes one segment of the journal out of what has gathered, and answers
//! when it is durable; a repeated transfer is answered by its name, also after a crash.
//! Lost in a crash: requests without an answer. Each of them has taken effect as a whole or not at all.
//!
//! | file | holds |
//! |---|---|
//! | [`record`], `bytes` | accounts and transfers, 128 bytes each |
//! | [`result`] | what becomes of them |
//! | [`books`], `execute` | the state machine |
//! | [`segment`] | the hash-chained journal |
//! | [`audit`] | what must be true of books and journal |
//! | `shelf` | both in the store |
//! | `metrics` | how many, how long |
//! | [`client`] | hold, settle, void |
//!
//! Amounts are whole numbers of a ledger's unit; there is no arithmetic with fractions here.
#![deny(clippy::float_arithmetic)]

pub mod audit;
pub mod books;
mod bytes;
pub mod client;
mod execute;
mod metrics;
pub mod record;
pub mod result;
pub mod segment;
mod shelf;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aivillage_runtime::config::{ConfigError, Size};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Codec, Durability, Kind, KindOptions, Mail,
    Reply, Store, TaskHandle, clock,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use audit::Audited;
use books::{Answer, Books, REMEMBER, Request};
use metrics::LedgerMetrics;
use record::{Account, AccountId, NewAccount, Transfer};
use result::{AccountResult, TransferResult};
use segment::{MAX_RECORDS, Segment};
use shelf::{Shelf, ShelfError, Wear};
pub use shelf::{StoppedError, audit_stopped};

/// The key of the one ledger of a cluster.
pub const KEY: &str = "main";
/// Told here: `{"expired": ["<id, 32 hex digits>", ..]}`, when pending transfers have run out of time.
pub const TOPIC: &str = "gov.ledger";
/// Records of the segments in one answer.
const JOURNAL_RECORDS: usize = 2_000;
/// Accounts in one answer.
const ACCOUNTS: u32 = 1_000;
/// How soon a look for expired transfers that failed is repeated.
const AGAIN: Duration = Duration::from_secs(1);

/// What a [`Ledger`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum LedgerMsg {
    /// Opens accounts, at most 2,000 at once.
    CreateAccounts(Vec<NewAccount>, Reply<Vec<AccountResult>>),
    /// Carries out transfers in order, at most 2,000 at once; durable before the reply.
    Transfer(Vec<Transfer>, Reply<Vec<TransferResult>>),
    /// Accounts with their balances; none for one that there is not.
    Balance(Vec<AccountId>, Reply<Vec<Option<Account>>>),
    /// Segments of the journal from a number on.
    Journal {
        /// Number of the first.
        from: u64,
        /// At most so many; fewer come when they are large.
        limit: u32,
        /// None when there are no more.
        reply: Reply<Vec<Segment>>,
    },
    /// Verifies the whole journal and that it makes these books. Takes a while, beside the mailbox.
    Audit(Reply<Audited>),
    /// Commits what has gathered; sent by itself.
    Commit,
    /// Looks for pending transfers whose time is over; sent by itself.
    Tick,
    /// Accounts in the order of their names.
    Accounts {
        /// Those behind this one; none for the first.
        after: Option<AccountId>,
        /// At most so many, and at most 1,000.
        limit: u32,
        /// The accounts.
        reply: Reply<Vec<Account>>,
    },
    /// A checkpoint was written; sent by itself.
    Checkpointed {
        /// Bytes of the journal that it makes up for.
        tail: u64,
        /// Its size; none if it could not be written.
        weight: Option<u64>,
    },
}

/// `[governance.ledger]` of `cluster.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerConfig {
    /// Bytes of the journal after which the books are written down, if they are smaller: the next start carries out again what is
    /// behind.
    pub checkpoint_after: Size,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self { checkpoint_after: Size::from_mib(4) }
    }
}

impl LedgerConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.checkpoint_after < Size::from_kib(64) {
            return Err(ConfigError::invalid("governance.ledger.checkpoint_after", "must be at least 64KiB"));
        }
        Ok(())
    }
}

/// The behaviour; its data is [`Counter`].
#[derive(Debug)]
pub struct Ledger {
    config: LedgerConfig,
    /// Milliseconds since the Unix epoch.
    clock: fn() -> u64,
    /// Comes between the ledger and its store.
    over: fn(Arc<dyn Store>) -> Arc<dyn Store>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(LedgerConfig::default())
    }
}

impl Ledger {
    /// A ledger by the wall's clock.
    #[must_use]
    pub fn new(config: LedgerConfig) -> Self {
        Self { config, clock: clock::unix_ms, over: |store| store }
    }

    /// A ledger by another clock, Unix milliseconds.
    #[must_use]
    pub fn with_clock(clock: fn() -> u64) -> Self {
        Self { clock, ..Self::default() }
    }
}

impl Kind for Ledger {
    const NAME: &'static str = "gov.ledger";
    type Body = LedgerMsg;
    const CODEC: Codec = Codec::Compact;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated).mailbox(4_096).idle(None)
    }
}

/// A request that waits for its commit, and where its answer goes.
#[derive(Debug)]
struct Waiting {
    request: Request,
    port: Port,
}

#[derive(Debug)]
enum Port {
    Accounts(Reply<Vec<AccountResult>>),
    Transfers(Reply<Vec<TransferResult>>),
}

impl Port {
    fn complete(self, result: Result<Answer, CallError>) {
        match (self, result) {
            (Self::Accounts(reply), Ok(Answer::Accounts(results))) => reply.send(results),
            (Self::Transfers(reply), Ok(Answer::Transfers(results))) => reply.send(results),
            (Self::Accounts(reply), Err(error)) => reply.fail(error),
            (Self::Transfers(reply), Err(error)) => reply.fail(error),
            // An answer is of its request's kind; a dropped port tells the caller that there is none.
            (Self::Accounts(_) | Self::Transfers(_), Ok(_)) => {}
        }
    }
}

/// A checkpoint under way. It ends with the activation, so that no two write at once.
#[derive(Debug)]
struct Writing(TaskHandle<()>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The books and what waits at them.
#[derive(Debug)]
pub struct Counter {
    cx: ActorCx,
    clock: fn() -> u64,
    shelf: Shelf,
    books: Books,
    wear: Wear,
    /// Bytes of the journal that call for a checkpoint.
    checkpoint_after: usize,
    /// The checkpoint that is being written.
    writing: Option<Writing>,
    metrics: Arc<LedgerMetrics>,
    waiting: Vec<Waiting>,
    /// A commit did not end: the store may hold more than the books show, or less.
    unsettled: bool,
    /// When the clock is set for, and the clock.
    tick: Option<(u64, TaskHandle<()>)>,
}

impl Actor for Ledger {
    type Msg = Mail<LedgerMsg>;
    type State = Counter;
    type Arguments = ActorCx;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Counter, ActorProcessingErr> {
        let shelf = Shelf::new((self.over)(cx.store().clone()), cx.key());
        let (books, wear) = shelf.load(REMEMBER).await?;
        cx.tell_self(&me, LedgerMsg::Tick);
        let metrics = cx.village().metrics::<LedgerMetrics>();
        metrics.show(&books);
        Ok(Counter {
            cx,
            clock: self.clock,
            shelf,
            books,
            wear,
            checkpoint_after: self.config.checkpoint_after.as_usize(),
            writing: None,
            metrics,
            waiting: Vec::new(),
            unsettled: false,
            tick: None,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        counter: &mut Counter,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            LedgerMsg::CreateAccounts(accounts, reply) => {
                counter.queue(&me, Request::Accounts(accounts), Port::Accounts(reply));
            }
            LedgerMsg::Transfer(batch, reply) => counter.queue(&me, Request::Transfers(batch), Port::Transfers(reply)),
            LedgerMsg::Balance(accounts, reply) => reply.complete(counter.balance(&accounts).await),
            LedgerMsg::Journal { from, limit, reply } => reply.complete(counter.journal(from, limit)),
            LedgerMsg::Audit(reply) => counter.audit(reply).await,
            LedgerMsg::Commit => counter.commit(&me).await,
            LedgerMsg::Tick => counter.tick(&me).await,
            LedgerMsg::Accounts { after, limit, reply } => reply.complete(counter.accounts(after, limit).await),
            LedgerMsg::Checkpointed { tail, weight } => counter.checkpointed(tail, weight),
        }
        Ok(())
    }
}

impl Counter {
    /// Lets a request wait for the commit that follows the mail at hand: what comes until then goes with it.
    fn queue(&mut self, me: &ActorRef<Mail<LedgerMsg>>, request: Request, port: Port) {
        if request.records() > MAX_RECORDS {
            let why = format!("{} at once, at most {MAX_RECORDS} go", request.records());
            return port.complete(Err(AppError::new("too_much_data", why).into()));
        }
        if self.waiting.is_empty() {
            self.cx.tell_self(me, LedgerMsg::Commit);
        }
        self.waiting.push(Waiting { request, port });
    }

    async fn commit(&mut self, me: &ActorRef<Mail<LedgerMsg>>) {
        while !self.waiting.is_empty() {
            let mut records = 0;
            let fits = |waiting: &Waiting| {
                records += waiting.request.records();
                records <= MAX_RECORDS
            };
            let count = self.waiting.iter().map(fits).take_while(|fits| *fits).count();
            let (requests, ports): (Vec<_>, Vec<_>) =
                self.waiting.drain(..count).map(|waiting| (waiting.request, waiting.port)).unzip();
            let began = Instant::now();
            let answered = self.turn(me, &requests).await;
            self.metrics.committed(began.elapsed());
            match answered {
                Ok(answers) => ports.into_iter().zip(answers).for_each(|(port, answer)| port.complete(Ok(answer))),
                Err(error) => ports.into_iter().for_each(|port| port.complete(Err(error.clone()))),
            }
        }
        self.wake(me);
    }

    /// Carries out requests and makes what they did durable.
    async fn turn(&mut self, me: &ActorRef<Mail<LedgerMsg>>, requests: &[Request]) -> Result<Vec<Answer>, CallError> {
        self.settle().await?;
        let turn = self.books.turn(self.now_ns(), requests);
        if let Some(segment) = &turn.segment {
            self.unsettled = true;
            self.shelf.append(segment).await?;
            self.unsettled = false;
            self.wear.tail += segment.size();
        }
        if !turn.expired.is_empty() {
            let ids: Vec<_> = turn.expired.iter().map(|id| format!("{:032x}", id.0)).collect();
            // Whoever misses it finds the same in the results of post and void.
            let _ = self.cx.village().topic(TOPIC).post(json!({ "expired": ids })).await;
        }
        self.metrics.show(&self.books);
        turn.answers.iter().for_each(|answer| self.metrics.count(answer));
        if self.writing.is_none() && self.wear.calls_for_checkpoint(self.checkpoint_after) {
            self.checkpoint(me);
        }
        Ok(turn.answers)
    }

    /// Writes the books down beside the mailbox; only copying them holds it up. Nothing depends on it but the time of the next
    /// start.
    fn checkpoint(&mut self, me: &ActorRef<Mail<LedgerMsg>>) {
        let (saved, tail) = (self.books.save(), self.wear.tail);
        let (cx, me, shelf) = (self.cx.clone(), me.clone(), self.shelf.clone());
        let write = async move {
            let weight = match shelf.write_checkpoint(&saved).await {
                Ok(weight) => Some(weight as u64),
                Err(error) => {
                    tracing::warn!(%error, "no checkpoint of the ledger, trying again with the next commit");
                    None
                }
            };
            cx.tell_self(&me, LedgerMsg::Checkpointed { tail: tail as u64, weight });
        };
        self.writing = Some(Writing(self.cx.village().task("ledger.checkpoint", write)));
    }

    fn checkpointed(&mut self, tail: u64, weight: Option<u64>) {
        self.writing = None;
        if let Some(weight) = weight {
            let bytes = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
            self.wear = self.wear.after_checkpoint(bytes(tail), bytes(weight));
        }
    }

    /// Reads the books again if they are not known to be those of the store.
    async fn settle(&mut self) -> Result<(), CallError> {
        if self.unsettled {
            (self.books, self.wear) = self.shelf.load(REMEMBER).await?;
            self.unsettled = false;
        }
        Ok(())
    }

    async fn balance(&mut self, accounts: &[AccountId]) -> Result<Vec<Option<Account>>, CallError> {
        self.settle().await?;
        Ok(accounts.iter().map(|id| self.books.account(*id).copied()).collect())
    }

    async fn accounts(&mut self, after: Option<AccountId>, limit: u32) -> Result<Vec<Account>, CallError> {
        self.settle().await?;
        Ok(self.books.page(after, limit.min(ACCOUNTS) as usize))
    }

    fn journal(&self, from: u64, limit: u32) -> Result<Vec<Segment>, CallError> {
        let mut segments = Vec::new();
        let mut records = 0;
        // Larger than one page of the store is no answer anyway.
        for (number, bytes) in (from..).zip(self.shelf.page(from, limit.min(64) as usize)?) {
            let segment = audit::read(number, &bytes).map_err(ShelfError::from)?;
            records += segment.records();
            if records > JOURNAL_RECORDS && !segments.is_empty() {
                break;
            }
            segments.push(segment);
        }
        Ok(segments)
    }

    /// Verifies beside the mailbox; what is committed meanwhile does not matter.
    async fn audit(&mut self, reply: Reply<Audited>) {
        if let Err(error) = self.settle().await {
            return reply.fail(error);
        }
        let (shelf, head, digest) = (self.shelf.clone(), self.books.head(), self.books.digest());
        let verify = move || reply.complete(shelf.audit(REMEMBER, head, digest));
        self.cx.village().blocking("ledger.audit", verify).detach();
    }

    async fn tick(&mut self, me: &ActorRef<Mail<LedgerMsg>>) {
        self.tick = None;
        match self.turn(me, &[]).await {
            Ok(_) => self.wake(me),
            Err(error) => {
                tracing::warn!(%error, "expired holds not freed, trying again in a second");
                self.cx.timer(me, AGAIN, LedgerMsg::Tick).detach();
            }
        }
    }

    /// Sets the clock for the next pending transfer that expires.
    fn wake(&mut self, me: &ActorRef<Mail<LedgerMsg>>) {
        let next = self.books.next_deadline_ns();
        if self.tick.as_ref().map(|(at_ns, _)| *at_ns) == next {
            return;
        }
        if let Some((_, earlier)) = self.tick.take() {
            earlier.abort();
        }
        let now_ns = self.now_ns();
        self.tick = next.map(|at_ns| {
            let rest = Duration::from_nanos(at_ns.saturating_sub(now_ns)) + Duration::from_millis(1);
            (at_ns, self.cx.timer(me, rest, LedgerMsg::Tick))
        });
    }

    /// The clock, as the ledger counts.
    fn now_ns(&self) -> u64 {
        (self.clock)().saturating_mul(1_000_000)
    }
}

impl From<ShelfError> for CallError {
    fn from(error: ShelfError) -> Self {
        match error {
            ShelfError::Store(error) => error.into(),
            ShelfError::Damaged(error) => AppError::new("ledger_damaged", error.to_string()).into(),
        }
    }
}
