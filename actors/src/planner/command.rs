//! Explicit calls: `/tool.name key=value key2="two words"` and `/tool.name {json}`.

use serde_json::{Map, Value};

/// A parsed command.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Name of the tool.
    pub tool: String,
    /// Its arguments.
    pub args: Value,
}

/// Why a line that starts with a slash is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The braces do not hold a JSON object.
    #[error("the arguments of /{tool} are not a JSON object: {detail}")]
    Json {
        /// Name of the tool.
        tool: String,
        /// What the parser said.
        detail: String,
    },
    /// A word is not `key=value`.
    #[error("`{word}` in /{tool} is not key=value")]
    Pair {
        /// Name of the tool.
        tool: String,
        /// The word.
        word: String,
    },
}

/// Reads a command; `None` when the text is not one.
///
/// # Errors
/// See [`CommandError`]: the user meant a command and mistyped it.
pub fn parse(text: &str) -> Result<Option<Command>, CommandError> {
    let Some(rest) = text.trim().strip_prefix('/') else { return Ok(None) };
    let (tool, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let named =
        tool.contains('.') && tool.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c));
    if !named {
        return Ok(None);
    }
    let rest = rest.trim();
    let args = if rest.starts_with('{') { json(tool, rest)? } else { pairs(tool, rest)? };
    Ok(Some(Command { tool: tool.to_owned(), args: Value::Object(args) }))
}

fn json(tool: &str, text: &str) -> Result<Map<String, Value>, CommandError> {
    serde_json::from_str(text).map_err(|error| CommandError::Json { tool: tool.to_owned(), detail: error.to_string() })
}

fn pairs(tool: &str, text: &str) -> Result<Map<String, Value>, CommandError> {
    let mut args = Map::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = || rest.split_whitespace().next().unwrap_or(rest).to_owned();
        let Some((key, after)) =
            rest.split_once('=').filter(|(key, _)| !key.is_empty() && !key.contains(char::is_whitespace))
        else {
            return Err(CommandError::Pair { tool: tool.to_owned(), word: word() });
        };
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').map_or((quoted, ""), |(value, left)| (value, left)),
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        args.insert(key.to_owned(), typed(value, after.starts_with('"')));
        rest = left.trim_start();
    }
    Ok(args)
}

/// Unquoted numbers and truth values keep their type.
fn typed(value: &str, quoted: bool) -> Value {
    let plain = serde_json::from_str::<Value>(value).ok().filter(|value| value.is_number() || value.is_boolean());
    plain.filter(|_| !quoted).unwrap_or_else(|| Value::String(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(text: &str) -> Value {
        parse(text).unwrap().unwrap().args
    }

    #[test]
    fn pairs_and_json() {
        assert_eq!(args("/memory.search text=bees k=3"), json!({ "text": "bees", "k": 3 }));
        assert_eq!(args("/memory.search text=\"two words\" k=3"), json!({ "text": "two words", "k": 3 }));
        assert_eq!(args("/calc.eval {\"expression\": \"1 + 1\"}"), json!({ "expression": "1 + 1" }));
        assert_eq!(args("/time.now"), json!({}));
        assert_eq!(args("/self.remember text=\"7\""), json!({ "text": "7" }));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(matches!(parse("/calc.eval 1 + 1"), Err(CommandError::Pair { word, .. }) if word == "1"));
        assert!(matches!(parse("/calc.eval {1}"), Err(CommandError::Json { .. })));
    }

    #[test]
    fn paths_and_prose_are_no_commands() {
        assert_eq!(parse("/etc/passwd is a file"), Ok(None));
        assert_eq!(parse("and/or"), Ok(None));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_read_without_panic(text in "/?[a-z]{0,4}\\.?[a-z]{0,3} ?\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
