//! Accounts and transfers, and their bytes: 128 each, little-endian, in the manner of `TigerBeetle`.
//!
//! | off | len | transfer | account |
//! |---|---|---|---|
//! | 0 | 16 | id | id |
//! | 16 | 16 | account to debit | debits pending |
//! | 32 | 16 | account to credit | debits posted |
//! | 48 | 16 | amount | credits pending |
//! | 64 | 16 | pending transfer to post or void | credits posted |
//! | 80 | 16 | the caller's own | the caller's own |
//! | 96 | 8 | the caller's own | zero |
//! | 104 | 4 | time-out in seconds | zero |
//! | 108 | 4 | ledger | ledger |
//! | 112 | 2 | code | code |
//! | 114 | 2 | flags | flags |
//! | 116 | 4 | zero | zero |
//! | 120 | 8 | ledger time, nanoseconds since the Unix epoch | ledger time |

use serde::{Deserialize, Serialize};

use super::bytes::{Cut, Pen};

/// Bytes of a record.
pub const RECORD: usize = 128;

/// Names an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId(pub u128);

impl AccountId {
    /// The account of a path such as `t/acme/prepaid`: the first 16 bytes of the path's BLAKE3, little-endian.
    #[must_use]
    pub fn of(path: &str) -> Self {
        Self(blake3_128(path.as_bytes()))
    }
}

/// Names a transfer; the same name is the same transfer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TransferId(pub u128);

impl TransferId {
    /// The name of one leg of an intention, so that a repetition has the same: BLAKE3-128 of the parts and their lengths.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let framed = parts.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes(), *part].concat());
        Self(blake3_128(&framed.collect::<Vec<_>>()))
    }
}

fn blake3_128(bytes: &[u8]) -> u128 {
    let mut first = [0; 16];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut first);
    u128::from_le_bytes(first)
}

/// A unit that amounts are in; a transfer never leaves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LedgerId(pub u32);

impl LedgerId {
    /// Millionths of a US dollar.
    pub const MICRO_USD: Self = Self(1);
    /// Millionths of a fog credit.
    pub const MICRO_FOG: Self = Self(2);
    /// Billionths of an hour of one H200: quota.
    pub const NANO_H200H: Self = Self(3);

    /// What its amounts are, in a word.
    #[must_use]
    pub fn unit(self) -> String {
        match self {
            Self::MICRO_USD => "micro_usd".to_owned(),
            Self::MICRO_FOG => "micro_fog".to_owned(),
            Self::NANO_H200H => "nano_h200h".to_owned(),
            Self(other) => format!("ledger_{other}"),
        }
    }

    /// Whether there is such a ledger.
    #[must_use]
    pub fn is_known(self) -> bool {
        (1..=3).contains(&self.0)
    }
}

/// What a transfer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flags(pub u16);

impl Flags {
    /// Takes effect together with the next one in the batch, or not at all.
    pub const LINKED: Self = Self(1);
    /// Only holds the amount.
    pub const PENDING: Self = Self(2);
    /// Moves what a pending one holds, or a part of it; the rest is free again.
    pub const POST: Self = Self(4);
    /// Frees what a pending one holds.
    pub const VOID: Self = Self(8);
    /// Takes what the account to debit has, at most the amount.
    pub const BALANCING_DEBIT: Self = Self(16);
    /// All that mean something.
    pub(super) const KNOWN: Self = Self(31);

    /// Whether all flags of `other` are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With the flags of `other` too.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it resolves a pending transfer.
    pub(super) fn resolves(self) -> bool {
        self.0 & (Self::POST.0 | Self::VOID.0) != 0
    }
}

