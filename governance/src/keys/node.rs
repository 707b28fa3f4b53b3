//! How a node comes to have the root key: from its file, from a member of its cluster, or by making it.
//!
//! The cluster agrees on one root by its mark, as the first command of the [`EpochMachine`]: the first one stays. So of nodes that
//! begin at once one has made the root, and the others discard theirs, which nothing was sealed under, and fetch it. A root that
//! was in use is never discarded: a node that has another one than its cluster seals and opens nothing, and says so.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aivillage_runtime::{ActorCx, AppError, CallError, Village, VillageBuilder, clock};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::config::{KeysConfig, SealKind};
use super::epochs::{Agreed, Command, EpochMachine};
use super::error::CryptError;
use super::handle::VaultHandle;
use super::keeper::{KEY, RootKeeper, RootMsg};
use super::keystore::{Keystore, KeystoreError, Unlock};
use super::register::Register;
use super::root::Root;
use super::secret::Secret;
use super::vault::{KeyVault, Plain, VaultError};
use super::view::Copies;

/// Pause before the cluster is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a vault that starts waits for the root.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a node looks whether its root is where the cluster is.
const LOOK: Duration = Duration::from_secs(1);
/// Every which look the keeper of the epochs is woken.
const WAKE: u64 = 30;

/// Why a node has no root key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// Its file.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// `governance.keys.seal` asks for a passphrase, and there is none.
    #[error("no passphrase: governance.keys.passphrase_file is empty and {env} is not set")]
    NoPassphrase {
        /// The variable.
        env: String,
    },
    /// The file with the passphrase cannot be read.
    #[error("governance.keys.passphrase_file: {}: {source}", path.display())]
    PassphraseFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The node brought a root in use, and its cluster has another.
    #[error(
        "the root key of this node is not that of its cluster; what either sealed stays closed to the other: move {} away to \
         take the cluster's, or let the node leave",
        path.display()
    )]
    Foreign {
        /// The key file.
        path: PathBuf,
    },
    /// The cluster did not agree, or did not hand the root on, this time.
    #[error("the cluster's root key: {0}")]
    Later(String),
}

impl RootError {
    /// Whether it may be otherwise in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Later(_))
    }
}

impl From<VaultError> for RootError {
    fn from(error: VaultError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<CryptError> for RootError {
    fn from(error: CryptError) -> Self {
        Self::Later(error.to_string())
    }
}

/// A root key on its way to another node.
#[derive(Serialize, Deserialize)]
pub(super) struct Handed {
    first: u64,
    current: u64,
    chain: [u8; 32],
}

impl Drop for Handed {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.chain);
    }
}

impl Handed {
    /// The root of `keystore`, for a member.
    pub(super) fn of(keystore: &Keystore) -> Plain {
        let root = keystore.root();
        let handed = Self { first: root.first(), current: root.current(), chain: *root.chain().bytes() };
        // Numbers and bytes always can be written. In the final buffer at once: one that grows leaves the key behind.
        let mut bytes = Zeroizing::new([0; 64]);
        let written = postcard::to_slice(&handed, &mut *bytes).map(|written| written.to_vec());
        Plain::new(written.unwrap_or_default())
    }

    fn into_root(mut self) -> Option<Root> {
        Root::resume(Secret::take(&mut self.chain), self.first, self.current)
    }
}

/// The root key of a node and how it is kept. Clones share it.
#[derive(Debug, Clone)]
pub struct KeysNode(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    handle: VaultHandle,
    config: KeysConfig,
    /// Given by who started the node, in place of file and variable.
    passphrase: OnceLock<SecretString>,
    /// One look for the root at a time.
    turn: tokio::sync::Mutex<()>,
}

impl KeysNode {
    /// A node that keeps its root as `config` says.
    #[must_use]
    pub fn new(config: KeysConfig) -> Self {
        let (handle, turn) = (VaultHandle::without_root(), tokio::sync::Mutex::default());
        Self(Arc::new(Shared { handle, config, passphrase: OnceLock::new(), turn }))
    }

    /// Takes a passphrase that a person has typed, in place of that of file and variable.
    pub fn give_passphrase(&self, passphrase: SecretString) {
        // The first one stays.
        let _ = self.0.passphrase.set(passphrase);
    }

    /// Looks whether the key file of a folder, if it is there, can be opened: what is wrong with it is told before a node starts
    /// that could keep nothing. It blocks on the disk, and for as long as a passphrase costs.
    ///
    /// # Errors
    /// See [`RootError`].
    pub fn check(&self, dir: &Path) -> Result<(), RootError> {
        Keystore::find(dir, &self.unlock()?.unlock())?;
        Ok(())
    }

