//! `village constitution key` and `sign`: who stands for a constitution.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use aivillage_governance::constitution::{
    document::Document,
    folder::{Files, NOTE, PROSE, TOML},
    signer::RootSigner,
};
use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::{
    Exit, Failure, Outcome,
    output::{self, GOOD, paint},
};
use super::{EMBEDDED, document, failed, read};

/// Arguments of `village constitution key`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village constitution key root-1.key --name root-1

Keep the file off the machines that run the village. What is printed goes into governance.root_keys of cluster.toml.")]
pub(crate) struct Key {
    /// File to be made; it must not exist.
    file: PathBuf,
    /// What the key is called in signatures.
    #[arg(long, value_name = "NAME")]
    name: String,
}

impl Key {
    pub(super) fn run(self, as_json: bool) -> Outcome {
        let seed = Zeroizing::new(rand::random::<[u8; 32]>());
        let signer = RootSigner::new(&self.name, &seed)
            .map_err(|error| Failure::new(Exit::Usage, format!("{error}: a name has no plus and no white space")))?;
        create(&self.file, &signer.encode(&seed))
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot make {}: {error}", self.file.display())))?;
        if as_json {
            output::json(&json!({ "file": self.file, "public": signer.public().to_string() }));
        } else {
            output::say(signer.public());
        }
        Ok(())
    }
}

/// A new file that only its owner can read.
fn create(path: &Path, line: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{line}")?;
    file.sync_all()
}

/// Arguments of `village constitution sign`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village constitution sign ./constitution --key root-1.key
  village constitution sign ./constitution/2 --key root-1.key --after ./constitution/1
  village constitution sign embedded --key root-1.key --out ./constitution

The signature is added to constitution.sig, beside those of others.")]
pub(crate) struct Sign {
    /// Folder of the version, or `embedded` for the program's own.
    dir: PathBuf,
    /// File of the key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Folder of the version before it.
    #[arg(long, value_name = "DIR")]
    after: Option<PathBuf>,
    /// Folder to write the files to [default: the version's own].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Sign {
    pub(super) fn run(self, as_json: bool) -> Outcome {
        let (files, signer) = (read(&self.dir)?, self.signer()?);
        let before = self.after.as_deref().map(|dir| document(&read(dir)?, dir)).transpose()?;
        let note = signer.sign(&files.signed, before.as_ref()).map_err(|error| self.refused(&error.to_string()))?;
        let signed = document(&files, &self.dir)?;
        let dir = self.write(&files, &note)?;
        say(&dir, &signed, &signer, as_json);
        Ok(())
    }

    fn signer(&self) -> Result<RootSigner, Failure> {
        let path = self.key.display();
        let line = fs::read_to_string(&self.key).map(Zeroizing::new);
        let line = line.map_err(|error| failed(format_args!("cannot read {path}: {error}")))?;
        RootSigner::parse(&line).map_err(|_| {
            failed(format_args!("{path} is no key that signs"))
                .hint("`village constitution key FILE --name NAME` makes one")
        })
    }

    fn refused(&self, why: &str) -> Failure {
        let failure = failed(format_args!("{}: {why}", self.dir.display()));
        if self.after.is_some() {
            failure
        } else {
            failure.hint("a later version is signed with --after DIR of the one before")
        }
    }

    /// Where the files are now.
    fn write(&self, files: &Files, note: &str) -> Result<PathBuf, Failure> {
        let dir = match &self.out {
            Some(out) => out.clone(),
            None if self.dir == Path::new(EMBEDDED) => {
                return Err(Failure::new(Exit::Usage, "the program's own constitution has no folder")
                    .hint("name one with --out DIR"));
            }
            None if self.dir.is_dir() => self.dir.clone(),
            None => self.dir.parent().unwrap_or(Path::new(".")).to_owned(),
        };
        let put = |name: &str, text: &str| fs::write(dir.join(name), text);
        let write = || {
            if self.out.is_some() {
                fs::create_dir_all(&dir)?;
                put(TOML, &files.signed.toml)?;
                files.prose.as_deref().map_or(Ok(()), |prose| put(PROSE, prose))?;
            }
            put(NOTE, note)
        };
        write().map_err(|error| failed(format_args!("cannot write to {}: {error}", dir.display())))?;
        Ok(dir)
    }
}

fn say(dir: &Path, document: &Document, signer: &RootSigner, as_json: bool) {
    let (key, version) = (signer.public().to_string(), document.version());
    if as_json {
        return output::json(&json!({ "dir": dir, "version": version, "signed_by": key }));
    }
    let what = format!("{} version {version} by {key}", document.name());
    output::say(format_args!("{} {what} in {}", paint(GOOD, "✓ signed:"), dir.display()));
    output::say(format_args!("  [governance]\n  constitution = \"{}\"\n  root_keys = [\"{key}\"]", dir.display()));
}

#[cfg(test)]
mod tests {
    use super::super::Verify;
    use super::*;

    fn key(dir: &Path, name: &str) -> (PathBuf, String) {
        let file = dir.join(format!("{name}.key"));
        Key { file: file.clone(), name: name.to_owned() }.run(true).unwrap();
        let line = fs::read_to_string(&file).unwrap();
        (file, RootSigner::parse(&line).unwrap().public().to_string())
    }

    #[test]
    fn what_two_keys_signed_is_verified_and_a_change_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (out, place) = (dir.path().join("constitution"), dir.path());
        let keys = [key(place, "ann"), key(place, "bert")];
        for (at, (file, _)) in keys.iter().enumerate() {
            let (dir, out) = if at == 0 { (EMBEDDED.into(), Some(out.clone())) } else { (out.clone(), None) };
            Sign { dir, key: file.clone(), after: None, out }.run(true).unwrap();
        }
        let root_keys: Vec<_> = keys.iter().map(|(_, public)| public.parse().unwrap()).collect();
        let verify = || Verify { dir: out.clone(), root_keys: root_keys.clone(), threshold: 2 }.run(true);
        verify().unwrap();
        let note = fs::read_to_string(out.join(NOTE)).unwrap();
        fs::write(out.join(NOTE), note.replacen("\n1\n", "\n2\n", 1)).unwrap();
        assert!(verify().unwrap_err().message.contains("E-CONST-SIG 1"));
    }

    #[test]
    fn a_key_is_private_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = key(dir.path(), "ann");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(Key { file, name: "ann".to_owned() }.run(true).is_err());
        let bad = Key { file: dir.path().join("b.key"), name: "two words".to_owned() }.run(true).unwrap_err();
        assert_eq!(bad.exit, Exit::Usage);
    }

    #[test]
    fn without_a_folder_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (key, _) = key(dir.path(), "ann");
        let sign = |dir: &Path, after: Option<&Path>| {
            Sign { dir: dir.to_owned(), key: key.clone(), after: after.map(Path::to_owned), out: None }.run(true)
        };
        assert_eq!(sign(Path::new(EMBEDDED), None).unwrap_err().exit, Exit::Usage);
        let not_next = sign(Path::new(EMBEDDED), Some(Path::new(EMBEDDED))).unwrap_err();
        assert!(not_next.message.contains("does not follow"), "{not_next}");
    }
}
