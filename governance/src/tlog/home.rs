//! The log of a node: its folder, and the secrets beside it.
//!
//! | below `<data>/governance/` | holds | if it is lost |
//! |---|---|---|
//! | `tlog/` | the log | history; the other nodes' witnesses still convict a log that begins anew |
//! | `tlog.key` | the key that signs it, mode 0600: `PRIVATE+KEY+origin+id+base64`, as for any C2SP note | nobody can go on with the log |
//! | `tlog.pub` | the keys that check it, a line each: of the log, of this node's witness, of other nodes' witnesses, present and former | it is made again; former ones are missing |
//! | `pseudonym.key` | 32 bytes, mode 0600: whom pseudonyms stand for | nobody can look for a person; the log stays whole |
//! | `witness/` | what this node cosigned for others | a log that forks may find a second cosignature here |
//!
//! The witness's key is BLAKE3 `derive_key("aivillage tlog witness v1", seed of tlog.key)`; the log key of a tenant is
//! `derive_key("aivillage tlog pseudonyms v1", pseudonym.key || tenant)`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::{CallError, Village, VillageBuilder, secret_file};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::entry::LogKey;
use super::error::LogError;
use super::files::Disk;
use super::handle::{LogHandle, TlogConfig};
use super::install::{begin, install};
use super::log::{CHECKPOINT, Log};
use super::note::{Cosigner, LogSigner, VerifierKey};
use super::path::TilePath;
use super::patrol::Patrol;
use super::peers::{Peers, origin, witness_of};
use super::witness::{Book, Evidence};

const LOG: &str = "tlog";
const KEY: &str = "tlog.key";
const PUBLIC: &str = "tlog.pub";
const PSEUDONYMS: &str = "pseudonym.key";
const WITNESS: &str = "witness";
const PRIVATE: &str = "PRIVATE+KEY+";
/// Keys in the public file: those of a full cluster, several times over.
const MAX_KEYS: usize = 512;
/// Longest key file that is read.
const MAX_KEY: u64 = 4 << 10;

/// Why a node has no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// Another process has the folder.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// A log whose files cannot be used. Damage and forks are named with the entry.
    #[error("{}: {source}", dir.display())]
    Log {
        /// The log's folder.
        dir: PathBuf,
        /// What is wrong.
        source: LogError,
    },
    /// A key file is no key, or it is not there and the log it signed is.
    #[error("{}: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        why: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl HomeError {
    /// Whether the log cannot be vouched for, so that a start at another time would not help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Log { source, .. } => matches!(source, LogError::Damaged { .. } | LogError::Fork { .. }),
            Self::Key { .. } => true,
            Self::InUse { .. } | Self::Io { .. } => false,
        }
    }

    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

/// The log of this node. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Home {
    log: LogHandle,
    book: Arc<Mutex<Book>>,
    pseudonyms: Pseudonyms,
    dir: Arc<Path>,
    reread: Duration,
    clock: fn() -> u64,
}

/// What log keys come from. It does not show.
#[derive(Clone)]
struct Pseudonyms(Arc<Zeroizing<[u8; 32]>>);

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pseudonyms")
    }
}

impl Home {
    /// Opens the log below `dir`, or begins one with the origin `village/<node>`, and starts the thread that writes it.
    ///
    /// # Errors
    /// [`HomeError`]. Where [`HomeError::is_damage`] says so, a node must not start.
    pub fn open(dir: &Path, node: &str, config: TlogConfig, clock: fn() -> u64) -> Result<Self, HomeError> {
        let (folder, file) = (dir.join(LOG), dir.join(KEY));
        // The lock comes first: two processes must not make keys at once.
        let held = disk(&folder)?;
        let secrets = Secrets::load_or_make(&file, node, folder.join(CHECKPOINT).exists())?;
        let log_error = |source| HomeError::Log { dir: folder.clone(), source };
        let log = Log::open(held, secrets.signer, Vec::new()).map_err(log_error)?;
        publish(&dir.join(PUBLIC), &[log.key().clone(), secrets.cosigner.public().clone()], &[])?;
        let witness = dir.join(WITNESS);
        let book = Book::open(disk(&witness)?, secrets.cosigner, Vec::new());
        let book = book.map_err(|source| HomeError::Log { dir: witness, source })?;
        let pseudonyms = Pseudonyms(Arc::new(pseudonyms(&dir.join(PSEUDONYMS))?));
        let log = LogHandle::start(log, node, config, clock).map_err(log_error)?;
        let (book, reread) = (Arc::new(Mutex::new(book)), config.reread.get());
        Ok(Self { log, book, pseudonyms, dir: folder.into(), reread, clock })
    }

    /// Hosts log, board and witness; the other parts find the log with `Village::provided`.
    pub fn install(&self, village: VillageBuilder) -> VillageBuilder {
        install(village.provide(self.clone()), self.log.clone(), Arc::clone(&self.book), self.clock)
    }

    /// Wakes what [`Home::install`] hosts, and looks after it from then on: whose cosignatures count, and whether the files stay
    /// what was written.
    ///
    /// # Errors
    /// As [`begin`]; to be called again then.
    pub async fn begin(&self, village: &Village) -> Result<(), CallError> {
        begin::<Disk>(village).await?;
        let (log, book, public) = (self.log.clone(), Arc::clone(&self.book), Self::keys_beside(&self.dir));
        let peers = Peers { village: village.clone(), log: log.clone(), book, public };
        village.task("tlog.peers", peers.run()).detach();
        if !self.reread.is_zero() {
            let patrol = Patrol { village: village.clone(), log, dir: Arc::clone(&self.dir), pause: self.reread };
            village.task("tlog.patrol", patrol.run()).detach();
        }
        Ok(())
    }