/// A movement between two accounts of one ledger. Immutable once accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Its name.
    pub id: TransferId,
    /// The account whose debits grow; in one that resolves, 0 for that of the pending one.
    pub debit: AccountId,
    /// The account whose credits grow; in one that resolves, 0 for that of the pending one.
    pub credit: AccountId,
    /// In the ledger's unit; in one that posts, [`Transfer::ALL`] for the whole.
    pub amount: u128,
    /// The pending transfer that it posts or voids, else 0.
    pub pending: TransferId,
    /// The caller's own.
    pub user: u128,
    /// The caller's own.
    pub seq: u64,
    /// Seconds of ledger time after which a pending one expires; 0 never.
    pub timeout_s: u32,
    /// The unit; in one that resolves, 0 for that of the pending one.
    pub ledger: LedgerId,
    /// The caller's reason, not 0; in one that resolves, 0 for that of the pending one.
    pub code: u16,
    /// What it is.
    pub flags: Flags,
    /// When it was accepted, nanoseconds since the Unix epoch; unique and rising. 0 until then.
    pub ts_ns: u64,
}

impl Transfer {
    /// The amount that stands for all there is.
    pub const ALL: u128 = u128::MAX;

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD] {
        let mut out = Pen::new();
        for field in [self.id.0, self.debit.0, self.credit.0, self.amount, self.pending.0, self.user] {
            out.put(&field.to_le_bytes());
        }
        out.put(&self.seq.to_le_bytes());
        out.put(&self.timeout_s.to_le_bytes());
        out.tail(self.ledger, self.code, self.flags.0, self.ts_ns)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`RecordError`]; flags without meaning are read, and refused by the ledger.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut cut = Cut::record(bytes)?;
        let transfer = Self {
            id: TransferId(cut.u128()?),
            debit: AccountId(cut.u128()?),
            credit: AccountId(cut.u128()?),
            amount: cut.u128()?,
            pending: TransferId(cut.u128()?),
            user: cut.u128()?,
            seq: cut.u64()?,
            timeout_s: cut.u32()?,
            ledger: LedgerId(cut.u32()?),
            code: cut.u16()?,
            flags: Flags(cut.u16()?),
            ts_ns: 0,
        };
        cut.zero(4)?;
        Ok(Self { ts_ns: cut.u64()?, ..transfer })
    }
}

/// An account that is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewAccount {
    /// Its name.
    pub id: AccountId,
    /// Its unit.
    pub ledger: LedgerId,
    /// The caller's reason, not 0.
    pub code: u16,
    /// Whether its debits, the pending ones included, may never exceed its posted credits.
    pub no_overdraft: bool,
    /// The caller's own.
    pub user: u128,
}

/// An account and its balance, double entry in two phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// How it was opened.
    pub of: NewAccount,
    /// Held to be debited.
    pub debits_pending: u128,
    /// Debited.
    pub debits_posted: u128,
    /// Held to be credited.
    pub credits_pending: u128,
    /// Credited.
    pub credits_posted: u128,
    /// When it was opened, nanoseconds since the Unix epoch.
    pub ts_ns: u64,
}

/// The flag of [`NewAccount::no_overdraft`] in the record: the value of `debits_must_not_exceed_credits`.
const NO_OVERDRAFT: u16 = 2;

impl Account {
    /// One without any movement.
    pub(super) fn open(of: NewAccount, ts_ns: u64) -> Self {
        Self { of, debits_pending: 0, debits_posted: 0, credits_pending: 0, credits_posted: 0, ts_ns }
    }

    /// What can still be debited: posted credits less all debits, pending ones included; 0 if they exceed them.
    #[must_use]
    pub fn available(&self) -> u128 {
        self.credits_posted.saturating_sub(self.debits_posted.saturating_add(self.debits_pending))
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD] {
        let mut out = Pen::new();
        let fields = [self.debits_pending, self.debits_posted, self.credits_pending, self.credits_posted];
        out.put(&self.of.id.0.to_le_bytes());
        for field in fields {
            out.put(&field.to_le_bytes());
        }
        out.put(&self.of.user.to_le_bytes());
        out.put(&[0; 12]);
        let flags = if self.of.no_overdraft { NO_OVERDRAFT } else { 0 };
        out.tail(self.of.ledger, self.of.code, flags, self.ts_ns)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut cut = Cut::record(bytes)?;
        let id = AccountId(cut.u128()?);
        let [debits_pending, debits_posted, credits_pending, credits_posted, user] =
            [cut.u128()?, cut.u128()?, cut.u128()?, cut.u128()?, cut.u128()?];
        cut.zero(12)?;
        let (ledger, code, flags) = (LedgerId(cut.u32()?), cut.u16()?, cut.u16()?);
        cut.zero(4)?;
        if flags & !NO_OVERDRAFT != 0 {
            return Err(RecordError::Reserved);
        }
        let of = NewAccount { id, ledger, code, no_overdraft: flags != 0, user };
        Ok(Self { of, debits_pending, debits_posted, credits_pending, credits_posted, ts_ns: cut.u64()? })
    }
}

