//! What must be true of the books and of their journal.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::books::{Answer, Books, Request};
use super::record::{AccountId, LedgerId, Transfer};
use super::result::{AccountResult, TransferResult};
use super::segment::{Head, Segment, SegmentError};

/// What an audit found: all is right so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// Segments whose chain and contents were verified.
    pub segments: u64,
    /// Accounts.
    pub accounts: u64,
    /// Pending transfers that are open.
    pub open: u64,
    /// Posted debits of each ledger, which are its posted credits too.
    pub posted: BTreeMap<LedgerId, u128>,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AuditError {
    /// Money came from nowhere or is gone.
    #[error("ledger {}: debits of {debits} and credits of {credits}", ledger.0)]
    Unbalanced {
        /// The ledger.
        ledger: LedgerId,
        /// Sum of all debits, pending or posted, whichever differ.
        debits: u128,
        /// Sum of the credits.
        credits: u128,
    },
    /// An account without overdraft has one.
    #[error("account {:032x} is overdrawn", account.0)]
    Overdrawn {
        /// The account.
        account: AccountId,
    },
    /// An account does not hold what the open transfers say.
    #[error("account {:032x} does not hold what its open transfers do", account.0)]
    Held {
        /// The account.
        account: AccountId,
    },
    /// A segment was changed, or is none.
    #[error("segment {number}: {why}")]
    Segment {
        /// Its place in the chain.
        number: u64,
        /// What is wrong with it.
        why: SegmentError,
    },
    /// A segment is missing, or follows another one than is there.
    #[error("segment {number} does not follow the one before")]
    Chain {
        /// The place in the chain.
        number: u64,
    },
    /// A segment does not come of the rules.
    #[error("segment {number} holds what the rules do not accept")]
    Rules {
        /// Its place in the chain.
        number: u64,
    },
    /// The books are not what the journal makes.
    #[error("the books are not what their journal makes")]
    Differs,
}

impl Books {
    /// Checks that debits are credits, that no account without overdraft has one, and that accounts hold what is pending.
    ///
    /// # Errors
    /// The first of [`AuditError::Unbalanced`], [`AuditError::Overdrawn`] and [`AuditError::Held`].
    pub fn balance(&self) -> Result<Audited, AuditError> {
        let mut sums: BTreeMap<LedgerId, [u128; 4]> = BTreeMap::new();
        let mut held: HashMap<AccountId, [u128; 2]> = HashMap::new();
        for transfer in self.open.values() {
            held.entry(transfer.debit).or_default()[0] += transfer.amount;
            held.entry(transfer.credit).or_default()[1] += transfer.amount;
        }
        for (id, account) in &self.accounts {
            let [debits, credits] = held.get(id).copied().unwrap_or_default();
            if (account.debits_pending, account.credits_pending) != (debits, credits) {
                return Err(AuditError::Held { account: *id });
            }
            let spent = account.debits_posted.checked_add(account.debits_pending);
            if account.of.no_overdraft && spent.is_none_or(|spent| spent > account.credits_posted) {
                return Err(AuditError::Overdrawn { account: *id });
            }
            let sum = sums.entry(account.of.ledger).or_default();
            let [debits, credits] = [account.debits_posted, account.credits_posted];
            // Sums of a whole ledger may have more digits than an account; equal ones wrap alike.
            for (sum, part) in sum.iter_mut().zip([debits, credits, account.debits_pending, account.credits_pending]) {
                *sum = sum.wrapping_add(part);
            }
        }
        for (ledger, [debits, credits, held_debits, held_credits]) in &sums {
            let pairs = [(*debits, *credits), (*held_debits, *held_credits)];
            if let Some((debits, credits)) = pairs.into_iter().find(|(debits, credits)| debits != credits) {
                return Err(AuditError::Unbalanced { ledger: *ledger, debits, credits });
            }
        }
        Ok(Audited {
            segments: self.head().next,
            accounts: self.accounts.len() as u64,
            open: self.open.len() as u64,
            posted: sums.into_iter().map(|(ledger, [debits, ..])| (ledger, debits)).collect(),
        })
    }

    /// Carries out a segment of the journal again.
    ///
    /// # Errors
    /// [`AuditError::Chain`] and [`AuditError::Rules`]; the books are of no use then.
    pub fn replay(&mut self, segment: &Segment) -> Result<(), AuditError> {
        follows(self.head(), segment)?;
        let transfers = segment.transfers.iter().map(|transfer| Transfer { ts_ns: 0, ..*transfer }).collect();
        let accounts = segment.accounts.iter().map(|account| account.of).collect();
        let turn = self.turn(segment.time_ns, &[Request::Accounts(accounts), Request::Transfers(transfers)]);
        let accepted = |answer: &Answer| match answer {
            Answer::Accounts(results) => results.iter().all(|result| *result == AccountResult::Ok),
            Answer::Transfers(results) => results.iter().all(|result| *result == TransferResult::Ok),
        };
        // A segment of the same contents has the same hash.
        if turn.answers.iter().all(accepted) && turn.segment.is_some_and(|again| again.hash == segment.hash) {
            return Ok(());
        }
        Err(AuditError::Rules { number: segment.number })
    }
}

/// Whether a segment is the next one of a chain.
pub(super) fn follows(head: Head, segment: &Segment) -> Result<(), AuditError> {
    let follows = (segment.number, segment.prev) == (head.next, head.hash);
    if follows { Ok(()) } else { Err(AuditError::Chain { number: head.next }) }
}

/// Reads a segment that should have this number.
pub(super) fn read(number: u64, bytes: &[u8]) -> Result<Segment, AuditError> {
    Segment::decode(bytes).map_err(|why| AuditError::Segment { number, why })
}

/// Makes the books out of their whole journal, the segments in order; anybody who has those can.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify<B: AsRef<[u8]>>(
    remember: Duration,
    segments: impl IntoIterator<Item = B>,
) -> Result<(Books, Audited), AuditError> {
    let mut books = Books::remembering(remember);
    for bytes in segments {
        let segment = read(books.head().next, bytes.as_ref())?;
        books.replay(&segment)?;
    }
    let audited = books.balance()?;
    Ok((books, audited))
}
