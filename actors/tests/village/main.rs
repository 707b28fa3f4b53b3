//! Agents in a whole village: rules, retrieval, models behind a stub endpoint, crashes and restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its set-up too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aivillage_actors::agent::{Agent, AgentMsg};
use aivillage_actors::answer::{NOTHING, check_citations};
use aivillage_actors::tools::{Class, Observation, Slot, Tool, ToolCx, ToolError};
use aivillage_actors::{Agents, Answer, AskRequest, Evidence, Finish, Setup, TurnEvent};
use aivillage_runtime::{CallError, TopicItem, Village, VillageBuilder};
use futures::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

mod corpus;
mod erasure;
mod gate;
mod stub;
mod wire;

/// Panics.
struct Bomb;

#[derive(Deserialize, JsonSchema)]
struct NoArgs {}

#[derive(Serialize, JsonSchema)]
struct NoOut {}

impl Tool for Bomb {
    const NAME: &'static str = "test.bomb";
    const ACTION: &'static str = "test.run";
    const CLASS: Class = Class::Compute;
    const ABOUT: &'static str = "Panics.";
    const SLOTS: &'static [Slot] = &[];
    type Args = NoArgs;
    type Out = NoOut;

    async fn call(_: ToolCx, _: NoArgs) -> Result<NoOut, ToolError> {
        panic!("on purpose")
    }

    fn observe(_: NoOut) -> Observation {
        Observation::default()
    }
}

/// Waits for ever.
struct Sleeper;

impl Tool for Sleeper {
    const NAME: &'static str = "test.sleep";
    const ACTION: &'static str = "test.run";
    const CLASS: Class = Class::Compute;
    const ABOUT: &'static str = "Waits for ever.";
    const SLOTS: &'static [Slot] = &[];
    type Args = NoArgs;
    type Out = NoOut;

    async fn call(_: ToolCx, _: NoArgs) -> Result<NoOut, ToolError> {
        std::future::pending().await
    }

    fn observe(_: NoOut) -> Observation {
        Observation::default()
    }
}

const TESTER: &str = r#"
id = "tester"
name = "Tester"
category = "test"
revision = 1
purpose = "Tests."
persona = "Brief."
capabilities = []
tools = ["test.bomb", "test.sleep", "calc.eval", "agent.delegate"]
[policy]
actions = ["test.run", "tool.compute", "agent.delegate"]
[workflow]
"#;

fn with_agents(builder: VillageBuilder) -> VillageBuilder {
    Setup::new().tool::<Bomb>(&[]).tool::<Sleeper>(&[]).install(builder).unwrap()
}

/// A village with its documents, in `dir`, with the agent `tester` beside the built-in ones.
async fn village_in(dir: &std::path::Path, config: &str) -> Village {
    std::fs::create_dir_all(dir.join("agents")).unwrap();
    std::fs::write(dir.join("agents/tester.toml"), TESTER).unwrap();
    let builder = Village::builder().config(config.parse().unwrap()).data_dir(dir);
    let village = with_agents(corpus::install(builder)).start().await.unwrap();
    corpus::fill(&village).await;
    village
}

struct Fixture {
    village: Village,
    agents: Agents,
    _dir: tempfile::TempDir,
}

async fn fixture(config: &str) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let village = village_in(dir.path(), config).await;
    Fixture { agents: Agents::new(&village, "local"), village, _dir: dir }
}

fn request(input: &str) -> AskRequest {
    AskRequest { input: input.to_owned(), ..AskRequest::default() }
}

impl Fixture {
    async fn ask(&self, agent: &str, input: &str) -> Answer {
        self.agents.ask(agent, request(input)).await.unwrap()
    }
}

#[tokio::test]
async fn sage_answers_with_verbatim_cited_sentences() {
    let village = fixture("").await;
    let answer = village.ask("sage", "When was the lighthouse of Varn built?").await;
    assert!(answer.answer.contains("It was built in 1874 by the engineer Tomas Hale. [1]"), "{answer:#?}");
    assert!(answer.answerable && answer.provider == "extractive");
    assert_eq!(answer.citations[0].title, "The lighthouse of Varn");
    let stored: Vec<Evidence> = corpus::documents();
    assert_eq!(check_citations(&answer.answer, &answer.citations, &stored), Ok(()));
}

#[tokio::test]
async fn what_is_not_in_the_memory_is_not_answered() {
    let village = fixture("").await;
    let answer = village.ask("sage", "What is the capital of Peru?").await;
    assert!(answer.answer.starts_with(NOTHING) && !answer.answerable && answer.citations.is_empty(), "{answer:#?}");
}