/// The bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RecordError {
    /// Too few or too many.
    #[error("a record has 128 bytes")]
    Length,
    /// Of a newer version, or damaged.
    #[error("reserved bytes of a record are not zero")]
    Reserved,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transfer(words: [u128; 6], numbers: (u64, u32, u32, u16, u16, u64)) -> Transfer {
        let [id, debit, credit, amount, pending, user] = words;
        let (seq, timeout_s, ledger, code, flags, ts_ns) = numbers;
        Transfer {
            id: TransferId(id),
            debit: AccountId(debit),
            credit: AccountId(credit),
            amount,
            pending: TransferId(pending),
            user,
            seq,
            timeout_s,
            ledger: LedgerId(ledger),
            code,
            flags: Flags(flags),
            ts_ns,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn transfers_survive_their_bytes_and_serde(words: [u128; 6], numbers: (u64, u32, u32, u16, u16, u64)) {
            let transfer = transfer(words, numbers);
            prop_assert_eq!(Transfer::decode(&transfer.encode()), Ok(transfer));
            let bytes = postcard::to_allocvec(&transfer).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Transfer>(&bytes).unwrap(), transfer);
        }

        #[test]
        fn accounts_survive_their_bytes(balance: [u128; 6], no_overdraft: bool, code: u16, ts_ns: u64) {
            let [id, user, debits_pending, debits_posted, credits_pending, credits_posted] = balance;
            let of = NewAccount { id: AccountId(id), ledger: LedgerId::MICRO_FOG, code, no_overdraft, user };
            let account = Account { of, debits_pending, debits_posted, credits_pending, credits_posted, ts_ns };
            prop_assert_eq!(Account::decode(&account.encode()), Ok(account));
        }
    }

    #[test]
    fn fields_are_where_the_table_says() {
        let transfer = transfer([1, 2, 3, 4, 5, 6], (7, 8, 9, 10, 11, 12));
        let bytes = transfer.encode();
        let set: Vec<_> = (0..RECORD).filter(|at| bytes[*at] != 0).map(|at| (at, bytes[at])).collect();
        let table = [0, 16, 32, 48, 64, 80, 96, 104, 108, 112, 114, 120];
        assert_eq!(set, table.into_iter().zip(1..=12).collect::<Vec<_>>());
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(Transfer::decode(&[0; 127]), Err(RecordError::Length));
        assert_eq!(Account::decode(&[0; 129]), Err(RecordError::Length));
        let mut bytes = Transfer::default().encode();
        bytes[117] = 1;
        assert_eq!(Transfer::decode(&bytes), Err(RecordError::Reserved));
        assert_eq!(Account::decode(&bytes), Err(RecordError::Reserved));
        bytes[117] = 0;
        bytes[114] = 1;
        assert_eq!(Account::decode(&bytes), Err(RecordError::Reserved), "a flag without meaning");
    }

    #[test]
    fn names_are_the_same_for_the_same_parts_only() {
        assert_eq!(AccountId::of("dao/treasury"), AccountId::of("dao/treasury"));
        assert_eq!(TransferId::of(&[b"charge", b"7"]), TransferId::of(&[b"charge", b"7"]));
        assert_ne!(TransferId::of(&[b"ab", b"c"]), TransferId::of(&[b"a", b"bc"]));
        // BLAKE3 of the empty input, first 16 bytes; BLAKE3 test vectors (test_vectors.json, input_len 0).
        assert_eq!(AccountId::of("").0.to_le_bytes()[..4], [0xaf, 0x13, 0x49, 0xb9]);
    }
}
