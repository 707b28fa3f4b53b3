//! The one door to the village memory: queries in, evidence out.

use aivillage_memory::{CollectionStats, Memory, Passage, Query};
use aivillage_runtime::{CallError, Village};

use crate::answer::Evidence;
use crate::tools::memory::CollectionSize;

/// Most passages asked for.
const MAX_PASSAGES: usize = 64;

/// Passages that fit `text`, best first.
pub(crate) async fn query(
    village: &Village,
    tenant: &str,
    text: &str,
    k: usize,
    collections: Vec<String>,
) -> Result<Vec<Evidence>, CallError> {
    let query = Query { k: k.clamp(1, MAX_PASSAGES), collections, ..Query::new(text) };
    let context = Memory::new(village, tenant).query(query).await?;
    Ok(context.passages.into_iter().map(evidence).collect())
}

fn evidence(passage: Passage) -> Evidence {
    Evidence {
        collection: passage.collection,
        title: passage.title.unwrap_or_else(|| passage.doc.clone()),
        doc: passage.doc,
        text: passage.text,
        span: passage.span,
        url: passage.url,
        trust: passage.trust,
    }
}

/// Sizes of one collection or of all.
pub(crate) async fn stats(
    village: &Village,
    tenant: &str,
    collection: Option<&str>,
) -> Result<Vec<CollectionSize>, CallError> {
    let size = |stats: CollectionStats| CollectionSize {
        collection: stats.collection,
        documents: stats.documents,
        passages: stats.chunks,
    };
    Ok(Memory::new(village, tenant).stats(collection).await?.into_iter().map(size).collect())
}
