//! The model file `*.avmd`, little endian:
//!
//! | offset | length | field |
//! |---|---|---|
//! | 0 | 4 | magic `AVMD` |
//! | 4 | 2 | format version 1 |
//! | 6 | 2 | heads n |
//! | 8 | 1 + 1 | log2 of word buckets, of character buckets |
//! | 10 | 2 | flags, bit 0: model B is present |
//! | 12 | 4 | rows r |
//! | 16 | 32 | SHA-256 of the training manifest |
//! | 48 | n * 12 | for each head bias, Platt A, Platt B, each f32 |
//! | .. | r * (8 + n) | bucket u32, scale f32, n x i8 |
//! | .. | | model B: five arrays, each length u32 and that many f16 |
//! | end - 32 | 32 | SHA-256 of everything before |

use half::f16;
use sha2::{Digest, Sha256};

use super::bag::{Bag, SHAPES};
use super::features::{CHAR_BITS, WORD_BITS};
use super::linear::{Head, Heads, Linear, Row};
use super::taxonomy::CATEGORIES;

/// Largest model file, bytes.
pub const MODEL_BYTES: usize = 4 * 1024 * 1024;
const MAGIC: &[u8; 4] = b"AVMD";
const VERSION: u16 = 1;
const HAS_BAG: u16 = 1;

/// A file is not a usable model (`E-MODEL-FORMAT`). The model in use stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Format {
    /// It does not start with `AVMD`.
    #[error("not a model file: it does not start with AVMD")]
    Magic,
    /// Another version of the format.
    #[error("model format {found}, this program reads 1")]
    Version {
        /// The version found.
        found: u16,
    },
    /// Made for other categories or buckets than this program has.
    #[error("the model has {heads} heads, 2^{words} word and 2^{chars} character buckets; expected 27, 2^19, 2^18")]
    Shape {
        /// Heads.
        heads: u16,
        /// Log2 of the word buckets.
        words: u8,
        /// Log2 of the character buckets.
        chars: u8,
    },
    /// It ends early, or there is more than the header says.
    #[error("the model file ends in the wrong place: byte {at}")]
    Length {
        /// Where reading stopped.
        at: usize,
    },
    /// Larger than allowed.
    #[error("the model file has {bytes} bytes, at most 4 MiB are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The bytes are not those that were written.
    #[error("the model file's hash does not match its content")]
    Hash,
    /// Numbers that no training writes: not finite, or rows out of order.
    #[error("the model file holds weights that are not finite or rows out of order")]
    Weights,
}

/// A loaded model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Model A.
    pub linear: Linear,
    /// Model B.
    pub bag: Option<Bag>,
    /// SHA-256 of the manifest of its training.
    pub manifest: [u8; 32],
}

impl Model {
    /// Reads a model file.
    ///
    /// # Errors
    /// [`Format`]: the bytes are no model for this program.
    pub fn decode(bytes: &[u8]) -> Result<Self, Format> {
        if bytes.len() > MODEL_BYTES {
            return Err(Format::TooLarge { bytes: bytes.len() });
        }
        if !bytes.starts_with(MAGIC) {
            return Err(Format::Magic);
        }
        let (content, hash) = bytes.split_last_chunk::<32>().ok_or(Format::Length { at: bytes.len() })?;
        let mut reader = Reader { bytes: content, at: MAGIC.len() };
        let found = reader.u16()?;
        if found != VERSION {
            return Err(Format::Version { found });
        }
        if Sha256::digest(content).as_slice() != hash {
            return Err(Format::Hash);
        }
        let model = Self::body(&mut reader)?;
        if reader.at == content.len() { Ok(model) } else { Err(Format::Length { at: reader.at }) }
    }

    fn body(reader: &mut Reader<'_>) -> Result<Self, Format> {
        let heads = reader.u16()?;
        let [words, chars] = reader.array()?;
        if (usize::from(heads), words, chars) != (CATEGORIES, WORD_BITS, CHAR_BITS) {
            return Err(Format::Shape { heads, words, chars });
        }
        let flags = reader.u16()?;
        let rows = reader.u32()?;
        let manifest = reader.array()?;
        let mut heads = [Head::default(); CATEGORIES];
        for head in &mut heads {
            *head = Head { bias: reader.f32()?, platt_a: reader.f32()?, platt_b: reader.f32()? };
        }
        let rows = (0..rows).map(|_| reader.row()).collect::<Result<_, _>>()?;
        let linear = Linear::new(heads, rows).ok_or(Format::Weights)?;
        let bag = if flags & HAS_BAG == 0 { None } else { Some(reader.bag()?) };
        Ok(Self { linear, bag, manifest })
    }

    /// Writes the model file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(small(CATEGORIES).to_le_bytes());
        out.extend([WORD_BITS, CHAR_BITS]);
        out.extend(if self.bag.is_some() { HAS_BAG } else { 0 }.to_le_bytes());
        out.extend(count(self.linear.rows().len()).to_le_bytes());
        out.extend(self.manifest);
        for head in self.linear.heads() {
            out.extend([head.bias, head.platt_a, head.platt_b].into_iter().flat_map(f32::to_le_bytes));
        }
        for row in self.linear.rows() {
            out.extend(row.id.to_le_bytes());
            out.extend(row.scale.to_le_bytes());
            out.extend(row.weights.iter().flat_map(|weight| weight.to_le_bytes()));
        }
        for array in self.bag.iter().flat_map(Bag::arrays) {
            out.extend(count(array.len()).to_le_bytes());
            out.extend(array.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
        }
        let hash = Sha256::digest(&out);
        out.extend(hash.as_slice());
        out
    }
}

