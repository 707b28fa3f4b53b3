//! What a node hosts of governance, and what the other parts ask without a message.

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::config::{ConfigError, section};
use aivillage_runtime::{ActorCx, Village, VillageBuilder, clock};

use crate::config::GovernanceConfig;
use crate::constitution::Constitution;
use crate::constitution::chain::{Chain, ConstitutionError};
use crate::constitution::folder::{self, FolderError};
use crate::constitution::note::NoteKey;
use crate::gate::{Gate, Moderation, Parts};
use crate::identity::{self, IdentityError, IdentityNode, TenantMachine, VerifierHandle};
use crate::keys::{SecretKeeper, VillageSecret, share};
use crate::moderation::hashes::HashList;
use crate::moderation::rules::RulesError;
use crate::moderation::{Engine, EngineError, ModeratorHandle, Policy};
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
    /// What content may pass.
    pub moderator: ModeratorHandle,
    /// The one call that joins them; the other parts find it with [`Gate::of`].
    pub gate: Gate,
    /// Who somebody is.
    pub verifier: VerifierHandle,
    /// Where the keys come from that all nodes have; there once [`Governance::begin`] has found it.
    pub secret: VillageSecret,
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
    /// The moderation model of this release does not load.
    #[error(transparent)]
    Moderation(#[from] EngineError),
    /// Its rules do not.
    #[error(transparent)]
    Rules(#[from] RulesError),
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
    let (chain, roots) = constitution(&config)?;
    let pdp = PdpHandle::new(config.policy.cache);
    let moderator = ModeratorHandle::new(Engine::embedded(HashList::default())?);
    let gate = gate(&config, &pdp, &moderator, chain.clone())?;
    let (constitution, keeper) = (Constitution::new(chain, &roots, secret.clone()), SecretKeeper::new(secret.clone()));
    let governance = Governance { pdp: pdp.clone(), moderator, gate: gate.clone(), verifier, secret };
    let builder = builder
        .provide(gate)
        .control_machine(PolicyMachine::default)
        .control_machine(TenantMachine::default)
        .host(move |_: &ActorCx| keeper.clone())
        .host(move |_: &ActorCx| Pdp::new(pdp.clone(), config.policy.clone()))
        .host(move |_: &ActorCx| constitution.clone());
    Ok((builder, governance))
}

/// The gate that joins all of them.
fn gate(
    config: &GovernanceConfig,
    pdp: &PdpHandle,
    moderator: &ModeratorHandle,
    constitution: Arc<Chain>,
) -> Result<Gate, RulesError> {
    let policy = Policy::default();
    Gate::new(Parts {
        pdp: pdp.clone(),
        judge: Arc::new(Moderation { handle: moderator.clone(), policy: policy.clone() }),
        policy,
        defence: config.defence.clone(),
        dlp: config.dlp.clone(),
        constitution,
        clock: clock::unix_ms,
    })
}

/// All versions, verified, and who signs them.
fn constitution(config: &GovernanceConfig) -> Result<(Arc<Chain>, Vec<NoteKey>), InstallError> {
    let (chain, roots) = match (config.constitution_dir(), config.roots()?) {
        (Some(dir), Some(roots)) => (Chain::verify(folder::read_all(dir)?, &roots)?, roots.keys().to_vec()),
        _ => (Chain::embedded()?, Vec::new()),
    };
    Ok((Arc::new(chain), roots))
}

impl Governance {
    /// Puts the node's policies and secret to work. A node that runs alone has them when this returns, or has said why not; one
    /// of a cluster once it takes part in it.
    pub async fn begin(&self, village: &Village) {
        let (wake, settle) = (wake(village.clone()), settle(village.clone(), self.secret.clone()));
        if village.cluster().is_some() {
            village.task("policy.begin", wake).detach();
            village.task("secret.begin", settle).detach();
        } else {
            tokio::join!(wake, settle);
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
