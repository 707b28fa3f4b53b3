//! What is said on a stream of `village-blob/1`: one request, its answer, and again. Little-endian.
//!
//! ```text
//! request: BLAKE3 of the whole file, 32 | offset u64 | len u64, at most 4 MiB
//! answer:  status u8 | len u64 | bytes
//! ```
//!
//! Only [`Status::Found`] has bytes: those asked for, fewer when the file ends before.

use bytes::Buf;

use super::BlobId;

/// Most bytes of one request.
pub(super) const RANGE: u64 = 4 << 20;
/// Bytes of a request.
pub(super) const REQUEST: usize = 48;
/// Bytes of an answer before those of the file.
pub(super) const ANSWER: usize = 9;

/// Asks for a part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: BlobId,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Request {
    pub(super) fn encode(&self) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        bytes[..32].copy_from_slice(self.id.as_bytes());
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; REQUEST]) -> Self {
        let (mut at, mut hash) = (&bytes[..], [0; 32]);
        at.copy_to_slice(&mut hash);
        Self { id: hash.into(), offset: at.get_u64_le(), len: at.get_u64_le() }
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// The bytes follow.
    Found = 0,
    /// There is no such file here.
    Unknown = 1,
    /// It ends before the offset.
    OutOfRange = 2,
    /// More than [`RANGE`] bytes.
    TooLong = 3,
    /// It could not be read.
    Failed = 4,
}

impl Status {
    const ALL: [Self; 5] = [Self::Found, Self::Unknown, Self::OutOfRange, Self::TooLong, Self::Failed];
}

/// What an answer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// Bytes that follow.
    pub(super) len: u64,
}

impl Answer {
    pub(super) fn encode(self) -> [u8; ANSWER] {
        let mut bytes = [0; ANSWER];
        bytes[0] = self.status as u8;
        bytes[1..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// None when it is not an answer.
    pub(super) fn decode(bytes: &[u8; ANSWER]) -> Option<Self> {
        let mut at = &bytes[..];
        let code = at.get_u8();
        let status = Status::ALL.into_iter().find(|status| *status as u8 == code)?;
        let len = at.get_u64_le();
        let fits = if status == Status::Found { len <= RANGE } else { len == 0 };
        fits.then_some(Self { status, len })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn requests_come_back(hash: [u8; 32], offset: u64, len: u64) {
            let request = Request { id: hash.into(), offset, len };
            prop_assert_eq!(Request::decode(&request.encode()), request);
        }

        /// What is read as an answer is one that is written so.
        #[test]
        fn answers_come_back_or_are_none(code in 0..8_u8, len in prop_oneof![Just(0), 0..2 * RANGE, any::<u64>()]) {
            let mut bytes = [0; ANSWER];
            bytes[0] = code;
            bytes[1..].copy_from_slice(&len.to_le_bytes());
            let good = if code == 0 { len <= RANGE } else { code < 5 && len == 0 };
            let answer = Answer::decode(&bytes);
            prop_assert_eq!(answer.is_some(), good);
            prop_assert!(answer.is_none_or(|answer| answer.encode() == bytes));
        }
    }

    #[test]
    fn bytes_are_those_of_the_table() {
        let request = Request { id: [7; 32].into(), offset: 1, len: RANGE };
        let tail = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0];
        assert_eq!(request.encode(), [&[7; 32][..], &tail].concat()[..]);
        assert_eq!(Answer { status: Status::Unknown, len: 0 }.encode(), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
