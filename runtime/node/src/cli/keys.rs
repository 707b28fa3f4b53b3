//! `village keys`: the keys that personal data is sealed with.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Global, Outcome,
    client::Client,
    output::{self, DIM, GOOD, paint, text},
};

/// Commands of `village keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Show epochs and keys, without secrets.
    Status(Status),
    /// Begin the next epoch now; what backups hold of the erased is unreadable after two.
    Rotate(Rotate),
}

impl Keys {
    /// Runs the command against a running village.
    ///
    /// # Errors
    /// A key that may not, a root key that is not there yet, or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let (keys, began) = match self {
            Self::Status(_) => (Client::open(global)?.get(&["v1", "vault"], &[]).await?, false),
            Self::Rotate(_) => (Client::open(global)?.post(&["v1", "vault", "rotate"], &json!({})).await?, true),
        };
        if global.json {
            output::json(&keys);
            return Ok(());
        }
        if began {
            output::say(format_args!("{} epoch {}", paint(GOOD, "begun:"), number(&keys, "epoch")));
        }
        output::say(table(&keys));
        if number(&keys, "behind") > 0 {
            output::note(paint(DIM, "what is behind keeps its old epoch until the nodes with it answer"));
        }
        Ok(())
    }
}

/// Arguments of `village keys status`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village keys status --json")]
pub(crate) struct Status {}

/// Arguments of `village keys rotate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village keys rotate

The village does this by itself, once in each `governance.keys.epoch`.")]
pub(crate) struct Rotate {}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn table(keys: &Value) -> String {
    let of = |name: &str| number(keys, name).to_string();
    let rows = [
        ("epoch", format!("{}, keys are kept from {} on", of("epoch"), of("oldest_epoch"))),
        ("next epoch", format!("in {}", output::time(number(keys, "next_ms") / 1_000))),
        ("tenants", format!("{}, {} behind", of("tenants"), of("behind"))),
        ("keys here", format!("{}, {} people erased", of("keys"), of("erased"))),
        ("refused", format!("{} stored values were not what was sealed", of("refused"))),
        ("certificates", text(keys, "certificate_key").to_owned()),
    ];
    output::table(&["", ""], rows.map(|(name, value)| vec![name.to_owned(), value]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_there_is() {
        let keys = json!({ "epoch": 7, "oldest_epoch": 6, "next_ms": 90_000, "tenants": 2, "behind": 1, "keys": 5,
            "erased": 3, "refused": 0, "certificate_key": "ab12" });
        let table = table(&keys);
        for part in ["7, keys are kept from 6 on", "2, 1 behind", "5, 3 people erased", "ab12"] {
            assert!(table.contains(part), "{table}");
        }
    }
}
