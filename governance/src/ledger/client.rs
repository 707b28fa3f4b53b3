//! The ledger as its users see it: hold an amount, then settle or void it.

use std::time::Duration;

use aivillage_runtime::{Addr, CallError, Village};
use serde::{Deserialize, Serialize};

use super::record::{Account, AccountId, Flags, LedgerId, NewAccount, Transfer, TransferId};
use super::result::{AccountResult, TransferResult};
use super::{KEY, Ledger, LedgerMsg};

/// Why nothing was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The ledger refused one of the transfers, and so all of them.
    #[error("transfer {index} was refused: {result:?}")]
    Refused {
        /// Which one, from 0.
        index: usize,
        /// Why.
        result: TransferResult,
    },
    /// The ledger refused an account; others may have been opened.
    #[error("account {index} was refused: {result:?}")]
    Account {
        /// Which one, from 0.
        index: usize,
        /// Why.
        result: AccountResult,
    },
    /// There was no answer. A repetition with the same ids is safe, and tells.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// An amount that is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Names it, for settling or voiding too.
    pub id: TransferId,
    /// Who is going to pay.
    pub from: AccountId,
    /// Who is going to be paid.
    pub to: AccountId,
    /// The unit.
    pub ledger: LedgerId,
    /// How much at most.
    pub amount: u128,
    /// The caller's reason, not 0.
    pub code: u16,
    /// After which ledger time it is free again, to the second; none never.
    pub timeout: Option<Duration>,
}

/// Asks the ledger of a village. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LedgerClient(Addr<Ledger>);

impl LedgerClient {
    /// The ledger of this village.
    #[must_use]
    pub fn new(village: &Village) -> Self {
        Self(village.addr::<Ledger>(KEY))
    }

    /// Opens accounts; those that are there already, the same, are well.
    ///
    /// # Errors
    /// [`LedgerError::Account`] for the first that was refused, [`LedgerError::Call`].
    pub async fn open(&self, accounts: Vec<NewAccount>) -> Result<(), LedgerError> {
        let results = self.0.ask(|reply| LedgerMsg::CreateAccounts(accounts, reply)).await?;
        let refused = |result: &AccountResult| !matches!(result, AccountResult::Ok | AccountResult::Exists);
        match results.iter().position(refused) {
            Some(index) => Err(LedgerError::Account { index, result: results[index] }),
            None => Ok(()),
        }
    }

    /// Holds amounts, all or none.
    ///
    /// # Errors
    /// [`LedgerError::Refused`], [`LedgerError::Call`].
    pub async fn hold(&self, holds: &[Hold]) -> Result<(), LedgerError> {
        self.submit(holds.iter().map(pending).collect()).await
    }

    /// Pays what a hold has, or less of it; the rest is free again.
    ///
    /// # Errors
    /// [`LedgerError::Refused`], [`LedgerError::Call`].
    pub async fn settle(&self, id: TransferId, hold: TransferId, amount: u128) -> Result<(), LedgerError> {
        self.submit(vec![post(id, hold, amount)]).await
    }

    /// Frees what a hold has.
    ///
    /// # Errors
    /// [`LedgerError::Refused`], [`LedgerError::Call`].
    pub async fn void(&self, id: TransferId, hold: TransferId) -> Result<(), LedgerError> {
        self.submit(vec![void(id, hold)]).await
    }

    /// Carries out transfers, all or none; those that took effect before, the same, are well.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] for the one that failed, [`LedgerError::Call`].
    pub async fn submit(&self, transfers: Vec<Transfer>) -> Result<(), LedgerError> {
        let chain = linked(transfers);
        let results = self.0.ask(|reply| LedgerMsg::Transfer(chain, reply)).await?;
        let failed = |result: &TransferResult| !result.is_accepted() && *result != TransferResult::LinkedEventFailed;
        match results.iter().position(failed) {
            Some(index) => Err(LedgerError::Refused { index, result: results[index] }),
            None => Ok(()),
        }
    }

    /// An account with its balance; none if there is no such account.
    ///
    /// # Errors
    /// [`LedgerError::Call`].
    pub async fn balance(&self, account: AccountId) -> Result<Option<Account>, LedgerError> {
        let found = self.0.query(|reply| LedgerMsg::Balance(vec![account], reply)).await?;
        Ok(found.into_iter().next().flatten())
    }
}

/// The transfer that holds an amount.
#[must_use]
pub fn pending(hold: &Hold) -> Transfer {
    let timeout_s = hold.timeout.map_or(0, |limit| u32::try_from(limit.as_secs().max(1)).unwrap_or(u32::MAX));
    Transfer {
        id: hold.id,
        debit: hold.from,
        credit: hold.to,
        amount: hold.amount,
        timeout_s,
        ledger: hold.ledger,
        code: hold.code,
        flags: Flags::PENDING,
        ..Transfer::default()
    }
}

/// The transfer that pays what a hold has, or a part of it.
#[must_use]
pub fn post(id: TransferId, hold: TransferId, amount: u128) -> Transfer {
    Transfer { id, pending: hold, amount, flags: Flags::POST, ..Transfer::default() }
}

/// The transfer that frees what a hold has.
#[must_use]
pub fn void(id: TransferId, hold: TransferId) -> Transfer {
    Transfer { id, pending: hold, flags: Flags::VOID, ..Transfer::default() }
}

/// The transfers as one chain.
#[must_use]
pub fn linked(mut transfers: Vec<Transfer>) -> Vec<Transfer> {
    if let Some((last, others)) = transfers.split_last_mut() {
        last.flags = Flags(last.flags.0 & !Flags::LINKED.0);
        for transfer in others {
            transfer.flags = transfer.flags.with(Flags::LINKED);
        }
    }
    transfers
}
