//! The `OpenAI` chat shapes, lenient in what they read and exact in what they write.
//!
//! Servers that call themselves compatible leave out `object`, send an empty `finish_reason`, number tool calls
//! from one or answer `content: null`; every field that the village can do without is therefore optional, and unknown
//! fields are ignored. The edge reads [`ChatRequest`] and writes [`ChatResponse`] and [`ChatChunk`]; the provider does the reverse.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Reads `null` as the default: servers write `"content": null` and `"tool_calls": null`.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// `POST /v1/chat/completions`, the body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatRequest {
    /// `village`, an agent, `agent@provider` or `provider:<provider>/<model>`.
    #[serde(default)]
    pub model: String,
    /// The dialogue, oldest first.
    #[serde(default)]
    pub messages: Vec<ChatMessage>,
    /// Whether the answer comes as server-sent events.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stream: bool,
    /// What a stream carries beside the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Functions that the model may call.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolSpec>,
    /// `"auto"`, `"none"`, `"required"` or one named function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    /// `{"type": "text" | "json_object" | "json_schema", ..}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// Sampling temperature, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Nucleus mass, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Most tokens of the answer (older name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Most tokens of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
    /// A string, or a list of strings, that end the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Value>,
    /// Seed of the sampler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Number of answers; only 1 is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Token probabilities; not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// The caller's own user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Free key-value pairs of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
}

/// `stream_options`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamOptions {
    /// Whether a last chunk with empty `choices` carries the usage.
    #[serde(default)]
    pub include_usage: bool,
}

/// One message of the dialogue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[serde(default)]
    pub role: String,
    /// What was said; absent in an assistant message that only calls tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// Name of the speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls that the assistant asks for.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// In a `tool` message: the call that is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// In an answer of the village: where the text is from.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
}

impl ChatMessage {
    /// A message of `role` with plain text.
    #[must_use]
    pub fn text(role: &str, text: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: Some(Content::Text(text.into())), ..Self::default() }
    }

    /// The message's text, parts joined by line breaks; empty when there is none.
    #[must_use]
    pub fn plain(&self) -> String {
        match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => {
                parts.iter().filter_map(|part| part.text.as_deref()).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// Content of a message: a string or typed parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Typed parts; the village reads those of type `text`.
    Parts(Vec<Part>),
}

impl Content {
    /// Type of the first part that is not text, if any: the edge refuses it by name.
    #[must_use]
    pub fn unsupported(&self) -> Option<&str> {
        match self {
            Self::Text(_) => None,
            Self::Parts(parts) => parts.iter().map(|part| part.kind.as_str()).find(|kind| *kind != "text"),
        }
    }
}

/// One typed part of a message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// `text`, `image_url`, `input_audio`, `file`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The text of a text part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A function offered to the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolSpec {
    /// Always `function`.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// The function.
    #[serde(default)]
    pub function: FunctionSpec,
}

fn function() -> String {
    "function".to_owned()
}

/// Name, purpose and argument schema of a function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionSpec {
    /// The name, `[a-zA-Z0-9_-]{1,64}` for most servers.
    #[serde(default)]
    pub name: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

/// A call that the assistant asks for; in a stream, a piece of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// Position among the calls of the message; only in streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Id that the tool message refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Always `function`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name and arguments.
    #[serde(default, deserialize_with = "null_as_default")]
    pub function: FunctionCall,
}

/// Name and arguments of a call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionCall {
    /// The function's name; empty in later pieces of a stream.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// JSON text of the arguments. Some servers send the object itself: it is read as its text.
    #[serde(default, deserialize_with = "text_or_json")]
    pub arguments: String,
}

