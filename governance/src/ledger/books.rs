//! The ledger as a state machine: the same requests at the same times make the same state, segments and answers.
//!
//! Accounts with pending and posted debits and credits, the pending transfers that are open, and the transfers of the last
//! days by their names. A turn carries out what requests there are, in order, and seals what it accepted into a segment. A
//! request that is refused leaves no trace, so carrying out the segments again makes the same state.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::{Account, AccountId, Flags, NewAccount, Transfer, TransferId};
use super::result::{AccountResult, TransferResult};
use super::segment::{Head, Segment};

/// How long transfers are remembered by their names.
pub const REMEMBER: Duration = Duration::from_hours(30 * 24);

/// What one caller asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Opens accounts.
    Accounts(Vec<NewAccount>),
    /// Moves amounts.
    Transfers(Vec<Transfer>),
}

impl Request {
    /// Its accounts or transfers; [`MAX_RECORDS`](super::segment::MAX_RECORDS) at most belong in one turn.
    #[must_use]
    pub fn records(&self) -> usize {
        match self {
            Self::Accounts(accounts) => accounts.len(),
            Self::Transfers(transfers) => transfers.len(),
        }
    }
}

/// What became of a request, one result for each of its accounts or transfers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of accounts.
    Accounts(Vec<AccountResult>),
    /// Of transfers.
    Transfers(Vec<TransferResult>),
}

/// What a turn did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// One for each request.
    pub answers: Vec<Answer>,
    /// Pending transfers whose time was over, oldest first; what they held is free again.
    pub expired: Vec<TransferId>,
    /// What was accepted; none when nothing changed.
    pub segment: Option<Segment>,
}

/// A transfer that is remembered, and what became of it if it was a pending one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) transfer: Transfer,
    /// None if it was not a pending one, is open, or has expired.
    pub(super) closed: Option<Closed>,
}

/// How a pending transfer was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    Posted,
    Voided,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    pub(super) accounts: HashMap<AccountId, Account>,
    /// Pending transfers that are not resolved.
    pub(super) open: BTreeMap<TransferId, Transfer>,
    /// When those with a time-out expire.
    deadlines: BTreeSet<(u64, TransferId)>,
    pub(super) seen: HashMap<TransferId, Seen>,
    /// What is remembered, oldest first.
    order: VecDeque<(u64, TransferId)>,
    /// The newest ledger time of a record or a segment.
    last_ns: u64,
    /// Transfers of before are forgotten.
    forgot_ns: u64,
    head: Head,
    remember_ns: u64,
    /// What the turn under way has done.
    pub(super) draft: Draft,
}

/// What a turn under way has done, in order, so that it can be undone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Draft {
    time_ns: u64,
    accounts: Vec<Account>,
    transfers: Vec<Transfer>,
}

impl Draft {
    /// The time of the next record: no two have the same.
    pub(super) fn next_ns(&self) -> u64 {
        self.time_ns.saturating_add((self.accounts.len() + self.transfers.len()) as u64)
    }
}

/// A state without what follows from recent segments, for a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) head: Head,
    last_ns: u64,
    /// The segments with transfers of this time or later are needed too.
    pub(super) forgot_ns: u64,
    accounts: Vec<Account>,
    open: Vec<Transfer>,
}

impl Default for Books {
    fn default() -> Self {
        Self::remembering(REMEMBER)
    }
}

impl Books {
    /// Empty books that know transfers by their names for so long.
    #[must_use]
    pub fn remembering(time: Duration) -> Self {
        Self {
            accounts: HashMap::new(),
            open: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            seen: HashMap::new(),
            order: VecDeque::new(),
            last_ns: 0,
            forgot_ns: 0,
            head: Head::default(),
            remember_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            draft: Draft::default(),
        }
    }

    /// Carries out requests, at `now_ns` or just after the last record if that is later. The caller sees to it that they have
    /// at most [`MAX_RECORDS`](super::segment::MAX_RECORDS) records together, else the segment is too large for a commit.
    pub fn turn(&mut self, now_ns: u64, requests: &[Request]) -> Turn {
        self.draft = Draft { time_ns: now_ns.max(self.last_ns.saturating_add(1)), ..Draft::default() };
        let expired = self.expire();
        let answers = requests.iter().map(|request| self.answer(request)).collect();
        let segment = self.seal(!expired.is_empty());
        debug_assert_eq!(self.balance().err(), None, "the books do not balance");
        Turn { answers, expired, segment }
    }

    fn answer(&mut self, request: &Request) -> Answer {
        match request {
            Request::Accounts(accounts) => Answer::Accounts(accounts.iter().map(|new| self.create(*new)).collect()),
            Request::Transfers(transfers) => Answer::Transfers(self.transfer(transfers)),
        }
    }

