//! `village cluster`: the nodes of the village.

mod recover;
mod view;

use std::{io::IsTerminal as _, time::Duration};

use aivillage_runtime::clock;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, DIM, GOOD, items, paint, text},
};

/// Exit codes of `village cluster status` that mean something else than elsewhere.
const DEGRADED: Exit = Exit::Usage;
const NO_QUORUM: Exit = Exit::Refused;
/// How often a watched cluster is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// How often a draining node is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Commands of `village cluster`.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show the nodes and what is not well.
    Status(Status),
    /// Let a node hand over what it does for the others.
    Drain(Drain),
    /// Forget a node that will not come back.
    Remove(Remove),
    /// Go on with one stopped node when the majority is gone for good.
    Recover(recover::Recover),
}

impl Cluster {
    /// Runs the command: `recover` on the data directory of a stopped node, the others against a running village.
    ///
    /// # Errors
    /// An unknown node, a refusal, no quorum or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Status(status) => status.run(global).await,
            Self::Drain(drain) => drain.run(global).await,
            Self::Remove(remove) => remove.run(global).await,
            Self::Recover(recover) => recover.run(global).await,
        }
    }
}

/// Arguments of `village cluster status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village cluster status
  village cluster status --watch
  village cluster status --json | jq -r '.members[].name'

Exit codes of this command: 0 healthy, 2 degraded, 3 no quorum; 1 and 4 as elsewhere.")]
pub(crate) struct Status {
    /// Show it anew every second until Ctrl-C.
    #[arg(long, short)]
    watch: bool,
    /// Show the replicated groups even when all is well.
    #[arg(long)]
    groups: bool,
}

impl Status {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        if self.watch {
            return self.follow(client, global).await;
        }
        let status = get(&client).await?;
        if global.json {
            output::json(&status);
        } else {
            output::say(view::page(&status, self.groups, clock::unix_ms()));
        }
        match text(&status, "health") {
            "healthy" => Ok(()),
            "no_quorum" => Err(Failure::silent(NO_QUORUM)),
            _ => Err(Failure::silent(DEGRADED)),
        }
    }

    /// Until Ctrl-C ends the process. A node that does not answer is said, and another one tried.
    async fn follow(&self, mut client: Client, global: &Global) -> Outcome {
        let mut shown = String::new();
        loop {
            let now = match get(&client).await {
                Ok(status) if global.json => status.to_string(),
                Ok(status) => view::page(&status, self.groups, clock::unix_ms()),
                Err(failure) if failure.exit != Exit::Unavailable => return Err(failure),
                Err(failure) => {
                    client = Client::open(global)?;
                    if global.json { json!({ "error": failure.message }).to_string() } else { failure.message }
                }
            };
            if std::io::stdout().is_terminal() && !global.json {
                // From the top left corner of an empty screen.
                output::say(format_args!("\u{1b}[2J\u{1b}[H{now}"));
            } else if now != shown {
                output::say(&now);
            }
            shown = now;
            tokio::time::sleep(WATCH).await;
        }
    }
}

async fn get(client: &Client) -> Result<Value, Failure> {
    client.get(&["v1", "cluster"], &[]).await
}

/// Arguments of `village cluster drain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village cluster drain attic
  village cluster drain 9f3a --timeout 5m

The node takes nothing new and hands over what it leads; its process goes on, and after a restart it takes part again. What is
kept on one node only stays with it. A node whose process gets SIGTERM drains by itself.")]
pub(crate) struct Drain {
    /// Name or id of the node, or the beginning of its id.
    node: String,
    /// Longest wait.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Drain {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let node = find(&get(&client).await?, &self.node)?;
        let mut status = client.post(&["v1", "cluster", "drain"], &json!({ "node": node.id })).await?;
        let (give_up, mut told) = (Instant::now() + self.timeout, String::new());
        loop {
            let left = left_to_do(&status, &node.id);
            let Some(left) = left else { break };
            if left != told && !global.json {
                output::note(paint(DIM, format_args!("{} {left}", node.name)));
            }
            told = left;
            if Instant::now() >= give_up {
                let message = format!("{} {told} after {}", node.name, output::time(self.timeout.as_secs()));
                return Err(Failure::new(Exit::Failed, message)
                    .hint("it goes on draining; another node must be up to take over from it"));
            }
            tokio::time::sleep(LOOK).await;
            match get(&client).await {
                Ok(now) => status = now,
                Err(failure) if failure.exit == Exit::Unavailable => told = failure.message,
                Err(failure) => return Err(failure),
            }
        }
        if global.json {
            output::json(&json!({ "drained": node.id, "name": node.name }));
        } else {
            output::say(format_args!("{} {} has handed over everything", paint(GOOD, "✓"), node.name));
            let remove = format!("`village cluster remove {}`", node.name);
            output::note(paint(DIM, format_args!("its process may be stopped; if it will not come back: {remove}")));
        }
        Ok(())
    }
}

/// What a draining node still does for the others; nothing when it is done.
fn left_to_do(status: &Value, node: &str) -> Option<String> {
    let member = items(status, "members").iter().find(|member| text(member, "id") == node)?;
    if text(member, "state") == "down" {
        return None;
    }
    let holds = |group: &&Value, role: &str| items(group, role).iter().any(|voter| voter.as_str() == Some(node));
    let votes = items(status, "groups").iter().filter(|group| holds(group, "voters")).count();
    let leads = items(member, "leads").len();
    if (leads, votes) == (0, 0) {
        return None;
    }
    Some(format!("still leads {} and has a vote in {votes}", output::count(leads, "group")))
}

