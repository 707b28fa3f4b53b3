//! Writes and reads the fields of records, little-endian.

use super::record::{LedgerId, RECORD, RecordError};

/// Writes the fields of one record in order.
pub(super) struct Pen {
    bytes: [u8; RECORD],
    at: usize,
}

impl Pen {
    pub(super) fn new() -> Self {
        Self { bytes: [0; RECORD], at: 0 }
    }

    pub(super) fn put(&mut self, field: &[u8]) {
        let end = self.at + field.len();
        self.bytes[self.at..end].copy_from_slice(field);
        self.at = end;
    }

    /// What both records end with.
    pub(super) fn tail(mut self, ledger: LedgerId, code: u16, flags: u16, ts_ns: u64) -> [u8; RECORD] {
        self.put(&ledger.0.to_le_bytes());
        self.put(&code.to_le_bytes());
        self.put(&flags.to_le_bytes());
        self.put(&[0; 4]);
        self.put(&ts_ns.to_le_bytes());
        self.bytes
    }
}

/// Cuts little-endian numbers off the front of foreign bytes.
pub(super) struct Cut<'a>(pub(super) &'a [u8]);

impl<'a> Cut<'a> {
    pub(super) fn record(bytes: &'a [u8]) -> Result<Self, RecordError> {
        if bytes.len() == RECORD { Ok(Self(bytes)) } else { Err(RecordError::Length) }
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(RecordError::Length)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn zero(&mut self, count: usize) -> Result<(), RecordError> {
        let (zeros, rest) = self.0.split_at_checked(count).ok_or(RecordError::Length)?;
        self.0 = rest;
        if zeros.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(RecordError::Reserved) }
    }

    pub(super) fn u128(&mut self) -> Result<u128, RecordError> {
        self.bytes().map(u128::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        self.bytes().map(u16::from_le_bytes)
    }
}
