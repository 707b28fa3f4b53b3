//! `village token`: what lets another node join.

use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, DIM, items, paint, text},
};

/// Commands of `village token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print the line that lets another node join.
    New(New),
    /// List the tokens, without their secrets.
    List(List),
    /// End a token.
    Revoke(Revoke),
}

impl Token {
    /// Runs the command against a running village.
    ///
    /// # Errors
    /// An unknown token, no quorum or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::New(new) => new.run(global).await,
            Self::List(list) => list.run(global).await,
            Self::Revoke(revoke) => revoke.run(global).await,
        }
    }
}

/// Arguments of `village token new`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village token new
  village token new --uses 5 --ttl 1day --note 'machines in the attic'

Type the printed line on the machine that shall join. Whoever has it can join: treat it like a password.")]
pub(crate) struct New {
    /// Nodes that may join with it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
    /// How long it is good.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// What it is for, shown by `village token list`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
}

impl New {
    async fn run(self, global: &Global) -> Outcome {
        let made = make(&Client::open(global)?, self.uses, self.ttl, &self.note).await?;
        if global.json {
            output::json(&made);
            return Ok(());
        }
        output::say(format_args!("village join {}", text(&made, "join")));
        let nodes = output::count(usize::try_from(self.uses).unwrap_or(usize::MAX), "node");
        output::note(paint(DIM, format_args!("for {nodes}, within {}", output::time(self.ttl.as_secs()))));
        if is_this_machine(text(&made, "addr")) {
            output::note(paint(
                DIM,
                "only from this machine: `village up --cluster-listen 0.0.0.0:4100` listens for others too",
            ));
        }
        Ok(())
    }
}

/// Has the village make a token.
pub(crate) async fn make(client: &Client, uses: u32, ttl: Duration, note: &str) -> Result<Value, Failure> {
    let body = json!({ "uses": uses, "ttl_s": ttl.as_secs(), "note": note });
    client.post(&["v1", "cluster", "tokens"], &body).await
}

fn is_this_machine(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Arguments of `village token list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village token list --json")]
pub(crate) struct List {}

impl List {
    async fn run(self, global: &Global) -> Outcome {
        let tokens = Client::open(global)?.get(&["v1", "cluster", "tokens"], &[]).await?;
        if global.json {
            output::json(&tokens);
        } else {
            output::say(table(items(&tokens, "data")));
        }
        Ok(())
    }
}

fn table(tokens: &[Value]) -> String {
    if tokens.is_empty() {
        return "no tokens".to_owned();
    }
    let rows = tokens.iter().map(|token| {
        let number = |name: &str| token.get(name).and_then(Value::as_u64).unwrap_or_default();
        let (uses, left) = (number("uses_left").to_string(), output::time(number("expires_in_s")));
        vec![text(token, "id").to_owned(), uses, left, text(token, "note").to_owned()]
    });
    output::table(&["id", "#uses left", "expires in", "note"], rows)
}

/// Arguments of `village token revoke`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village token revoke 3f9a0c12d4e5f607")]
pub(crate) struct Revoke {
    /// Id of the token, as `village token list` shows it.
    id: String,
}

impl Revoke {
    async fn run(self, global: &Global) -> Outcome {
        let revoked = Client::open(global)?.delete(&["v1", "cluster", "tokens", &self.id], &[]).await;
        revoked.map_err(|failure| match failure.code.as_deref() {
            Some("token_unknown") => Failure { exit: Exit::Failed, ..failure }.hint("`village token list` shows all"),
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
    fn list_says_how_often_and_how_long() {
        assert_eq!(table(&[]), "no tokens");
        let token = json!({"id": "00000000000000a1", "uses_left": 2, "expires_in_s": 3_599, "note": "attic"});
        let plain = anstream::adapter::strip_str(&table(&[token])).to_string();
        insta::assert_snapshot!(plain, @r"
        ID                USES LEFT  EXPIRES IN  NOTE
        00000000000000a1          2  59m 59s     attic
        ");
    }

    #[test]
    fn loopback_is_told_from_what_others_reach() {
        for address in ["127.0.0.1:4100", "[::1]:4100", "localhost:4100"] {
            assert!(is_this_machine(address), "{address}");
        }
        for address in ["10.0.0.7:4100", "attic:4100", "[fe80::1]:4100"] {
            assert!(!is_this_machine(address), "{address}");
        }
    }
}
