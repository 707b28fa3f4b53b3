//! `village ask`: one question to one agent, the answer with its sources.

use std::io::{IsTerminal as _, Read as _};

use clap::Args;
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::{Client, ServerEvent},
    output::{self, BOLD, DIM, NAME, WARN, items, paint, text},
};

/// Longest line of an answer; longer ones are hard to read on any terminal.
const WIDTH: usize = 100;

/// Arguments of `village ask`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village ask sage \"how do I descale the kettle?\"
  village ask sage --conversation 0198c0de-0000-7000-8000-000000000001 \"and how often?\"
  cat question.txt | village ask king -")]
pub(crate) struct Ask {
    /// Who is asked; `village agents` lists them.
    agent: String,
    /// The question; `-` reads it from standard input.
    #[arg(required = true)]
    text: Vec<String>,
    /// Go on with an earlier conversation.
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
    /// Wait for the whole answer instead of printing it as it comes (the default when piped).
    #[arg(long)]
    no_stream: bool,
}

impl Ask {
    /// Asks and prints.
    ///
    /// # Errors
    /// Unknown agent, no village, or an answer that broke off.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let stream = output::is_terminal() && !self.no_stream && !global.json;
        let path = ["v1", "agents", &self.agent, "ask"];
        let input = question(&self.text)?;
        let client = Client::open(global)?;
        let mut body = json!({ "input": input, "stream": stream });
        if let (Some(conversation), Some(body)) = (&self.conversation, body.as_object_mut()) {
            body.insert("conversation".into(), conversation.as_str().into());
        }
        if stream {
            return follow(&client, &path, &body).await;
        }
        let answer = client.post(&path, &body).await?;
        if global.json {
            output::json(&answer);
        } else {
            output::say(output::wrap(text(&answer, "answer"), WIDTH, ""));
            print_tail(&answer);
        }
        Ok(())
    }
}

fn question(words: &[String]) -> Result<String, Failure> {
    let mut input = words.join(" ");
    if input == "-" {
        input.clear();
        std::io::stdin()
            .read_to_string(&mut input)
            .map_err(|error| Failure::new(Exit::Usage, format!("cannot read the question: {error}")))?;
    }
    match input.trim() {
        "" => Err(Failure::new(Exit::Usage, "the question is empty")),
        input => Ok(input.to_owned()),
    }
}

/// Prints the answer's text as it comes, then its sources.
async fn follow(client: &Client, path: &[&str], body: &Value) -> Outcome {
    let mut events = client.stream(path, body).await?;
    let mut printed = false;
    while let Some(event) = events.next().await {
        match step(event?)? {
            Step::Text(part) => {
                output::say_part(&part);
                printed = true;
            }
            Step::Doing(what) if std::io::stderr().is_terminal() && !printed => {
                output::note(paint(DIM, format_args!("· {what}")));
            }
            Step::Done(answer) => {
                if printed {
                    output::say("");
                } else {
                    output::say(output::wrap(text(&answer, "answer"), WIDTH, ""));
                }
                print_tail(&answer);
                return Ok(());
            }
            Step::Doing(_) | Step::Nothing => {}
        }
    }
    Err(Failure::new(Exit::Unavailable, "the village ended the answer early").hint("ask again"))
}

/// What an event of a turn means for the person who waits.
#[derive(Debug, PartialEq)]
enum Step {
    Text(String),
    Doing(String),
    Done(Value),
    Nothing,
}

fn step(event: ServerEvent) -> Result<Step, Failure> {
    let ServerEvent { name, data } = event;
    let name = if name.is_empty() || name == "message" { text(&data, "event").to_owned() } else { name };
    Ok(match name.as_str() {
        "delta" => Step::Text(text(&data, "text").to_owned()),
        "tool_call" => Step::Doing(format!("uses {}", first_text(&data, &["tool", "name"]))),
        "retrieved" => match passages(&data) {
            Some(count) => Step::Doing(format!("found {count} passages")),
            None => Step::Nothing,
        },
        "final" => Step::Done(match data.get("answer") {
            Some(answer) if answer.is_object() => answer.clone(),
            _ => data,
        }),
        "error" | "denied" => {
            return Err(Failure::from_answer(data.get("status").and_then(status).unwrap_or(500), &data.to_string()));
        }
        "drain" => {
            return Err(
                Failure::new(Exit::Unavailable, "the village is shutting down").hint("ask again once it is back")
            );
        }
        _ => Step::Nothing,
    })
}

