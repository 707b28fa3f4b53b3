//! Tests of the whole ledger.

mod actor;
mod crash;
mod model;
mod results;

use std::time::Duration;

use super::audit::{AuditError, verify};
use super::books::{Answer, Books, REMEMBER, Request};
use super::client::{linked, post, void};
use super::record::{AccountId, Flags, LedgerId, NewAccount, Transfer, TransferId};
use super::result::{AccountResult, TransferResult};
use super::segment::{Segment, SegmentError};

/// One second of ledger time.
const S: u64 = 1_000_000_000;

/// Accounts 1 to 4 are in `MICRO_USD`, of which 2 and 3 may not be overdrawn; 5 is quota.
fn accounts() -> Vec<NewAccount> {
    let account = |(id, ledger, no_overdraft)| NewAccount {
        id: AccountId(id),
        ledger: LedgerId(ledger),
        code: 1,
        no_overdraft,
        user: 0,
    };
    [(1, 1, false), (2, 1, true), (3, 1, true), (4, 1, false), (5, 3, false)].map(account).to_vec()
}

fn transfer(id: u128, debit: u128, credit: u128, amount: u128) -> Transfer {
    Transfer {
        id: TransferId(id),
        debit: AccountId(debit),
        credit: AccountId(credit),
        amount,
        ledger: LedgerId::MICRO_USD,
        code: 1,
        ..Transfer::default()
    }
}

fn hold(id: u128, debit: u128, credit: u128, amount: u128, timeout_s: u32) -> Transfer {
    Transfer { flags: Flags::PENDING, timeout_s, ..transfer(id, debit, credit, amount) }
}

fn posting(id: u128, pending: u128, amount: u128) -> Transfer {
    post(TransferId(id), TransferId(pending), amount)
}

fn voiding(id: u128, pending: u128) -> Transfer {
    void(TransferId(id), TransferId(pending))
}

/// Books with [`accounts`], 1,000 of which account 2 has; and their journal.
struct Desk {
    books: Books,
    journal: Vec<Segment>,
}

impl Desk {
    fn new() -> Self {
        Self::remembering(REMEMBER)
    }

    fn remembering(time: Duration) -> Self {
        let mut desk = Self { books: Books::remembering(time), journal: Vec::new() };
        desk.turn(0, &[Request::Accounts(accounts()), Request::Transfers(vec![transfer(1, 1, 2, 1_000)])]);
        desk
    }

    fn turn(&mut self, now_ns: u64, requests: &[Request]) -> (Vec<Answer>, Vec<TransferId>) {
        let turn = self.books.turn(now_ns, requests);
        self.journal.extend(turn.segment);
        (turn.answers, turn.expired)
    }

    fn at(&mut self, now_ns: u64, batch: Vec<Transfer>) -> Vec<TransferResult> {
        match self.turn(now_ns, &[Request::Transfers(batch)]).0.pop() {
            Some(Answer::Transfers(results)) => results,
            other => panic!("{other:?}"),
        }
    }

    fn one(&mut self, transfer: Transfer) -> TransferResult {
        self.at(0, vec![transfer])[0]
    }

    /// Debits pending and posted, credits pending and posted.
    fn balance(&self, account: u128) -> [u128; 4] {
        let account = self.books.account(AccountId(account)).unwrap();
        [account.debits_pending, account.debits_posted, account.credits_pending, account.credits_posted]
    }

    fn bytes(&self) -> Vec<Vec<u8>> {
        self.journal.iter().map(Segment::encode).collect()
    }
}

#[test]
fn a_hold_is_paid_in_part_and_its_rest_is_free_again() {
    let mut desk = Desk::new();
    assert_eq!(desk.one(hold(2, 2, 3, 600, 0)), TransferResult::Ok);
    assert_eq!((desk.balance(2), desk.balance(3)), ([600, 0, 0, 1_000], [0, 0, 600, 0]));
    assert_eq!(desk.one(transfer(3, 2, 4, 401)), TransferResult::ExceedsCredits, "what is held is not free");
    assert_eq!(desk.one(posting(4, 2, 250)), TransferResult::Ok);
    assert_eq!((desk.balance(2), desk.balance(3)), ([0, 250, 0, 1_000], [0, 0, 0, 250]));
    assert_eq!(desk.one(posting(5, 2, 1)), TransferResult::PendingTransferAlreadyPosted);
    assert_eq!(desk.one(voiding(6, 2)), TransferResult::PendingTransferAlreadyPosted);
}

