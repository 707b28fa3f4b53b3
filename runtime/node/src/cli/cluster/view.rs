//! The page of `village cluster status`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cli::output::{self, BAD, BOLD, DIM, GOOD, WARN, items, paint, text};

/// The page of a status, as of a Unix millisecond.
pub(super) fn page(status: &Value, groups: bool, now_ms: u64) -> String {
    let mut members: Vec<&Value> = items(status, "members").iter().collect();
    // n2 before n10.
    members.sort_by_key(|member| (text(member, "name").len(), text(member, "name"), text(member, "id")));
    let names: BTreeMap<&str, &str> = members.iter().map(|member| (text(member, "id"), text(member, "name"))).collect();
    let name = |id: &str| names.get(id).map_or_else(|| id.to_owned(), |name| (*name).to_owned());
    let health = text(status, "health");
    let up = members.iter().filter(|member| text(member, "state") == "up").count();
    let seen = paint(
        DIM,
        format_args!(
            "{}  epoch {}  seen from {}",
            text(status, "cluster"),
            number(status, "epoch"),
            name(text(status, "node"))
        ),
    );
    let nodes = output::count(members.len(), "node");
    let mut lines = vec![
        format!("{} {}  {nodes}, {up} up  {seen}", paint(BOLD, "cluster"), output::health(health)),
        String::new(),
        output::table(
            &["name", "id", "state", "address", "labels", "leads", "link"],
            members.iter().map(|member| row(member, text(status, "node"), now_ms)),
        ),
    ];
    let problems = items(status, "problems").iter().filter_map(Value::as_str);
    let reasons = members.iter().filter(|member| text(member, "state") != "up" && !text(member, "reason").is_empty());
    let reasons = reasons.map(|member| format!("{}: {}", text(member, "name"), text(member, "reason")));
    let mut wrong: Vec<_> = problems.map(|problem| format!("{} {problem}", paint(WARN, "!"))).collect();
    wrong.extend(reasons.map(|reason| paint(DIM, format_args!("  {reason}"))));
    if health == "no_quorum" {
        let advice = "nothing can be decided until a majority of the voters is back: start the nodes that are missing";
        wrong.push(format!("{} {advice}", paint(BAD, "✗")));
    }
    if !wrong.is_empty() {
        lines.push(String::new());
        lines.append(&mut wrong);
    }
    if groups || health != "healthy" {
        lines.push(String::new());
        lines.push(table(items(status, "groups"), &name));
    }
    lines.join("\n")
}

fn row(member: &Value, seen_from: &str, now_ms: u64) -> Vec<String> {
    let state = match text(member, "state") {
        "up" => paint(GOOD, "up"),
        "down" => paint(BAD, format_args!("down {}", since(member, now_ms))),
        other => paint(WARN, format_args!("{other} {}", since(member, now_ms))),
    };
    let labels = member.get("labels").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    let link = match member.get("linked").and_then(Value::as_bool) {
        _ if text(member, "id") == seen_from => "self".to_owned(),
        Some(true) => "yes".to_owned(),
        _ => paint(BAD, "no"),
    };
    vec![
        text(member, "name").to_owned(),
        text(member, "id").to_owned(),
        state,
        text(member, "addr").to_owned(),
        labels.collect::<Vec<_>>().join(" "),
        leads(member),
        link,
    ]
}

/// How long it has been so.
fn since(member: &Value, now_ms: u64) -> String {
    output::time(now_ms.saturating_sub(number(member, "since_ms")) / 1_000)
}

/// The cluster's own group is told from those of the actors.
fn leads(member: &Value) -> String {
    let leads = items(member, "leads");
    let control = leads.iter().any(|group| group.as_u64() == Some(0));
    let shards = leads.len() - usize::from(control);
    match (control, shards) {
        (false, 0) => "-".to_owned(),
        (true, 0) => "cluster".to_owned(),
        (false, shards) => output::count(shards, "group"),
        (true, shards) => format!("cluster, {}", output::count(shards, "group")),
    }
}

