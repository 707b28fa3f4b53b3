//! `/v1/ledger`: accounts, transfers and the audit of the village's one ledger, to read. Amounts are decimal strings: a JSON
//! number does not hold all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aivillage_governance::ledger::audit::Audited;
use aivillage_governance::ledger::record::{Account, AccountId, Flags, Transfer};
use aivillage_governance::ledger::segment::Segment;
use aivillage_governance::ledger::{KEY, Ledger, LedgerMsg};
use aivillage_runtime::Addr;
use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Path, Query, ok};
use crate::door::Door;
use crate::error::{ApiError, Code};

/// An audit reads the whole journal.
const AUDIT: Duration = Duration::from_mins(2);

/// An account and its balance.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LedgerAccount {
    /// Names it, 32 hex digits.
    id: String,
    /// What its amounts are: `micro_usd`, `micro_fog`, `nano_h200h`.
    unit: String,
    /// What it is for, by whoever opened it.
    code: u16,
    /// Whether it may be debited no more than it was credited.
    no_overdraft: bool,
    /// What still can be debited; of an account without overdraft this is a limit.
    available: String,
    /// Held to be debited.
    debits_pending: String,
    /// Debited.
    debits_posted: String,
    /// Held to be credited.
    credits_pending: String,
    /// Credited.
    credits_posted: String,
    /// When it was opened, Unix milliseconds.
    opened_ms: u64,
}

impl From<&Account> for LedgerAccount {
    fn from(account: &Account) -> Self {
        Self {
            id: hex(account.of.id.0),
            unit: account.of.ledger.unit(),
            code: account.of.code,
            no_overdraft: account.of.no_overdraft,
            available: account.available().to_string(),
            debits_pending: account.debits_pending.to_string(),
            debits_posted: account.debits_posted.to_string(),
            credits_pending: account.credits_pending.to_string(),
            credits_posted: account.credits_posted.to_string(),
            opened_ms: account.ts_ns / 1_000_000,
        }
    }
}

/// Accounts in the order of their names.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LedgerAccounts {
    /// The accounts.
    data: Vec<LedgerAccount>,
    /// Read on behind this one; none when these are the last.
    next: Option<String>,
}

/// A transfer as it was accepted.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LedgerTransfer {
    /// Names it, 32 hex digits.
    id: String,
    /// Account to debit; of one that settles or frees a hold, that of the hold.
    debit: String,
    /// Account to credit.
    credit: String,
    /// How much.
    amount: String,
    /// What the amount is.
    unit: String,
    /// The hold that it settles or frees.
    pending: Option<String>,
    /// `transfer`, `hold`, `settle` or `void`.
    kind: &'static str,
    /// The caller's reason.
    code: u16,
    /// Seconds after which a hold is free again; none never.
    timeout_s: Option<u32>,
    /// When, Unix milliseconds.
    at_ms: u64,
    /// The segment of the journal that it is in.
    segment: u64,
}

impl LedgerTransfer {
    fn of(segment: u64, transfer: &Transfer) -> Self {
        let kind = match transfer.flags {
            flags if flags.has(Flags::PENDING) => "hold",
            flags if flags.has(Flags::POST) => "settle",
            flags if flags.has(Flags::VOID) => "void",
            _ => "transfer",
        };
        Self {
            id: hex(transfer.id.0),
            debit: hex(transfer.debit.0),
            credit: hex(transfer.credit.0),
            amount: transfer.amount.to_string(),
            unit: transfer.ledger.unit(),
            pending: (transfer.pending.0 != 0).then(|| hex(transfer.pending.0)),
            kind,
            code: transfer.code,
            timeout_s: (transfer.timeout_s > 0).then_some(transfer.timeout_s),
            at_ms: transfer.ts_ns / 1_000_000,
            segment,
        }
    }
}

/// Transfers of some segments of the journal.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LedgerTransfers {
    /// The transfers, in order.
    data: Vec<LedgerTransfer>,
    /// The segment to read on from; none when these are the last.
    next: Option<u64>,
}

impl From<Vec<Segment>> for LedgerTransfers {
    fn from(segments: Vec<Segment>) -> Self {
        let of = |segment: &Segment| {
            let number = segment.number;
            segment.transfers.iter().map(move |transfer| LedgerTransfer::of(number, transfer)).collect::<Vec<_>>()
        };
        let next = segments.last().map(|last| last.number + 1);
        Self { data: segments.iter().flat_map(of).collect(), next }
    }
}