    fn create(&mut self, new: NewAccount) -> AccountResult {
        let refused = match new {
            _ if new.id.0 == 0 => AccountResult::IdMustNotBeZero,
            _ if new.id.0 == u128::MAX => AccountResult::IdMustNotBeIntMax,
            _ if !new.ledger.is_known() => AccountResult::LedgerUnknown,
            _ if new.code == 0 => AccountResult::CodeMustNotBeZero,
            _ => match self.accounts.get(&new.id) {
                Some(account) => compare_accounts(&account.of, &new),
                None => AccountResult::Ok,
            },
        };
        if refused == AccountResult::Ok {
            let account = Account::open(new, self.draft.next_ns());
            self.accounts.insert(new.id, account);
            self.draft.accounts.push(account);
        }
        refused
    }

    /// Carries out a batch, chain by chain.
    fn transfer(&mut self, batch: &[Transfer]) -> Vec<TransferResult> {
        let mut results = Vec::with_capacity(batch.len());
        for chain in batch.chunk_by(|transfer, _| transfer.flags.has(Flags::LINKED)) {
            self.chain(chain, &mut results);
        }
        results
    }

    /// Carries out a chain as a whole, or nothing of it.
    fn chain(&mut self, chain: &[Transfer], results: &mut Vec<TransferResult>) {
        if chain.len() > 1 && chain.iter().all(|transfer| self.is_known(transfer)) {
            return results.extend(chain.iter().map(|_| TransferResult::Exists));
        }
        let start = results.len();
        match self.try_chain(chain) {
            Ok(()) => results.resize(start + chain.len(), TransferResult::Ok),
            Err((failed, result)) => {
                results.resize(start + chain.len(), TransferResult::LinkedEventFailed);
                results[start + failed] = result;
                if is_unfinished(chain) {
                    results.pop();
                    results.push(TransferResult::LinkedEventChainOpen);
                }
            }
        }
    }

    /// On failure, which one of the chain failed and why; nothing of it has stayed.
    fn try_chain(&mut self, chain: &[Transfer]) -> Result<(), (usize, TransferResult)> {
        let before = self.draft.transfers.len();
        let mut resolved = Vec::with_capacity(chain.len());
        for (at, transfer) in chain.iter().enumerate() {
            let is_last = at + 1 == chain.len();
            let executed = if is_last && is_unfinished(chain) {
                Err(TransferResult::LinkedEventChainOpen)
            } else {
                self.execute(transfer)
            };
            match executed {
                Ok(pending) => resolved.push(pending),
                Err(result) => {
                    self.undo(before, resolved);
                    return Err((at, result));
                }
            }
        }
        Ok(())
    }

    /// Takes back the newest transfers of the draft; `resolved` are the pending ones that they resolved.
    fn undo(&mut self, until: usize, resolved: Vec<Option<Transfer>>) {
        for (transfer, resolved) in self.draft.transfers.split_off(until).into_iter().zip(resolved).rev() {
            self.revert(&transfer, resolved);
            self.seen.remove(&transfer.id);
            self.order.pop_back();
        }
    }

    /// Adds an accepted transfer to the draft and to what is known.
    pub(super) fn record(&mut self, transfer: Transfer) {
        self.draft.transfers.push(transfer);
        self.remember(transfer);
    }

    fn remember(&mut self, transfer: Transfer) {
        self.seen.insert(transfer.id, Seen { transfer, closed: None });
        self.order.push_back((transfer.ts_ns, transfer.id));
    }

    /// Adds a pending transfer to the open ones.
    pub(super) fn add_open(&mut self, transfer: Transfer) {
        self.open.insert(transfer.id, transfer);
        if let Some(deadline) = deadline(&transfer) {
            self.deadlines.insert((deadline, transfer.id));
        }
    }

    /// Takes a pending transfer from the open ones.
    pub(super) fn take_open(&mut self, id: TransferId) -> Option<Transfer> {
        let transfer = self.open.remove(&id)?;
        if let Some(deadline) = deadline(&transfer) {
            self.deadlines.remove(&(deadline, id));
        }
        Some(transfer)
    }

