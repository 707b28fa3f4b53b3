//! The full-text index of one shard: chunks by their words, scored with BM25 (k1 1.2, b 0.75).
//!
//! Derived data: everything in it comes from the journal, and its commit says up to which place in the journal's history
//! (`applied`). Every chunk is analysed in the language of its document; a query is analysed in the languages that
//! the shard holds, so that a word matches under the stems of each.

pub mod search;
pub mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tantivy::directory::{MmapDirectory, RamDirectory};
use tantivy::schema::{FAST, Field, INDEXED, IndexRecordOption, STRING, Schema, TextFieldIndexing, TextOptions};
use tantivy::{Directory, Index, IndexReader, ReloadPolicy, TantivyError};

use crate::error::MemoryError;
use crate::journal::{DocKey, Position};
use crate::language::Tongue;

/// Where the words of title, heading and body are kept apart in positions, so that no phrase spans two of them.
const POSITION_GAP: usize = 64;

/// Fields of the index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// Words of title, heading path and body.
    text: Field,
    /// Words of the title, for `title:` filters.
    title: Field,
    source: Field,
    lang: Field,
    id: Field,
    /// The document, for deletion.
    doc: Field,
    doc_high: Field,
    doc_low: Field,
    /// Version in the upper, ordinal in the lower half.
    place: Field,
}

impl Fields {
    fn schema() -> (Schema, Self) {
        let mut schema = Schema::builder();
        let words = TextFieldIndexing::default().set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let words = TextOptions::default().set_indexing_options(words);
        let fields = Self {
            text: schema.add_text_field("text", words.clone()),
            title: schema.add_text_field("title", words),
            source: schema.add_text_field("source", STRING),
            lang: schema.add_text_field("lang", STRING),
            id: schema.add_text_field("id", STRING),
            doc: schema.add_bytes_field("doc", INDEXED),
            doc_high: schema.add_u64_field("doc_high", FAST),
            doc_low: schema.add_u64_field("doc_low", FAST),
            place: schema.add_u64_field("place", FAST),
        };
        (schema.build(), fields)
    }
}

/// A chunk on its way into the index.
#[derive(Debug, Clone)]
pub struct IndexedChunk {
    /// Its place in the version.
    pub ordinal: u32,
    /// Heading path.
    pub heading: String,
    /// Its words.
    pub body: String,
}

/// The version of a document that the index shall hold instead of any other.
#[derive(Debug, Clone)]
pub struct IndexedDocument {
    /// The document.
    pub key: DocKey,
    /// The version.
    pub version: u32,
    /// External id.
    pub id: String,
    /// Title.
    pub title: String,
    /// Who said it.
    pub source: Option<String>,
    /// Language of the text.
    pub tongue: Tongue,
    /// Its chunks.
    pub chunks: Vec<IndexedChunk>,
}

/// An opened index.
#[derive(Clone)]
pub struct Lexical {
    index: Index,
    reader: IndexReader,
    fields: Fields,
}

impl std::fmt::Debug for Lexical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lexical").field("chunks", &self.chunks()).finish_non_exhaustive()
    }
}

/// An index and how much of the journal it has seen.
#[derive(Debug)]
pub struct Opened {
    /// The index.
    pub lexical: Lexical,
    /// How far in the journal it has come; `None` for a new one.
    pub applied: Option<Position>,
    /// Where a damaged predecessor was put.
    pub set_aside: Option<PathBuf>,
}

impl Lexical {
    /// Opens the index in `dir`, or in memory without one. A folder that cannot be read is set aside and a new index
    /// begun.
    ///
    /// # Errors
    /// `Index` when not even a new index can be made.
    pub fn open(dir: Option<&Path>, now_ms: u64) -> Result<Opened, MemoryError> {
        let Some(dir) = dir else {
            let (lexical, _) = Self::open_in(RamDirectory::create())?;
            return Ok(Opened { lexical, applied: None, set_aside: None });
        };
        // Some damage makes the index library panic instead of saying so.
        let opened = std::panic::catch_unwind(|| Self::open_folder(dir))
            .unwrap_or_else(|_| Err(MemoryError::Index { reason: "it cannot be read".to_owned() }));
        match opened {
            Ok((lexical, applied)) => Ok(Opened { lexical, applied, set_aside: None }),
            Err(damage) => {
                tracing::error!(error = %damage, "index is damaged: set aside, rebuilding from the journal");
                let aside = dir.with_extension(format!("damaged-{now_ms}"));
                std::fs::rename(dir, &aside).map_err(|error| io(&error))?;
                let (lexical, _) = Self::open_folder(dir)?;
                Ok(Opened { lexical, applied: None, set_aside: Some(aside) })
            }
        }
    }

