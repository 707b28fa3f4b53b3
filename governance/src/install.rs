//! What a node hosts of governance, and what the other parts ask without a message.

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::config::{ConfigError, section};
use aivillage_runtime::{ActorCx, Village, VillageBuilder};

use crate::config::GovernanceConfig;
use crate::constitution::Constitution;
use crate::constitution::chain::{Chain, ConstitutionError};
use crate::constitution::folder::{self, FolderError};
use crate::erasure::{self, Owners};
use crate::identity::{self, IdentityError, IdentityNode, TenantMachine, VerifierHandle};
use crate::keys::{self, KeysNode, SecretKeeper, VillageSecret, share};
use crate::policy::{Pdp, PdpHandle, PdpMsg, PolicyMachine};

/// The key by which a node's own actors are asked.
pub const HERE: &str = "local";
/// How long to wait before the policies of a node that takes no part in its cluster yet are asked for again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long to wait until a disk that failed is tried again.
const LATER: Duration = Duration::from_secs(5);
/// Below a node's data directory: what governance keeps in files.
pub const FOLDER: &str = "governance";

/// Answers without a message. Clones see the same.
#[derive(Debug, Clone)]
pub struct Governance {
    /// Who may do what.
    pub pdp: PdpHandle,
    /// Who somebody is.
    pub verifier: VerifierHandle,
    /// Where the keys come from that all nodes have; there once [`Governance::begin`] has found it.
    pub secret: VillageSecret,
    /// Seals and opens what is stored, once [`Governance::begin`] has found the root key.
    pub keys: KeysNode,
    /// The stores that keep data about people; each crate's is added where the crates are joined.
    pub owners: Owners,
}

/// Why governance cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A value of `[governance]` makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Accounts cannot be kept as the configuration says.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The constitution does not hold.
    #[error(transparent)]
    Constitution(#[from] ConstitutionError),
    /// A file of the constitution cannot be read.
    #[error("governance.constitution: {0}")]
    Folder(#[from] FolderError),
}

/// Hosts policies, accounts and constitution, as `[governance]` of the builder's configuration says; [`Governance::begin`] makes them work.
///
/// # Errors
/// See [`InstallError`].
pub fn install(builder: VillageBuilder) -> Result<(VillageBuilder, Governance), InstallError> {
    let config: GovernanceConfig = section(builder.table(), "governance")?;
    config.validate()?;
    let secret = VillageSecret::default();
    let accounts = IdentityNode::try_new(config.identity.clone(), secret.clone())?;
    let (builder, verifier) = identity::install(builder, &accounts);
    let keys = KeysNode::new(config.keys.clone());
    let owners = Owners::default();
    let builder = erasure::install(keys::install(builder, &keys), &owners, secret.clone());
    let governance = Governance { pdp: PdpHandle::new(config.policy.cache), verifier, secret, keys, owners };
    let constitution = Constitution::new(Arc::new(constitution(&config)?));
    let (pdp, keeper) = (governance.pdp.clone(), SecretKeeper::new(governance.secret.clone()));
    let builder = builder
        .control_machine(PolicyMachine::default)
        .control_machine(TenantMachine::default)
        .host(move |_: &ActorCx| keeper.clone())
        .host(move |_: &ActorCx| Pdp::new(pdp.clone(), config.policy.clone()))
        .host(move |_: &ActorCx| constitution.clone());
    Ok((builder, governance))
}

/// All versions, verified.
fn constitution(config: &GovernanceConfig) -> Result<Chain, InstallError> {
    match (config.constitution_dir(), config.roots()?) {
        (Some(dir), Some(roots)) => Ok(Chain::verify(folder::read_all(dir)?, &roots)?),
        _ => Ok(Chain::embedded()?),
    }
}

impl Governance {
    /// Puts the node's policies and secret to work. A node that runs alone has them when this returns, or has said why not; one
    /// of a cluster once it takes part in it.
    pub async fn begin(&self, village: &Village) {
        let (wake, settle) = (wake(village.clone()), settle(village.clone(), self.secret.clone()));
        let root = root(village.clone(), self.keys.clone());
        if village.cluster().is_some() {
            village.task("policy.begin", wake).detach();
            village.task("secret.begin", settle).detach();
            village.task("root.begin", root).detach();
        } else {
            tokio::join!(wake, settle, root);
        }
    }
}

/// Without its secret a node lets nobody in but its admin key, and that is said until it has it.
async fn settle(village: Village, secret: VillageSecret) {
    let dir = village.data_dir().map(|dir| dir.join(FOLDER));
    while let Err(error) = share::settle(&village, &secret, dir.as_deref()).await {
        if village.is_draining() {
            return;
        }
        tracing::error!(%error, "no secret of the village, so no accounts");
        if village.cluster().is_none() {
            return;
        }
        tokio::time::sleep(LATER).await;
    }
}

/// Without its root key a node keeps nothing that is personal, and that is said until it has it.
async fn root(village: Village, keys: KeysNode) {
    while let Err(error) = keys.settle(&village).await {
        if village.is_draining() {
            return;
        }
        tracing::error!(%error, "no root key, so nothing is sealed and nothing that is sealed opens");
        if village.cluster().is_none() {
            return;
        }
        tokio::time::sleep(LATER).await;
    }
    let (follow, keys) = (village.clone(), keys.clone());
    village.task("keys.follow", async move { keys.follow(&follow).await }).detach();
}

/// The first message starts the actor, which looks for policies by itself from then on.
async fn wake(village: Village) {
    while let Err(error) = village.addr::<Pdp>(HERE).ask(PdpMsg::Epoch).await {
        if village.is_draining() {
            return;
        }
        tracing::debug!(%error, "policies not asked for yet");
        tokio::time::sleep(AGAIN).await;
    }
}
