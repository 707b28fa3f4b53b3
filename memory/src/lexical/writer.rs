//! Writing into the index. Owned by one thread.

use tantivy::indexer::LogMergePolicy;
use tantivy::tokenizer::{PreTokenizedString, TextAnalyzer};
use tantivy::{IndexWriter, TantivyDocument, Term};

use super::{Fields, IndexedDocument, Lexical, POSITION_GAP, payload};
use crate::error::MemoryError;
use crate::journal::{DocKey, Position};
use crate::language::for_each_token;

/// Memory for chunks that are not yet a segment.
const HEAP_BYTES: usize = 50_000_000;
/// A segment of more chunks is left alone by merging.
const SEGMENT_MAX: usize = 5_000_000;

/// Adds, replaces and deletes documents; nothing is seen before [`Writer::commit`].
pub struct Writer {
    writer: IndexWriter,
    lexical: Lexical,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("lexical", &self.lexical).finish_non_exhaustive()
    }
}

impl Writer {
    /// Takes the index for writing.
    ///
    /// # Errors
    /// `Index` when another writer holds it.
    pub fn new(lexical: &Lexical) -> Result<Self, MemoryError> {
        let writer: IndexWriter = lexical.index.writer_with_num_threads(1, HEAP_BYTES)?;
        let mut policy = LogMergePolicy::default();
        policy.set_max_docs_before_merge(SEGMENT_MAX);
        writer.set_merge_policy(Box::new(policy));
        Ok(Self { writer, lexical: lexical.clone() })
    }

    /// Puts a version of a document in the place of any other; gives the number of chunks.
    ///
    /// # Errors
    /// `Index` when the writer has failed.
    pub fn put(&mut self, document: &IndexedDocument) -> Result<u64, MemoryError> {
        self.delete(document.key);
        let mut analyzer = document.tongue.analyzer();
        let title = tokens(&mut analyzer, &[&document.title]);
        for chunk in &document.chunks {
            let text = tokens(&mut analyzer, &[&document.title, &chunk.heading, &chunk.body]);
            self.writer.add_document(row(self.lexical.fields, document, chunk.ordinal, &title, text))?;
        }
        Ok(document.chunks.len() as u64)
    }

    /// Takes a document out.
    pub fn delete(&mut self, key: DocKey) {
        self.writer.delete_term(Term::from_field_bytes(self.lexical.fields.doc, &key.0));
    }

    /// Makes everything so far durable and visible, and notes how far in the journal it has come.
    ///
    /// # Errors
    /// `Index` when the disk refuses.
    pub fn commit(&mut self, applied: Position) -> Result<(), MemoryError> {
        let mut commit = self.writer.prepare_commit()?;
        commit.set_payload(&payload(applied));
        commit.commit()?;
        self.lexical.reader.reload()?;
        Ok(())
    }

    /// Waits until running merges have ended.
    ///
    /// # Errors
    /// `Index` when a merge failed.
    pub fn close(self) -> Result<(), MemoryError> {
        Ok(self.writer.wait_merging_threads()?)
    }
}

fn row(
    fields: Fields,
    document: &IndexedDocument,
    ordinal: u32,
    title: &PreTokenizedString,
    text: PreTokenizedString,
) -> TantivyDocument {
    let mut row = TantivyDocument::new();
    row.add_pre_tokenized_text(fields.text, text);
    if !title.tokens.is_empty() {
        row.add_pre_tokenized_text(fields.title, title.clone());
    }
    if let Some(source) = &document.source {
        row.add_text(fields.source, source.to_lowercase());
    }
    row.add_text(fields.lang, document.tongue.code());
    row.add_text(fields.id, &document.id);
    row.add_bytes(fields.doc, &document.key.0);
    let (high, low) = document.key.halves();
    row.add_u64(fields.doc_high, high);
    row.add_u64(fields.doc_low, low);
    row.add_u64(fields.place, u64::from(document.version) << 32 | u64::from(ordinal));
    row
}

/// Index words of several texts in a row, with a gap in positions between them. The text itself is not kept.
fn tokens(analyzer: &mut TextAnalyzer, texts: &[&str]) -> PreTokenizedString {
    let mut out = PreTokenizedString { text: String::new(), tokens: Vec::new() };
    let mut base = 0;
    for text in texts {
        let mut last = 0;
        for_each_token(analyzer, text, |token| {
            last = token.position + 1;
            let mut token = token.clone();
            token.position += base;
            out.tokens.push(token);
        });
        if last > 0 {
            base += last + POSITION_GAP;
        }
    }
    out
}
