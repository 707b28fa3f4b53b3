//! A piece of the journal: what one group commit accepted, chained to the one before by its SHA-256.
//!
//! | off | len | field, little-endian |
//! |---|---|---|
//! | 0 | 4 | magic `AVLS` |
//! | 4 | 2 | version 1 |
//! | 6 | 2 | zero |
//! | 8 | 8 | number, from 0 |
//! | 16 | 8 | ledger time, nanoseconds since the Unix epoch |
//! | 24 | 4 | accounts `a` |
//! | 28 | 4 | transfers `t` |
//! | 32 | 32 | SHA-256 of the segment before; of the first, zeros |
//! | 64 | 128 a | the accounts as they were opened |
//! | .. | 128 t | the transfers as they were accepted |
//! | end-32 | 32 | SHA-256 of all bytes before |
//!
//! Time-outs are not written: they follow from the times of the segments.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bytes::Cut;
use super::record::{Account, RECORD, RecordError, Transfer};

/// Bytes before the records.
const HEAD: usize = 64;
const MAGIC: [u8; 4] = *b"AVLS";
const VERSION: u16 = 1;
/// Records of one segment: with its head it is one commit of a replicated store, which takes 256 KiB.
pub const MAX_RECORDS: usize = 2_000;

/// Where a chain ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the next segment.
    pub next: u64,
    /// Hash of the last one.
    pub hash: [u8; 32],
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its place in the chain.
    pub number: u64,
    /// When, nanoseconds since the Unix epoch: no record of it is older, none of the one before as new.
    pub time_ns: u64,
    /// Hash of the one before.
    pub prev: [u8; 32],
    /// Accounts as they were opened.
    pub accounts: Vec<Account>,
    /// Transfers as they were accepted.
    pub transfers: Vec<Transfer>,
    /// Its own hash.
    pub hash: [u8; 32],
}

/// Why bytes are not a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SegmentError {
    /// It is not written as one, or with a newer version.
    #[error("not a segment of version 1")]
    Format,
    /// It has more or fewer records than it says.
    #[error("{len} bytes are not {accounts} accounts and {transfers} transfers")]
    Length {
        /// Its bytes.
        len: usize,
        /// Accounts by its head.
        accounts: u32,
        /// Transfers by its head.
        transfers: u32,
    },
    /// A byte of it was changed.
    #[error("its bytes do not have its hash")]
    Hash,
    /// A record in it is none.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Segment {
    /// The next segment of a chain.
    pub(super) fn seal(head: Head, time_ns: u64, accounts: Vec<Account>, transfers: Vec<Transfer>) -> Self {
        let mut segment = Self { number: head.next, time_ns, prev: head.hash, accounts, transfers, hash: [0; 32] };
        segment.hash = Sha256::digest(segment.body()).into();
        segment
    }

    /// Where a chain ends that ends with it.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { next: self.number + 1, hash: self.hash }
    }

    /// Its records.
    #[must_use]
    pub fn records(&self) -> usize {
        self.accounts.len() + self.transfers.len()
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        HEAD + self.records() * RECORD + 32
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.body();
        bytes.extend_from_slice(&self.hash);
        bytes
    }

    fn body(&self) -> Vec<u8> {
        let count = |len| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.time_ns.to_le_bytes());
        bytes.extend_from_slice(&count(self.accounts.len()));
        bytes.extend_from_slice(&count(self.transfers.len()));
        bytes.extend_from_slice(&self.prev);
        self.accounts.iter().for_each(|account| bytes.extend_from_slice(&account.encode()));
        self.transfers.iter().for_each(|transfer| bytes.extend_from_slice(&transfer.encode()));
        bytes
    }

    /// Reads one and checks its hash.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let (body, hash) = bytes.split_last_chunk().ok_or(SegmentError::Format)?;
        let mut cut = Cut(body);
        if cut.bytes() != Ok(MAGIC) || cut.u16() != Ok(VERSION) || cut.u16() != Ok(0) {
            return Err(SegmentError::Format);
        }
        let (number, time_ns) = (cut.u64()?, cut.u64()?);
        let (accounts, transfers, prev) = (cut.u32()?, cut.u32()?, cut.bytes()?);
        let records = cut.0;
        let count = u64::from(accounts) + u64::from(transfers);
        if records.len() as u64 != count * RECORD as u64 {
            return Err(SegmentError::Length { len: bytes.len(), accounts, transfers });
        }
        if <[u8; 32]>::from(Sha256::digest(body)) != *hash {
            return Err(SegmentError::Hash);
        }
        let (accounts, transfers) = records.split_at(accounts as usize * RECORD);
        let accounts = accounts.chunks(RECORD).map(Account::decode).collect::<Result<_, _>>()?;
        let transfers = transfers.chunks(RECORD).map(Transfer::decode).collect::<Result<_, _>>()?;
        Ok(Self { number, time_ns, prev, accounts, transfers, hash: *hash })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::record::{AccountId, LedgerId, NewAccount};

    fn segment(transfers: usize) -> Segment {
        let of = NewAccount { id: AccountId(1), ledger: LedgerId(1), code: 1, no_overdraft: true, user: 9 };
        let transfers = (1..=transfers).map(|n| Transfer { amount: n as u128, ..Transfer::default() }).collect();
        Segment::seal(Head { next: 7, hash: [5; 32] }, 11, vec![Account::open(of, 11)], transfers)
    }

    #[test]
    fn a_segment_survives_its_bytes_and_the_largest_is_one_commit() {
        let segment = segment(MAX_RECORDS - 1);
        let bytes = segment.encode();
        assert_eq!(Segment::decode(&bytes), Ok(segment.clone()));
        assert_eq!(bytes.len(), segment.size());
        assert!(bytes.len() + 4_096 < 256 * 1024, "{}", bytes.len());
        assert_eq!(segment.head(), Head { next: 8, hash: segment.hash });
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let bytes = segment(1).encode();
        assert_eq!(Segment::decode(&[0; 31]), Err(SegmentError::Format));
        assert_eq!(Segment::decode(&[&b"AVLT"[..], &bytes[4..]].concat()), Err(SegmentError::Format));
        let longer = [&bytes[..bytes.len() - 32], &[0; 32]].concat();
        assert_eq!(Segment::decode(&longer), Err(SegmentError::Hash));
        let longer = [&bytes[..], &[0; 32]].concat();
        let len = longer.len();
        assert_eq!(Segment::decode(&longer), Err(SegmentError::Length { len, accounts: 1, transfers: 1 }));
        // A record that no ledger writes, under a hash that is right.
        let mut body = bytes[..bytes.len() - 32].to_vec();
        *body.get_mut(HEAD + 116).unwrap() = 1;
        let hash: [u8; 32] = Sha256::digest(&body).into();
        body.extend_from_slice(&hash);
        assert_eq!(Segment::decode(&body), Err(SegmentError::Record(RecordError::Reserved)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_flipped_bit_is_read(at in 0_usize..352, bit in 0_u8..8) {
            let mut bytes = segment(1).encode();
            prop_assert_eq!(bytes.len(), 352);
            bytes[at] ^= 1 << bit;
            prop_assert!(Segment::decode(&bytes).is_err());
        }
    }
}