#[tokio::test]
async fn each_agent_does_its_work() {
    let village = fixture("").await;
    let oracle = village.ask("oracle", "what is 15% of 240?").await;
    assert_eq!((oracle.answer.as_str(), oracle.provider.as_str()), ("15% of 240 = 36", "rules"));
    let curator = village.ask("curator", "how many documents are in the memory?").await;
    assert!(curator.answer.contains("24 documents"), "{curator:#?}");
    let king = village.ask("king", "what is 6 times 7?").await;
    assert!(king.answer.ends_with("= 42") && king.steps.iter().any(|step| step.kind == "delegate"), "{king:#?}");
    let king = village.ask("king", "Who designed the iron bridge?").await;
    assert!(king.answer.contains("Clara Voss") && king.citations.len() == 1, "{king:#?}");
    let magi = village.ask("magi", "In which language is the Nettle parser written?").await;
    assert!(magi.answer.contains("Rust"), "{magi:#?}");
    let search = village.ask("magi", "find 2 passages about bats").await;
    assert!(search.citations.len() <= 2 && search.answer.contains("[1]"), "{search:#?}");
}

#[tokio::test]
async fn notes_are_kept_for_agent_and_tenant() {
    let village = fixture("").await;
    village.ask("sage", "remember that my dog is called Rex").await;
    let answer = village.ask("sage", "what did I tell you about my dog?").await;
    assert_eq!(answer.answer, "my dog is called Rex");
    let other = Agents::new(&village.village, "elsewhere")
        .ask("sage", request("what did I tell you about my dog?"))
        .await
        .unwrap();
    assert_eq!(other.answer, "I have no note about this");
}

#[tokio::test]
async fn parts_of_a_request_run_in_order() {
    let village = fixture("").await;
    let answer = village.ask("oracle", "calculate 12 * 7; then calculate $1 + 16").await;
    assert_eq!(answer.answer, "12 * 7 = 84\n84 + 16 = 100");
    let answer = village.ask("oracle", "please calculate").await;
    assert_eq!(answer.finish, Finish::AskUser);
}

#[tokio::test]
async fn a_panicking_tool_fails_the_turn_and_nothing_else() {
    let village = fixture("").await;
    let answer = village.ask("tester", "/test.bomb").await;
    assert_eq!(answer.finish, Finish::ToolFailed);
    assert!(answer.answer.contains("panicked"), "{answer:#?}");
    let error = village.agents.call_tool("tester", "test.bomb", json!({})).await.unwrap_err();
    assert_eq!(error.code(), "tool_panicked");
    assert_eq!(village.ask("tester", "/calc.eval expression=\"1 + 1\"").await.answer, "1 + 1 = 2");
    assert_eq!(village.village.actor("agent", "local:tester").unwrap().restarts, 0);
}

#[tokio::test]
async fn a_repeated_call_with_the_same_result_ends_the_turn() {
    let village = fixture("").await;
    let call = "/calc.eval expression=1+1";
    let answer = village.ask("oracle", &format!("{call}; {call}; {call}; {call}")).await;
    assert_eq!(answer.finish, Finish::LoopDetected);
    assert_eq!(answer.steps.iter().filter(|step| step.kind == "tool").count(), 2);
}

#[tokio::test]
async fn tools_have_their_authority_checked() {
    let village = fixture("").await;
    let error = village.agents.call_tool("sage", "calc.eval", json!({ "expression": "1 + 1" })).await.unwrap_err();
    assert_eq!(error.code(), "tool_denied");
    let error = village.agents.call_tool("oracle", "calc.eval", json!({ "expr": 1 })).await.unwrap_err();
    assert_eq!(error.code(), "tool_bad_args");
    let value = village.agents.call_tool("oracle", "calc.eval", json!({ "expression": "1 + 1" })).await.unwrap();
    assert_eq!(value, json!({ "expression": "1 + 1", "value": "2", "exact": true }));
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let village = fixture("").await;
    let code =
        async |id: &str, request: AskRequest| village.agents.ask(id, request).await.unwrap_err().code().into_owned();
    assert_eq!(code("sege", request("x")).await, "agent_unknown");
    assert_eq!(code("sage", request("  ")).await, "bad_request");
    assert_eq!(code("sage", request(&"x".repeat(70_000))).await, "payload_too_large");
    assert_eq!(code("sage", AskRequest { stream_to: Some("other".into()), ..request("x") }).await, "bad_request");
    assert_eq!(code("sage", AskRequest { conversation: Some("a:b".into()), ..request("x") }).await, "bad_request");
    assert_eq!(
        code("sage", AskRequest { provider: Some("openai:no".into()), ..request("x") }).await,
        "model_not_found"
    );
    let error = village.agents.card("sege").await.unwrap_err();
    assert!(error.to_string().contains("nearest: sage"), "{error}");
}

