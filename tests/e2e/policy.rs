//! Policies and constitution: looked at without a village, and what a village refuses by them.

use aivillage_tests::Place;
use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use crate::place;

/// A forbid that stops questions to one agent.
const STOP: &str = "@id(\"stop-sage\") @article(\"A10.1\")\nforbid (principal, action == AiVillage::Action::\"agent.ask\", \
                    resource == AiVillage::Agent::\"local/sage\");\n";

const TESTS: &str = r#"[
  { "name": "users ask", "expect": "allow", "policies": ["user-uses"], "request": {
    "principal": { "tenant": "acme", "subject": "ann", "kind": "user", "roles": ["user"] }, "action": "agent.ask",
    "resource": { "kind": "Agent", "id": "sage", "tenant": "acme" } } },
  { "name": "guests only look", "expect": "deny", "request": {
    "principal": { "tenant": "acme", "subject": "bob", "kind": "user", "roles": ["guest"] }, "action": "agent.ask",
    "resource": { "kind": "Agent", "id": "sage", "tenant": "acme" } } }
]"#;

/// Types a line; it must end with this code and show all of these.
async fn typed(place: &Place, line: &str, code: i32, shown: &[&str]) -> Result<()> {
    let ran = place.sh(line).await?.expect(code)?;
    let all = format!("{}{}", ran.stdout, ran.stderr);
    for text in shown {
        ensure!(all.contains(text), "{line}: no {text:?} in {all}");
    }
    Ok(())
}

#[tokio::test]
async fn policies_are_checked_asked_and_tested_without_a_village() -> Result<()> {
    let place = place()?;
    place.write("policies/stop.cedar", STOP)?;
    place.write("broken/own.cedar", "// A comment.\npermit (principal, action, resource) when { principal.nam };\n")?;
    place.write("tests.json", TESTS)?;
    typed(&place, "village policy check", 0, &["good", "policies", "hash "]).await?;
    typed(&place, "village policy check policies", 0, &["good: policies"]).await?;
    typed(&place, "village policy check broken", 1, &["own.cedar:2:"]).await?;
    let ask = "--principal acme/ann --role";
    typed(&place, &format!("village policy decide {ask} user agent.ask Agent/sage"), 0, &["allow", "user-uses"])
        .await?;
    let other = format!("village policy decide {ask} user agent.ask Agent/sage --tenant other");
    typed(&place, &other, 3, &["deny", "forbid-cross-tenant", "A4.2"]).await?;
    let local = "village policy decide --principal local/ann --role user agent.ask Agent/sage --dir policies";
    typed(&place, local, 3, &["deny", "stop-sage"]).await?;
    let near = ["user-uses", "roles.cedar:", "principal in AiVillage::Role::\"user\""];
    typed(&place, &format!("village policy explain {ask} guest agent.ask Agent/sage"), 0, &near).await?;
    let misspelt = format!("village policy decide {ask} user agent.aks Agent/sage");
    typed(&place, &misspelt, 2, &["did you mean `agent.ask`?"]).await?;
    let misspelt = format!("village policy decide {ask} usr agent.ask Agent/sage");
    typed(&place, &misspelt, 2, &["did you mean `user`?"]).await?;
    typed(&place, "village policy test tests.json", 0, &["passed: 2 tests"]).await?;
    place.write("policies/stop.cedar", STOP.replace("local/sage", "acme/sage"))?;
    typed(&place, "village policy test tests.json --dir policies", 1, &["users ask", "stop-sage", "1 of 2"]).await?;
    typed(&place, "village policy show forbid-cross-tenant", 0, &["always.cedar:3", "unless"]).await?;
    let json = place.sh(&format!("village policy explain {ask} guest agent.ask Agent/sage --json")).await?.expect(0)?;
    ensure!(json.json()?.pointer("/decision/allow") == Some(&json!(false)), "{json:?}");
    Ok(())
}

#[tokio::test]
async fn the_constitution_is_shown_verified_and_compared_without_a_village() -> Result<()> {
    let place = place()?;
    typed(&place, "village constitution show A2.1", 0, &["Viewpoint neutrality", "entrenched"]).await?;
    typed(&place, "village constitution show A99", 1, &["no article `A99`", "A2.1"]).await?;
    typed(&place, "village constitution verify", 0, &["good", "version 1", "hash "]).await?;
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../governance/data/constitution/constitution.toml");
    let next = std::fs::read_to_string(shipped)?.replacen("version = 1", "version = 2", 1);
    let next = next.replacen("No sanction, ranking", "No ranking", 1);
    place.write("next/constitution.toml", next)?;
    let found = ["~ article A2.1 changed", "entrenched article `A2.1` may only be extended"];
    typed(&place, "village constitution diff embedded next", 0, &found).await?;
    typed(&place, "village constitution diff next next", 0, &["no difference"]).await
}

