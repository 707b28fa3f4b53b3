//! The `OpenAI` chat surface: what is read, what is refused by name, and how an answer is written.

use aivillage_actors::wire::openai::{
    Annotation, ChatChunk, ChatMessage, ChatRequest, ChatResponse, Choice, ChunkChoice, Content, Delta, UrlCitation,
};
use aivillage_actors::{Answer, Finish};
use serde_json::{Value, json};

use crate::error::{ApiError, Code};

/// The model that lets the village choose the agent.
pub(crate) const VILLAGE: &str = "village";
/// The agent that chooses.
const CHOOSER: &str = "king";

/// Who is to answer: `village` | `<agent>` | `<agent>@<provider>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    /// The agent.
    pub(crate) agent: String,
    /// The provider that composes, if named.
    pub(crate) provider: Option<String>,
}

impl Model {
    /// Reads a model id. Whether agent and provider exist is for them to say.
    pub(crate) fn parse(id: &str) -> Result<Self, ApiError> {
        let (agent, provider) = match id.split_once('@') {
            Some((agent, provider)) => (agent, Some(provider)),
            None => (id, None),
        };
        let name = |text: &str| {
            !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@".contains(&b))
        };
        if !name(agent) || provider.is_some_and(|provider| !name(provider)) {
            return Err(not_found(id));
        }
        let agent = if agent == VILLAGE { CHOOSER } else { agent };
        Ok(Model { agent: agent.to_owned(), provider: provider.map(str::to_owned) })
    }
}

/// The refusal of an unknown model.
pub(crate) fn not_found(id: &str) -> ApiError {
    let shown: String = id.chars().take(64).collect();
    ApiError::new(
        Code::ModelNotFound,
        format!("the model {shown:?} does not exist; use \"village\", an agent or agent@provider, see /v1/models"),
    )
    .param("model")
}

/// Refuses what is not served, naming the parameter.
pub(crate) fn check(request: &ChatRequest) -> Result<(), ApiError> {
    let refuse = |name: &str, why: &str| Err(ApiError::new(Code::UnsupportedParameter, why).param(name));
    if request.n.is_some_and(|n| n != 1) {
        return refuse("n", "only n = 1 is served");
    }
    if request.logprobs == Some(true) {
        return refuse("logprobs", "token probabilities are not served");
    }
    if forces_a_tool(request.tool_choice.as_ref()) {
        return refuse("tool_choice", "the agents choose their own tools; leave tool_choice at \"auto\" or \"none\"");
    }
    if request.messages.is_empty() {
        return Err(ApiError::new(Code::BadRequest, "messages must not be empty").param("messages"));
    }
    for (at, message) in request.messages.iter().enumerate() {
        if !matches!(message.role.as_str(), "system" | "developer" | "user" | "assistant" | "tool") {
            let name = format!("messages[{at}].role");
            return refuse(&name, "a role is one of system, developer, user, assistant, tool");
        }
        if let Some(kind) = message.content.as_ref().and_then(Content::unsupported) {
            let kind: String = kind.chars().take(64).collect();
            return Err(ApiError::new(Code::UnsupportedContent, format!("content of type {kind:?} is not understood"))
                .param(format!("messages[{at}].content")));
        }
    }
    Ok(())
}

fn forces_a_tool(choice: Option<&Value>) -> bool {
    match choice {
        None | Some(Value::Null) => false,
        Some(Value::String(word)) => word == "required",
        Some(_) => true,
    }
}

/// The question: the text of the newest user message.
pub(crate) fn question(request: &ChatRequest) -> Result<String, ApiError> {
    let newest = request.messages.iter().rev().find(|message| message.role == "user");
    let text = newest.map(ChatMessage::plain).unwrap_or_default();
    if text.trim().is_empty() {
        return Err(ApiError::new(Code::BadRequest, "there is no user message with text").param("messages"));
    }
    Ok(text)
}