#[tokio::test]
async fn delegation_in_a_circle_ends() {
    let village = fixture("").await;
    let deep = AskRequest { depth: 3, ..request("ask sage about the flood") };
    let answer = village.agents.ask("king", deep).await.unwrap();
    assert!(answer.answer.contains("has passed 3 agents"), "{answer:#?}");
}

#[tokio::test]
async fn more_turns_than_may_wait_are_refused() {
    let village = fixture("[agents]\nmax_turns = 2\nmax_waiting = 1\n").await;
    let addr = village.village.addr::<Agent>("local:tester");
    let mut asks: Vec<_> =
        (0..3).map(|_| Box::pin(addr.ask(|reply| AgentMsg::Ask(request("/test.sleep"), reply)))).collect();
    for ask in &mut asks {
        // The first poll puts the message into the mailbox, which keeps the order.
        assert!(futures::poll!(ask).is_pending());
    }
    // Two run, one waits; a fourth is refused at once.
    let refused = village.agents.ask("tester", request("/calc.eval expression=1+1")).await;
    assert!(matches!(refused, Err(CallError::Overloaded { .. })), "{refused:?}");
    drop(asks);
    // Callers that went away free their places.
    while village.agents.ask("tester", request("/calc.eval expression=1+1")).await.is_err() {}
}

#[tokio::test]
async fn a_turn_is_told_on_its_topic() {
    let village = fixture("").await;
    let name = "agents.turn.0190";
    let topic = village.village.topic(name);
    let start = topic.newest().await.unwrap();
    let ask = AskRequest { stream_to: Some(name.into()), ..request("When was the lighthouse of Varn built?") };
    let answer = village.agents.ask("sage", ask).await.unwrap();
    let mut items = Box::pin(topic.subscribe(Some(start)));
    let mut events = Vec::new();
    while let Some(Ok(TopicItem::Event { data, .. })) = items.next().await {
        let event: TurnEvent = serde_json::from_value(data).unwrap();
        let last = matches!(event, TurnEvent::Final { .. });
        events.push(event);
        if last {
            break;
        }
    }
    let text: String = events
        .iter()
        .filter_map(|event| if let TurnEvent::Delta { text } = event { Some(text.as_str()) } else { None })
        .collect();
    assert_eq!(text, answer.answer);
    assert!(events.iter().any(|event| matches!(event, TurnEvent::Retrieved { n } if *n > 0)));
    assert!(events.iter().any(|event| matches!(event, TurnEvent::Citation { .. })));
}

#[tokio::test]
async fn conversations_and_notes_survive_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let village = village_in(dir.path(), "").await;
    let agents = Agents::new(&village, "local");
    let first = agents.ask("sage", request("remember that the gate code is 1209")).await.unwrap();
    let again = AskRequest { conversation: Some(first.conversation.clone()), ..request("hello") };
    agents.ask("sage", again).await.unwrap();
    village.shutdown().await.unwrap();
    drop((agents, village));

    let village = village_in(dir.path(), "").await;
    let agents = Agents::new(&village, "local");
    let said = agents.history(&first.conversation, 10).await.unwrap();
    assert_eq!(said.len(), 4);
    assert_eq!((said[0].text.as_str(), said[2].text.as_str()), ("remember that the gate code is 1209", "hello"));
    let answer = agents.ask("sage", request("what did I say about the gate?")).await.unwrap();
    assert_eq!(answer.answer, "the gate code is 1209");
}

#[tokio::test]
async fn exposed_messages_have_schemas_and_work_as_json() {
    let village = fixture("").await;
    let info = village.village.kind_info("agent").unwrap();
    let ask = info.messages.iter().find(|message| message.name == "Ask").unwrap();
    assert_eq!((ask.action.as_str(), ask.ask), ("agent.ask", true));
    let body = ask.body(json!({ "input": "what is 2 + 2" })).unwrap();
    let reply = village
        .village
        .send_json("agent", "local:oracle", body, aivillage_runtime::CallOptions::default())
        .await
        .unwrap();
    assert_eq!(reply.unwrap()["answer"], "2 + 2 = 4");
    let metrics = village.village.encode_metrics();
    assert!(metrics.contains("village_agent_tool_calls_total{tool=\"calc.eval\",outcome=\"ok\"} 1"), "{metrics}");
}