/// What an audit found: the journal is what was written, it makes the books, and they balance.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LedgerAudit {
    /// Segments whose chain and contents were verified.
    segments: u64,
    /// Accounts.
    accounts: u64,
    /// Holds that are open.
    holds: u64,
    /// Posted debits by unit, which are its posted credits too.
    posted: BTreeMap<String, String>,
}

impl From<Audited> for LedgerAudit {
    fn from(audited: Audited) -> Self {
        let Audited { segments, accounts, open, posted } = audited;
        let posted = posted.into_iter().map(|(ledger, amount)| (ledger.unit(), amount.to_string())).collect();
        Self { segments, accounts, holds: open, posted }
    }
}

fn hex(id: u128) -> String {
    format!("{id:032x}")
}

fn account(text: &str) -> Answer<AccountId> {
    let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u128::from_str_radix(text, 16).ok().filter(|_| is_id);
    id.map(AccountId).ok_or_else(|| ApiError::new(Code::BadRequest, "an account's id has 32 hex digits"))
}

fn ledger(door: &Door) -> Addr<Ledger> {
    door.village.addr::<Ledger>(KEY)
}

/// Which accounts.
#[derive(Debug, Deserialize)]
pub(crate) struct AccountsQuery {
    after: Option<String>,
    #[serde(default = "a_page")]
    limit: u32,
}

/// Which transfers.
#[derive(Debug, Deserialize)]
pub(crate) struct TransfersQuery {
    #[serde(default)]
    from: u64,
    #[serde(default = "some_segments")]
    limit: u32,
}

fn a_page() -> u32 {
    100
}

fn some_segments() -> u32 {
    16
}

/// Accounts with their balances, in the order of their names.
#[utoipa::path(get, path = "/v1/ledger/accounts", tag = "ledger",
    params(("after" = Option<String>, Query, description = "those behind this account, 32 hex digits; if not given, the first"),
        ("limit" = Option<u32>, Query, description = "at most so many, 100 if not given and at most 1000")),
    responses((status = 200, description = "Accounts", body = ref("#/components/schemas/LedgerAccounts"))))]
pub(crate) async fn accounts(State(door): State<Arc<Door>>, Query(query): Query<AccountsQuery>) -> Answer<Response> {
    let after = query.after.as_deref().map(account).transpose()?;
    let limit = query.limit.clamp(1, 1_000);
    let found = ledger(&door).query(|reply| LedgerMsg::Accounts { after, limit, reply }).await?;
    let next = found.last().filter(|_| found.len() == limit as usize).map(|last| hex(last.of.id.0));
    Ok(ok(LedgerAccounts { data: found.iter().map(LedgerAccount::from).collect(), next }))
}

/// An account and its balance.
#[utoipa::path(get, path = "/v1/ledger/accounts/{id}", tag = "ledger", params(("id" = String, Path, description = "32 hex digits")),
    responses((status = 200, description = "The account", body = ref("#/components/schemas/LedgerAccount")),
        (status = 404, description = "No such account", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn show(State(door): State<Arc<Door>>, Path(id): Path<String>) -> Answer<Response> {
    let asked = account(&id)?;
    let found = ledger(&door).query(|reply| LedgerMsg::Balance(vec![asked], reply)).await?;
    let found = found.into_iter().next().flatten().ok_or_else(|| ApiError::not_found(format!("account {id}")))?;
    Ok(ok(LedgerAccount::from(&found)))
}

/// Accepted transfers, in the order in which they took effect.
#[utoipa::path(get, path = "/v1/ledger/transfers", tag = "ledger",
    params(("from" = Option<u64>, Query, description = "segment of the journal to begin with; if not given, the first"),
        ("limit" = Option<u32>, Query, description = "at most so many segments, 16 if not given and at most 64")),
    responses((status = 200, description = "Transfers", body = ref("#/components/schemas/LedgerTransfers"))))]
pub(crate) async fn transfers(State(door): State<Arc<Door>>, Query(query): Query<TransfersQuery>) -> Answer<Response> {
    let (from, limit) = (query.from, query.limit.clamp(1, 64));
    let segments = ledger(&door).query(|reply| LedgerMsg::Journal { from, limit, reply }).await?;
    Ok(ok(LedgerTransfers::from(segments)))
}

/// Verifies the whole journal and that it makes the books. Takes a while.
#[utoipa::path(get, path = "/v1/ledger/audit", tag = "ledger",
    responses((status = 200, description = "All is right", body = ref("#/components/schemas/LedgerAudit")),
        (status = 500, description = "It is not: the detail says where", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn audit(State(door): State<Arc<Door>>) -> Answer<Response> {
    let audited = ledger(&door).call().deadline(AUDIT).ask(LedgerMsg::Audit).await?;
    Ok(ok(LedgerAudit::from(audited)))
}
