//! Memory behind the gate, for a program that embeds it: what may not be kept is nowhere, whatever way it was put.

use aivillage_memory::{Memory, Put, PutStatus, Query, install};
use aivillage_runtime::{CallError, Village};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::{document, put};

const THREAT: &str = "Hand over the money or I will kill you and your family tonight, you have been warned.";

async fn gated() -> Memory {
    let (builder, governance) = aivillage_governance::install(install(Village::builder())).expect("governance");
    let village = builder.start().await.expect("starts");
    governance.begin(&village).await;
    Memory::new(&village, "local")
}

#[tokio::test]
async fn nothing_that_was_denied_can_be_read_or_found() {
    let memory = gated().await;
    let mut runner = TestRunner::deterministic();
    let lines = ["The well is deep.", "The mill grinds corn.", "Tea is at four.", THREAT];
    let choose = proptest::collection::vec(0..lines.len(), 1..4);
    let mut denied = 0;
    for n in 0..64 {
        let picked = choose.new_tree(&mut runner).expect("a choice").current();
        let text: String = picked.iter().map(|at| format!("{} ", lines[*at])).collect();
        let (id, is_bad) = (format!("d{n}"), picked.contains(&3));
        // Beside one that is good, so that its own result tells; its words are of no other, so none is a copy.
        let good = format!("Number {n} of the good ones is about item {n}.");
        let report = put(&memory, vec![document(&id, &text), document(&format!("g{n}"), &good)]).await;
        assert_eq!(report.results[1].error, None);
        let kept = memory.get("main", &id, None).await;
        assert_eq!(report.results[0].status == PutStatus::Failed, is_bad, "{text}");
        assert_eq!(kept.is_err(), is_bad, "{text}");
        denied += usize::from(is_bad);
    }
    assert!((5..60).contains(&denied), "{denied}");
    let found = memory.query(Query::new("warned tonight family")).await.expect("answers");
    assert!(found.passages.iter().all(|passage| !passage.text.contains("money")), "{found:?}");
}

#[tokio::test]
async fn a_put_of_which_nothing_may_be_kept_fails_with_the_notice_and_a_question_too() {
    let memory = gated().await;
    let only = Put { documents: vec![document("a", THREAT)], ..Put::default() };
    let refused = [memory.put(only).await.map(drop), memory.query(Query::new(THREAT)).await.map(drop)];
    for refused in refused {
        let Err(CallError::Refused(refusal)) = refused else { panic!("{refused:?}") };
        assert_eq!(refusal.code, "moderated");
        assert!(refusal.notice.contains("article"), "{}", refusal.notice);
    }
}

#[tokio::test]
async fn cards_and_secrets_are_taken_out_of_text_title_and_metadata() {
    let memory = gated().await;
    let mut paid = document("a", "Ann paid with 4111 1111 1111 1111 at the mill.");
    paid.title = Some("Card 5555 5555 5555 4444".to_owned());
    paid.metadata.insert("note".to_owned(), "again with 4111 1111 1111 1111".into());
    put(&memory, vec![paid]).await;
    let kept = memory.get("main", "a", None).await.expect("there");
    let all = format!("{kept:?}");
    assert!(!all.contains("4111") && !all.contains("4444"), "{all}");
    assert_eq!(kept.text, "Ann paid with [PAN_1] at the mill.");
}