#[test]
fn a_hold_expires_by_ledger_time_and_says_so() {
    let mut desk = Desk::new();
    desk.at(10 * S, vec![hold(2, 2, 3, 600, 5), hold(3, 2, 3, 1, 7)]);
    assert_eq!(desk.books.next_deadline_ns(), Some(15 * S));
    assert_eq!(desk.turn(15 * S - 1, &[]), (vec![], vec![]));
    assert_eq!(desk.turn(15 * S, &[]), (vec![], vec![TransferId(2)]));
    assert_eq!(desk.balance(2), [1, 0, 0, 1_000]);
    assert_eq!(desk.at(16 * S, vec![posting(4, 2, 600)]), [TransferResult::PendingTransferExpired]);
    assert_eq!(desk.at(18 * S, vec![posting(5, 3, 1)]), [TransferResult::PendingTransferExpired], "in the same turn");
    assert_eq!(desk.journal.last().unwrap().records(), 0, "an expiry alone is a segment too");
}

#[test]
fn a_chain_is_all_or_nothing() {
    use TransferResult::{ExceedsCredits, Exists, LinkedEventChainOpen, LinkedEventFailed, Ok};
    let mut desk = Desk::new();
    desk.one(hold(2, 2, 3, 100, 9));
    let before = desk.books.clone();
    let chain = linked(vec![hold(3, 2, 4, 10, 3), posting(4, 2, 50), voiding(5, 3), transfer(6, 2, 3, 2_000)]);
    let failed = [LinkedEventFailed, LinkedEventFailed, LinkedEventFailed, ExceedsCredits];
    assert_eq!(desk.at(0, chain.clone()), failed);
    assert_eq!(desk.books, before, "nothing of it stays");
    let [held, posted, voided, _] = chain[..] else { panic!() };
    let last = Transfer { flags: Flags::LINKED, ..transfer(9, 2, 3, 1) };
    let open = vec![held, Transfer { amount: 0, ..posted }, voided, last];
    let failed = [LinkedEventFailed, TransferResult::AmountMustNotBeZero, LinkedEventFailed, LinkedEventChainOpen];
    assert_eq!(desk.at(0, open), failed);
    assert_eq!(desk.at(0, vec![last]), [LinkedEventChainOpen]);
    assert_eq!(desk.books, before);
    let good = linked(vec![held, posted, voided]);
    assert_eq!(desk.at(0, [&good[..], &[transfer(7, 2, 3, 9_999)]].concat()), [Ok, Ok, Ok, ExceedsCredits]);
    assert_eq!(desk.at(0, good.clone()), [Exists; 3], "a whole chain again");
    let changed = linked(vec![good[0], Transfer { amount: 49, ..good[1] }, good[2]]);
    assert_eq!(desk.at(0, changed), [Exists, LinkedEventFailed, LinkedEventFailed]);
}

#[test]
fn a_balancing_debit_takes_what_there_is() {
    let mut desk = Desk::new();
    let all = Transfer { flags: Flags::BALANCING_DEBIT, ..transfer(2, 2, 3, Transfer::ALL) };
    desk.one(hold(3, 2, 3, 300, 0));
    assert_eq!(desk.one(all), TransferResult::Ok);
    assert_eq!(desk.balance(3), [0, 0, 300, 700]);
    assert_eq!(desk.one(all), TransferResult::Exists);
    assert_eq!(desk.one(Transfer { amount: 699, ..all }), TransferResult::ExistsWithDifferentAmount);
    assert_eq!(desk.one(Transfer { id: TransferId(4), ..all }), TransferResult::ExceedsCredits);
}

#[test]
fn names_are_remembered_for_a_while_and_open_ones_as_long_as_they_are() {
    let mut desk = Desk::remembering(Duration::from_secs(100));
    desk.at(10 * S, vec![transfer(2, 1, 2, 5), hold(3, 2, 3, 7, 0)]);
    assert_eq!(desk.at(109 * S, vec![transfer(2, 1, 2, 5), transfer(4, 1, 4, 1)])[0], TransferResult::Exists);
    desk.at(111 * S, vec![transfer(5, 1, 4, 1)]);
    assert_eq!(desk.at(112 * S, vec![hold(3, 2, 3, 7, 0)]), [TransferResult::Exists], "it is still open");
    assert_eq!(desk.at(112 * S, vec![transfer(2, 1, 2, 5)]), [TransferResult::Ok], "forgotten");
    assert_eq!(desk.at(112 * S, vec![posting(6, 3, 7)]), [TransferResult::Ok]);
    assert_eq!(desk.at(112 * S, vec![posting(7, 3, 7)]), [TransferResult::PendingTransferNotFound]);
    let (books, _) = verify(Duration::from_secs(100), desk.bytes()).unwrap();
    assert_eq!(books, desk.books);
}

