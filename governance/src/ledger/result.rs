//! What became of a transfer or an account, named as `TigerBeetle` names it.
//!
//! Names and their precedence: <https://docs.tigerbeetle.com/reference/requests/create_transfers/>. Unlike there an amount of 0 is refused, and a whole chain that is repeated answers `exists` for each.

use serde::{Deserialize, Serialize};

/// What became of one transfer of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferResult {
    /// Accepted.
    Ok,
    /// Another one of its chain failed.
    LinkedEventFailed,
    /// The last of the batch is linked to a next one.
    LinkedEventChainOpen,
    /// Only the ledger sets the time.
    TimestampMustBeZero,
    /// A flag without meaning.
    ReservedFlag,
    /// The name 0 is none.
    IdMustNotBeZero,
    /// The name 2^128 - 1 is none.
    IdMustNotBeIntMax,
    /// It was accepted before, with other flags.
    ExistsWithDifferentFlags,
    /// It was accepted before, for another pending one.
    ExistsWithDifferentPendingId,
    /// It was accepted before, with another time-out.
    ExistsWithDifferentTimeout,
    /// It was accepted before, from another account.
    ExistsWithDifferentDebitAccountId,
    /// It was accepted before, to another account.
    ExistsWithDifferentCreditAccountId,
    /// It was accepted before, over another amount.
    ExistsWithDifferentAmount,
    /// It was accepted before, with another `user`.
    ExistsWithDifferentUserData128,
    /// It was accepted before, with another `seq`.
    ExistsWithDifferentUserData64,
    /// It was accepted before, on another ledger.
    ExistsWithDifferentLedger,
    /// It was accepted before, with another code.
    ExistsWithDifferentCode,
    /// It was accepted before, the same.
    Exists,
    /// Two flags that contradict each other.
    FlagsAreMutuallyExclusive,
    /// It names no account to debit.
    DebitAccountIdMustNotBeZero,
    /// It names no account to credit.
    CreditAccountIdMustNotBeZero,
    /// From an account to itself.
    AccountsMustBeDifferent,
    /// Only one that posts or voids names a pending one.
    PendingIdMustBeZero,
    /// It names no pending one to post or void.
    PendingIdMustNotBeZero,
    /// It would resolve itself.
    PendingIdMustBeDifferent,
    /// Only a pending one has a time-out.
    TimeoutReservedForPendingTransfer,
    /// It moves nothing.
    AmountMustNotBeZero,
    /// It names no ledger.
    LedgerMustNotBeZero,
    /// It gives no reason.
    CodeMustNotBeZero,
    /// There is no account to debit.
    DebitAccountNotFound,
    /// There is no account to credit.
    CreditAccountNotFound,
    /// The accounts have different units.
    AccountsMustHaveTheSameLedger,
    /// The accounts have another unit.
    TransferMustHaveTheSameLedgerAsAccounts,
    /// There is no such pending transfer, or it was resolved longer ago than is remembered.
    PendingTransferNotFound,
    /// The one to resolve is not a pending one.
    PendingTransferNotPending,
    /// The pending one is from another account.
    PendingTransferHasDifferentDebitAccountId,
    /// The pending one is to another account.
    PendingTransferHasDifferentCreditAccountId,
    /// The pending one is on another ledger.
    PendingTransferHasDifferentLedger,
    /// The pending one has another code.
    PendingTransferHasDifferentCode,
    /// More than the pending one holds.
    ExceedsPendingTransferAmount,
    /// A void is for the whole.
    PendingTransferHasDifferentAmount,
    /// It was posted before.
    PendingTransferAlreadyPosted,
    /// It was voided before.
    PendingTransferAlreadyVoided,
    /// Its time was over.
    PendingTransferExpired,
    /// The debits of an account would have too many digits.
    OverflowsDebits,
    /// The credits of an account would have too many digits.
    OverflowsCredits,
    /// It would expire after the end of time.
    OverflowsTimeout,
    /// The account to debit has not so much.
    ExceedsCredits,
}

impl TransferResult {
    /// Whether the transfer is in the ledger, now or from before.
    #[must_use]
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Ok | Self::Exists)
    }
}

/// What became of one account that was to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountResult {
    /// Opened.
    Ok,
    /// The name 0 is none.
    IdMustNotBeZero,
    /// The name 2^128 - 1 is none.
    IdMustNotBeIntMax,
    /// There is one, with the other rule on overdrafts.
    ExistsWithDifferentFlags,
    /// There is one, with another `user`.
    ExistsWithDifferentUserData128,
    /// There is one, on another ledger.
    ExistsWithDifferentLedger,
    /// There is one, with another code.
    ExistsWithDifferentCode,
    /// There is one, the same.
    Exists,
    /// There is no such ledger; `TigerBeetle` knows any but 0.
    LedgerUnknown,
    /// It gives no reason.
    CodeMustNotBeZero,
}