    /// Throws away the index in `dir`, which is whole but of no use, and begins a new one.
    ///
    /// # Errors
    /// `Index` when the folder cannot be moved or made.
    pub fn renew(dir: Option<&Path>, now_ms: u64) -> Result<Opened, MemoryError> {
        let Some(dir) = dir else { return Self::open(None, now_ms) };
        // Moved first: half an index must not be met again.
        let outdated = dir.with_extension("outdated");
        let remove = || if outdated.exists() { std::fs::remove_dir_all(&outdated) } else { Ok(()) };
        remove().and_then(|()| std::fs::rename(dir, &outdated)).and_then(|()| remove()).map_err(|error| io(&error))?;
        let (lexical, _) = Self::open_folder(dir)?;
        Ok(Opened { lexical, applied: None, set_aside: None })
    }

    fn open_folder(dir: &Path) -> Result<(Self, Option<Position>), MemoryError> {
        std::fs::create_dir_all(dir).map_err(|error| io(&error))?;
        let directory = MmapDirectory::open(dir).map_err(TantivyError::from)?;
        let opened = Self::open_in(directory)?;
        // Segments are mapped lazily: reading them whole finds damage now and not in a query.
        opened.0.index.validate_checksum().map_err(MemoryError::from).and_then(|damaged| match damaged.len() {
            0 => Ok(()),
            _ => Err(MemoryError::Index { reason: format!("checksums of {} files do not match", damaged.len()) }),
        })?;
        Ok(opened)
    }

    fn open_in(directory: impl Into<Box<dyn Directory>>) -> Result<(Self, Option<Position>), MemoryError> {
        let (schema, fields) = Fields::schema();
        let index = Index::open_or_create(directory, schema)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let applied = index.load_metas()?.payload.and_then(|payload| read_payload(&payload));
        Ok((Self { index, reader, fields }, applied))
    }