fn model_config(url: &str, tools: bool) -> String {
    format!(
        "[[agents.provider]]\nid = \"openai:main\"\nbase_url = \"{url}\"\nmodel = \"m\"\ntools = {tools}\ntimeout = \"5s\"\n"
    )
}

#[tokio::test]
async fn a_model_plans_with_tools_and_its_citations_are_checked() {
    let stub = stub::start(|body, n| {
        if n == 0 {
            stub::call("memory_search", r#"{"text":"lighthouse of Varn built"}"#)
        } else {
            let told = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
            assert!(told.contains("[1] The lighthouse of Varn"), "{told}");
            stub::text("It dates from 1874 [1]. Dragons live there [99].")
        }
    })
    .await;
    let village = fixture(&model_config(&stub.url, true)).await;
    let answer = village.ask("sage", "When was the lighthouse of Varn built?").await;
    assert_eq!(answer.answer, "It dates from 1874 [1]. Dragons live there.");
    assert_eq!(answer.citations[0].quote, "It was built in 1874 by the engineer Tomas Hale.");
    assert_eq!((answer.provider.as_str(), answer.finish), ("openai:main", Finish::Stop));
}

#[tokio::test]
async fn a_model_that_goes_in_circles_is_stopped() {
    let stub = stub::start(|body, _| {
        if body.get("tools").is_some() { stub::call("calc_eval", r#"{"expression":"1+1"}"#) } else { stub::text("2") }
    })
    .await;
    let village = fixture(&model_config(&stub.url, true)).await;
    let answer = village.ask("oracle", "what is 1+1").await;
    assert_eq!((answer.answer.as_str(), answer.finish), ("2", Finish::LoopDetected));
}

#[tokio::test]
async fn a_model_that_never_stops_calling_meets_the_limit() {
    let count = Arc::new(AtomicUsize::new(0));
    let stub = stub::start(move |body, n| {
        count.store(n, Ordering::SeqCst);
        if body.get("tools").is_some() {
            stub::call("calc_eval", &format!("{{\"expression\":\"1+{n}\"}}"))
        } else {
            stub::text("enough")
        }
    })
    .await;
    let village = fixture(&model_config(&stub.url, true)).await;
    let answer = village.ask("oracle", "count for ever").await;
    assert_eq!((answer.answer.as_str(), answer.finish), ("enough", Finish::Limit));
    assert_eq!(answer.steps.iter().filter(|step| step.kind == "tool").count(), 8);
}

#[tokio::test]
async fn a_dead_model_falls_back_and_the_breaker_opens() {
    let village = fixture(&model_config("http://127.0.0.1:1/v1", true)).await;
    let answer = village.ask("sage", "When was the lighthouse of Varn built?").await;
    assert_eq!(answer.provider, "extractive");
    assert!(answer.answer.contains("1874"));
    let failed = answer.steps.iter().find(|step| step.kind == "generate").unwrap();
    assert!(!failed.ok && failed.detail.contains("cannot connect"), "{failed:?}");
    // Four more failures open the breaker; then the fallback is immediate.
    tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let answer = village.ask("sage", "When was the lighthouse of Varn built?").await;
            if answer.steps.iter().any(|step| step.detail.contains("left alone")) {
                break;
            }
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_model_without_tools_writes_from_passages() {
    let stub = stub::start(|body, _| {
        let told = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
        assert!(told.contains("[1] ") && told.ends_with("Who designed the iron bridge?"), "{told}");
        stub::text("Clara Voss designed it [1].")
    })
    .await;
    let village = fixture(&model_config(&stub.url, false)).await;
    let answer = village.ask("sage", "Who designed the iron bridge?").await;
    assert_eq!((answer.answer.as_str(), answer.provider.as_str()), ("Clara Voss designed it [1].", "openai:main"));
    assert!(answer.citations[0].quote.contains("Clara Voss"));
}

#[test]
fn a_bad_section_or_spec_refuses_to_start() {
    let refused = |config: &str| {
        let builder = Village::builder().config(config.parse().unwrap());
        aivillage_actors::install(builder).unwrap_err().to_string()
    };
    assert!(refused("[agents]\nmax_turns = 0").contains("agents.max_turns"));
    assert!(refused("[agents]\nmax_trns = 1").contains("max_trns"));
}
