//! Every message and every answer of the agents is the same after it went to another node.

use aivillage_actors::agent::{Agent, AgentMsg, NoteText, RecallQuery, ToolRequest};
use aivillage_actors::conversation::{Conversation, ConversationMsg, HistoryQuery, Message, Role};
use aivillage_actors::model::{ModelActor, ModelHealth, ModelMsg};
use aivillage_actors::personal::Note;
use aivillage_actors::provider::openai::{GenRequest, Generation};
use aivillage_actors::roster::{RosterActor, RosterMsg};
use aivillage_actors::wire::openai::{
    ChatMessage, Content, FunctionCall, FunctionSpec, Part, ToolCall, ToolSpec, Usage,
};
use aivillage_actors::{AgentCard, Answer, AskRequest, Citation, Finish, Step};
use aivillage_runtime::testing::{asked, sent};
use serde_json::json;
use uuid::Uuid;

/// Asks with a message that carries `sent`, or nothing, and checks it and the answer.
macro_rules! check {
    ($kind:ty, $message:path, $sent:expr, $answer:expr) => {{
        let (sent, answer) = ($sent, $answer);
        let open = |body| match body {
            $message(got, reply) => {
                assert_eq!(got, $sent);
                reply
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(asked::<$kind, _>(|reply| $message(sent, reply), open, answer), Ok($answer));
    }};
    ($kind:ty, $message:path, $answer:expr) => {{
        let open = |body| match body {
            $message(reply) => reply,
            other => panic!("{other:?}"),
        };
        assert_eq!(asked::<$kind, _>($message, open, $answer), Ok($answer));
    }};
}

fn usage() -> Usage {
    Usage { prompt_tokens: u64::MAX, completion_tokens: 1, total_tokens: 0 }
}

fn card() -> AgentCard {
    AgentCard {
        id: "sage".into(),
        name: "\u{dc}".into(),
        category: "c".into(),
        purpose: "p".into(),
        capabilities: vec!["a".into(), "b".into()],
        tools: Vec::new(),
    }
}

#[test]
fn messages_of_an_agent() {
    let asked_for = || AskRequest {
        input: "two\nlines".into(),
        conversation: Some("c".into()),
        stream_to: None,
        provider: Some("openai:main".into()),
        depth: u32::MAX,
        turn: Some(Uuid::from_u128(1)),
    };
    let citation = Citation {
        n: 1,
        doc: "d".into(),
        collection: "c".into(),
        title: "t".into(),
        url: None,
        quote: "q".into(),
        span: (3, u32::MAX),
        trust: 0.1,
    };
    let step = |args| Step { n: 1, kind: "tool".into(), name: None, args, ok: true, ms: 7, detail: "d".into() };
    let args = json!({ "deep": [null, -1, 0.1, u64::MAX, { "er": "x" }] });
    let answer = || Answer {
        answer: "a [1]".into(),
        citations: vec![citation.clone(), Citation { url: Some("u".into()), ..citation.clone() }],
        steps: vec![step(None), step(Some(args.clone()))],
        provider: "extractive".into(),
        answerable: true,
        finish: Finish::LoopDetected,
        conversation: "c".into(),
        usage: usage(),
        trace_id: Some("t".into()),
        tainted: true,
    };
    check!(Agent, AgentMsg::Ask, asked_for(), answer());
    check!(Agent, AgentMsg::Ask, AskRequest::default(), Answer::default());
    check!(Agent, AgentMsg::CallTool, ToolRequest { tool: "calc".into(), args: args.clone() }, args.clone());
    check!(Agent, AgentMsg::CallTool, ToolRequest { tool: "calc".into(), args: json!(null) }, json!(null));
    check!(Agent, AgentMsg::Describe, card());
    let note = || Note { id: u64::MAX, at_ms: 1, text: "t".into() };
    check!(Agent, AgentMsg::Remember, NoteText { text: "t".into() }, note());
    check!(Agent, AgentMsg::Recall, RecallQuery { text: String::new(), limit: 9 }, vec![note(); 3]);
    check!(Agent, AgentMsg::Forget, u64::MAX, true);
}

#[test]
fn messages_of_a_conversation() {
    let said = |role| Message { role, agent: "sage".into(), text: "t".repeat(100_000), at_ms: u64::MAX };
    let messages = || vec![said(Role::User), said(Role::Agent)];
    check!(Conversation, ConversationMsg::Append, messages(), u64::MAX);
    check!(Conversation, ConversationMsg::History, HistoryQuery { limit: u32::MAX }, messages());
    check!(Conversation, ConversationMsg::Delete, true);
}

#[test]
fn messages_of_a_model() {
    // Arguments are JSON in a text, and must stay a text.
    let function = FunctionCall { name: "f".into(), arguments: "{\"a\": 1}".into() };
    let call = ToolCall { index: None, id: Some("i".into()), kind: Some("function".into()), function };
    let part = |text| Part { kind: "text".into(), text };
    let parts = Content::Parts(vec![part(Some("p".into())), part(None)]);
    let spec = |parameters| ToolSpec {
        kind: "function".into(),
        function: FunctionSpec { name: "f".into(), description: None, parameters },
    };
    let request = || GenRequest {
        messages: vec![
            ChatMessage::text("user", "7"),
            ChatMessage { content: Some(parts.clone()), name: Some("n".into()), ..ChatMessage::text("user", "") },
            ChatMessage { content: None, tool_calls: vec![call.clone()], ..ChatMessage::text("assistant", "") },
            ChatMessage { tool_call_id: Some("i".into()), ..ChatMessage::text("tool", "null") },
        ],
        tools: vec![spec(None), spec(Some(json!({ "type": "object", "properties": {} })))],
        temperature: Some(0.1),
        max_tokens: None,
        stream_to: Some("topic".into()),
    };
    let generation = || Generation { text: "t".into(), tool_calls: vec![call.clone()], usage: usage(), cut: true };
    check!(ModelActor, ModelMsg::Generate, request(), generation());
    check!(ModelActor, ModelMsg::Generate, GenRequest::default(), Generation::default());
    check!(ModelActor, ModelMsg::Health, ModelHealth { accepting: true });
    for ended in [None, Some(false), Some(true)] {
        assert!(matches!(sent::<ModelActor>(&ModelMsg::Ended(ended)), Ok(ModelMsg::Ended(got)) if got == ended));
    }
}

#[test]
fn messages_of_the_roster() {
    check!(RosterActor, RosterMsg::List, vec![card(); 2]);
    check!(RosterActor, RosterMsg::Card, "sage".to_owned(), card());
}