fn small(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8], Format> {
        let end = self.at.checked_add(len).ok_or(Format::Length { at: self.at })?;
        let part = self.bytes.get(self.at..end).ok_or(Format::Length { at: self.at })?;
        self.at = end;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Format> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| Format::Length { at })
    }

    fn u16(&mut self) -> Result<u16, Format> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Format> {
        self.array().map(u32::from_le_bytes)
    }

    fn f32(&mut self) -> Result<f32, Format> {
        let number = self.array().map(f32::from_le_bytes)?;
        if number.is_finite() { Ok(number) } else { Err(Format::Weights) }
    }

    fn row(&mut self) -> Result<Row, Format> {
        let (id, scale) = (self.u32()?, self.f32()?);
        let weights: Heads<u8> = self.array()?;
        Ok(Row { id, scale, weights: weights.map(u8::cast_signed) })
    }

    fn bag(&mut self) -> Result<Bag, Format> {
        let mut arrays: [Vec<f32>; 5] = Default::default();
        for (array, len) in arrays.iter_mut().zip(SHAPES) {
            let at = self.at;
            if self.u32()? as usize != len {
                return Err(Format::Length { at });
            }
            let bytes = self.take(2 * len)?;
            *array = bytes.as_chunks().0.iter().map(|pair| f16::from_le_bytes(*pair).to_f32()).collect();
        }
        if arrays.iter().flatten().any(|x| !x.is_finite()) {
            return Err(Format::Weights);
        }
        Bag::new(arrays).ok_or(Format::Weights)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model() -> Model {
        let rows =
            [3, 70, 900].map(|id| Row { id, scale: 0.25, weights: [i8::try_from(id % 100).unwrap(); CATEGORIES] });
        let heads = [Head { bias: -1.5, platt_a: -1.0, platt_b: 0.25 }; CATEGORIES];
        let bag = Bag::new(SHAPES.map(|len| vec![0.125; len]));
        Model { linear: Linear::new(heads, rows.to_vec()).unwrap(), bag, manifest: [7; 32] }
    }

    /// Bytes with a right hash.
    fn sealed(mut content: Vec<u8>) -> Vec<u8> {
        let hash = Sha256::digest(&content);
        content.extend(hash.as_slice());
        content
    }

    fn edited(at: usize, new: &[u8]) -> Format {
        let mut content = model().encode();
        content.truncate(content.len() - 32);
        content[at..at + new.len()].copy_from_slice(new);
        Model::decode(&sealed(content)).unwrap_err()
    }

    #[test]
    fn a_model_survives_its_file() {
        let with = model();
        assert_eq!(Model::decode(&with.encode()).unwrap(), with);
        let without = Model { bag: None, ..with };
        assert_eq!(Model::decode(&without.encode()).unwrap(), without);
    }

    #[test]
    fn layout_is_the_table() {
        let bytes = Model { bag: None, ..model() }.encode();
        assert_eq!(bytes.len(), 48 + 27 * 12 + 3 * (8 + 27) + 32);
        assert_eq!(&bytes[..16], b"AVMD\x01\0\x1b\0\x13\x12\0\0\x03\0\0\0");
        assert_eq!(bytes[16..48], [7; 32]);
        assert_eq!(bytes[48..52], (-1.5_f32).to_le_bytes());
        assert_eq!(bytes[48 + 27 * 12..][..8], [3, 0, 0, 0, 0, 0, 0x80, 0x3e]);
    }

    #[test]
    fn each_fault_is_named() {
        assert_eq!(Model::decode(b"PK\x03\x04").unwrap_err(), Format::Magic);
        assert_eq!(Model::decode(b"AVMD\x01").unwrap_err(), Format::Length { at: 5 });
        assert_eq!(edited(4, &[9]), Format::Version { found: 9 });
        assert_eq!(edited(6, &[26]), Format::Shape { heads: 26, words: 19, chars: 18 });
        assert!(matches!(edited(12, &[200, 1]), Format::Weights | Format::Length { .. }));
        assert_eq!(edited(48, &f32::NAN.to_le_bytes()), Format::Weights);
        assert_eq!(edited(48 + 27 * 12, &[255]), Format::Weights, "rows must ascend");
        let mut flipped = model().encode();
        flipped[100] ^= 1;
        assert_eq!(Model::decode(&flipped).unwrap_err(), Format::Hash);
        let mut long = model().encode();
        long.truncate(long.len() - 32);
        let at = long.len();
        long.push(0);
        assert_eq!(Model::decode(&sealed(long)).unwrap_err(), Format::Length { at });
        let large = [MAGIC.as_slice(), &vec![0; MODEL_BYTES]].concat();
        assert_eq!(Model::decode(&large).unwrap_err(), Format::TooLarge { bytes: MODEL_BYTES + 4 });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0_usize..400) {
            let _ = Model::decode(&bytes);
            let mut content = Model { bag: None, ..model() }.encode();
            content.truncate(content.len() - 32);
            let at = at.min(content.len());
            content.splice(at.., bytes);
            let _ = Model::decode(&sealed(content));
        }
    }
}
