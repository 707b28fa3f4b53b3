//! `village login` and `village logout`: a credential of one's own, kept for the other commands.
//!
//! Kept are sessions, one for each address of a village, in `credentials.json` of the user's configuration directory, which
//! nobody else can read. They count where no other key is given and the key of the village cannot be read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, DIM, paint, text},
    typed,
};

/// Arguments of `village login`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village login ada
  village login ada --tenant acme --url https://village.example
  village login ada < password.txt

The password is asked for, then the code of a second factor if the account has one.")]
pub(crate) struct Login {
    /// What the account is called.
    name: String,
    /// Whose account it is.
    #[arg(long, value_name = "TENANT", default_value = "local")]
    tenant: String,
}

impl Login {
    /// Logs in and keeps the session.
    ///
    /// # Errors
    /// A wrong password or code, a locked account, no village, or nowhere to keep the session.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let password = typed::secret("password")?;
        let body = json!({
            "tenant": self.tenant, "name": self.name, "password": password.as_str(), "grant": "session",
        });
        let mut given = client.post(&["v1", "auth", "login"], &body).await.map_err(wrong)?;
        if text(&given, "grant") == "mfa" {
            let code = typed::secret("code of the second factor")?;
            let body = json!({ "challenge": given["challenge"], "code": code.as_str() });
            given = client.post(&["v1", "auth", "mfa"], &body).await.map_err(wrong)?;
        }
        let kept = Kept::of_user()?;
        kept.put(client.base().as_str(), Some(text(&given, "session")))?;
        if global.json {
            output::json(&json!({ "tenant": self.tenant, "name": self.name, "expires_at_ms": given["expires_at_ms"] }));
        } else {
            output::say(format_args!("logged in as {} of {}", self.name, self.tenant));
            output::note(paint(DIM, format_args!("the session is in {}", kept.0.display())));
        }
        Ok(())
    }
}

/// A refusal here is not about a key file.
fn wrong(failure: Failure) -> Failure {
    match failure.code.as_deref() {
        Some("unauthenticated") => {
            Failure { hint: None, message: "name, password or code is wrong".to_owned(), ..failure }
        }
        _ => failure,
    }
}

/// Arguments of `village logout`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village logout")]
pub(crate) struct Logout {}

impl Logout {
    /// Ends the session that is kept for the village and forgets it.
    ///
    /// # Errors
    /// No village answers: the session is forgotten all the same.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let (kept, base) = (Kept::of_user()?, client.base().to_string());
        let session = kept.get(&base);
        kept.put(&base, None)?;
        let ended = session.is_some();
        if let Some(session) = session {
            client.with_key(session).post(&["v1", "auth", "logout"], &Value::Null).await?;
        }
        if global.json {
            output::json(&json!({ "ended": ended }));
        } else {
            output::say(if ended { "logged out" } else { "nobody was logged in" });
        }
        Ok(())
    }
}

/// The file with the sessions.
#[derive(Debug)]
pub(crate) struct Kept(PathBuf);

impl Kept {
    /// That of the user who runs the command.
    ///
    /// # Errors
    /// The environment names no home.
    pub(crate) fn of_user() -> Result<Self, Failure> {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = named("XDG_CONFIG_HOME").or_else(|| named("HOME").map(|home| home.join(".config")));
        let config =
            config.ok_or_else(|| Failure::new(Exit::Failed, "neither XDG_CONFIG_HOME nor HOME names a directory"))?;
        Ok(Self::at(&config))
    }

    fn at(config: &Path) -> Self {
        Self(config.join("village").join("credentials.json"))
    }

    /// The session for a village.
    pub(crate) fn get(&self, base: &str) -> Option<String> {
        self.read().remove(base)
    }

    fn read(&self) -> BTreeMap<String, String> {
        // What cannot be read is as good as not there: a login makes it anew.
        fs::read(&self.0).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn put(&self, base: &str, session: Option<&str>) -> Result<(), Failure> {
        let mut all = self.read();
        match session {
            Some(session) => drop(all.insert(base.to_owned(), session.to_owned())),
            None if all.remove(base).is_none() => return Ok(()),
            None => {}
        }
        self.write(&all)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot write {}: {error}", self.0.display())))
    }

    /// Written beside and renamed, private from its first byte.
    fn write(&self, all: &BTreeMap<String, String>) -> io::Result<()> {
        let folder = self.0.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let draft = self.0.with_extension("new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(all)?)?;
        file.sync_all()?;
        fs::rename(&draft, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn sessions_are_kept_for_each_village_and_for_nobody_else() {
        let config = tempfile::tempdir().unwrap();
        let kept = Kept::at(config.path());
        assert_eq!(kept.get("http://a/"), None);
        kept.put("http://a/", Some("avs_1")).unwrap();
        kept.put("http://b/", Some("avs_2")).unwrap();
        kept.put("http://a/", Some("avs_3")).unwrap();
        assert_eq!(
            (kept.get("http://a/").as_deref(), kept.get("http://b/").as_deref()),
            (Some("avs_3"), Some("avs_2"))
        );
        let mode = fs::metadata(&kept.0).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        kept.put("http://a/", None).unwrap();
        kept.put("http://a/", None).unwrap();
        assert_eq!((kept.get("http://a/"), kept.get("http://b/").as_deref()), (None, Some("avs_2")));
    }

    #[test]
    fn a_wrong_password_is_told_as_such() {
        let failure = wrong(Failure::from_answer(401, r#"{"detail":"x","code":"unauthenticated"}"#));
        assert_eq!(
            (failure.exit, failure.hint, &*failure.message),
            (Exit::Refused, None, "name, password or code is wrong")
        );
    }
}
