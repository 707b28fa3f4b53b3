//! One transfer: whether it may be, and what it does to the accounts.

use super::books::{Books, Closed};
use super::record::{Account, AccountId, Flags, Transfer, TransferId};
use super::result::TransferResult as Refused;

impl Books {
    /// Carries out one transfer; the pending one that it resolved, if it resolves one.
    pub(super) fn execute(&mut self, transfer: &Transfer) -> Result<Option<Transfer>, Refused> {
        check_name(transfer)?;
        if let Some(have) = self.transfer_by(transfer.id) {
            return Err(compare(have, transfer, self.transfer_by(transfer.pending)));
        }
        check_form(transfer)?;
        if transfer.flags.resolves() { self.resolve(transfer).map(Some) } else { self.enter(transfer).map(|()| None) }
    }

    /// Whether it was accepted before, the same.
    pub(super) fn is_known(&self, transfer: &Transfer) -> bool {
        let same = |have| compare(have, transfer, self.transfer_by(transfer.pending)) == Refused::Exists;
        check_name(transfer).is_ok() && self.transfer_by(transfer.id).is_some_and(same)
    }

    /// A transfer that is remembered, or older and still open.
    fn transfer_by(&self, id: TransferId) -> Option<&Transfer> {
        self.seen.get(&id).map(|seen| &seen.transfer).or_else(|| self.open.get(&id))
    }

    /// A new movement, at once or pending.
    fn enter(&mut self, transfer: &Transfer) -> Result<(), Refused> {
        let debit = self.accounts.get(&transfer.debit).ok_or(Refused::DebitAccountNotFound)?;
        let credit = self.accounts.get(&transfer.credit).ok_or(Refused::CreditAccountNotFound)?;
        if debit.of.ledger != credit.of.ledger {
            return Err(Refused::AccountsMustHaveTheSameLedger);
        }
        if transfer.ledger != debit.of.ledger {
            return Err(Refused::TransferMustHaveTheSameLedgerAsAccounts);
        }
        let mut amount = transfer.amount;
        if transfer.flags.has(Flags::BALANCING_DEBIT) {
            amount = amount.min(debit.available());
            if amount == 0 {
                return Err(Refused::ExceedsCredits);
            }
        }
        check_room(debit, credit, amount)?;
        let ts_ns = self.draft.next_ns();
        if ts_ns.checked_add(u64::from(transfer.timeout_s) * 1_000_000_000).is_none() {
            return Err(Refused::OverflowsTimeout);
        }
        let entered = Transfer { amount, ts_ns, ..*transfer };
        self.apply(&entered);
        if entered.flags.has(Flags::PENDING) {
            self.add_open(entered);
        }
        self.record(entered);
        Ok(())
    }

    /// Posts or voids a pending one, which is given back.
    fn resolve(&mut self, transfer: &Transfer) -> Result<Transfer, Refused> {
        let pending = match self.open.get(&transfer.pending) {
            Some(pending) => *pending,
            None => return Err(self.why_not_open(transfer)),
        };
        check_against(transfer, &pending)?;
        self.take_open(pending.id);
        let user = if transfer.user == 0 { pending.user } else { transfer.user };
        let resolved = Transfer {
            debit: pending.debit,
            credit: pending.credit,
            ledger: pending.ledger,
            code: pending.code,
            amount: effective(transfer, &pending),
            user,
            ts_ns: self.draft.next_ns(),
            ..*transfer
        };
        self.release(&pending);
        if resolved.flags.has(Flags::POST) {
            self.apply(&resolved);
        }
        self.record(resolved);
        self.mark_closed(&resolved);
        Ok(pending)
    }

    fn why_not_open(&self, transfer: &Transfer) -> Refused {
        match self.seen.get(&transfer.pending) {
            None => Refused::PendingTransferNotFound,
            Some(seen) if !seen.transfer.flags.has(Flags::PENDING) => Refused::PendingTransferNotPending,
            Some(seen) => match seen.closed {
                Some(Closed::Posted) => Refused::PendingTransferAlreadyPosted,
                Some(Closed::Voided) => Refused::PendingTransferAlreadyVoided,
                None => Refused::PendingTransferExpired,
            },
        }
    }

