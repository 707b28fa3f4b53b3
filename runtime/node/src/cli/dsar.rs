//! `village dsar`: what is kept of a person, shown, erased, and proven to be erased.

use std::{fs, path::PathBuf};

use aivillage_governance::keys::SignedCertificate;
use aivillage_runtime::PublicKey;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, DIM, GOOD, NAME, paint, text},
};

/// Commands of `village dsar`.
#[derive(Debug, Subcommand)]
pub(crate) enum Dsar {
    /// Print all that is kept of a person.
    Export(Export),
    /// Erase a person for good and save the certificate.
    Erase(Erase),
    /// Check a certificate of erasure; no village is needed.
    Verify(Verify),
}

impl Dsar {
    /// Runs the command.
    ///
    /// # Errors
    /// A key that may not, a node that does not answer, a certificate that proves nothing.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Self::Export(export) => export.run(global).await,
            Self::Erase(erase) => erase.run(global).await,
            Self::Verify(verify) => verify.run(global),
        }
    }
}

/// Arguments of `village dsar export`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village dsar export ada > ada.json")]
pub(crate) struct Export {
    /// Their account, by name or id; or the subject of their key.
    subject: String,
}

impl Export {
    async fn run(self, global: &Global) -> Outcome {
        output::json(&Client::open(global)?.get(&["v1", "dsar", &self.subject], &[]).await?);
        Ok(())
    }
}

/// Arguments of `village dsar erase`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village dsar erase ada --yes
  village dsar erase ada --yes --basis gdpr-17 --out ada.certificate.json

Their keys are destroyed on all nodes first: nothing brings back what they sealed. Nothing is kept of them from then on.
All nodes have to answer. Asked again, the same certificate comes.")]
pub(crate) struct Erase {
    /// Their account, by name or id; or the subject of their key.
    subject: String,
    /// Why.
    #[arg(long, value_name = "TEXT", default_value = "gdpr-17")]
    basis: String,
    /// Where to save the certificate [default: `erasure-ID.json`].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// It cannot be undone: say so.
    #[arg(long)]
    yes: bool,
}

impl Erase {
    async fn run(self, global: &Global) -> Outcome {
        if !self.yes {
            return Err(Failure::new(Exit::Usage, format!("erasing {} cannot be undone", self.subject))
                .hint("say --yes; `village dsar export` shows what is kept"));
        }
        let body = json!({ "subject": self.subject, "basis": self.basis });
        let erased = Client::open(global)?.post(&["v1", "erasures"], &body).await?;
        let (id, certificate) = (text(&erased, "id"), erased.get("certificate").unwrap_or(&Value::Null));
        let file = self.out.unwrap_or_else(|| PathBuf::from(format!("erasure-{id}.json")));
        fs::write(&file, format!("{certificate:#}\n")).map_err(|error| {
            Failure::new(Exit::Failed, format!("erased, but cannot write {}: {error}", file.display()))
        })?;
        if global.json {
            output::json(&erased);
            return Ok(());
        }
        output::say(format_args!("{} {}", paint(GOOD, "erased:"), self.subject));
        output::say(summary(certificate));
        output::say(format_args!("  certificate in {}", paint(NAME, file.display())));
        Ok(())
    }
}

fn summary(signed: &Value) -> String {
    let certificate = signed.get("certificate").unwrap_or(&Value::Null);
    let (stores, keys) = (output::items(certificate, "stores"), output::items(certificate, "keys"));
    let items: u64 = stores.iter().filter_map(|store| store.get("enumerated").and_then(Value::as_u64)).sum();
    let unreadable = text(certificate, "backups_unreadable_by");
    format!(
        "  {} destroyed; {items} items in {} counted, none is left; backups unreadable by {unreadable}",
        output::count(keys.len(), "key"),
        output::count(stores.len(), "store"),
    )
}

/// Arguments of `village dsar verify`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village dsar verify erasure-0198c0de.json --key 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

`village keys status` prints the key of a village. Exit code 1: the certificate proves nothing.")]
pub(crate) struct Verify {
    /// The certificate.
    file: PathBuf,
    /// The village's key for certificates, 64 hex digits.
    #[arg(long, value_name = "KEY")]
    key: String,
}

impl Verify {
    fn run(self, global: &Global) -> Outcome {
        let name = self.file.display();
        let key = data_encoding::HEXLOWER_PERMISSIVE.decode(self.key.trim().as_bytes()).ok();
        let key = key.and_then(|key| key.try_into().ok()).map(PublicKey);
        let key = key.ok_or_else(|| {
            Failure::new(Exit::Usage, "--key is not 64 hex digits").hint("`village keys status` prints it")
        })?;
        let json =
            fs::read(&self.file).map_err(|error| Failure::new(Exit::Usage, format!("cannot read {name}: {error}")))?;
        let fails = |why: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{name} proves nothing: {why}"));
        let signed = SignedCertificate::from_json(&json).map_err(|error| fails(&error))?;
        signed.verify(key).map_err(|error| fails(&error))?;
        let shown = serde_json::to_value(&signed).map_err(|error| fails(&error))?;
        if global.json {
            output::json(&json!({ "verified": true, "certificate": shown }));
            return Ok(());
        }
        output::say(format_args!("{} {}", paint(GOOD, "verified:"), signed.certificate.subject_pseudonym));
        output::say(summary(&shown));
        if signed.certificate.log.is_none() {
            output::note(paint(DIM, "  it names no entry of a transparency log"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aivillage_governance::{erasure::CertificateSigner, keys::VillageSecret, keys::certificate::Stamp};

    use super::*;

    fn global() -> Global {
        Global { data: None, url: None, key_file: None, json: true }
    }

    fn signed() -> (SignedCertificate, String) {
        let secret = VillageSecret::default();
        secret.set([7; 32].into());
        let signer = CertificateSigner::new(secret);
        let certificate = aivillage_governance::keys::ErasureCertificate {
            v: 1,
            subject_pseudonym: "s-1".into(),
            requested_at: Stamp(1),
            done_at: Stamp(2),
            basis: "gdpr-17".into(),
            stores: Vec::new(),
            keys: Vec::new(),
            backups_unreadable_by: Stamp(3),
            holds: Vec::new(),
            models_flagged: Vec::new(),
            log: None,
        };
        (signer.sign(certificate).unwrap().unwrap(), signer.public_key().unwrap().to_string())
    }

    #[test]
    fn a_certificate_verifies_without_a_village_and_a_changed_one_does_not() {
        let (signed, key) = signed();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.json");
        let verify = |key: &str| Verify { file: file.clone(), key: key.to_owned() }.run(&global()).map_err(|f| f.exit);
        assert_eq!(verify(&key), Err(Exit::Usage), "there is no file");
        let text = format!("{:#}", serde_json::to_value(&signed).unwrap());
        fs::write(&file, &text).unwrap();
        assert_eq!(verify(&key), Ok(()));
        assert_eq!(verify("ab"), Err(Exit::Usage));
        assert_eq!(verify(&"0".repeat(64)), Err(Exit::Failed));
        fs::write(&file, text.replace("gdpr-17", "gdpr-18")).unwrap();
        assert_eq!(verify(&key), Err(Exit::Failed));
    }
}
