//! The documents of `eval/corpus.jsonl`, in the village's memory.

use std::cmp::Reverse;

use aivillage_actors::Evidence;
use aivillage_actors::rank::Index;
use aivillage_actors::text;
use aivillage_runtime::{Actor, ActorCx, ActorProcessingErr, ActorRef, Kind, Mail, Reply, Village, VillageBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Doc {
    id: String,
    title: String,
    text: String,
}

/// The documents as evidence, whole.
pub fn documents() -> Vec<Evidence> {
    let docs = include_str!("../../eval/corpus.jsonl").lines().map(|line| serde_json::from_str::<Doc>(line).unwrap());
    docs.map(|doc| Evidence {
        collection: "main".into(),
        span: (0, u32::try_from(doc.text.chars().count()).unwrap()),
        doc: doc.id,
        title: doc.title,
        text: doc.text,
        trust: 0.5,
        url: None,
    })
    .collect()
}

#[derive(Serialize, Deserialize)]
enum Msg {
    Query(Value, Reply<Value>),
}

struct Retriever;

impl Kind for Retriever {
    const NAME: &'static str = "memory.retriever";
    type Body = Msg;
}

impl Actor for Retriever {
    type Msg = Mail<Msg>;
    type State = ();
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        let Msg::Query(query, reply) = mail.body;
        let docs = documents();
        let index = Index::new(&docs.iter().map(|doc| text::terms(&format!("{} {}", doc.title, doc.text))).collect::<Vec<_>>());
        let scores = index.bm25(&text::terms(query["text"].as_str().unwrap()));
        let mut found: Vec<_> = docs.into_iter().zip(scores).filter(|(_, score)| *score > 0.0).collect();
        found.sort_by_key(|(_, score)| Reverse((score * 1e6) as i64));
        found.truncate(query["k"].as_u64().unwrap() as usize);
        let passages: Vec<_> = found.into_iter().map(|(doc, _)| doc).collect();
        reply.send(json!({ "passages": passages }));
        Ok(())
    }
}

pub fn install(builder: VillageBuilder) -> VillageBuilder {
    builder.host(|_| Retriever)
}

pub async fn fill(_: &Village) {}
