//! The books beside a naive reference, over random batches.
//!
//! The reference knows the rules in another way: it keeps the list of all accepted transfers, finds each balance by going
//! through the whole of it, and tries a chain on a copy. It has one kind of "no" where the books have many names.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Default)]
struct Naive {
    log: Vec<Transfer>,
    now_ns: u64,
}

impl Naive {
    fn by(&self, id: TransferId) -> Option<&Transfer> {
        self.log.iter().find(|transfer| transfer.id == id)
    }

    fn resolution(&self, pending: TransferId) -> Option<&Transfer> {
        self.log.iter().find(|transfer| transfer.pending == pending)
    }

    fn is_open(&self, transfer: &Transfer) -> bool {
        let ends_ns = transfer.ts_ns + u64::from(transfer.timeout_s) * S;
        let in_time = transfer.timeout_s == 0 || ends_ns > self.now_ns;
        transfer.flags.has(Flags::PENDING) && in_time && self.resolution(transfer.id).is_none()
    }

    /// Debits pending and posted, credits pending and posted.
    fn balance(&self, account: AccountId) -> [u128; 4] {
        let mut sums = [0; 4];
        for transfer in &self.log {
            let phase = match transfer.flags {
                flags if flags.has(Flags::VOID) => continue,
                flags if flags.has(Flags::PENDING) && !self.is_open(transfer) => continue,
                flags if flags.has(Flags::PENDING) => 0,
                _ => 1,
            };
            sums[phase] += if transfer.debit == account { transfer.amount } else { 0 };
            sums[2 + phase] += if transfer.credit == account { transfer.amount } else { 0 };
        }
        sums
    }

    /// Accepts a transfer, or not.
    fn enter(&mut self, new: &Transfer, ts_ns: u64) -> bool {
        if self.by(new.id).is_some() {
            return false;
        }
        let mut new = Transfer { ts_ns, ..*new };
        if new.pending.0 != 0 {
            let Some(pending) = self.by(new.pending).copied().filter(|pending| self.is_open(pending)) else {
                return false;
            };
            let all = new.amount == Transfer::ALL || new.flags.has(Flags::VOID);
            new.amount = if all { pending.amount } else { new.amount };
            (new.debit, new.credit) = (pending.debit, pending.credit);
            self.log.push(new);
            return (1..=pending.amount).contains(&new.amount) || (self.log.pop(), false).1;
        }
        let [held, spent, _, earned] = self.balance(new.debit);
        if new.flags.has(Flags::BALANCING_DEBIT) {
            new.amount = new.amount.min(earned.saturating_sub(held + spent));
        }
        let may_overdraw = accounts().iter().any(|account| account.id == new.debit && !account.no_overdraft);
        let is_fine = new.debit != new.credit && new.amount > 0;
        let is_fine = is_fine && (may_overdraw || held + spent + new.amount <= earned);
        self.log.extend(is_fine.then_some(new));
        is_fine
    }

    /// Carries out a batch; which ones were accepted.
    fn batch(&mut self, now_ns: u64, batch: &[Transfer]) -> Vec<bool> {
        self.now_ns = now_ns;
        let (mut accepted, mut ts_ns) = (Vec::new(), now_ns);
        for chain in batch.chunk_by(|transfer, _| transfer.flags.has(Flags::LINKED)) {
            let mut tried = self.clone();
            let mut at = (ts_ns..).zip(chain);
            let ended = chain.last().is_some_and(|last| !last.flags.has(Flags::LINKED));
            let fine = ended && at.all(|(ts_ns, transfer)| tried.enter(transfer, ts_ns));
            if fine {
                *self = tried;
                ts_ns += chain.len() as u64;
            }
            accepted.extend(chain.iter().map(|_| fine));
        }
        accepted
    }
}

