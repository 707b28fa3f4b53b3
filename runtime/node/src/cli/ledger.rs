//! `village ledger`: accounts and transfers of a village, and their audit.

mod audit;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Global, Outcome,
    client::Client,
    output::{self, items, text},
};

/// Commands of `village ledger`.
#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Verify the whole journal, that it makes the books, and that these balance.
    Audit(audit::Audit),
    /// Show accounts with their balances.
    Accounts(Accounts),
    /// Show transfers in the order in which they took effect.
    Transfers(Transfers),
}

impl Ledger {
    /// Runs the command.
    ///
    /// # Errors
    /// What the village answered, or that none answers; a ledger that does not audit.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Audit(audit) => audit.run(global).await,
            Self::Accounts(accounts) => accounts.run(global).await,
            Self::Transfers(transfers) => transfers.run(global).await,
        }
    }
}

/// Arguments of `village ledger accounts`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village ledger accounts
  village ledger accounts -n 1000 --after 000000000000000000000000000003e8 --json

Amounts are whole numbers of the unit.")]
pub(crate) struct Accounts {
    /// Accounts to show.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    lines: u32,
    /// Those behind this account, 32 hex digits.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

impl Accounts {
    async fn run(self, global: &Global) -> Outcome {
        let limit = self.lines.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(self.after.as_deref().map(|after| ("after", after)));
        let page = Client::open(global)?.get(&["v1", "ledger", "accounts"], &query).await?;
        if global.json {
            output::json(&page);
            return Ok(());
        }
        output::say(accounts(&page));
        if !text(&page, "next").is_empty() {
            output::note(format_args!("more: village ledger accounts --after {}", text(&page, "next")));
        }
        Ok(())
    }
}

fn accounts(page: &Value) -> String {
    let fields = ["id", "unit", "credits_posted", "debits_posted", "credits_pending", "debits_pending", "available"];
    let row = |account: &Value| {
        let mut row = fields.map(|field| text(account, field).to_owned());
        if account.get("no_overdraft") != Some(&Value::Bool(true))
            && let Some(available) = row.last_mut()
        {
            "no limit".clone_into(available);
        }
        row.to_vec()
    };
    let heads = ["ACCOUNT", "UNIT", "CREDITS", "DEBITS", "HELD IN", "HELD OUT", "AVAILABLE"];
    match items(page, "data") {
        [] => "no accounts".to_owned(),
        found => output::table(&heads, found.iter().map(row)),
    }
}

/// Arguments of `village ledger transfers`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village ledger transfers
  village ledger transfers --from 120 --json

One that settles or frees a hold names it; the journal is a chain of segments, each with what one commit accepted.")]
pub(crate) struct Transfers {
    /// Segments of the journal to show.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    lines: u32,
    /// The first segment.
    #[arg(long, value_name = "SEGMENT", default_value_t = 0)]
    from: u64,
}

impl Transfers {
    async fn run(self, global: &Global) -> Outcome {
        let (from, limit) = (self.from.to_string(), self.lines.to_string());
        let query = [("from", from.as_str()), ("limit", limit.as_str())];
        let page = Client::open(global)?.get(&["v1", "ledger", "transfers"], &query).await?;
        if global.json {
            output::json(&page);
            return Ok(());
        }
        output::say(transfers(&page));
        if let Some(next) = page.get("next").and_then(Value::as_u64) {
            output::note(format_args!("more: village ledger transfers --from {next}"));
        }
        Ok(())
    }
}

fn transfers(page: &Value) -> String {
    let row = |transfer: &Value| {
        let segment = transfer.get("segment").map(ToString::to_string).unwrap_or_default();
        let fields = ["kind", "amount", "unit", "debit", "credit", "id"].map(|field| text(transfer, field).to_owned());
        std::iter::once(segment).chain(fields).collect()
    };
    let heads = ["SEGMENT", "KIND", "AMOUNT", "UNIT", "DEBIT", "CREDIT", "TRANSFER"];
    match items(page, "data") {
        [] => "no transfers".to_owned(),
        found => output::table(&heads, found.iter().map(row)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_account_that_may_be_overdrawn_has_no_limit() {
        let account = |id: &str, no_overdraft: bool| {
            json!({
                "id": id, "unit": "micro_usd", "no_overdraft": no_overdraft, "available": "70", "credits_posted": "100",
                "debits_posted": "20", "credits_pending": "0", "debits_pending": "10",
            })
        };
        let shown = accounts(&json!({ "data": [account("01", true), account("02", false)] }));
        let plain = anstream::adapter::strip_str(&shown).to_string();
        let lines: Vec<_> = plain.lines().map(str::trim_end).collect();
        assert!(lines[1].starts_with("01") && lines[1].ends_with("70"), "{plain}");
        assert!(lines[2].starts_with("02") && lines[2].ends_with("no limit"), "{plain}");
        assert_eq!(accounts(&json!({ "data": [] })), "no accounts");
    }

    #[test]
    fn a_transfer_is_one_line() {
        let transfer = json!({
            "id": "0a", "debit": "01", "credit": "02", "amount": "7", "unit": "micro_usd", "kind": "hold", "segment": 3,
        });
        let shown = transfers(&json!({ "data": [transfer] }));
        let plain = anstream::adapter::strip_str(&shown).to_string();
        let words: Vec<_> = plain.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["3", "hold", "7", "micro_usd", "01", "02", "0a"]);
        assert_eq!(transfers(&json!({ "data": [] })), "no transfers");
    }
}
