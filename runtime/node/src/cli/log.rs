//! `village log`: the transparency log, read from a village or checked without one.

mod audit;
mod keys;
mod verify;

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use aivillage_governance::tlog::Home;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::{self, Client},
    output::{self, BAD, DIM, items, paint, text},
    serve::GOVERNANCE,
};
use keys::Keys;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Most entries of one question.
const PAGE: u64 = 1_000;

/// Commands of `village log`.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Show the newest entries.
    Tail(Tail),
    /// Print a proof that an entry is in the log.
    Prove(Prove),
    /// Check a proof, without a village.
    Verify(verify::Verify),
    /// Check every file of a log, without a village.
    Audit(audit::Audit),
    /// Print the key that checks the log.
    Key(Key),
}

impl Log {
    /// Runs the command.
    ///
    /// # Errors
    /// No village, no such entry; a proof that does not convince; a log with a bad file.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Tail(tail) => tail.run(global).await,
            Self::Prove(prove) => prove.run(global).await,
            Self::Verify(verify) => verify.run(global),
            Self::Audit(audit) => audit.run(global),
            Self::Key(key) => key.run(global).await,
        }
    }
}

/// Arguments of `village log tail`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village log tail
  village log tail -n 100 --json
  village log tail --follow

Actor, object and tenant are pseudonyms: the log names nobody.")]
pub(crate) struct Tail {
    /// Entries to show.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=PAGE))]
    lines: u64,
    /// Go on with those that come.
    #[arg(short, long)]
    follow: bool,
}