    /// Frees what pending transfers hold whose time is over.
    fn expire(&mut self) -> Vec<TransferId> {
        let mut expired = Vec::new();
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= self.draft.time_ns) {
            if let Some(transfer) = self.take_open(id) {
                self.release(&transfer);
            }
            expired.push(id);
        }
        expired
    }

    /// Ends the turn. Only one that changed something moves the time, so that the segments alone tell it.
    fn seal(&mut self, expired: bool) -> Option<Segment> {
        let last_ns = self.draft.next_ns().saturating_sub(1).max(self.draft.time_ns);
        let Draft { time_ns, accounts, transfers } = std::mem::take(&mut self.draft);
        if accounts.is_empty() && transfers.is_empty() && !expired {
            return None;
        }
        self.last_ns = last_ns;
        self.forgot_ns = time_ns.saturating_sub(self.remember_ns);
        self.forget();
        let segment = Segment::seal(self.head, time_ns, accounts, transfers);
        self.head = segment.head();
        Some(segment)
    }

    /// Forgets the transfers of before `forgot_ns`. A name may be in use again by then.
    fn forget(&mut self) {
        while let Some((at, id)) = self.order.pop_front_if(|(at, _)| *at < self.forgot_ns) {
            if self.seen.get(&id).is_some_and(|seen| seen.transfer.ts_ns == at) {
                self.seen.remove(&id);
            }
        }
    }

    /// An account and its balance.
    #[must_use]
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// Up to `limit` accounts in the order of their names, those behind `after`.
    #[must_use]
    pub fn page(&self, after: Option<AccountId>, limit: usize) -> Vec<Account> {
        let is_behind = |account: &&Account| after.is_none_or(|after| account.of.id > after);
        let mut page: Vec<_> = self.accounts.values().filter(is_behind).copied().collect();
        // Sorts no more than is shown.
        if let Some(last) = limit.checked_sub(1).filter(|last| *last < page.len()) {
            page.select_nth_unstable_by_key(last, |account| account.of.id);
        }
        page.truncate(limit);
        page.sort_unstable_by_key(|account| account.of.id);
        page
    }

    /// Pending transfers that are neither resolved nor expired.
    #[must_use]
    pub fn open_len(&self) -> usize {
        self.open.len()
    }

    /// How many accounts there are.
    #[must_use]
    pub fn accounts_len(&self) -> usize {
        self.accounts.len()
    }

    /// Where its journal ends.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// When the next pending transfer expires, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// SHA-256 over all accounts, open transfers and the journal's head: equal for equal states.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let saved = self.save();
        let mut hash = Sha256::new();
        hash.update(saved.head.next.to_le_bytes());
        hash.update(saved.head.hash);
        hash.update(saved.last_ns.to_le_bytes());
        saved.accounts.iter().for_each(|account| hash.update(account.encode()));
        saved.open.iter().for_each(|transfer| hash.update(transfer.encode()));
        hash.finalize().into()
    }

    /// The state for a checkpoint, between two turns.
    pub(super) fn save(&self) -> Saved {
        let mut accounts: Vec<_> = self.accounts.values().copied().collect();
        accounts.sort_unstable_by_key(|account| account.of.id);
        let open = self.open.values().copied().collect();
        Saved { head: self.head, last_ns: self.last_ns, forgot_ns: self.forgot_ns, accounts, open }
    }

    /// The state of a checkpoint. `recent` are the segments before it, in order, back to `forgot_ns` at least.
    pub(super) fn restore(remember: Duration, saved: Saved, recent: impl IntoIterator<Item = Segment>) -> Self {
        let mut books = Self::remembering(remember);
        (books.head, books.last_ns, books.forgot_ns) = (saved.head, saved.last_ns, saved.forgot_ns);
        books.accounts = saved.accounts.into_iter().map(|account| (account.of.id, account)).collect();
        saved.open.into_iter().for_each(|transfer| books.add_open(transfer));
        for transfer in recent.into_iter().flat_map(|segment| segment.transfers) {
            books.remember(transfer);
            books.mark_closed(&transfer);
        }
        books.forget();
        books
    }

    /// Remembers of a pending transfer that `by` resolved it.
    pub(super) fn mark_closed(&mut self, by: &Transfer) {
        if !by.flags.resolves() {
            return;
        }
        let closed = if by.flags.has(Flags::POST) { Closed::Posted } else { Closed::Voided };
        if let Some(seen) = self.seen.get_mut(&by.pending) {
            seen.closed = Some(closed);
        }
    }
}

/// Whether the last of a chain is linked to one that is not there.
fn is_unfinished(chain: &[Transfer]) -> bool {
    chain.last().is_some_and(|last| last.flags.has(Flags::LINKED))
}

/// When a pending transfer expires.
fn deadline(transfer: &Transfer) -> Option<u64> {
    let timeout_ns = u64::from(transfer.timeout_s) * 1_000_000_000;
    (timeout_ns > 0).then(|| transfer.ts_ns.saturating_add(timeout_ns))
}

fn compare_accounts(have: &NewAccount, new: &NewAccount) -> AccountResult {
    match new {
        _ if have.no_overdraft != new.no_overdraft => AccountResult::ExistsWithDifferentFlags,
        _ if have.user != new.user => AccountResult::ExistsWithDifferentUserData128,
        _ if have.ledger != new.ledger => AccountResult::ExistsWithDifferentLedger,
        _ if have.code != new.code => AccountResult::ExistsWithDifferentCode,
        _ => AccountResult::Exists,
    }
}