fn text_or_json<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    })
}

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatResponse {
    /// Id of the completion.
    #[serde(default, deserialize_with = "null_as_default")]
    pub id: String,
    /// Always `chat.completion`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub object: String,
    /// Unix seconds.
    #[serde(default, deserialize_with = "null_as_default")]
    pub created: u64,
    /// The model that answered.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// The answers; the village writes and reads one.
    #[serde(default, deserialize_with = "null_as_default")]
    pub choices: Vec<Choice>,
    /// Token counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The village's own additions: citations, steps, provider, trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub village: Option<Value>,
    /// Set by servers that report a failure with status 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// Position among the answers.
    #[serde(default)]
    pub index: u32,
    /// The message.
    #[serde(default)]
    pub message: ChatMessage,
    /// `stop`, `length`, `tool_calls`, `content_filter`.
    #[serde(default)]
    pub finish_reason: Option<String>,
}

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatChunk {
    /// Id of the completion, the same in every chunk.
    #[serde(default, deserialize_with = "null_as_default")]
    pub id: String,
    /// Always `chat.completion.chunk`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub object: String,
    /// Unix seconds.
    #[serde(default, deserialize_with = "null_as_default")]
    pub created: u64,
    /// The model that answers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub model: String,
    /// Pieces of the answers; empty in the usage chunk.
    #[serde(default, deserialize_with = "null_as_default")]
    pub choices: Vec<ChunkChoice>,
    /// Token counts, in the last chunk when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The village's own additions, in its last chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub village: Option<Value>,
    /// A failure after the first byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
}

/// A piece of one answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChunkChoice {
    /// Position among the answers.
    #[serde(default)]
    pub index: u32,
    /// What is new.
    #[serde(default, deserialize_with = "null_as_default")]
    pub delta: Delta,
    /// Set in the last piece. Some servers send an empty string until then.
    #[serde(default)]
    pub finish_reason: Option<String>,
}

/// What a piece adds to the message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delta {
    /// `assistant`, in the first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// New text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Pieces of tool calls.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// Token counts; the extractive provider counts Unicode words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens read.
    #[serde(default, deserialize_with = "null_as_default")]
    pub prompt_tokens: u64,
    /// Tokens written.
    #[serde(default, deserialize_with = "null_as_default")]
    pub completion_tokens: u64,
    /// Their sum.
    #[serde(default, deserialize_with = "null_as_default")]
    pub total_tokens: u64,
}

/// Where a part of an answer is from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Annotation {
    /// Always `url_citation`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The citation.
    pub url_citation: UrlCitation,
}

/// A cited place; offsets count characters of the message's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UrlCitation {
    /// First character of the cited sentence.
    pub start_index: usize,
    /// One past its last character.
    pub end_index: usize,
    /// Address of the document; a `village:` address when it has none of its own.
    pub url: String,
    /// Title of the document.
    pub title: String,
}

/// `{"error": {..}}`, the body of a refusal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The error.
    #[serde(default)]
    pub error: ApiError,
}

/// The error dialect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiError {
    /// What was wrong.
    #[serde(default, deserialize_with = "null_as_default")]
    pub message: String,
    /// Class, such as `invalid_request_error`.
    #[serde(rename = "type", default, deserialize_with = "null_as_default")]
    pub kind: String,
    /// The field at fault.
    #[serde(default)]
    pub param: Option<String>,
    /// Stable code; some servers send a number.
    #[serde(default)]
    pub code: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn near_compatible_chunks_are_read() {
        let chunk: ChatChunk = serde_json::from_value(json!({
            "choices": [{"delta": {"content": null, "tool_calls": [{"function": {"name": null, "arguments": {"a": 1}}}]},
                         "finish_reason": ""}],
            "service_tier": "unheard-of", "usage": null
        }))
        .unwrap();
        let call = &chunk.choices[0].delta.tool_calls[0];
        assert_eq!((call.function.name.as_str(), call.function.arguments.as_str()), ("", "{\"a\":1}"));
        assert_eq!(chunk.usage, None);
    }

    #[test]
    fn content_may_be_a_string_or_parts() {
        let request: ChatRequest = serde_json::from_value(json!({
            "model": "sage",
            "messages": [{"role": "user", "content": "one"},
                         {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}]},
                         {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
        }))
        .unwrap();
        assert_eq!(request.messages[0].plain(), "one");
        assert_eq!(request.messages[1].plain(), "two\nthree");
        assert_eq!(request.messages[2].content.as_ref().unwrap().unsupported(), Some("image_url"));
    }

    #[test]
    fn an_empty_request_serialises_without_nulls() {
        let text = serde_json::to_string(&ChatRequest { model: "m".into(), ..ChatRequest::default() }).unwrap();
        assert_eq!(text, r#"{"model":"m","messages":[],"stream":false}"#);
    }
}
