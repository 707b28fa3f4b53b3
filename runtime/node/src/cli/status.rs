//! `village status`: whether the village is ready and what lives in it.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    memory,
    output::{self, BAD, BOLD, DIM, GOOD, items, paint, text},
};

/// Arguments of `village status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village status
  village status --json | jq .ready")]
pub(crate) struct Status {}

impl Status {
    /// Shows the node's checks, its kinds with their live actors, and the memory.
    ///
    /// # Errors
    /// No village (exit 4), one that is not ready (exit 4) or a wrong key (exit 3).
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let status = client.get(&["v1", "status"], &[]).await?;
        if global.json {
            output::json(&status);
        } else {
            output::say(page(&status, client.base().as_str()));
        }
        if status.get("ready") == Some(&Value::Bool(true)) {
            return Ok(());
        }
        Err(Failure::new(Exit::Unavailable, "the village is not ready").hint("the checks above say why"))
    }
}

fn page(status: &Value, address: &str) -> String {
    let number = |name: &str| status.get(name).and_then(Value::as_u64).unwrap_or_default();
    let up = humantime::format_duration(Duration::from_secs(number("uptime_s"))).to_string();
    let ready = status.get("ready") == Some(&Value::Bool(true));
    let mut lines = vec![
        format!(
            "{} {}  {}",
            paint(BOLD, "village"),
            if ready { paint(GOOD, "ready") } else { paint(BAD, "not ready") },
            paint(DIM, format_args!("{address}  version {}  up {up}", text(status, "version"))),
        ),
        format!("  node {}", text(status, "node")),
        format!(
            "  data {}  actors {}  dead letters {}",
            text(status, "data_dir"),
            number("actors"),
            number("dead_letters")
        ),
    ];
    lines.splice(2..2, status.get("cluster").filter(|cluster| cluster.is_object()).into_iter().flat_map(cluster));
    lines.extend(items(status, "checks").iter().map(check));
    let kinds = items(status, "kinds").iter().map(|kind| {
        let number = |name: &str| kind.get(name).and_then(Value::as_u64).unwrap_or_default().to_string();
        vec![text(kind, "kind").to_owned(), number("live"), number("messages")]
    });
    lines.push(String::new());
    lines.push(output::table(&["kind", "#live", "#messages"], kinds));
    lines.push(String::new());
    lines.push(memory::table(items(status, "memory")));
    lines.join("\n")
}

/// Size and health of the cluster.
fn cluster(cluster: &Value) -> [String; 2] {
    let number = |name: &str| cluster.get(name).and_then(Value::as_u64).unwrap_or_default();
    let nodes = output::count(usize::try_from(number("nodes")).unwrap_or(usize::MAX), "node");
    let problems: Vec<_> = items(cluster, "problems").iter().filter_map(Value::as_str).collect();
    [
        format!("  cluster {}  {nodes}, {} up", text(cluster, "id"), number("up")),
        format!("  health {}  {}", output::health(text(cluster, "health")), problems.join("; ")).trim_end().to_owned(),
    ]
}

fn check(check: &Value) -> String {
    let ok = check.get("ok") == Some(&Value::Bool(true));
    let mark = if ok { paint(GOOD, "✓") } else { paint(BAD, "✗") };
    format!("  {mark} {} {}", text(check, "name"), paint(DIM, text(check, "detail")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn page_shows_failed_checks_kinds_and_collections() {
        let status = json!({
            "ready": false, "uptime_s": 61, "node": "21fe31dfa154a261",
            "checks": [{"name": "store", "ok": false, "detail": "not writable"}],
            "kinds": [{"kind": "agent", "live": 2, "messages": 3}],
            "memory": [{"collection": "main", "documents": 5, "chunks": 9}],
            "cluster": {"id": "9f", "health": "degraded", "nodes": 3, "up": 2, "problems": ["n2 is down"]},
        });
        let plain = anstream::adapter::strip_str(&page(&status, "http://h/")).to_string();
        for part in [
            "not ready",
            "up 1m 1s",
            "node 21fe31dfa154a261",
            "cluster 9f  3 nodes, 2 up",
            "health degraded  n2 is down",
            "✗ store not writable",
            "agent",
            "main",
        ] {
            assert!(plain.contains(part), "{part} is missing in\n{plain}");
        }
    }
}
