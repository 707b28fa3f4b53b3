//! The actor: on a node that runs alone, and in a cluster.

use std::fs;
use std::time::Duration;

use aivillage_runtime::testing::{asked, sent};
use aivillage_runtime::{ActorCx, CallError, Village};

use super::faults::request;
use crate::policy::{
    Applied, Decision, Pdp, PdpHandle, PdpMsg, PdpStatus, PolicyConfig, PolicyMachine, Report, Request, Sources,
};

const STOP: &str =
    "@id(\"stop\") @article(\"A1\") forbid (principal, action == AiVillage::Action::\"agent.ask\", resource);";

fn ask() -> Request {
    request(
        r#"{ "principal": { "tenant": "t", "subject": "ann", "kind": "user", "roles": ["user"] }, "action": "agent.ask",
             "resource": { "kind": "Agent", "id": "sage", "tenant": "t" } }"#,
    )
}

async fn start(config: PolicyConfig, clustered: bool) -> (Village, PdpHandle) {
    let handle = PdpHandle::new(config.cache);
    let own = handle.clone();
    let builder = Village::builder().config("node.listen = '127.0.0.1:0'".parse().unwrap());
    let builder = if clustered { builder.clustered() } else { builder };
    let builder = builder.control_machine(PolicyMachine::default);
    let builder = builder.host(move |_: &ActorCx| Pdp::new(own.clone(), config.clone()));
    (builder.start().await.unwrap(), handle)
}

fn code<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result {
        Err(CallError::App(error)) => error.code.into_owned(),
        other => panic!("{other:?}"),
    }
}

async fn status(village: &Village) -> PdpStatus {
    village.addr::<Pdp>("local").ask(PdpMsg::Epoch).await.unwrap()
}

#[tokio::test]
async fn a_node_alone_decides_by_its_folder_and_reads_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = PolicyConfig { dir: dir.path().to_str().unwrap().to_owned(), ..PolicyConfig::default() };
    let (village, handle) = start(config, false).await;
    let pdp = village.addr::<Pdp>("local");
    let decision: Decision = pdp.ask(|reply| PdpMsg::Decide(ask(), reply)).await.unwrap();
    assert!(decision.allow && decision.epoch == 0, "{decision:?}");
    fs::write(dir.path().join("stop.cedar"), STOP).unwrap();
    let now: PdpStatus = pdp.ask(PdpMsg::Reload).await.unwrap();
    assert_eq!((now.epoch, now.version, now.problem), (Some(1), 0, None));
    assert!(!handle.decide(&ask()).unwrap().allow);
    // A bad one is refused and the old one stays; the same again changes nothing.
    fs::write(dir.path().join("worse.cedar"), "permit (").unwrap();
    assert_eq!(code(pdp.ask(PdpMsg::Reload).await), "policy_invalid");
    fs::remove_file(dir.path().join("worse.cedar")).unwrap();
    assert_eq!(pdp.ask(PdpMsg::Reload).await.unwrap().epoch, Some(1));
    assert_eq!(handle.decide(&ask()).unwrap().policy_ids, ["stop"]);
    let apply = |reply| PdpMsg::Apply { sources: Sources::embedded(), expect: 0, reply };
    assert_eq!(code(pdp.ask(apply).await), "policy_not_replicated");
    let explained = pdp.ask(|reply| PdpMsg::Explain(ask(), reply)).await.unwrap();
    assert_eq!(explained.determining[0].file, "stop.cedar");
    let report: Report = pdp.ask(|reply| PdpMsg::Test(Vec::new(), reply)).await.unwrap();
    assert_eq!(report, Report::default());
}

#[tokio::test]
async fn a_node_without_a_good_folder_allows_nothing_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad.cedar"), "permit (").unwrap();
    let config = PolicyConfig { dir: dir.path().to_str().unwrap().to_owned(), ..PolicyConfig::default() };
    let (village, handle) = start(config, false).await;
    let now = status(&village).await;
    assert!(now.epoch.is_none() && now.problem.unwrap().starts_with("bad.cedar:1:"));
    let pdp = village.addr::<Pdp>("local");
    assert_eq!(code(pdp.ask(|reply| PdpMsg::Decide(ask(), reply)).await), "policy_unavailable");
    assert!(handle.decide(&ask()).is_err());
    fs::remove_file(dir.path().join("bad.cedar")).unwrap();
    assert_eq!(pdp.ask(PdpMsg::Reload).await.unwrap().epoch, Some(0));
    assert!(handle.decide(&ask()).unwrap().allow);
}