    /// Adds an amount to both accounts; there is room for it.
    fn apply(&mut self, transfer: &Transfer) {
        let is_pending = transfer.flags.has(Flags::PENDING);
        let add = |sum: &mut u128| *sum += transfer.amount;
        self.both(transfer, |account| add(debits(account, is_pending)), |account| add(credits(account, is_pending)));
    }

    /// Frees what a pending transfer holds.
    pub(super) fn release(&mut self, pending: &Transfer) {
        let subtract = |sum: &mut u128| *sum -= pending.amount;
        self.both(pending, |account| subtract(debits(account, true)), |account| subtract(credits(account, true)));
    }

    /// Takes a transfer back that was the newest; `resolved` is the pending one that it resolved.
    pub(super) fn revert(&mut self, transfer: &Transfer, resolved: Option<Transfer>) {
        let is_pending = transfer.flags.has(Flags::PENDING);
        if !transfer.flags.has(Flags::VOID) {
            let subtract = |sum: &mut u128| *sum -= transfer.amount;
            let debit = |account: &mut Account| subtract(debits(account, is_pending));
            self.both(transfer, debit, |account| subtract(credits(account, is_pending)));
        }
        if is_pending {
            self.take_open(transfer.id);
        }
        if let Some(pending) = resolved {
            self.apply(&pending);
            self.add_open(pending);
            if let Some(seen) = self.seen.get_mut(&pending.id) {
                seen.closed = None;
            }
        }
    }

    fn both(&mut self, transfer: &Transfer, debit: impl FnOnce(&mut Account), credit: impl FnOnce(&mut Account)) {
        const WHY: &str = "accounts are never closed, and the transfer named both when it was accepted";
        debit(self.accounts.get_mut(&transfer.debit).expect(WHY));
        credit(self.accounts.get_mut(&transfer.credit).expect(WHY));
    }
}

fn debits(account: &mut Account, pending: bool) -> &mut u128 {
    if pending { &mut account.debits_pending } else { &mut account.debits_posted }
}

fn credits(account: &mut Account, pending: bool) -> &mut u128 {
    if pending { &mut account.credits_pending } else { &mut account.credits_posted }
}

/// What can be said of a transfer before it is known whether it is new.
fn check_name(transfer: &Transfer) -> Result<(), Refused> {
    match transfer {
        _ if transfer.ts_ns != 0 => Err(Refused::TimestampMustBeZero),
        _ if transfer.flags.0 & !Flags::KNOWN.0 != 0 => Err(Refused::ReservedFlag),
        _ if transfer.id.0 == 0 => Err(Refused::IdMustNotBeZero),
        _ if transfer.id.0 == u128::MAX => Err(Refused::IdMustNotBeIntMax),
        _ => Ok(()),
    }
}

/// What can be said of a new transfer without the books.
fn check_form(transfer: &Transfer) -> Result<(), Refused> {
    let flags = transfer.flags;
    let kinds = [Flags::PENDING, Flags::POST, Flags::VOID].into_iter().filter(|kind| flags.has(*kind)).count();
    if kinds > 1 || (flags.resolves() && flags.has(Flags::BALANCING_DEBIT)) {
        return Err(Refused::FlagsAreMutuallyExclusive);
    }
    if flags.resolves() { check_resolving(transfer) } else { check_entering(transfer) }
}

fn check_resolving(transfer: &Transfer) -> Result<(), Refused> {
    match transfer {
        _ if transfer.pending.0 == 0 => Err(Refused::PendingIdMustNotBeZero),
        _ if transfer.pending == transfer.id => Err(Refused::PendingIdMustBeDifferent),
        _ if transfer.timeout_s != 0 => Err(Refused::TimeoutReservedForPendingTransfer),
        _ if transfer.amount == 0 && transfer.flags.has(Flags::POST) => Err(Refused::AmountMustNotBeZero),
        _ => Ok(()),
    }
}

fn check_entering(transfer: &Transfer) -> Result<(), Refused> {
    match transfer {
        _ if transfer.debit.0 == 0 => Err(Refused::DebitAccountIdMustNotBeZero),
        _ if transfer.credit.0 == 0 => Err(Refused::CreditAccountIdMustNotBeZero),
        _ if transfer.debit == transfer.credit => Err(Refused::AccountsMustBeDifferent),
        _ if transfer.pending.0 != 0 => Err(Refused::PendingIdMustBeZero),
        _ if transfer.timeout_s != 0 && !transfer.flags.has(Flags::PENDING) => {
            Err(Refused::TimeoutReservedForPendingTransfer)
        }
        _ if transfer.amount == 0 => Err(Refused::AmountMustNotBeZero),
        _ if transfer.ledger.0 == 0 => Err(Refused::LedgerMustNotBeZero),
        _ if transfer.code == 0 => Err(Refused::CodeMustNotBeZero),
        _ => Ok(()),
    }
}