#[tokio::test]
async fn a_village_refuses_what_its_policies_forbid_and_says_by_which() -> Result<()> {
    let place = place()?;
    place.write("policies/stop.cedar", STOP)?;
    let node = place.up_with(&["--set", "governance.policy.dir=policies"]).await?;
    let asked =
        node.request(reqwest::Method::POST, "/v1/agents/sage/ask").json(&json!({ "input": "x" })).send().await?;
    let (status, problem): (_, serde_json::Value) = (asked.status(), asked.json().await?);
    ensure!(status == 403 && problem["policy_ids"] == json!(["stop-sage"]), "{problem}");
    ensure!(problem["articles"] == json!(["A10.1"]), "{problem}");
    node.get("/v1/agents/sage").await?;
    let question = json!({ "action": "agent.ask", "resource": { "kind": "Agent", "id": "sage", "tenant": "local" } });
    let decided = node.post("/v1/policy/decide", &question).await?;
    ensure!(decided["allow"] == false, "{decided}");
    let explained = node.post("/v1/policy/explain", &question).await?;
    ensure!(explained["determining"][0]["file"] == "stop.cedar", "{explained}");
    let constitution = node.get("/v1/constitution").await?;
    ensure!(constitution["version"] == 1, "{constitution}");
    ensure!(constitution["note"].as_str().is_some_and(|note| note.contains("\u{2014} village ")), "{constitution}");
    Ok(())
}

#[tokio::test]
async fn a_village_does_not_start_with_policies_that_are_wrong() -> Result<()> {
    let place = place()?;
    place.write("broken/own.cedar", "permit (")?;
    typed(&place, "village up --set governance.policy.dir=broken", 2, &["own.cedar:1:", "village policy check"]).await
}

#[tokio::test]
async fn a_village_starts_with_the_constitution_that_its_root_keys_signed_and_with_no_other() -> Result<()> {
    let place = place()?;
    let made = place.run(["constitution", "key", "root.key", "--name", "root-1", "--json"]).await?.expect(0)?.json()?;
    let root = made["public"].as_str().unwrap_or_default();
    typed(&place, "village constitution sign embedded --key root.key --out signed", 0, &["signed", root]).await?;
    typed(&place, &format!("village constitution verify signed --root-key '{root}'"), 0, &["good"]).await?;
    let keys = format!("governance.root_keys=[\"{root}\"]");
    let given = ["--set", "governance.constitution=signed", "--set", &keys];
    let mut node = place.up_with(&given).await?;
    let served = node.get("/v1/constitution").await?;
    ensure!(served.to_string().contains("root-1"), "{served}");
    node.signal(Signal::TERM)?;
    node.ended().await?;

    let toml = place.path("signed/constitution.toml");
    std::fs::write(&toml, std::fs::read_to_string(&toml)?.replacen("No sanction, ranking", "No ranking", 1))?;
    let up = format!("village up --listen 127.0.0.1:0 {} {} {} '{keys}'", given[0], given[1], given[2]);
    typed(&place, &up, 78, &["E-CONST-SIG 1", "village constitution verify"]).await?;
    let up = "village up --listen 127.0.0.1:0 --set governance.constitution=signed";
    typed(&place, up, 2, &["governance.root_keys"]).await
}

#[tokio::test]
async fn new_policies_work_at_once_and_wrong_or_late_ones_change_nothing() -> Result<()> {
    let place = place()?;
    place.write("policies/stop.cedar", STOP)?;
    place.write("broken/own.cedar", "permit (")?;
    let node = place.up().await?;
    node.ask("sage", "who lives there?").await?;
    typed(&place, "village policy status", 0, &["from the program"]).await?;
    typed(&place, "village policy apply broken", 1, &["own.cedar:1:"]).await?;
    typed(&place, "village policy apply policies", 0, &["at work", "version 1"]).await?;
    typed(&place, "village policy apply policies --expect 0", 1, &["at version 1 by now"]).await?;
    typed(&place, "village policy status", 0, &["version 1 of the cluster"]).await?;
    let fixed = json!({ "files": { "always.cedar": "" }, "expect": 1 });
    let refused = node.request(reqwest::Method::POST, "/v1/policy").json(&fixed).send().await?;
    ensure!(refused.status() == 422, "{refused:?}");
    let asked =
        node.request(reqwest::Method::POST, "/v1/agents/sage/ask").json(&json!({ "input": "x" })).send().await?;
    ensure!(asked.status() == 403, "{asked:?}");
    Ok(())
}