#[tokio::test]
async fn a_cluster_decides_on_its_bundle_by_compare_and_set() {
    let config = PolicyConfig { refresh: Duration::from_millis(1).into(), ..PolicyConfig::default() };
    let (village, handle) = start(config, true).await;
    let pdp = village.addr::<Pdp>("local");
    assert_eq!(status(&village).await.version, 0);
    assert!(handle.decide(&ask()).unwrap().allow);
    let stop = Sources::embedded().with("stop.cedar", STOP).unwrap();
    let apply = |sources: &Sources, expect| {
        let sources = sources.clone();
        pdp.ask(move |reply| PdpMsg::Apply { sources, expect, reply })
    };
    let applied: Applied = apply(&stop, 0).await.unwrap();
    assert_eq!(applied.version, 1);
    // Read your own write: at once, not with the next refresh.
    let decision = handle.decide(&ask()).unwrap();
    assert_eq!((decision.allow, decision.epoch), (false, applied.epoch));
    assert_eq!(code(apply(&Sources::embedded(), 0).await), "conflict");
    let bad = Sources::embedded().with("bad.cedar", "permit (").unwrap();
    assert_eq!(code(apply(&bad, 1).await), "policy_invalid");
    assert_eq!(code(pdp.ask(PdpMsg::Reload).await), "policy_replicated");
    assert_eq!(apply(&Sources::embedded(), 1).await.unwrap().version, 2);
    let now = status(&village).await;
    assert_eq!((now.version, now.problem), (2, None));
    assert!(handle.decide(&ask()).unwrap().allow);
}

#[tokio::test]
async fn a_node_takes_what_another_one_put_and_keeps_the_old_when_it_cannot() {
    let config = PolicyConfig { refresh: Duration::from_millis(1).into(), ..PolicyConfig::default() };
    let (village, handle) = start(config, true).await;
    assert_eq!(status(&village).await.epoch, Some(0));
    // As another node does it: the control group hears of it, not this actor.
    let put = async |expect, sources: &Sources| {
        let command = PolicyMachine::put(expect, sources.hash(), sources.pack().unwrap());
        let answer = village.cluster().unwrap().command(crate::policy::NS, command).await.unwrap();
        PolicyMachine::answer(&answer).unwrap()
    };
    put(0, &Sources::embedded().with("stop.cedar", STOP).unwrap()).await;
    while status(&village).await.version != 1 {
        tokio::task::yield_now().await;
    }
    assert!(!handle.decide(&ask()).unwrap().allow);
    // A later version of the program may know actions that this one does not.
    let later = "permit (principal, action == AiVillage::Action::\"agent.fly\", resource);";
    put(1, &Sources::embedded().with("later.cedar", later).unwrap()).await;
    let problem = loop {
        match status(&village).await.problem {
            Some(problem) => break problem,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(problem.starts_with("later.cedar:1:"), "{problem}");
    assert_eq!((status(&village).await.version, handle.decide(&ask()).unwrap().allow), (1, false));
    put(2, &Sources::embedded()).await;
    while status(&village).await.version != 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&village).await.problem, None);
}

#[test]
fn messages_reach_another_node() {
    let take = |body| match body {
        PdpMsg::Decide(request, reply) if request == ask() => reply,
        other => panic!("{other:?}"),
    };
    let decision = Decision { allow: true, policy_ids: vec!["p".into()], epoch: 7, ..Decision::default() };
    let heard = asked::<Pdp, Decision>(|reply| PdpMsg::Decide(ask(), reply), take, decision.clone());
    assert_eq!(heard.unwrap(), decision);
    let apply = |reply| PdpMsg::Apply { sources: super::rich(), expect: 3, reply };
    let take = |body| match body {
        PdpMsg::Apply { sources, expect: 3, reply } if sources == super::rich() => reply,
        other => panic!("{other:?}"),
    };
    let applied = Applied { version: 4, epoch: 9, hash: "00".into() };
    assert_eq!(asked::<Pdp, Applied>(apply, take, applied.clone()).unwrap(), applied);
    assert!(matches!(sent::<Pdp>(&PdpMsg::Refresh), Ok(PdpMsg::Refresh)));
    let loaded = PdpMsg::Loaded { version: 1, problem: Some("no".into()) };
    assert!(matches!(sent::<Pdp>(&loaded), Ok(PdpMsg::Loaded { version: 1, .. })));
}

#[test]
fn the_configuration_is_read_from_toml() {
    let config: PolicyConfig = toml::from_str("dir = 'policies'\nrefresh = '1s'").unwrap();
    assert_eq!((config.dir.as_str(), config.cache), ("policies", 100_000));
    assert!(toml::from_str::<PolicyConfig>("cashe = 1").is_err());
}