/// What is the same in all parts of one completion.
#[derive(Debug, Clone)]
pub(crate) struct Completion {
    id: String,
    created: u64,
    model: String,
}

impl Completion {
    /// A new completion under the model name that was asked for.
    pub(crate) fn new(model: &str, created: u64) -> Self {
        let id = format!("chatcmpl-{}", uuid::Uuid::now_v7().simple());
        Completion { id, created, model: model.to_owned() }
    }

    /// The whole answer.
    pub(crate) fn response(&self, answer: &Answer) -> ChatResponse {
        let mut message = ChatMessage::text("assistant", answer.answer.clone());
        message.annotations = annotations(answer);
        ChatResponse {
            id: self.id.clone(),
            object: "chat.completion".into(),
            created: self.created,
            model: self.model.clone(),
            choices: vec![Choice { index: 0, message, finish_reason: Some(reason(answer.finish).into()) }],
            usage: Some(answer.usage),
            village: Some(additions(answer)),
            error: None,
        }
    }

    fn chunk(&self, delta: Delta, finish_reason: Option<&str>) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".into(),
            created: self.created,
            model: self.model.clone(),
            choices: vec![ChunkChoice { index: 0, delta, finish_reason: finish_reason.map(str::to_owned) }],
            usage: None,
            village: None,
            error: None,
        }
    }

    /// The first chunk: who speaks.
    pub(crate) fn opening(&self) -> ChatChunk {
        self.chunk(Delta { role: Some("assistant".into()), content: Some(String::new()), tool_calls: Vec::new() }, None)
    }

    /// A chunk of text.
    pub(crate) fn text(&self, text: String) -> ChatChunk {
        self.chunk(Delta { role: None, content: Some(text), tool_calls: Vec::new() }, None)
    }

    /// The last chunk of text: why it ended, and the village's additions.
    pub(crate) fn ending(&self, answer: &Answer) -> ChatChunk {
        ChatChunk { village: Some(additions(answer)), ..self.chunk(Delta::default(), Some(reason(answer.finish))) }
    }

    /// The chunk with the counts and no choice.
    pub(crate) fn usage(&self, answer: &Answer) -> ChatChunk {
        ChatChunk { choices: Vec::new(), usage: Some(answer.usage), ..self.chunk(Delta::default(), None) }
    }
}

/// What of `answer` has not been streamed yet. A provider that streamed something else (a retry) cannot be taken back.
pub(crate) fn unsent<'a>(answer: &'a str, sent: &str) -> &'a str {
    answer.strip_prefix(sent).unwrap_or("")
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Limit | Finish::Cut => "length",
        _ => "stop",
    }
}

fn additions(answer: &Answer) -> Value {
    let unit = if answer.provider.starts_with("openai:") { "tokens" } else { "words" };
    json!({
        "citations": answer.citations,
        "steps": answer.steps,
        "provider": answer.provider,
        "answerable": answer.answerable,
        "conversation": answer.conversation,
        "usage_unit": unit,
        "trace_id": answer.trace_id,
    })
}

/// One annotation for each `[n]` marker: it covers the text between the marker before it and itself.
fn annotations(answer: &Answer) -> Vec<Annotation> {
    let chars: Vec<char> = answer.answer.chars().collect();
    let mut found = Vec::new();
    let mut from = 0;
    let mut at = 0;
    while at < chars.len() {
        let Some((n, len)) = marker(chars.get(at..).unwrap_or(&[])) else {
            at += 1;
            continue;
        };
        if let Some(citation) = answer.citations.iter().find(|citation| citation.n == n) {
            let spaces = |range: &[char]| range.iter().take_while(|c| c.is_whitespace()).count();
            let start = from + spaces(chars.get(from..at).unwrap_or(&[]));
            let trailing = chars.get(start..at).unwrap_or(&[]).iter().rev().take_while(|c| c.is_whitespace()).count();
            let url = citation.url.clone();
            found.push(Annotation {
                kind: "url_citation".into(),
                url_citation: UrlCitation {
                    start_index: start,
                    end_index: at.saturating_sub(trailing),
                    url: url.unwrap_or_else(|| format!("village:{}/{}", citation.collection, citation.doc)),
                    title: citation.title.clone(),
                },
            });
        }
        at += len;
        from = at;
    }
    found
}

