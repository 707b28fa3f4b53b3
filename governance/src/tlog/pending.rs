//! The newest entries: a segment `pending/<first entry, 16 hex digits>`, a row of batches, little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `AVTLOG\x01\n`, which begins every batch |
//! | 4 | length of the body |
//! | 4 | CRC-32C of what follows |
//! | 8 | number of the first entry |
//! | n | body: the entries as in a bundle |
//!
//! Each batch is on the disk before the next is written. So a bad batch with an intact one behind it was acknowledged once and
//! is *damage*; a bad one at the end is the *torn* rest of a write that nobody was told of.

use bytes::Bytes;

use super::bundle;
use super::error::LogError;

const MAGIC: [u8; 8] = *b"AVTLOG\x01\n";
const HEADER: usize = 24;
/// The folder of segments.
pub(crate) const DIR: &str = "pending";

/// The name of the segment that begins with entry `base`.
pub(crate) fn name(base: u64) -> String {
    format!("{DIR}/{base:016x}")
}

/// The first entry of the segment with this name.
pub(crate) fn base(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(DIR)?.strip_prefix('/')?;
    u64::from_str_radix(digits, 16).ok().filter(|base| self::name(*base) == name)
}

/// A batch as it is written.
pub(crate) fn encode(first: u64, entries: &[Bytes]) -> Result<Vec<u8>, LogError> {
    let size = entries.iter().map(|entry| entry.len() + 2).sum::<usize>();
    let mut batch = Vec::with_capacity(HEADER + size);
    batch.extend_from_slice(&MAGIC);
    let too_large = |_| LogError::TooLarge { bytes: size, max: u32::MAX as usize };
    batch.extend_from_slice(&u32::try_from(size).map_err(too_large)?.to_le_bytes());
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&first.to_le_bytes());
    entries.iter().try_for_each(|entry| bundle::put(&mut batch, entry))?;
    let crc = crc32c::crc32c(&batch[16..]);
    batch[12..16].copy_from_slice(&crc.to_le_bytes());
    Ok(batch)
}

/// What a segment holds.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The entries of intact batches.
    pub(crate) entries: Vec<Bytes>,
    /// Where the last intact batch ends.
    pub(crate) end: u64,
    /// What is behind it.
    pub(crate) tail: Tail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Nothing.
    Clean,
    /// The rest of a write that was not finished.
    Torn,
    /// A batch that was safe once.
    Damaged,
}

/// Reads a segment that begins with entry `base`.
pub(crate) fn read(bytes: &Bytes, base: u64) -> Segment {
    let (mut entries, mut at) = (Vec::new(), 0);
    while let Some((mut batch, end)) = batch(bytes, at, base + entries.len() as u64) {
        entries.append(&mut batch);
        at = end;
    }
    let tail = if at == bytes.len() {
        Tail::Clean
    } else if any_batch(bytes, at + 1) {
        Tail::Damaged
    } else {
        Tail::Torn
    };
    Segment { entries, end: at as u64, tail }
}

/// The batch at `at`, which must begin with entry `first`, and where it ends.
fn batch(bytes: &Bytes, at: usize, first: u64) -> Option<(Vec<Bytes>, usize)> {
    let (number, body, end) = intact(bytes, at)?;
    let entries = bundle::split(body).filter(|_| number == first)?;
    Some((entries.into_iter().map(|entry| bytes.slice_ref(entry)).collect(), end))
}

/// The first entry's number, the body and the end of the batch at `at`, if it is as it was written.
fn intact(bytes: &[u8], at: usize) -> Option<(u64, &[u8], usize)> {
    let rest = bytes.get(at..)?;
    let (header, rest) = rest.split_first_chunk::<HEADER>()?;
    let len = u32::from_le_bytes(header[8..12].try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(header[12..16].try_into().ok()?);
    let body = rest.get(..len)?;
    let is_intact = header[..8] == MAGIC && crc32c::crc32c_append(crc32c::crc32c(&header[16..]), body) == crc;
    let first = u64::from_le_bytes(header[16..].try_into().ok()?);
    is_intact.then_some((first, body, at + HEADER + len))
}

fn any_batch(bytes: &[u8], from: usize) -> bool {
    let found = bytes.get(from..).unwrap_or_default().windows(MAGIC.len()).enumerate();
    found.filter(|(_, window)| **window == MAGIC).any(|(at, _)| intact(bytes, from + at).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: u8, first: u8) -> Vec<Bytes> {
        (0..count).map(|n| Bytes::from(vec![first + n; usize::from(n) * 3])).collect()
    }

    fn two_batches() -> (Vec<u8>, usize) {
        let first = encode(256, &entries(4, 1)).unwrap();
        let cut = first.len();
        (([first, encode(260, &entries(3, 9)).unwrap()]).concat(), cut)
    }

    #[test]
    fn batches_read_back() {
        let (bytes, _) = two_batches();
        let segment = read(&bytes.clone().into(), 256);
        assert_eq!(segment.entries, [entries(4, 1), entries(3, 9)].concat());
        assert_eq!((segment.end, segment.tail), (bytes.len() as u64, Tail::Clean));
    }

    #[test]
    fn every_cut_is_torn_and_keeps_whole_batches() {
        let (bytes, cut) = two_batches();
        for len in cut + 1..bytes.len() {
            let segment = read(&bytes[..len].to_vec().into(), 256);
            assert_eq!((segment.entries.len(), segment.end, segment.tail), (4, cut as u64, Tail::Torn), "{len}");
        }
    }

    #[test]
    fn every_flipped_bit_before_an_intact_batch_is_damage() {
        let (bytes, cut) = two_batches();
        for bit in 0..cut * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let segment = read(&bad.into(), 256);
            assert_eq!((segment.entries.len(), segment.tail), (0, Tail::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn names_carry_the_first_entry() {
        assert_eq!(base(&name(70_000)), Some(70_000));
        assert_eq!(base("pending/0000000000011170.new"), None);
        assert_eq!(base("pending/+000000000011170"), None);
    }
}