    /// What convicts logs of this cluster: pairs of checkpoints that cannot both be true.
    #[must_use]
    pub fn convicted(&self) -> Vec<Evidence> {
        self.book.lock().convicted()
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &LogHandle {
        &self.log
    }

    /// What makes a tenant's pseudonyms.
    #[must_use]
    pub fn log_key(&self, tenant: &str) -> LogKey {
        let mut hasher = blake3::Hasher::new_derive_key("aivillage tlog pseudonyms v1");
        hasher.update(&self.pseudonyms.0[..]).update(tenant.as_bytes());
        LogKey::new(hasher.finalize().as_bytes())
    }

    /// Where the file is that a client of the log asks for by this name: the checkpoint, a tile, a bundle; nothing else.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        (name == CHECKPOINT || TilePath::parse(name).is_some()).then(|| self.dir.join(name))
    }

    /// The log's folder below `<data>/governance`.
    #[must_use]
    pub fn folder_in(dir: &Path) -> PathBuf {
        dir.join(LOG)
    }

    /// The file with the keys that check a log, by the log's folder.
    #[must_use]
    pub fn keys_beside(folder: &Path) -> PathBuf {
        folder.with_file_name(PUBLIC)
    }
}

fn disk(dir: &Path) -> Result<Disk, HomeError> {
    Disk::open(dir).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => HomeError::InUse { dir: dir.to_owned() },
        _ => HomeError::io(dir, error),
    })
}

/// What signs.
struct Secrets {
    signer: LogSigner,
    cosigner: Cosigner,
}

impl Secrets {
    fn load_or_make(path: &Path, node: &str, was_signed: bool) -> Result<Self, HomeError> {
        if let Some(text) = read(path)? {
            return Self::parse(text.trim_end()).ok_or_else(|| HomeError::Key {
                path: path.to_owned(),
                why: "it is no key of a log; restore the file",
            });
        }
        if was_signed {
            return Err(HomeError::Key {
                path: path.to_owned(),
                why: "it is missing, and the log beside it was signed; restore the file",
            });
        }
        let seed = Zeroizing::new(rand::random::<[u8; 32]>());
        let no_name = || HomeError::Key { path: path.to_owned(), why: "the node's id makes no name for it" };
        let secrets = Self::new(&origin(node), &seed).ok_or_else(no_name)?;
        make(path, &Zeroizing::new(secrets.encode(&seed)))?;
        Ok(secrets)
    }

    fn new(origin: &str, seed: &[u8; 32]) -> Option<Self> {
        let of_witness = Zeroizing::new(blake3::derive_key("aivillage tlog witness v1", seed));
        let signer = LogSigner::new(origin, seed).ok()?;
        Some(Self { signer, cosigner: Cosigner::new(&witness_of(origin), &of_witness).ok()? })
    }

    fn encode(&self, seed: &[u8; 32]) -> String {
        let public = self.signer.public().to_string();
        let id = public.split('+').nth(1).unwrap_or_default();
        let key = Zeroizing::new([&[1][..], seed].concat());
        format!("{PRIVATE}{}+{id}+{}\n", self.signer.public().name(), STANDARD.encode(&*key))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(PRIVATE)?.splitn(3, '+');
        let (origin, _, key) = (parts.next()?, parts.next()?, parts.next()?);
        let key = Zeroizing::new(STANDARD.decode(key).ok()?);
        let seed: &[u8; 32] = key.strip_prefix(&[1])?.try_into().ok()?;
        let secrets = Self::new(origin, seed)?;
        (secrets.encode(seed).trim_end() == text).then_some(secrets)
    }
}

fn pseudonyms(path: &Path) -> Result<Zeroizing<[u8; 32]>, HomeError> {
    if let Some(text) = read(path)? {
        let key = STANDARD.decode(text.trim_end()).ok().and_then(|key| key.try_into().ok());
        let why = "it is no key; restore the file, or remove it: earlier entries then name nobody";
        return key.map(Zeroizing::new).ok_or_else(|| HomeError::Key { path: path.to_owned(), why });
    }
    let key = Zeroizing::new(rand::random::<[u8; 32]>());
    make(path, &Zeroizing::new(format!("{}\n", STANDARD.encode(*key))))?;
    Ok(key)
}

/// A key file; `None` if there is none.
fn read(path: &Path) -> Result<Option<Zeroizing<String>>, HomeError> {
    let read = || {
        let len = fs::metadata(path)?.len();
        if len > MAX_KEY { Ok(String::new()) } else { fs::read_to_string(path) }
    };
    match read() {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(Zeroizing::default())),
        Err(error) => Err(HomeError::io(path, error)),
    }
}

/// Makes a key file: nothing may be signed by a key that is gone after the loss of power.
fn make(path: &Path, text: &str) -> Result<(), HomeError> {
    secret_file::write(path, text.as_bytes()).map_err(|error| HomeError::io(path, error))
}

/// Writes the public keys: the node's own, and those of witnesses beside the ones that are in the file already, since older
/// checkpoints have their cosignatures.
pub(super) fn publish(path: &Path, own: &[VerifierKey], witnesses: &[VerifierKey]) -> Result<(), HomeError> {
    let found = fs::read_to_string(path).unwrap_or_default();
    let former = found.lines().filter_map(|line| line.parse::<VerifierKey>().ok()).filter(|key| !key.is_log());
    let mut keys = own.to_vec();
    for key in witnesses.iter().cloned().chain(former) {
        if !keys.contains(&key) && keys.len() < MAX_KEYS {
            keys.push(key);
        }
    }
    let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
    if text == found {
        return Ok(());
    }
    // A reader finds the old file or the new one.
    let draft = path.with_extension("pub.new");
    let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, path));
    written.map_err(|error| HomeError::io(path, error))
}

#[cfg(test)]
mod tests;