/// A transfer between few accounts with few names, so that all sorts of things happen.
fn any_transfer() -> impl Strategy<Value = Transfer> {
    let linked = prop_oneof![3 => Just(Flags(0)), 1 => Just(Flags::LINKED)];
    let new = (1_u128..5, 1_u128..5, 1_u128..400, 0_u32..4, prop_oneof![Just(0), Just(2), Just(16), Just(18)]);
    let new = new.prop_map(|(debit, credit, amount, timeout_s, flags)| {
        let timeout_s = if flags & 2 == 0 { 0 } else { timeout_s };
        Transfer { flags: Flags(flags), timeout_s, ..transfer(0, debit, credit, amount) }
    });
    let resolving = (2_u128..40, prop_oneof![1_u128..400, Just(Transfer::ALL)], any::<bool>());
    let resolving = resolving.prop_map(
        |(pending, amount, is_void)| {
            if is_void { voiding(0, pending) } else { posting(0, pending, amount) }
        },
    );
    let either = prop_oneof![3 => new, 2 => resolving];
    (2_u128..40, either, linked).prop_map(|(id, transfer, linked)| Transfer {
        id: TransferId(if transfer.pending.0 == id { id + 100 } else { id }),
        flags: transfer.flags.with(linked),
        ..transfer
    })
}

/// Batches, and the seconds between them.
pub(super) fn any_batches() -> impl Strategy<Value = Vec<(u64, Vec<Transfer>)>> {
    prop::collection::vec((0_u64..3, prop::collection::vec(any_transfer(), 0..12)), 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_books_do_what_the_reference_does(batches in any_batches()) {
        let (mut desk, mut naive) = (Desk::new(), Naive::default());
        prop_assert!(naive.enter(&transfer(1, 1, 2, 1_000), 5));
        let mut now_ns = S;
        for (pause_s, batch) in batches {
            now_ns += pause_s * S + 1_000;
            let results = desk.at(now_ns, batch.clone());
            let known = batch.iter().map(|transfer| naive.by(transfer.id).is_some()).collect::<Vec<_>>();
            let accepted = naive.batch(now_ns, &batch);
            for (at, result) in results.iter().enumerate() {
                prop_assert_eq!(*result == TransferResult::Ok, accepted[at], "{:?} of {:?}", result, batch[at]);
                prop_assert!(*result != TransferResult::Exists || known[at] || batch[..at].iter().any(|it| it.id == batch[at].id));
            }
            for account in 1..5 {
                prop_assert_eq!(desk.balance(account), naive.balance(AccountId(account)));
            }
            prop_assert_eq!(desk.books.balance().err(), None);
        }
    }

    #[test]
    fn the_journal_makes_the_same_books_and_a_restored_checkpoint_goes_on_as_they_do(
        batches in any_batches(),
        cut in 0_usize..16,
        remember_s in 1_u64..40,
    ) {
        let remember = Duration::from_secs(remember_s);
        let mut desk = Desk::remembering(remember);
        let mut twin = Desk::remembering(remember);
        let mut restored = None;
        let mut now_ns = S;
        for (at, (pause_s, batch)) in batches.into_iter().enumerate() {
            if at == cut {
                let saved = postcard::from_bytes(&postcard::to_allocvec(&desk.books.save()).unwrap()).unwrap();
                restored = Some(Books::restore(remember, saved, desk.journal.clone()));
                prop_assert_eq!(restored.as_ref(), Some(&desk.books));
            }
            now_ns += pause_s * S;
            let requests = [Request::Transfers(batch)];
            let turn = desk.turn(now_ns, &requests);
            prop_assert_eq!(&twin.turn(now_ns, &requests), &turn, "two instances");
            if let Some(books) = &mut restored {
                let again = books.turn(now_ns, &requests);
                prop_assert_eq!((again.answers, again.expired), turn, "snapshot and tail");
            }
        }
        prop_assert_eq!(twin.books.digest(), desk.books.digest());
        if let Some(books) = restored {
            prop_assert_eq!(&books, &desk.books);
        }
        let (books, _) = verify(remember, desk.bytes()).unwrap();
        prop_assert_eq!(books, desk.books, "the journal alone");
    }
}