/// Whether both accounts can take an amount: pending and posted sums are added here, so posting later has room too.
fn check_room(debit: &Account, credit: &Account, amount: u128) -> Result<(), Refused> {
    let debits = debit.debits_pending.checked_add(debit.debits_posted).and_then(|sum| sum.checked_add(amount));
    let credits = credit.credits_pending.checked_add(credit.credits_posted).and_then(|sum| sum.checked_add(amount));
    let debits = debits.ok_or(Refused::OverflowsDebits)?;
    credits.ok_or(Refused::OverflowsCredits)?;
    if debit.of.no_overdraft && debits > debit.credits_posted {
        return Err(Refused::ExceedsCredits);
    }
    Ok(())
}

/// Whether what a resolving transfer says of the pending one is right. What is 0 says nothing.
fn check_against(transfer: &Transfer, pending: &Transfer) -> Result<(), Refused> {
    let differs = |given: AccountId, have: AccountId| given.0 != 0 && given != have;
    let amount = effective(transfer, pending);
    match transfer {
        _ if differs(transfer.debit, pending.debit) => Err(Refused::PendingTransferHasDifferentDebitAccountId),
        _ if differs(transfer.credit, pending.credit) => Err(Refused::PendingTransferHasDifferentCreditAccountId),
        _ if transfer.ledger.0 != 0 && transfer.ledger != pending.ledger => {
            Err(Refused::PendingTransferHasDifferentLedger)
        }
        _ if transfer.code != 0 && transfer.code != pending.code => Err(Refused::PendingTransferHasDifferentCode),
        _ if amount > pending.amount => Err(Refused::ExceedsPendingTransferAmount),
        _ if transfer.flags.has(Flags::VOID) && amount != pending.amount => {
            Err(Refused::PendingTransferHasDifferentAmount)
        }
        _ => Ok(()),
    }
}

/// The amount that a resolving transfer is over.
fn effective(transfer: &Transfer, pending: &Transfer) -> u128 {
    let whole = transfer.amount == Transfer::ALL || (transfer.amount == 0 && transfer.flags.has(Flags::VOID));
    if whole { pending.amount } else { transfer.amount }
}

/// What a transfer is whose name was taken by `have`; `pending` is what it resolves, if that is remembered.
fn compare(have: &Transfer, new: &Transfer, pending: Option<&Transfer>) -> Refused {
    let resolves = new.flags.resolves();
    // What a resolving transfer left out was taken from the pending one.
    let inherits = |given_nothing: bool| resolves && given_nothing;
    let same_amount = match pending {
        Some(pending) if resolves => effective(new, pending) == have.amount,
        _ if inherits(new.amount == 0 || new.amount == Transfer::ALL) => true,
        // It took what there was.
        _ if new.flags.has(Flags::BALANCING_DEBIT) => new.amount >= have.amount,
        _ => new.amount == have.amount,
    };
    match new {
        _ if have.flags != new.flags => Refused::ExistsWithDifferentFlags,
        _ if have.pending != new.pending => Refused::ExistsWithDifferentPendingId,
        _ if have.timeout_s != new.timeout_s => Refused::ExistsWithDifferentTimeout,
        _ if have.debit != new.debit && !inherits(new.debit.0 == 0) => Refused::ExistsWithDifferentDebitAccountId,
        _ if have.credit != new.credit && !inherits(new.credit.0 == 0) => Refused::ExistsWithDifferentCreditAccountId,
        _ if !same_amount => Refused::ExistsWithDifferentAmount,
        _ if have.user != new.user && !inherits(new.user == 0) => Refused::ExistsWithDifferentUserData128,
        _ if have.seq != new.seq => Refused::ExistsWithDifferentUserData64,
        _ if have.ledger != new.ledger && !inherits(new.ledger.0 == 0) => Refused::ExistsWithDifferentLedger,
        _ if have.code != new.code && !inherits(new.code == 0) => Refused::ExistsWithDifferentCode,
        _ => Refused::Exists,
    }
}
