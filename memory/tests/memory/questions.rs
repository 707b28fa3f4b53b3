//! Finding, and knowing when there is nothing to find.

use aivillage_memory::{GapKind, Memory, Query};

use crate::{document, put, village};

async fn village_notes() -> Memory {
    let memory = Memory::new(&village(None).await, "local");
    let notes = [
        ("well", "The village well is twelve metres deep. It was dug by Ada Brown in the dry summer of 1871."),
        ("mill", "The mill on the river grinds the corn of four farms. Its wheel was replaced in 1902."),
        ("school", "The school has two rooms and forty pupils. The teacher is called Henrik Vass."),
        (
            "baum",
            "Die alte Linde am Dorfplatz ist \u{fc}ber dreihundert Jahre alt und spendet allen Menschen Schatten.",
        ),
        ("market", "Every Friday farmers sell cheese, honey and apples at the market under the lime tree."),
        ("jing", "\u{6751}\u{5b50}\u{91cc}\u{7684}\u{4e95}\u{5f88}\u{6df1}\u{3002}"),
    ];
    put(&memory, notes.iter().map(|(id, text)| document(id, text)).collect()).await;
    memory
}

async fn first(memory: &Memory, question: &str) -> (Option<String>, bool) {
    let context = memory.query(Query::new(question)).await.expect("answers");
    (context.passages.first().map(|passage| passage.doc.clone()), context.answerable)
}

#[tokio::test]
async fn supported_questions_are_answered() {
    let memory = village_notes().await;
    for (question, doc) in [
        ("How deep is the village well?", "well"),
        ("Who dug the well?", "well"),
        ("When was the wheel of the mill replaced?", "mill"),
        ("How many pupils does the school have?", "school"),
        ("What do farmers sell at the market?", "market"),
        ("Wie alt ist die Linde am Dorfplatz?", "baum"),
        ("\u{4e95}\u{5f88}\u{6df1}", "jing"),
    ] {
        assert_eq!(first(&memory, question).await, (Some(doc.to_owned()), true), "{question}");
    }
}

#[tokio::test]
async fn questions_without_support_are_not_answered() {
    let memory = village_notes().await;
    for question in [
        "What is the capital of France?",
        "Who won the football world cup in 1998?",
        "How do I configure a reverse proxy?",
        "Which enzyme unwinds DNA?",
        "What is the phone number of the mayor?",
        "When was the railway station opened?",
    ] {
        let (_, answerable) = first(&memory, question).await;
        assert!(!answerable, "{question}");
    }
}

#[tokio::test]
async fn gaps_name_what_is_missing() {
    let memory = village_notes().await;
    let context = memory.query(Query::new("Was the well dug by Zacharias?")).await.expect("answers");
    assert_eq!(
        context.gaps.iter().map(|gap| (gap.kind, gap.text.as_str())).collect::<Vec<_>>(),
        [(GapKind::UnknownEntity, "Zacharias")]
    );
}

#[tokio::test]
async fn typing_errors_are_forgiven() {
    let memory = village_notes().await;
    assert_eq!(first(&memory, "How deep is the vilage well?").await, (Some("well".to_owned()), true));
}

#[tokio::test]
async fn any_text_is_a_question() {
    let memory = village_notes().await;
    for question in
        ["AND OR NOT (", "\"", "title:", "a\u{0}b", "-", "\u{1f600} well", "source:\"", "[* TO *]", "well~^2"]
    {
        let answer = memory.query(Query::new(question)).await;
        assert!(
            answer.as_ref().is_ok_and(|_| true) || answer.as_ref().is_err_and(|e| e.code() == "memory_empty"),
            "{question}: {answer:?}"
        );
    }
}