/// The number and length of a `[n]` marker at the start of `text`.
fn marker(text: &[char]) -> Option<(u32, usize)> {
    let inner = text.strip_prefix(&['['])?;
    let digits: String = inner.iter().take_while(|c| c.is_ascii_digit()).take(3).collect();
    (inner.get(digits.len()) == Some(&']')).then_some(())?;
    Some((digits.parse().ok()?, digits.len() + 2))
}

#[cfg(test)]
mod tests {
    use aivillage_actors::Citation;
    use proptest::prelude::*;

    use super::*;

    fn cited(text: &str) -> Answer {
        let citation = |n: u32| Citation {
            n,
            doc: format!("d{n}"),
            collection: "main".into(),
            title: format!("T{n}"),
            url: (n == 2).then(|| "https://x".to_owned()),
            quote: String::new(),
            span: (0, 0),
            trust: 0.5,
        };
        Answer { answer: text.into(), citations: vec![citation(1), citation(2)], ..Answer::default() }
    }

    #[test]
    fn model_ids_follow_the_grammar() {
        let model =
            |agent: &str, provider: Option<&str>| Model { agent: agent.into(), provider: provider.map(Into::into) };
        assert_eq!(Model::parse("village").unwrap(), model("king", None));
        assert_eq!(Model::parse("sage").unwrap(), model("sage", None));
        assert_eq!(Model::parse("sage@openai:local").unwrap(), model("sage", Some("openai:local")));
        for bad in ["", "@", "sage@", "a b", "a@b@c", "ü"] {
            assert_eq!(Model::parse(bad).unwrap_err().code(), "model_not_found", "{bad}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let body = |extra: Value| {
            let mut body = json!({"model": "sage", "messages": [{"role": "user", "content": "hi"}]});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            serde_json::from_value::<ChatRequest>(body).unwrap()
        };
        assert!(check(&body(json!({"n": 1, "temperature": 0.2, "tool_choice": "auto", "made_up": 1}))).is_ok());
        let cases = [
            (json!({"n": 2}), "n"),
            (json!({"logprobs": true}), "logprobs"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": [{"role": "robot"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "messages[0].content"),
        ];
        for (extra, param) in cases {
            let error = check(&body(extra)).unwrap_err();
            assert_eq!(error.openai("t")["error"]["param"], param);
            assert_eq!(error.status().as_u16(), 400);
        }
    }

    #[test]
    fn annotations_cover_the_sentence_before_the_marker() {
        let answer = cited("Äpfel sind rot. [1] Birnen sind grün. [2] Rest [9].");
        let spans: Vec<_> = annotations(&answer)
            .into_iter()
            .map(|a| (a.url_citation.start_index, a.url_citation.end_index, a.url_citation.url))
            .collect();
        assert_eq!(spans, [(0, 15, "village:main/d1".to_owned()), (20, 37, "https://x".to_owned())]);
    }

    #[test]
    fn question_is_the_newest_user_message() {
        let request: ChatRequest = serde_json::from_value(json!({"messages": [
            {"role": "user", "content": "old"},
            {"role": "user", "content": [{"type": "text", "text": "new"}]},
            {"role": "assistant", "content": null},
        ]}))
        .unwrap();
        assert_eq!(question(&request).unwrap(), "new");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn annotations_lie_within_any_text(text in "[\\[\\]0-9 aä.]{0,40}") {
            for annotation in annotations(&cited(&text)) {
                let UrlCitation { start_index, end_index, .. } = annotation.url_citation;
                prop_assert!(start_index <= end_index && end_index <= text.chars().count());
            }
        }
    }
}
