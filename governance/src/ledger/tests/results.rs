//! Each result of a transfer, once.

use super::*;

/// Books in which transfer 2 is a hold that is open, 3 one that was posted by 4, 5 one that was voided by 6, 7 one that
/// expired.
fn desk() -> Desk {
    let mut desk = Desk::new();
    let batch = vec![
        Transfer { user: 5, ..hold(2, 2, 3, 100, 0) },
        hold(3, 2, 3, 10, 0),
        Transfer { seq: 6, ..posting(4, 3, Transfer::ALL) },
        hold(5, 2, 3, 10, 0),
        voiding(6, 5),
        hold(7, 2, 3, 10, 1),
    ];
    assert_eq!(desk.at(S, batch), [TransferResult::Ok; 6]);
    desk.turn(3 * S, &[]);
    desk
}

fn refused(cases: Vec<(Transfer, TransferResult)>) {
    let mut desk = desk();
    let before = desk.books.clone();
    for (transfer, result) in cases {
        assert_eq!(desk.one(transfer), result, "{transfer:?}");
        assert_eq!(desk.books, before, "{result:?} left a trace");
    }
}

#[test]
fn what_is_wrong_in_itself() {
    use TransferResult as R;
    let good = transfer(20, 1, 2, 1);
    let (pending, post) = (hold(20, 1, 2, 1, 0), posting(20, 2, 1));
    refused(vec![
        (Transfer { flags: Flags::LINKED, ..good }, R::LinkedEventChainOpen),
        (Transfer { ts_ns: 1, ..good }, R::TimestampMustBeZero),
        (Transfer { flags: Flags(32), ..good }, R::ReservedFlag),
        (Transfer { id: TransferId(0), ..good }, R::IdMustNotBeZero),
        (Transfer { id: TransferId(u128::MAX), ..good }, R::IdMustNotBeIntMax),
        (Transfer { flags: Flags::POST.with(Flags::VOID), ..good }, R::FlagsAreMutuallyExclusive),
        (Transfer { flags: Flags::POST.with(Flags::BALANCING_DEBIT), ..post }, R::FlagsAreMutuallyExclusive),
        (Transfer { debit: AccountId(0), ..good }, R::DebitAccountIdMustNotBeZero),
        (Transfer { credit: AccountId(0), ..good }, R::CreditAccountIdMustNotBeZero),
        (Transfer { credit: AccountId(1), ..good }, R::AccountsMustBeDifferent),
        (Transfer { pending: TransferId(2), ..good }, R::PendingIdMustBeZero),
        (Transfer { pending: TransferId(0), ..post }, R::PendingIdMustNotBeZero),
        (Transfer { pending: TransferId(20), ..post }, R::PendingIdMustBeDifferent),
        (Transfer { timeout_s: 1, ..good }, R::TimeoutReservedForPendingTransfer),
        (Transfer { timeout_s: 1, ..post }, R::TimeoutReservedForPendingTransfer),
        (Transfer { amount: 0, ..good }, R::AmountMustNotBeZero),
        (Transfer { amount: 0, ..post }, R::AmountMustNotBeZero),
        (Transfer { ledger: LedgerId(0), ..pending }, R::LedgerMustNotBeZero),
        (Transfer { code: 0, ..pending }, R::CodeMustNotBeZero),
    ]);
}

#[test]
fn what_is_wrong_with_its_accounts() {
    use TransferResult as R;
    let good = transfer(20, 1, 2, 1);
    refused(vec![
        (Transfer { debit: AccountId(9), ..good }, R::DebitAccountNotFound),
        (Transfer { credit: AccountId(9), ..good }, R::CreditAccountNotFound),
        (Transfer { credit: AccountId(5), ..good }, R::AccountsMustHaveTheSameLedger),
        (Transfer { ledger: LedgerId(2), ..good }, R::TransferMustHaveTheSameLedgerAsAccounts),
        (transfer(20, 1, 2, u128::MAX), R::OverflowsDebits),
        (transfer(20, 4, 2, u128::MAX), R::OverflowsCredits),
        (transfer(20, 2, 3, 891), R::ExceedsCredits),
    ]);
    let mut desk = desk();
    assert_eq!(desk.at(u64::MAX - S, vec![hold(20, 1, 2, 1, 2)]), [R::OverflowsTimeout]);
}

#[test]
fn what_is_wrong_with_what_it_resolves() {
    use TransferResult as R;
    let (post, void) = (posting(20, 2, 100), voiding(20, 2));
    refused(vec![
        (Transfer { pending: TransferId(99), ..post }, R::PendingTransferNotFound),
        (Transfer { pending: TransferId(1), ..post }, R::PendingTransferNotPending),
        (Transfer { pending: TransferId(3), ..post }, R::PendingTransferAlreadyPosted),
        (Transfer { pending: TransferId(5), ..post }, R::PendingTransferAlreadyVoided),
        (Transfer { pending: TransferId(7), ..post }, R::PendingTransferExpired),
        (Transfer { debit: AccountId(1), ..post }, R::PendingTransferHasDifferentDebitAccountId),
        (Transfer { credit: AccountId(1), ..post }, R::PendingTransferHasDifferentCreditAccountId),
        (Transfer { ledger: LedgerId(3), ..post }, R::PendingTransferHasDifferentLedger),
        (Transfer { code: 9, ..post }, R::PendingTransferHasDifferentCode),
        (Transfer { amount: 101, ..post }, R::ExceedsPendingTransferAmount),
        (Transfer { amount: 99, ..void }, R::PendingTransferHasDifferentAmount),
    ]);
}

#[test]
fn what_was_accepted_before() {
    use TransferResult as R;
    let (held, post) = (Transfer { user: 5, ..hold(2, 2, 3, 100, 0) }, Transfer { seq: 6, ..posting(4, 3, 10) });
    refused(vec![
        (held, R::Exists),
        (post, R::Exists),
        (Transfer { amount: Transfer::ALL, ..post }, R::Exists),
        (voiding(6, 5), R::Exists),
        (Transfer { amount: 10, ..voiding(6, 5) }, R::Exists),
        (Transfer { flags: Flags(0), ..held }, R::ExistsWithDifferentFlags),
        (Transfer { pending: TransferId(2), ..post }, R::ExistsWithDifferentPendingId),
        (Transfer { timeout_s: 1, ..held }, R::ExistsWithDifferentTimeout),
        (Transfer { debit: AccountId(1), ..held }, R::ExistsWithDifferentDebitAccountId),
        (Transfer { credit: AccountId(1), ..held }, R::ExistsWithDifferentCreditAccountId),
        (Transfer { amount: 99, ..held }, R::ExistsWithDifferentAmount),
        (Transfer { amount: 9, ..post }, R::ExistsWithDifferentAmount),
        (Transfer { user: 0, ..held }, R::ExistsWithDifferentUserData128),
        (Transfer { seq: 7, ..post }, R::ExistsWithDifferentUserData64),
        (Transfer { ledger: LedgerId(2), ..held }, R::ExistsWithDifferentLedger),
        (Transfer { code: 2, ..held }, R::ExistsWithDifferentCode),
    ]);
}