    /// Seals and opens with the keys of this node.
    #[must_use]
    pub fn handle(&self) -> &VaultHandle {
        &self.0.handle
    }

    /// How the root is kept.
    #[must_use]
    pub fn config(&self) -> &KeysConfig {
        &self.0.config
    }

    /// Waits a while until the root is there.
    ///
    /// # Errors
    /// `crypt_no_root` when it does not come, with the reason.
    pub(super) async fn ready(&self, village: &Village) -> Result<(), CallError> {
        let late = || Err(RootError::Later("not there yet".to_owned()));
        let settled = tokio::time::timeout(PATIENCE, self.settle(village)).await.unwrap_or_else(|_| late());
        settled.map_err(|error| AppError::new(CryptError::NoRoot.code(), error.to_string()).into())
    }

    /// Puts the root key in place, once.
    ///
    /// # Cancel safety
    /// Safe: the next call goes on from what is on the disk.
    ///
    /// # Errors
    /// See [`RootError`]; only for what does not pass by itself.
    pub async fn settle(&self, village: &Village) -> Result<(), RootError> {
        let dir = village.data_dir().map(|dir| dir.join(crate::FOLDER));
        let _turn = self.0.turn.lock().await;
        if self.0.handle.has_root() {
            return Ok(());
        }
        let node = self.clone();
        let unlock = village.blocking("keys.unlock", move || node.unlock()).await;
        let unlock = Arc::new(unlock.map_err(|error| RootError::Later(error.to_string()))??);
        let at = Place { village, dir, unlock };
        let mut own = at.find().await?;
        while !village.is_draining() {
            match self.step(&at, &mut own).await {
                Ok(None) => {}
                Ok(Some(keystore)) => {
                    self.0.handle.take_root(keystore);
                    return Ok(());
                }
                Err(error) if error.is_passing() => {
                    tracing::debug!(%error, "no root key yet");
                    if own.is_none() {
                        own = at.find().await?;
                    }
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(AGAIN).await;
        }
        Err(RootError::Later("the node is going down".to_owned()))
    }

    async fn step(&self, at: &Place<'_>, own: &mut Option<Keystore>) -> Result<Option<Keystore>, RootError> {
        let Some(cluster) = at.village.cluster() else {
            return match own.take() {
                Some(own) => Ok(Some(own)),
                None => at.make().await.map(Some),
            };
        };
        let register = Register::new(at.village, &self.0.handle);
        let Some((agreed, tenants)) = register.agreed() else {
            // Before this node has what the cluster decided earlier, "not agreed" means nothing.
            let me = at.village.node_id();
            if cluster.members().iter().any(|member| member.record.id == me) {
                if own.is_none() {
                    *own = Some(at.make().await?);
                }
                if let Some(own) = own {
                    register.decide(&propose(own)?).await?;
                }
            }
            return Ok(None);
        };
        // This node was further before it was restarted than what it knows of the cluster again.
        if own.as_ref().is_some_and(|own| own.root().first() > agreed.current) {
            return Ok(None);
        }
        if let Some(mut own) = own.take() {
            if is_agreed(own.root(), &agreed) {
                let follow = move || {
                    own.follow((agreed.first, agreed.current), agreed.since_ms, &tenants)?;
                    Ok::<_, CryptError>(own)
                };
                return Ok(Some(at.on_disk(follow).await??));
            }
            if !own.is_unused() {
                return Err(RootError::Foreign {
                    path: at.dir.clone().unwrap_or_default().join(super::keystore::FILE),
                });
            }
            tracing::info!("another node has made the root key");
        }
        at.keep(fetch(at.village, &agreed).await?, agreed.since_ms).await.map(Some)
    }

    fn unlock(&self) -> Result<Opener, RootError> {
        let config = &self.0.config;
        if config.seal == SealKind::File {
            return Ok(Opener::File);
        }
        if let Some(given) = self.0.passphrase.get() {
            return Ok(Opener::Passphrase(given.clone(), config.argon2));
        }
        config.passphrase().map(|found| Opener::Passphrase(found, config.argon2))
    }

    /// Keeps the node's root where the cluster is, and the keeper of the epochs awake, until the node drains.
    pub(crate) async fn follow(&self, village: &Village) {
        let register = Register::new(village, &self.0.handle);
        let (mut followed, mut looks) = (None, 0_u64);
        while !village.is_draining() {
            let seen = register.glance();
            if seen != followed {
                match register.follow().await {
                    Ok(()) => followed = seen,
                    Err(error) => tracing::error!(%error, "the root key of this node stays behind its cluster"),
                }
            }
            if looks.is_multiple_of(WAKE)
                && let Err(error) = village.addr::<RootKeeper>(KEY).query(RootMsg::Status).await
            {
                tracing::debug!(%error, "the keeper of the epochs does not answer");
            }
            looks += 1;
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How the file opens, as a value of its own.
enum Opener {
    File,
    Passphrase(SecretString, super::config::Argon2Cost),
}

impl Opener {
    fn unlock(&self) -> Unlock<'_> {
        match self {
            Self::File => Unlock::File,
            Self::Passphrase(passphrase, cost) => Unlock::Passphrase(passphrase, *cost),
        }
    }
}

/// Where a node keeps its root.
struct Place<'a> {
    village: &'a Village,
    dir: Option<PathBuf>,
    unlock: Arc<Opener>,
}

impl Place<'_> {
    async fn find(&self) -> Result<Option<Keystore>, RootError> {
        let Some(dir) = self.dir.clone() else { return Ok(None) };
        let unlock = self.unlock.clone();
        Ok(self.on_disk(move || Keystore::find(&dir, &unlock.unlock())).await??)
    }

    /// A new root; it is on the disk before others can rely on it.
    async fn make(&self) -> Result<Keystore, RootError> {
        let root = Root::generate().map_err(|_| KeystoreError::NoRandom)?;
        self.keep(root, clock::unix_ms()).await
    }

    async fn keep(&self, root: Root, since_ms: u64) -> Result<Keystore, RootError> {
        let (dir, unlock) = (self.dir.clone(), self.unlock.clone());
        let work = move || Keystore::adopt(dir.as_deref(), &unlock.unlock(), root, since_ms);
        Ok(self.on_disk(work).await??)
    }

    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, RootError> {
        let done = self.village.blocking("keys.file", work).await;
        done.map_err(|error| RootError::Later(error.to_string()))
    }
}

fn propose(own: &Keystore) -> Result<Command, CryptError> {
    let (root, since_ms) = (own.root(), own.since_ms());
    let agreed = Agreed { first: root.first(), current: root.current(), since_ms, mark: root.mark(root.current())? };
    Ok(Command::Agree(agreed, own.needs().clone()))
}

/// Marks tell nothing of keys, so it does not matter how long a comparison takes.
fn is_agreed(root: &Root, agreed: &Agreed) -> bool {
    root.mark(agreed.current).is_ok_and(|mark| mark == agreed.mark)
}

/// Has a member hand on the root that the cluster agreed on.
async fn fetch(village: &Village, agreed: &Agreed) -> Result<Root, RootError> {
    let later = |why: String| RootError::Later(why);
    let asked = village.addr::<RootKeeper>(KEY).ask(RootMsg::Fetch).await;
    let bytes = Zeroizing::new(asked.map_err(|error| later(error.to_string()))?.into_vec());
    let handed = postcard::from_bytes::<Handed>(&bytes).map_err(|_| later("what came is none".to_owned()))?;
    let root = handed.into_root().ok_or_else(|| later("what came is none".to_owned()))?;
    // A member that is behind has the same root, and one that is ahead has it as well.
    if !is_agreed(&root, agreed) {
        return Err(later("another one came than was agreed on".to_owned()));
    }
    Ok(root)
}

/// Hosts the vaults and the keeper of the epochs, and follows the vaults' copies; the other parts find them with
/// [`Vault::of`](super::Vault::of).
pub fn install(builder: VillageBuilder, node: &KeysNode) -> VillageBuilder {
    let (vaults, copies, keeper) = (node.handle().clone(), node.handle().clone(), RootKeeper::new(node.clone()));
    builder
        .provide(node.clone())
        .control_machine(EpochMachine::default)
        .host(move |_: &ActorCx| KeyVault::new(vaults.clone()))
        .host(move |_: &ActorCx| keeper.clone())
        .replica_view::<KeyVault, Copies>(move |_| Copies::new(copies.clone()))
}

impl KeysConfig {
    /// The passphrase of the file or the variable that is named.
    ///
    /// # Errors
    /// [`RootError::PassphraseFile`], [`RootError::NoPassphrase`].
    pub fn passphrase(&self) -> Result<SecretString, RootError> {
        if !self.passphrase_file.is_empty() {
            let path = Path::new(&self.passphrase_file);
            let text = std::fs::read_to_string(path).map(Zeroizing::new);
            let text = text.map_err(|source| RootError::PassphraseFile { path: path.to_owned(), source })?;
            return Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])));
        }
        let env = &self.passphrase_env;
        let found = std::env::var(env).map(Zeroizing::new).ok().filter(|found| !found.is_empty());
        found
            .map(|found| SecretString::from(found.as_str()))
            .ok_or_else(|| RootError::NoPassphrase { env: env.clone() })
    }
}

#[cfg(test)]
mod tests;
