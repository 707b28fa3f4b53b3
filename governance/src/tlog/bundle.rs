//! Entries one behind the other: a big-endian `u16` with the length, then the entry. C2SP tlog-tiles, "Log Entries".

use super::error::LogError;

/// Most bytes of an entry.
pub(crate) const MAX_ENTRY: usize = u16::MAX as usize;

/// Writes an entry behind what `out` has.
pub(crate) fn put(out: &mut Vec<u8>, entry: &[u8]) -> Result<(), LogError> {
    let len = u16::try_from(entry.len()).map_err(|_| LogError::TooLarge { bytes: entry.len(), max: MAX_ENTRY })?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(entry);
    Ok(())
}

/// Reads all entries; `None` when the bytes end within one.
pub(crate) fn split(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        entries.push(entry);
        bytes = rest;
    }
    Some(entries)
}