fn table(groups: &[Value], name: &dyn Fn(&str) -> String) -> String {
    let names = |group: &Value, role: &str| {
        let names = items(group, role).iter().filter_map(Value::as_str).map(name);
        names.collect::<Vec<_>>().join(" ")
    };
    let rows = groups.iter().map(|group| {
        let leader = group.get("leader").and_then(Value::as_str).map_or_else(|| paint(BAD, "none"), name);
        let applied = group.get("applied").and_then(Value::as_u64).map(|index| index.to_string()).unwrap_or_default();
        let number = number(group, "group");
        let group_name = if number == 0 { "cluster".to_owned() } else { number.to_string() };
        let term = group.get("term").and_then(Value::as_u64).unwrap_or_default().to_string();
        vec![group_name, leader, term, names(group, "voters"), names(group, "learners"), applied]
    });
    output::table(&["group", "leader", "#term", "voters", "copies", "#applied"], rows)
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(status: &Value, groups: bool) -> String {
        anstream::adapter::strip_str(&page(status, groups, 100_000)).to_string()
    }

    fn status(health: &str) -> Value {
        let member = |id: &str, name: &str, state: &str, reason: &str, linked: bool, leads: Value| {
            json!({
                "id": id, "name": name, "addr": "10.0.0.1:4100", "state": state, "since_ms": 35_000, "reason": reason,
                "labels": {"gpu": "true"}, "linked": linked, "leads": leads,
            })
        };
        json!({
            "cluster": "c1", "node": "a1", "health": health, "problems": [], "epoch": 7, "leader": "a1",
            "members": [
                member("a1", "n1", "up", "", true, json!([0, 1, 2])),
                member("b2", "n2", "up", "", true, json!([])),
            ],
            "groups": [
                {"group": 0, "leader": "a1", "term": 2, "voters": ["a1"], "learners": ["b2"], "applied": 40},
                {"group": 1, "leader": null, "term": 3, "voters": ["a1", "zz"], "learners": [], "applied": null},
            ],
        })
    }

    #[test]
    fn a_healthy_cluster_is_one_table() {
        insta::assert_snapshot!(plain(&status("healthy"), false), @"
        cluster healthy  2 nodes, 2 up  c1  epoch 7  seen from n1

        NAME  ID  STATE  ADDRESS        LABELS    LEADS              LINK
        n1    a1  up     10.0.0.1:4100  gpu=true  cluster, 2 groups  self
        n2    b2  up     10.0.0.1:4100  gpu=true  -                  yes
        ");
    }

    #[test]
    fn what_is_not_well_is_said_in_words_with_the_groups() {
        let mut status = status("degraded");
        status["problems"] = json!(["n2 is down", "group 1 has no leader"]);
        status["members"][1]["state"] = json!("down");
        status["members"][1]["reason"] = json!("its process has ended");
        status["members"][1]["linked"] = json!(false);
        insta::assert_snapshot!(plain(&status, false), @"
        cluster degraded  2 nodes, 1 up  c1  epoch 7  seen from n1

        NAME  ID  STATE       ADDRESS        LABELS    LEADS              LINK
        n1    a1  up          10.0.0.1:4100  gpu=true  cluster, 2 groups  self
        n2    b2  down 1m 5s  10.0.0.1:4100  gpu=true  -                  no

        ! n2 is down
        ! group 1 has no leader
          n2: its process has ended

        GROUP    LEADER  TERM  VOTERS  COPIES  APPLIED
        cluster  n1         2  n1      n2           40
        1        none       3  n1 zz
        ");
    }

    #[test]
    fn without_a_quorum_the_page_says_what_to_do() {
        assert!(plain(&status("no_quorum"), false).contains("start the nodes that are missing"));
        assert!(plain(&status("healthy"), true).contains("LEADER"));
    }
}
