//! Retrieval quality on Cranfield and `HotpotQA`, and whether questions without support are told apart.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use aivillage_memory::{Context, Document, Memory, Query};
use serde_json::{Value, json};

use crate::{Figures, store, village};

pub(crate) async fn run(data: &Path, figures: &mut Figures) {
    for (name, result) in [("Cranfield", cranfield(data, figures).await), ("HotpotQA", hotpot(data, figures).await)] {
        if result.is_none() {
            println!("{name}: skipped, its files are not in {}", data.display());
        }
    }
}

fn read(path: &Path) -> Option<Vec<Value>> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

async fn ask(memory: &Memory, question: &str, k: usize) -> Context {
    memory.query(Query { k, ..Query::new(question.replace(['"', '-'], " ")) }).await.expect("answers")
}

/// Ids of the documents, best first, each once.
fn ids(context: &Context) -> Vec<&str> {
    let mut seen = HashSet::new();
    context.passages.iter().map(|passage| passage.doc.as_str()).filter(|id| seen.insert(*id)).collect()
}

/// nDCG@10 with every listed judgement relevant.
async fn cranfield(data: &Path, figures: &mut Figures) -> Option<()> {
    let folder = data.join("cranfield");
    let (docs, queries, judged) =
        (read(&folder.join("docs.json"))?, read(&folder.join("queries.json"))?, read(&folder.join("qrels.json"))?);
    let (village, _dir) = village().await;
    let memory = Memory::new(&village, "local");
    let document = |doc: &Value| Document {
        id: Some(text(doc, "id")),
        title: Some(text(doc, "title")),
        text: text(doc, "body"),
        ..Document::default()
    };
    store(&memory, docs.iter().map(document).filter(|document| !document.text.trim().is_empty()).collect()).await;
    let mut relevant: HashMap<String, HashSet<String>> = HashMap::new();
    for judgement in &judged {
        relevant.entry(text(judgement, "query_num")).or_default().insert(text(judgement, "id"));
    }
    let (mut sum, mut count, mut answerable) = (0.0, 0u32, 0u32);
    for query in &queries {
        let Some(relevant) = relevant.get(&text(query, "query number")) else { continue };
        let context = ask(&memory, &text(query, "query"), 20).await;
        answerable += u32::from(context.answerable);
        sum += ndcg(&ids(&context), relevant);
        count += 1;
    }
    figures.insert("Cranfield nDCG@10".into(), json!(round(sum / f64::from(count))));
    figures.insert("Cranfield queries answerable".into(), json!(format!("{answerable}/{count}")));
    let mut foreign = 0;
    let questions = read(&data.join("hotpotqa/questions.json"))?;
    for question in &questions {
        foreign += u32::from(ask(&memory, &text(question, "question"), 8).await.answerable);
    }
    figures
        .insert("HotpotQA questions answered from Cranfield".into(), json!(format!("{foreign}/{}", questions.len())));
    Some(())
}

fn ndcg(ids: &[&str], relevant: &HashSet<String>) -> f64 {
    let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let got: f64 =
        ids.iter().take(10).enumerate().filter(|(_, id)| relevant.contains(**id)).map(|(rank, _)| gain(rank)).sum();
    let best: f64 = (0..relevant.len().min(10)).map(gain).sum();
    got / best
}

/// R@5 and All@5 of the supporting paragraphs; answerable with them, and with all of them taken out.
async fn hotpot(data: &Path, figures: &mut Figures) -> Option<()> {
    let folder = data.join("hotpotqa");
    let (corpus, questions) = (read(&folder.join("corpus.json"))?, read(&folder.join("questions.json"))?);
    let (village, _dir) = village().await;
    let (memory, without) = (Memory::new(&village, "local"), Memory::new(&village, "without"));
    let document = |doc: &Value| Document {
        id: Some(text(doc, "title")),
        title: Some(text(doc, "title")),
        text: text(doc, "text"),
        ..Document::default()
    };
    let documents: Vec<Document> =
        corpus.iter().map(document).filter(|document| !document.text.trim().is_empty()).collect();
    let support = |question: &Value| -> Vec<String> {
        question["supporting"].as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
    };
    let supporting: HashSet<String> = questions.iter().flat_map(support).collect();
    let rest = documents.iter().filter(|d| d.id.as_ref().is_some_and(|id| !supporting.contains(id))).cloned().collect();
    store(&memory, documents).await;
    store(&without, rest).await;
    let (mut recall, mut all, mut answered, mut wrongly) = (0.0, 0u32, 0u32, 0u32);
    for question in &questions {
        let asked = text(question, "question");
        let context = ask(&memory, &asked, 8).await;
        let found: Vec<&str> = ids(&context).into_iter().take(5).collect();
        let wanted = support(question);
        let hits = wanted.iter().filter(|title| found.contains(&title.as_str())).count();
        recall += hits as f64 / wanted.len() as f64;
        all += u32::from(hits == wanted.len());
        answered += u32::from(context.answerable);
        wrongly += u32::from(ask(&without, &asked, 8).await.answerable);
        if std::env::var_os("EXPLAIN").is_some() {
            let bare = ask(&without, &asked, 8).await;
            println!("{asked}\t{:.2}\t{:.2}", context.confidence, bare.confidence);
        }
    }
    let count = questions.len() as f64;
    figures.insert("HotpotQA R@5".into(), json!(round(recall / count)));
    figures.insert("HotpotQA All@5".into(), json!(round(f64::from(all) / count)));
    figures.insert("HotpotQA answerable".into(), json!(format!("{answered}/{count}")));
    figures.insert("HotpotQA answerable without support".into(), json!(format!("{wrongly}/{count}")));
    Some(())
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