    /// Number of chunks that a query sees.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// Languages of the chunks with their number, the most frequent first.
    pub fn tongues(&self) -> Vec<(Tongue, u64)> {
        let mut counts: HashMap<Tongue, u64> = HashMap::new();
        for segment in self.reader.searcher().segment_readers() {
            let Ok(inverted) = segment.inverted_index(self.fields.lang) else { continue };
            let Ok(mut terms) = inverted.terms().stream() else { continue };
            while let Some((code, info)) = terms.next() {
                let tongue = std::str::from_utf8(code).ok().and_then(Tongue::from_code).unwrap_or(Tongue::UNKNOWN);
                *counts.entry(tongue).or_default() += u64::from(info.doc_freq);
            }
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by_key(|&(tongue, count)| (std::cmp::Reverse(count), tongue));
        counts
    }
}

pub(crate) fn io(error: &std::io::Error) -> MemoryError {
    MemoryError::Index { reason: error.to_string() }
}

/// What a commit of the index notes: `seq:chain`.
fn payload(applied: Position) -> String {
    format!("{}:{:x}", applied.seq, applied.chain)
}

fn read_payload(text: &str) -> Option<Position> {
    let (seq, chain) = text.split_once(':')?;
    Some(Position { seq: seq.parse().ok()?, chain: u64::from_str_radix(chain, 16).ok()? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::search::Plan;
    use super::writer::Writer;
    use super::*;
    use crate::question::Question;

    pub(crate) fn document(n: u8, title: &str, text: &str) -> IndexedDocument {
        IndexedDocument {
            key: DocKey([n; 16]),
            version: 1,
            id: format!("d{n}"),
            title: title.to_owned(),
            source: Some(format!("S{n}")),
            tongue: Tongue::of(text),
            chunks: vec![IndexedChunk { ordinal: 0, heading: String::new(), body: text.to_owned() }],
        }
    }

    fn index(documents: &[IndexedDocument]) -> Lexical {
        let lexical = Lexical::open(None, 0).expect("in memory").lexical;
        let mut writer = Writer::new(&lexical).expect("writer");
        for document in documents {
            writer.put(document).expect("put");
        }
        writer.commit(Position { seq: 1, chain: 1 }).expect("commit");
        lexical
    }

    fn corpus() -> Lexical {
        index(&[
            document(1, "Wells", "The village well gives clear water to everybody in the valley."),
            document(2, "Mills", "The old mill grinds the corn of the village every autumn."),
            document(
                3,
                "B\u{e4}ume",
                "Die alten B\u{e4}ume im Wald geben den Menschen im Dorf Schatten und frische Luft.",
            ),
        ])
    }

    fn found(lexical: &Lexical, query: &str) -> Vec<u8> {
        let plan = Plan::new(lexical, &Question::parse(query));
        plan.search(lexical, 10).expect("search").into_iter().map(|hit| hit.key.0[0]).collect()
    }

    #[test]
    fn words_match_by_stem_in_every_language() {
        let lexical = corpus();
        assert_eq!(found(&lexical, "villages with clear waters"), [1, 2]);
        assert_eq!(found(&lexical, "Baum"), [3]);
        assert_eq!(found(&lexical, "title words: mills"), [2]);
    }

    #[test]
    fn a_common_word_stays_common_in_the_few_documents_of_another_language() {
        let english = |n: u8| document(n, "", &format!("The registers of the villages are kept in house {n}."));
        let mut documents: Vec<_> = (1..200).map(english).collect();
        documents.push(document(200, "", "The registers of the villages are kept in the mill of Aldwin."));
        let other = "Te villages registers oraz stare księgi leżą w domu, a wszyscy mieszkańcy czytają je codziennie.";
        documents.push(document(201, "", other));
        let lexical = index(&documents);
        assert!(lexical.tongues().len() > 1, "the other language was not recognised");
        assert_eq!(found(&lexical, "registers of the villages of Aldwin").first(), Some(&200));
    }

    #[test]
    fn phrases_exclusions_and_filters_hold() {
        let lexical = corpus();
        assert_eq!(found(&lexical, "\"village well\""), [1]);
        assert_eq!(found(&lexical, "\"well village\""), [0u8; 0]);
        assert_eq!(found(&lexical, "village -corn"), [1]);
        assert_eq!(found(&lexical, "village source:s2"), [2]);
        assert_eq!(found(&lexical, "village title:mills"), [2]);
        assert_eq!(found(&lexical, "lang:deu"), [3]);
        assert_eq!(found(&lexical, "id:d1"), [1]);
    }

    #[test]
    fn unknown_words_are_tried_with_one_letter_changed() {
        let lexical = corpus();
        assert_eq!(found(&lexical, "vilage"), [1, 2]);
        assert_eq!(found(&lexical, "mil"), [0u8; 0]);
    }

    #[test]
    fn a_new_version_replaces_the_old_one() {
        let lexical = corpus();
        let mut writer = Writer::new(&lexical).expect("writer");
        writer.put(&IndexedDocument { version: 2, ..document(1, "Wells", "Now it is about goats.") }).expect("put");
        writer.delete(DocKey([2; 16]));
        writer.commit(Position { seq: 2, chain: 2 }).expect("commit");
        assert_eq!(found(&lexical, "village"), [0u8; 0]);
        assert_eq!(found(&lexical, "goat"), [1]);
        assert_eq!(lexical.chunks(), 2);
    }

    #[test]
    fn its_position_survives_and_damage_is_set_aside() {
        let position = Position { seq: 41, chain: u64::MAX };
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("index");
        {
            let opened = Lexical::open(Some(&path), 1).expect("new");
            assert_eq!(opened.applied, None);
            let mut writer = Writer::new(&opened.lexical).expect("writer");
            writer.put(&document(1, "t", "some words")).expect("put");
            writer.commit(position).expect("commit");
        }
        assert_eq!(Lexical::open(Some(&path), 2).expect("again").applied, Some(position));
        let segment = std::fs::read_dir(&path)
            .expect("listing")
            .filter_map(Result::ok)
            .find(|entry| entry.path().extension().is_some_and(|e| e == "idx" || e == "term"))
            .expect("a segment file");
        std::fs::write(segment.path(), b"damage").expect("write");
        let opened = Lexical::open(Some(&path), 3).expect("rebuilt");
        assert_eq!((opened.applied, opened.lexical.chunks()), (None, 0));
        assert!(opened.set_aside.is_some_and(|aside| aside.exists()));
    }
}
