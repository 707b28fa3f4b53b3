//! `village tenant`: who shares the village.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Global, Outcome,
    client::Client,
    output::{self, DIM, paint, text},
};

/// Commands of `village tenant`.
#[derive(Debug, Subcommand)]
pub(crate) enum Tenant {
    /// Make a tenant and print the first key of its administrator; it is shown once.
    Add(Add),
    /// List the tenants.
    List(List),
    /// Suspend a tenant, or let it in again.
    Suspend(Suspend),
}

impl Tenant {
    /// Runs the command against a running village.
    ///
    /// # Errors
    /// What the village refuses, or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Add(add) => add.run(global).await,
            Self::List(list) => list.run(global).await,
            Self::Suspend(suspend) => suspend.run(global).await,
        }
    }
}

/// Arguments of `village tenant add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village tenant add acme --admin alice

Give the printed key to alice. With it as VILLAGE_KEY she types:
  village user password --first         so that she can log in
  village user totp                     administering asks for a second factor
  village login alice --tenant acme")]
pub(crate) struct Add {
    /// Its name: `a-z`, `0-9` and `-`, with a letter first.
    name: String,
    /// What its first administrator is called.
    #[arg(long, value_name = "NAME")]
    admin: String,
}

impl Add {
    async fn run(self, global: &Global) -> Outcome {
        let body = json!({ "name": self.name, "admin": self.admin });
        let made = Client::open(global)?.post(&["v1", "tenants"], &body).await?;
        if global.json {
            output::json(&made);
        } else {
            output::say(made.pointer("/admin/key").and_then(Value::as_str).unwrap_or_default());
            let whose = format_args!("the key of {} of {}, shown this once", self.admin, self.name);
            output::note(paint(DIM, whose));
        }
        Ok(())
    }
}

/// Arguments of `village tenant list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village tenant list --json")]
pub(crate) struct List {}

impl List {
    async fn run(self, global: &Global) -> Outcome {
        let tenants = Client::open(global)?.all(&["v1", "tenants"], &[]).await?;
        if global.json {
            output::json(&json!({ "data": tenants }));
            return Ok(());
        }
        let rows = tenants.iter().map(|tenant| {
            let is_suspended = tenant.get("suspended").and_then(Value::as_bool).unwrap_or_default();
            vec![text(tenant, "name").to_owned(), if is_suspended { "suspended" } else { "" }.to_owned()]
        });
        output::say(output::table(&["name", "state"], rows));
        Ok(())
    }
}

/// Arguments of `village tenant suspend`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village tenant suspend acme
  village tenant suspend acme --undo")]
pub(crate) struct Suspend {
    /// Its name.
    name: String,
    /// Let it in again.
    #[arg(long)]
    undo: bool,
}

impl Suspend {
    async fn run(self, global: &Global) -> Outcome {
        let body = json!({ "suspended": !self.undo });
        let changed = Client::open(global)?.patch(&["v1", "tenants", &self.name], &body).await?;
        if global.json {
            output::json(&changed);
        } else {
            let now = if self.undo { "is let in again" } else { "is let in no more" };
            output::say(format_args!("{} {now}", self.name));
        }
        Ok(())
    }
}
