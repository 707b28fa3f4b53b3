//! The tagger's model and its file.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `AVNM` |
//! | 4, u32 LE | version, 1 |
//! | 4, i32 LE | how much surer than nothing a beginning must be, in units of the weights |
//! | 4, u32 LE | length of the lists |
//! | that | lists: words in lower case and what they are, a finite-state transducer |
//! | 2^16 x 7, i8 | weights of each row for each tag |

use tantivy_fst::Map;

use super::features::{self, COUNT, Known, flag};
use super::tokens::Shape;
use crate::dlp::DataKind;

/// Tags.
pub(super) const TAGS: usize = 7;
const ROW_BITS: u32 = 16;
/// Rows of the table.
pub(super) const ROWS: usize = 1 << ROW_BITS;
/// Weights that are one point of a finding's score.
pub(super) const MARGIN_UNIT: i32 = 12;
const MAGIC: &[u8; 4] = b"AVNM";
const VERSION: u32 = 1;

/// Begins, inside, or outside of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Tag {
    O,
    BeginName,
    InName,
    BeginAddress,
    InAddress,
    BeginPlace,
    InPlace,
}

impl Tag {
    pub(super) const ALL: [Tag; TAGS] =
        [Tag::O, Tag::BeginName, Tag::InName, Tag::BeginAddress, Tag::InAddress, Tag::BeginPlace, Tag::InPlace];

    pub(super) fn begin(kind: DataKind) -> Self {
        match kind {
            DataKind::Name => Tag::BeginName,
            DataKind::Address => Tag::BeginAddress,
            DataKind::Place => Tag::BeginPlace,
            _ => Tag::O,
        }
    }

    pub(super) fn inside(self) -> Self {
        match self {
            Tag::O => Tag::O,
            Tag::BeginName | Tag::InName => Tag::InName,
            Tag::BeginAddress | Tag::InAddress => Tag::InAddress,
            Tag::BeginPlace | Tag::InPlace => Tag::InPlace,
        }
    }

    pub(super) fn kind(self) -> Option<DataKind> {
        match self {
            Tag::O => None,
            Tag::BeginName | Tag::InName => Some(DataKind::Name),
            Tag::BeginAddress | Tag::InAddress => Some(DataKind::Address),
            Tag::BeginPlace | Tag::InPlace => Some(DataKind::Place),
        }
    }

    /// It can follow `before`, and stand on this token: nothing begins with a mark.
    pub(super) fn can_be(self, before: Tag, shape: Shape) -> bool {
        let is_inside = self.inside() == self && self != Tag::O;
        if is_inside { before.inside() == self } else { self == Tag::O || shape != Shape::Mark }
    }
}

/// The file is no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no model of names: {0}")]
pub struct NoModel(&'static str);

/// A model.
pub(crate) struct Model {
    lists: Map<Vec<u8>>,
    weights: Box<[[i8; TAGS]]>,
    margin: i32,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("words", &self.lists.len()).field("margin", &self.margin).finish_non_exhaustive()
    }
}

impl Model {
    /// Lists without weights: what training begins with.
    pub(super) fn untrained(lists: Vec<u8>, margin: i32) -> Result<Self, NoModel> {
        let lists = Map::from_bytes(lists).map_err(|_| NoModel("its lists are damaged"))?;
        Ok(Model { lists, weights: vec![[0; TAGS]; ROWS].into(), margin })
    }

    pub(super) fn with_weights(self, weights: Box<[[i8; TAGS]]>) -> Self {
        Model { weights, ..self }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`NoModel`] says what is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, NoModel> {
        let (head, rest) = bytes.split_first_chunk::<16>().ok_or(NoModel("too short"))?;
        let word = |at: usize| head.get(at..at + 4).and_then(|word| word.try_into().ok()).unwrap_or([0; 4]);
        if &word(0) != MAGIC || u32::from_le_bytes(word(4)) != VERSION {
            return Err(NoModel("another format or version"));
        }
        let margin = i32::from_le_bytes(word(8));
        let size = usize::try_from(u32::from_le_bytes(word(12))).map_err(|_| NoModel("too long"))?;
        let (lists, weights) = rest.split_at_checked(size).ok_or(NoModel("too short"))?;
        if weights.len() != ROWS * TAGS {
            return Err(NoModel("its table has another size"));
        }
        let row = |row: &[u8]| <[u8; TAGS]>::try_from(row).unwrap_or_default().map(u8::cast_signed);
        let weights = weights.chunks_exact(TAGS).map(row).collect();
        Ok(Self::untrained(lists.to_vec(), margin)?.with_weights(weights))
    }

    /// The file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let lists = self.lists.as_fst().to_vec();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.margin.to_le_bytes());
        bytes.extend(u32::try_from(lists.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&lists);
        bytes.extend(self.weights.iter().flatten().map(|weight| weight.cast_unsigned()));
        bytes
    }

    /// The row of a feature.
    pub(super) fn row(hash: u64) -> usize {
        usize::try_from(hash >> (64 - ROW_BITS)).unwrap_or_default()
    }

    /// What lists know of a word; of a word of parts what they know of its parts.
    pub(super) fn flags(&self, word: &str) -> u8 {
        let known = |word: &str| self.lists.get(word).and_then(|flags| u8::try_from(flags).ok());
        let parts = || word.split('-').filter_map(known).fold(0, |all, flags| all | flags & !flag::COMMON);
        known(word).unwrap_or_else(|| if word.contains('-') { parts() } else { 0 })
    }

    /// The tag of each token, and by how much it is surer than none.
    pub(super) fn tag(&self, known: &[Known]) -> Vec<(Tag, i32)> {
        let mut before = Tag::O;
        let mut tags = Vec::with_capacity(known.len());
        for at in 0..known.len() {
            let (tag, margin) = match known.get(at) {
                Some(one) if one.is_candidate(before) => {
                    self.best(&features::rows(known, at, before), before, one.shape)
                }
                _ => (Tag::O, 0),
            };
            tags.push((tag, margin));
            before = tag;
        }
        tags
    }

    fn best(&self, rows: &[usize; COUNT], before: Tag, shape: Shape) -> (Tag, i32) {
        let mut sums = [0_i32; TAGS];
        for row in rows {
            let Some(weights) = self.weights.get(*row) else { continue };
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += i32::from(*weight);
            }
        }
        let [none, ..] = sums;
        // Whether something begins has to be sure; where it ends is as likely wrong either way.
        let margin = if before == Tag::O { self.margin } else { 0 };
        let allowed = Tag::ALL.into_iter().zip(sums).filter(|(tag, _)| tag.can_be(before, shape));
        let (tag, sum) = allowed.fold((Tag::O, none + margin), |best, one| if one.1 > best.1 { one } else { best });
        if tag == Tag::O { (Tag::O, 0) } else { (tag, sum - none) }
    }
}
