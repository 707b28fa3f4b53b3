//! `village key`: API keys, for programs.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, DIM, items, paint, text},
    user,
};

/// Commands of `village key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key and print it; it is shown once.
    New(New),
    /// List keys, without their secrets.
    List(List),
    /// End a key.
    Revoke(Revoke),
}

impl Key {
    /// Runs the command against a running village.
    ///
    /// # Errors
    /// What the village refuses, or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::New(new) => new.run(global).await,
            Self::List(list) => list.run(global).await,
            Self::Revoke(revoke) => revoke.run(global).await,
        }
    }
}

/// Arguments of `village key new`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village key new --label laptop
  village key new --user nightly --scope memory.write --scope agent.ask --ttl 90days
  VILLAGE_KEY=avk_... village agents")]
pub(crate) struct New {
    /// Name or id of the account that it is for; your own if none is named.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// What it is for, shown by `village key list`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// What it is good for, `area.verb` or `area.*`; anything that its account may if none is given.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long it is good; for ever if not given.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
}

impl New {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let subject = user::own_or(&client, self.user.as_deref()).await?;
        let body = json!({
            "subject": subject, "label": self.label, "scopes": self.scopes, "ttl_s": self.ttl.map(|ttl| ttl.as_secs()),
        });
        let made = client.post(&["v1", "keys"], &body).await?;
        if global.json {
            output::json(&made);
        } else {
            output::say(text(&made, "key"));
            output::note(paint(DIM, "shown this once; whoever has it acts as its account"));
        }
        Ok(())
    }
}

/// Arguments of `village key list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village key list
  village key list --all --json")]
pub(crate) struct List {
    /// Name or id of the account whose keys are listed; your own if none is named.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    user: Option<String>,
    /// Those of all accounts.
    #[arg(long)]
    all: bool,
}

impl List {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let subject = if self.all { "*".to_owned() } else { user::own_or(&client, self.user.as_deref()).await? };
        let keys = client.all(&["v1", "keys"], &[("subject", &subject)]).await?;
        if global.json {
            output::json(&json!({ "data": keys }));
        } else {
            output::say(table(&keys));
        }
        Ok(())
    }
}

fn table(keys: &[Value]) -> String {
    if keys.is_empty() {
        return "no keys".to_owned();
    }
    let rows = keys.iter().map(|key| {
        let scopes: Vec<_> = items(key, "scopes").iter().filter_map(Value::as_str).collect();
        let scopes = if scopes.is_empty() { "all".to_owned() } else { scopes.join(" ") };
        let ends = key.get("expires_at_ms").and_then(Value::as_u64).map_or_else(|| "never".to_owned(), date);
        vec![text(key, "id").into(), text(key, "label").into(), scopes, ends, text(key, "subject").into()]
    });
    output::table(&["id", "label", "scopes", "ends", "account"], rows)
}

fn date(unix_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + Duration::from_secs(unix_ms / 1_000);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Arguments of `village key revoke`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village key revoke k3v7q2zanb")]
pub(crate) struct Revoke {
    /// Id of the key: the ten letters after `avk_` and the tenant's eight.
    id: String,
}

impl Revoke {
    async fn run(self, global: &Global) -> Outcome {
        let revoked = Client::open(global)?.delete(&["v1", "keys", &self.id], &[]).await;
        revoked.map_err(|failure| match failure.code.as_deref() {
            Some("not_found") => Failure { exit: Exit::Failed, ..failure }.hint("`village key list --all` shows all"),
            _ => failure,
        })?;
        if global.json {
            output::json(&json!({ "revoked": self.id }));
        } else {
            output::say(format_args!("{} is worth nothing now", self.id));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_says_what_keys_are_good_for_and_until_when() {
        assert_eq!(table(&[]), "no keys");
        let subject = "0198c0de-0000-7000-8000-000000000001";
        let keys = [
            json!({"id": "k3v7q2zanb", "label": "ci", "scopes": ["memory.*"], "expires_at_ms": 1_700_000_000_000_u64, "subject": subject}),
            json!({"id": "aaaaaaaaaa", "label": "", "scopes": [], "subject": subject}),
        ];
        let plain = anstream::adapter::strip_str(&table(&keys)).to_string();
        insta::assert_snapshot!(plain, @r"
        ID          LABEL  SCOPES    ENDS                  ACCOUNT
        k3v7q2zanb  ci     memory.*  2023-11-14T22:13:20Z  0198c0de-0000-7000-8000-000000000001
        aaaaaaaaaa         all       never                 0198c0de-0000-7000-8000-000000000001
        ");
    }
}