impl Tail {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let (mut from, mut limit) = (None, self.lines);
        loop {
            let (first, most) = (from.map(|from: u64| from.to_string()), limit.to_string());
            let mut query = vec![("limit", most.as_str())];
            query.extend(first.as_deref().map(|first| ("from", first)));
            let page = client.get(&["v1", "log", "entries"], &query).await?;
            for entry in items(&page, "data") {
                output::say(if global.json { entry.to_string() } else { line(entry) });
            }
            if !self.follow {
                if !global.json {
                    output::note(standing(&client.get(&["v1", "log"], &[]).await?));
                }
                return Ok(());
            }
            let number = |name: &str| page.get(name).and_then(Value::as_u64);
            (from, limit) = (number("next"), PAGE);
            if number("next") >= number("size") {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// What vouches for the log, for people.
fn standing(log: &Value) -> String {
    let number = |name: &str| log.get(name).and_then(Value::as_u64).unwrap_or_default();
    let Some(size) = log.get("checkpoint").and_then(Value::as_u64) else { return "nothing is signed yet".to_owned() };
    let signed = |witness: &&Value| witness.get("cosigned_s").is_some_and(Value::is_u64);
    let names: Vec<_> =
        items(log, "witnesses").iter().filter(signed).map(|witness| name(text(witness, "key"))).collect();
    let (cosigned, wanted) = (number("cosigned"), number("wanted"));
    let by = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    format!("checkpoint of {size} entries, {cosigned} of {wanted} cosignatures{by}")
}

/// The name in a key.
fn name(key: &str) -> &str {
    key.split_once('+').map_or(key, |(name, _)| name)
}

/// A moment for people, RFC 3339.
fn time(unix_s: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(unix_s));
    time.map_or_else(|| unix_s.to_string(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// An entry for people.
fn line(entry: &Value) -> String {
    let number = |pointer: &str| entry.pointer(pointer).and_then(Value::as_u64);
    let time = number("/t").and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    let time = time.map_or_else(String::new, |time| humantime::format_rfc3339_millis(time).to_string());
    let decision = match text(entry, "decision") {
        "deny" => paint(BAD, "deny"),
        other => other.to_owned(),
    };
    let status = number("/payload/clear/status").map_or_else(|| "-".to_owned(), |status| status.to_string());
    let (kind, action, actor) = (text(entry, "kind"), text(entry, "action"), text(entry, "actor"));
    let seq = number("/seq").unwrap_or_default();
    format!("{seq}  {}  {kind}  {decision}  {status}  {action}  {}", paint(DIM, time), paint(DIM, actor))
}

/// Arguments of `village log prove`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village log prove 17 > 17.tlog-proof

The file is a C2SP tlog-proof: whoever has the log's key checks it offline, with `village log verify`.")]
pub(crate) struct Prove {
    /// Number of the entry, as `village log tail` shows it.
    index: u64,
}

impl Prove {
    async fn run(self, global: &Global) -> Outcome {
        let proof = Client::open(global)?.text(&["v1", "log", "proof", &self.index.to_string()]).await?;
        if global.json {
            output::json(&json!({ "index": self.index, "proof": proof }));
        } else {
            output::say_part(proof);
        }
        Ok(())
    }
}

/// Arguments of `village log key`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village log key > village.key
  village log key --witnesses > trusted.keys

Give it to whom shall check the log, by another way than the log's own. With the keys of the witnesses, which are the other nodes of
the cluster, `village log verify --keys trusted.keys --quorum 2` counts cosignatures.")]
pub(crate) struct Key {
    /// Print the keys of the log's witnesses too.
    #[arg(long)]
    witnesses: bool,
}

impl Key {
    async fn run(self, global: &Global) -> Outcome {
        let folder = Home::folder_in(&client::home(global).join(GOVERNANCE));
        let file = Home::keys_beside(&folder);
        let keys = match fs::read_to_string(&file) {
            Ok(written) if global.url.is_none() => Keys::default().with(&written, &file.display())?,
            _ => asked(&Client::open(global)?.get(&["v1", "log"], &[]).await?)?,
        };
        let key = keys.only_log()?;
        // A node that keeps the log is none of its witnesses, though its own witness's key lies beside.
        let own = format!("{}/", key.name());
        let others = keys.witnesses.iter().filter(|witness| !witness.name().starts_with(&own));
        let witnesses: Vec<_> = others.map(ToString::to_string).collect();
        if global.json {
            output::json(&json!({ "origin": key.name(), "key": key.to_string(), "witnesses": witnesses }));
            return Ok(());
        }
        output::say(key);
        if self.witnesses {
            witnesses.iter().for_each(output::say);
        }
        Ok(())
    }
}

/// The keys that a village tells of its log.
fn asked(log: &Value) -> Result<Keys, Failure> {
    let witnesses = items(log, "witnesses").iter().map(|witness| text(witness, "key"));
    let lines: String = std::iter::once(text(log, "key")).chain(witnesses).map(|key| format!("{key}\n")).collect();
    let unreadable = |_| Failure::new(Exit::Failed, "the village tells no key of its log");
    Keys::default().with(&lines, &"the village").map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line() {
        let entry = json!({
            "seq": 7, "t": 1_700_000_000_123_u64, "kind": "auth.deny", "decision": "deny", "action": "GET /v1/agents",
            "actor": "AAAAAAAAAAAAAAAAAAAA", "payload": { "clear": { "status": 401, "trace": "0" } },
        });
        let plain = anstream::adapter::strip_str(&line(&entry)).to_string();
        insta::assert_snapshot!(plain, @"7  2023-11-14T22:13:20.123Z  auth.deny  deny  401  GET /v1/agents  AAAAAAAAAAAAAAAAAAAA");
        let unknown = anstream::adapter::strip_str(&line(&json!({ "kind": "node.joined" }))).to_string();
        assert!(unknown.contains("node.joined"), "{unknown}");
    }

    #[test]
    fn who_vouches_for_the_log_is_one_line() {
        let witness = |n: u8, at: Value| json!({ "key": format!("village/{n}/witness+0+AA=="), "cosigned_s": at });
        let mut log = json!({
            "checkpoint": 17, "cosigned": 1, "wanted": 2, "witnesses": [witness(2, json!(5)), witness(3, Value::Null)],
        });
        insta::assert_snapshot!(standing(&log), @"checkpoint of 17 entries, 1 of 2 cosignatures: village/2/witness");
        log["witnesses"] = json!([]);
        insta::assert_snapshot!(standing(&log), @"checkpoint of 17 entries, 1 of 2 cosignatures");
        assert_eq!(standing(&json!({ "checkpoint": null })), "nothing is signed yet");
        assert_eq!(time(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