fn status(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|status| u16::try_from(status).ok())
}

fn passages(data: &Value) -> Option<u64> {
    let listed = data.get("passages");
    listed
        .and_then(Value::as_array)
        .map(|list| list.len() as u64)
        .or_else(|| listed.and_then(Value::as_u64))
        .or_else(|| data.get("count").and_then(Value::as_u64))
}

fn first_text<'a>(value: &'a Value, names: &[&str]) -> &'a str {
    names.iter().map(|name| text(value, name)).find(|text| !text.is_empty()).unwrap_or_default()
}

/// Sources, or what to do when the memory holds no answer; then how to go on.
fn print_tail(answer: &Value) {
    let citations = items(answer, "citations");
    if !citations.is_empty() {
        output::say(format_args!("\n{}", paint(BOLD, "Sources")));
        for citation in citations {
            output::say(source(citation));
        }
    } else if answer.get("answerable") == Some(&Value::Bool(false)) && text(answer, "finish") == "stop" {
        output::say(paint(WARN, "\n`village memory add PATH` gives it more to read"));
    }
    let conversation = text(answer, "conversation");
    if output::is_terminal() && !conversation.is_empty() {
        output::say(paint(
            DIM,
            format_args!("\nby {} · go on with --conversation {conversation}", text(answer, "provider")),
        ));
    }
}

fn source(citation: &Value) -> String {
    let number = citation.get("n").and_then(Value::as_u64).unwrap_or_default();
    let (title, doc) = (text(citation, "title"), text(citation, "doc"));
    let place = [text(citation, "url"), doc].into_iter().find(|place| !place.is_empty() && *place != title);
    let place = place.map(|place| format!("  {}", paint(DIM, place))).unwrap_or_default();
    let title = if title.is_empty() { doc } else { title };
    let quote = text(citation, "quote").split_whitespace().collect::<Vec<_>>().join(" ");
    let quote = if quote.is_empty() {
        String::new()
    } else {
        format!("\n{}", output::wrap(&format!("“{quote}”"), WIDTH, "      "))
    };
    format!("  {} {}{place}{quote}", paint(NAME, format_args!("[{number}]")), paint(BOLD, title))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: Value) -> ServerEvent {
        ServerEvent { name: name.into(), data }
    }

    #[test]
    fn events_of_a_turn_are_understood_with_and_without_a_name() {
        assert_eq!(step(event("delta", json!({"text": "a"}))), Ok(Step::Text("a".into())));
        assert_eq!(step(event("", json!({"event": "delta", "text": "a"}))), Ok(Step::Text("a".into())));
        assert_eq!(step(event("usage", json!({}))), Ok(Step::Nothing));
        let answer = json!({"answer": "yes", "citations": []});
        assert_eq!(step(event("final", answer.clone())), Ok(Step::Done(answer.clone())));
        assert_eq!(step(event("final", json!({"answer": answer.clone()}))), Ok(Step::Done(answer)));
    }

    #[test]
    fn error_event_fails_with_its_code() {
        let failure =
            step(event("error", json!({"code": "expired", "detail": "too late", "status": 504}))).unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Unavailable, "too late"));
        let failure =
            step(event("denied", json!({"code": "forbidden", "detail": "not any more", "status": 403}))).unwrap_err();
        assert_eq!((failure.exit, failure.message.as_str()), (Exit::Refused, "not any more"));
    }

    #[test]
    fn source_shows_number_title_place_and_quote() {
        let citation = json!({"n": 2, "title": "Kettle", "doc": "notes/kettle.md", "quote": "Use\n vinegar."});
        let plain = anstream::adapter::strip_str(&source(&citation)).to_string();
        assert_eq!(plain, "  [2] Kettle  notes/kettle.md\n      “Use vinegar.”");
    }

    #[test]
    fn empty_question_is_a_usage_error() {
        assert_eq!(question(&["  ".into()]).unwrap_err().exit, Exit::Usage);
    }
}
