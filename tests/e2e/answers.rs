//! Extractive answers: only what the documents say, and an honest no.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::place;

const CORPUS: [(&str, &str); 4] = [
    (
        "bees",
        "A bee colony in summer holds about 50,000 workers. The queen lays up to 2,000 eggs a day. Drones have no sting.",
    ),
    (
        "bread",
        "Sourdough rises for twelve hours at room temperature. The oven is heated to 250 degrees. Salt slows the yeast.",
    ),
    ("canal", "The canal was finished in 1869. It is 193 kilometres long. Ships pass it in about eleven hours."),
    ("moss", "Moss has no roots. It drinks through its leaves. A dry moss can wake up after years."),
];

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The answer without its `[n]` markers, sentence by sentence.
fn sentences(answer: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = answer;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        rest = match after.split_once(']') {
            Some((number, tail)) if number.bytes().all(|byte| byte.is_ascii_digit()) => tail,
            _ => after,
        };
    }
    plain.push_str(rest);
    plain.split(". ").map(|part| part.trim().trim_end_matches('.').to_owned()).filter(|part| !part.is_empty()).collect()
}

#[tokio::test]
async fn answers_are_made_of_verbatim_sentences() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    node.put(&CORPUS).await?;
    let questions = [
        ("How many eggs does the queen lay a day?", "2,000 eggs"),
        ("How long is the canal?", "193 kilometres"),
        ("How long does sourdough rise?", "twelve hours"),
        ("How does moss drink?", "through its leaves"),
    ];
    for (question, expected) in questions {
        let answer = node.ask("sage", question).await?;
        let said = text(&answer, "answer");
        ensure!(said.contains(expected), "{question} -> {answer}");
        ensure!(text(&answer, "provider") == "extractive", "{answer}");
        for sentence in sentences(said) {
            ensure!(
                CORPUS.iter().any(|(_, document)| document.contains(&sentence)),
                "{sentence:?} is in no document: {said}"
            );
        }
        for citation in answer.get("citations").and_then(Value::as_array).context("no citations")? {
            let (quote, doc) = (text(citation, "quote"), text(citation, "doc"));
            let document = CORPUS.iter().find(|(id, _)| *id == doc).context("the citation names no document")?;
            ensure!(document.1.contains(quote), "{quote:?} is not in {doc}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_no_document_says_is_not_answered() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    node.put(&CORPUS).await?;
    for question in [
        "Who won the chess olympiad in Tromsø?",
        "What is the boiling point of tungsten?",
        "Which password opens the vault?",
    ] {
        let answer = node.ask("sage", question).await?;
        ensure!(answer.get("answerable") == Some(&Value::Bool(false)), "{question} -> {answer}");
        ensure!(answer.get("citations").and_then(Value::as_array).is_some_and(Vec::is_empty), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_conversation_goes_on() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    node.put(&CORPUS).await?;
    let first = node.ask("sage", "How long is the canal?").await?;
    let conversation = text(&first, "conversation");
    ensure!(!conversation.is_empty(), "{first}");
    let ran = place
        .run([
            "ask",
            "sage",
            "How many hours do ships take to pass the canal?",
            "--conversation",
            conversation,
            "--json",
        ])
        .await?;
    let second = ran.expect(0)?.json()?;
    ensure!(text(&second, "conversation") == conversation, "{second}");
    let history = node.get(&format!("/v1/conversations/{conversation}")).await?.to_string();
    ensure!(
        history.contains("How long is the canal?") && history.contains("How many hours do ships take"),
        "{history}"
    );
    Ok(())
}