#[test]
fn the_clock_of_the_ledger_never_goes_back() {
    let mut desk = Desk::new();
    desk.at(50 * S, vec![transfer(2, 1, 2, 1)]);
    desk.at(40 * S, vec![transfer(3, 1, 2, 1), transfer(4, 1, 2, 1)]);
    let times: Vec<_> = desk.journal.iter().flat_map(|segment| &segment.transfers).map(|it| it.ts_ns).collect();
    assert_eq!(times[1..], [50 * S, 50 * S + 1, 50 * S + 2]);
}

#[test]
fn damage_to_the_journal_is_found_and_named() {
    let mut desk = Desk::new();
    for n in 2..6 {
        desk.one(transfer(n, 1, 2, n));
    }
    let good = desk.bytes();
    let verified = |journal: &[Vec<u8>]| verify(REMEMBER, journal).map(|(books, _)| books);
    assert_eq!(verified(&good), Ok(desk.books.clone()));
    for at in [0, 8, 64, 113, good[3].len() - 1] {
        let mut bad = good.clone();
        bad[3][at] ^= 4;
        let why = if at == 0 { SegmentError::Format } else { SegmentError::Hash };
        assert_eq!(verified(&bad), Err(AuditError::Segment { number: 3, why }), "byte {at}");
    }
    let without = [&good[..2], &good[3..]].concat();
    assert_eq!(verified(&without), Err(AuditError::Chain { number: 2 }));
    // Whoever makes a chain of right hashes still cannot make money.
    let mut forged = transfer(9, 2, 3, 5_000);
    forged.ts_ns = desk.journal[3].time_ns;
    let mut made = desk.journal[..3].to_vec();
    made.push(Segment::seal(made[2].head(), forged.ts_ns, vec![], vec![forged]));
    let made: Vec<_> = made.iter().map(Segment::encode).collect();
    assert_eq!(verified(&made), Err(AuditError::Rules { number: 3 }));
}

#[test]
fn books_that_are_out_of_balance_are_named() {
    let desk = Desk::new();
    let audited = desk.books.balance().unwrap();
    assert_eq!((audited.accounts, audited.open, audited.posted[&LedgerId(1)]), (5, 0, 1_000));
    let wrong = |change: fn(&mut super::record::Account)| {
        let mut books = desk.books.clone();
        change(books.accounts.get_mut(&AccountId(2)).unwrap());
        books.balance().unwrap_err()
    };
    let unbalanced = AuditError::Unbalanced { ledger: LedgerId(1), debits: 1_000, credits: 1_001 };
    assert_eq!(wrong(|account| account.credits_posted += 1), unbalanced);
    assert_eq!(wrong(|account| account.debits_posted += 1_001), AuditError::Overdrawn { account: AccountId(2) });
    assert_eq!(wrong(|account| account.debits_pending += 1), AuditError::Held { account: AccountId(2) });
}

#[test]
fn accounts_are_opened_once_and_refused_by_name() {
    use AccountResult as R;
    let mut desk = Desk::new();
    let good = accounts()[1];
    let cases = [
        (NewAccount { id: AccountId(9), ..good }, R::Ok),
        (good, R::Exists),
        (NewAccount { id: AccountId(0), ..good }, R::IdMustNotBeZero),
        (NewAccount { id: AccountId(u128::MAX), ..good }, R::IdMustNotBeIntMax),
        (NewAccount { no_overdraft: false, ..good }, R::ExistsWithDifferentFlags),
        (NewAccount { user: 1, ..good }, R::ExistsWithDifferentUserData128),
        (NewAccount { ledger: LedgerId(2), ..good }, R::ExistsWithDifferentLedger),
        (NewAccount { code: 2, ..good }, R::ExistsWithDifferentCode),
        (NewAccount { ledger: LedgerId(4), ..good }, R::LedgerUnknown),
        (NewAccount { code: 0, ..good }, R::CodeMustNotBeZero),
    ];
    let (new, results): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    assert_eq!(desk.turn(0, &[Request::Accounts(new)]).0, [Answer::Accounts(results)]);
}
