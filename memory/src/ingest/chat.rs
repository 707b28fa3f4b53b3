//! Conversations: one block per turn, with its speaker and, where known, its time.

use serde_json::Value;

use crate::document::{Document, Format};

/// Makes a document of a list of messages, or of an object with one under `messages`; `None` if it is something else.
pub(super) fn parse(name: &str, value: &Value) -> Option<Document> {
    let turns = value.as_array().or_else(|| value.get("messages").and_then(Value::as_array))?;
    if turns.is_empty() {
        return None;
    }
    let blocks: Option<Vec<String>> = turns.iter().map(turn).collect();
    let title = value.get("title").and_then(Value::as_str).map_or_else(|| name.to_owned(), str::to_owned);
    Some(Document { title: Some(title), text: blocks?.join("\n\n"), format: Format::Blocks, ..Document::default() })
}

/// `speaker (time): words`, blank lines inside taken out since they separate turns.
fn turn(message: &Value) -> Option<String> {
    let field = |names: &[&str]| names.iter().find_map(|name| message.get(name));
    let speaker = field(&["role", "speaker", "author", "from", "user"])?.as_str()?;
    let words = match field(&["content", "text", "message"])? {
        Value::String(words) => words.clone(),
        Value::Array(parts) => {
            let texts: Vec<_> = parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
            texts.join("\n")
        }
        _ => return None,
    };
    let time = field(&["time", "timestamp", "created_at", "date"]).map(|time| match time {
        Value::String(time) => format!(" ({time})"),
        other => format!(" ({other})"),
    });
    let lines: Vec<_> = words.lines().filter(|line| !line.trim().is_empty()).collect();
    Some(format!("{speaker}{}: {}", time.unwrap_or_default(), lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_carry_speaker_and_time() {
        let value = serde_json::json!({ "title": "Well", "messages": [
            { "speaker": "ada", "time": "10:00", "text": "is it\n\ndeep?" },
            { "role": "bob", "content": [{ "type": "text", "text": "very" }] },
        ]});
        let document = parse("c.json", &value).expect("a conversation");
        assert_eq!(document.text, "ada (10:00): is it\ndeep?\n\nbob: very");
        assert_eq!(document.title.as_deref(), Some("Well"));
    }

    #[test]
    fn other_lists_are_no_conversation() {
        assert_eq!(parse("x", &serde_json::json!([{ "id": 1 }])), None);
        assert_eq!(parse("x", &serde_json::json!([])), None);
    }
}
