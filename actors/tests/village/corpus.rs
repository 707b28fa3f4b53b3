//! The documents of `eval/corpus.jsonl`, in the village's memory.

use aivillage_actors::Evidence;
use aivillage_memory::{Document, Memory, Put, WaitFor};
use aivillage_runtime::{Village, VillageBuilder};
use serde::Deserialize;

#[derive(Deserialize)]
struct Doc {
    id: String,
    title: String,
    text: String,
}

fn read() -> impl Iterator<Item = Doc> {
    include_str!("../../eval/corpus.jsonl").lines().map(|line| serde_json::from_str(line).unwrap())
}

/// The documents as evidence, whole.
pub(crate) fn documents() -> Vec<Evidence> {
    let evidence = |doc: Doc| Evidence {
        collection: "main".into(),
        span: (0, u32::try_from(doc.text.chars().count()).unwrap()),
        doc: doc.id,
        title: doc.title,
        text: doc.text,
        trust: 0.5,
        url: None,
    };
    read().map(evidence).collect()
}

pub(crate) fn install(builder: VillageBuilder) -> VillageBuilder {
    aivillage_memory::install(builder)
}

pub(crate) async fn fill(village: &Village) {
    let document =
        |doc: Doc| Document { id: Some(doc.id), title: Some(doc.title), text: doc.text, ..Document::default() };
    let put = Put { documents: read().map(document).collect(), wait: WaitFor::Searchable, ..Put::default() };
    Memory::new(village, "local").put(put).await.unwrap();
}
