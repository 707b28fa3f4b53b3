//! `village user`: the accounts of a tenant.

use std::io::{self, IsTerminal as _};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, DIM, items, paint, text},
    typed,
};

/// Commands of `village user`.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Make an account.
    Add(Add),
    /// List the accounts.
    List(List),
    /// Give an account other roles.
    Roles(Roles),
    /// Suspend an account, or let it in again.
    Suspend(Suspend),
    /// Give an account a password.
    Password(Password),
    /// Give an account a second factor.
    Totp(Totp),
}

impl User {
    /// Runs the command against a running village.
    ///
    /// # Errors
    /// What the village refuses, or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Add(add) => add.run(global).await,
            Self::List(list) => list.run(global).await,
            Self::Roles(roles) => roles.run(global).await,
            Self::Suspend(suspend) => suspend.run(global).await,
            Self::Password(password) => password.run(global).await,
            Self::Totp(totp) => totp.run(global).await,
        }
    }
}

/// What an account is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// A person.
    User,
    /// A program.
    Service,
    /// An agent.
    Agent,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Agent => "agent",
        }
    }
}

/// Arguments of `village user add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village user add ada --role user
  village user add nightly --kind service --role developer

It can log in once it has a password: `village user password ada`.")]
pub(crate) struct Add {
    /// What it is called.
    name: String,
    /// What it may be; may be given several times.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// What it is.
    #[arg(long, value_enum, default_value_t = Kind::User)]
    kind: Kind,
}

impl Add {
    async fn run(self, global: &Global) -> Outcome {
        let body = json!({ "name": self.name, "kind": self.kind.name(), "roles": self.roles });
        let made = Client::open(global)?.post(&["v1", "users"], &body).await?;
        show(global, &made, &format!("made {}", describe(&made)));
        Ok(())
    }
}

/// Arguments of `village user list`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village user list --json")]
pub(crate) struct List {}

impl List {
    async fn run(self, global: &Global) -> Outcome {
        let users = Client::open(global)?.all(&["v1", "users"], &[]).await?;
        if global.json {
            output::json(&json!({ "data": users }));
        } else {
            output::say(table(&users));
        }
        Ok(())
    }
}

fn table(users: &[Value]) -> String {
    if users.is_empty() {
        return "no accounts".to_owned();
    }
    let rows = users.iter().map(|user| {
        let is = |name: &str| user.get(name).and_then(Value::as_bool).unwrap_or_default();
        let can = [("password", is("has_password")), ("second factor", is("has_mfa")), ("suspended", is("suspended"))];
        let can: Vec<_> = can.into_iter().filter(|(_, is)| *is).map(|(what, _)| what).collect();
        vec![text(user, "name").into(), text(user, "kind").into(), roles(user), can.join(", "), text(user, "id").into()]
    });
    output::table(&["name", "kind", "roles", "has", "id"], rows)
}

fn roles(user: &Value) -> String {
    items(user, "roles").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn describe(user: &Value) -> String {
    let roles = roles(user);
    format!("{} ({})", text(user, "name"), if roles.is_empty() { "no roles" } else { &roles })
}

/// Arguments of `village user roles`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village user roles ada user auditor
  village user roles ada               (no role at all)

Roles: super_admin, admin, developer, data_scientist, operator, user, guest, juror, trustee, auditor, dpo.")]
pub(crate) struct Roles {
    /// Name or id of the account.
    account: String,
    /// All roles that it is to have.
    roles: Vec<String>,
}

impl Roles {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let id = id_of(&client, &self.account).await?;
        let changed = client.patch(&["v1", "users", &id], &json!({ "roles": self.roles })).await?;
        show(global, &changed, &describe(&changed));
        Ok(())
    }
}

/// Arguments of `village user suspend`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village user suspend ada
  village user suspend ada --undo")]
pub(crate) struct Suspend {
    /// Name or id of the account.
    account: String,
    /// Let it in again.
    #[arg(long)]
    undo: bool,
}

impl Suspend {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let id = id_of(&client, &self.account).await?;
        let changed = client.patch(&["v1", "users", &id], &json!({ "suspended": !self.undo })).await?;
        let now = if self.undo { "is let in again" } else { "may do nothing now; its logins have ended" };
        show(global, &changed, &format!("{} {now}", text(&changed, "name")));
        Ok(())
    }
}