/// Arguments of `village cluster remove`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village cluster remove attic
  village cluster remove 9f3a --force

A removed node must join anew, with a token and an empty data directory. What was kept on it only is lost.")]
pub(crate) struct Remove {
    /// Name or id of the node, or the beginning of its id.
    node: String,
    /// Also when it is not down.
    #[arg(long)]
    force: bool,
}

impl Remove {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let node = find(&get(&client).await?, &self.node)?;
        let body = json!({ "node": node.id, "force": self.force });
        client.post(&["v1", "cluster", "remove"], &body).await.map_err(|failure| refused(failure, &node))?;
        if global.json {
            output::json(&json!({ "removed": node.id, "name": node.name }));
        } else {
            output::say(format_args!("{} is no member any more", node.name));
        }
        Ok(())
    }
}

fn refused(failure: Failure, node: &Node) -> Failure {
    match failure.code.as_deref() {
        Some("node_up") => {
            let message = format!("{} is {}, and only a node that is down is removed", node.name, node.state);
            Failure { exit: Exit::Refused, message, ..failure }.hint(format!(
                "`village cluster drain {0}`, stop its process, then remove it; --force removes it as it is",
                node.name
            ))
        }
        Some("node_needed") => Failure { exit: Exit::Refused, ..failure }.hint(
            "give the other nodes time to copy what it has, or let another node join; `village cluster status --groups` shows who has copies",
        ),
        Some("last_node") => Failure { exit: Exit::Refused, ..failure },
        _ => failure,
    }
}

/// A member that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    id: String,
    name: String,
    state: String,
}

/// The member of this id or name, or the only one whose id begins so.
fn find(status: &Value, wanted: &str) -> Result<Node, Failure> {
    let members = items(status, "members");
    let by = |is: &dyn Fn(&Value) -> bool| members.iter().filter(|member| is(member)).collect::<Vec<_>>();
    let exact = by(&|member| text(member, "id") == wanted || text(member, "name") == wanted);
    let found = if exact.is_empty() { by(&|member| text(member, "id").starts_with(wanted)) } else { exact };
    let names = |nodes: &[&Value]| {
        let names = nodes.iter().map(|node| format!("{} ({})", text(node, "name"), text(node, "id")));
        names.collect::<Vec<_>>().join(", ")
    };
    match found.as_slice() {
        [node] => Ok(Node {
            id: text(node, "id").to_owned(),
            name: text(node, "name").to_owned(),
            state: text(node, "state").to_owned(),
        }),
        [] => Err(Failure::new(Exit::Failed, format!("no node is called {wanted:?}"))
            .hint(format!("there are {}", names(&members.iter().collect::<Vec<_>>())))),
        several => Err(Failure::new(Exit::Usage, format!("{wanted:?} may be {}", names(several)))
            .hint("give the id, or enough of its beginning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Value {
        let member = |id: &str, name: &str, state: &str, leads: Value| json!({"id": id, "name": name, "state": state, "leads": leads});
        json!({
            "members": [
                member("aa11", "n1", "up", json!([0, 2])), member("aa22", "n2", "draining", json!([1])),
                member("bb33", "twin", "down", json!([])), member("bb44", "twin", "draining", json!([])),
            ],
            "groups": [{"voters": ["aa11", "aa22"]}, {"voters": ["aa22"]}, {"voters": ["bb33"], "learners": ["bb44"]}],
        })
    }

    #[test]
    fn a_node_is_found_by_name_id_and_unique_beginning() {
        for (wanted, id) in [("n1", "aa11"), ("aa22", "aa22"), ("bb3", "bb33"), ("aa2", "aa22")] {
            assert_eq!(find(&status(), wanted).unwrap().id, id, "{wanted}");
        }
        for (wanted, exit) in [("twin", Exit::Usage), ("aa", Exit::Usage), ("cc", Exit::Failed), ("", Exit::Usage)] {
            let failure = find(&status(), wanted).unwrap_err();
            assert_eq!(failure.exit, exit, "{wanted}: {failure}");
            assert!(failure.hint.is_some());
        }
    }

    #[test]
    fn a_node_is_drained_when_it_leads_and_votes_nowhere() {
        assert_eq!(left_to_do(&status(), "aa22").unwrap(), "still leads 1 group and has a vote in 2");
        for done in ["bb33", "bb44", "cc55"] {
            assert_eq!(left_to_do(&status(), done), None, "{done}");
        }
    }

    #[test]
    fn an_up_node_is_not_removed_and_the_way_is_told() {
        let node = find(&status(), "n1").unwrap();
        let failure = refused(Failure::from_answer(409, r#"{"detail":"no","code":"node_up"}"#), &node);
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.message.contains("n1 is up"), "{failure}");
        assert!(failure.hint.unwrap().contains("village cluster drain n1"));
        let failure = refused(Failure::from_answer(409, r#"{"detail":"no","code":"node_needed"}"#), &node);
        assert_eq!((failure.exit, failure.hint.unwrap().contains("join")), (Exit::Refused, true));
    }
}