/// Arguments of `village user password`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village user password                 your own
  village user password ada             somebody else's, as an administrator
  village user password ada < new.txt")]
pub(crate) struct Password {
    /// Name or id of the account; your own if none is named.
    account: Option<String>,
    /// You have none yet: you are not asked for the present one.
    #[arg(long, conflicts_with = "account")]
    first: bool,
}

impl Password {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let is_own = self.account.is_none();
        let id = own_or(&client, self.account.as_deref()).await?;
        let current = if is_own && !self.first { Some(typed::secret("present password")?) } else { None };
        let new = typed::new_password()?;
        let body = json!({ "current": current.as_ref().map(|text| text.as_str()), "new": new.as_str() });
        client.post(&["v1", "users", &id, "password"], &body).await?;
        show(global, &json!({ "changed": id }), "the password counts; all logins have ended");
        Ok(())
    }
}

/// Arguments of `village user totp`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village user totp                     your own: shows what an app reads, asks for its first code
  village user totp --json              shows the URL only
  echo 123456 | village user totp --confirm --json")]
pub(crate) struct Totp {
    /// Name or id of the account; your own if none is named.
    account: Option<String>,
    /// Show the first code of what was offered before.
    #[arg(long)]
    confirm: bool,
}

impl Totp {
    async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let id = own_or(&client, self.account.as_deref()).await?;
        if !self.confirm {
            let offer = client.post(&["v1", "users", &id, "totp"], &Value::Null).await?;
            show(global, &offer, text(&offer, "url"));
            if global.json || !io::stdin().is_terminal() {
                return Ok(());
            }
            output::note(paint(DIM, "give this to an authenticator app, then type the code that it shows"));
        }
        let code = typed::secret("code")?;
        let body = json!({ "code": code.as_str() });
        let codes = client.post(&["v1", "users", &id, "totp", "confirm"], &body).await?;
        let listed: Vec<_> = items(&codes, "recovery_codes").iter().filter_map(Value::as_str).collect();
        show(global, &codes, &listed.join("\n"));
        if !global.json {
            output::note(paint(DIM, "each of these is a code for once, if the app is lost; they are not shown again"));
        }
        Ok(())
    }
}

fn show(global: &Global, value: &Value, said: &str) {
    if global.json {
        output::json(value);
    } else {
        output::say(said);
    }
}

/// The account that is named, or the caller's.
pub(crate) async fn own_or(client: &Client, account: Option<&str>) -> Result<String, Failure> {
    if let Some(account) = account {
        return id_of(client, account).await;
    }
    let me = client.get(&["v1", "auth", "me"], &[]).await?;
    if me.get("name").is_none() {
        return Err(Failure::new(Exit::Usage, "the key of the village is no account: name one")
            .hint("`village login NAME` makes the commands yours"));
    }
    Ok(text(&me, "subject").to_owned())
}

/// The id of an account.
pub(crate) async fn id_of(client: &Client, account: &str) -> Result<String, Failure> {
    let found = client.get(&["v1", "users"], &[("name", account)]).await?;
    let user = items(&found, "data").first();
    user.map(|user| text(user, "id").to_owned()).ok_or_else(|| {
        Failure::new(Exit::Failed, format!("there is no account `{account}`")).hint("`village user list` shows all")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_says_who_can_log_in_how() {
        assert_eq!(table(&[]), "no accounts");
        let user = json!({
            "id": "0198c0de-0000-7000-8000-000000000001", "name": "ada", "kind": "user", "roles": ["user", "auditor"],
            "has_password": true, "has_mfa": true, "suspended": false,
        });
        let plain = anstream::adapter::strip_str(&table(&[user])).to_string();
        insta::assert_snapshot!(plain, @r"
        NAME  KIND  ROLES          HAS                      ID
        ada   user  user, auditor  password, second factor  0198c0de-0000-7000-8000-000000000001
        ");
        assert_eq!(describe(&json!({ "name": "ada", "roles": [] })), "ada (no roles)");
    }
}
