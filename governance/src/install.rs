//! What a node hosts of governance, and what the other parts ask without a message.

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::config::{ConfigError, section};
use aivillage_runtime::{ActorCx, Village, VillageBuilder, clock};

use crate::config::GovernanceConfig;
use crate::constitution::Constitution;
use crate::constitution::chain::{Chain, ConstitutionError};
use crate::gate::{Gate, Moderation, Parts};
use crate::moderation::hashes::HashList;
use crate::moderation::rules::RulesError;
use crate::moderation::{Engine, EngineError, ModeratorHandle, Policy};
use crate::policy::{Pdp, PdpHandle, PdpMsg, PolicyMachine};

/// The key by which a node's own actors are asked.
pub const HERE: &str = "local";
/// How long to wait before the policies of a node that takes no part in its cluster yet are asked for again.
const AGAIN: Duration = Duration::from_millis(100);

/// Answers without a message. Clones see the same.
#[derive(Debug, Clone)]
pub struct Governance {
    /// Who may do what.
    pub pdp: PdpHandle,
    /// What content may pass.
    pub moderator: ModeratorHandle,
    /// The one call that joins them; the other parts find it with [`Gate::of`].
    pub gate: Gate,
}

/// Why governance cannot be hosted.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A value of `[governance]` makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The constitution does not hold.
    #[error(transparent)]
    Constitution(#[from] ConstitutionError),
    /// The moderation model of this release does not load.
    #[error(transparent)]
    Moderation(#[from] EngineError),
    /// Its rules do not.
    #[error(transparent)]
    Rules(#[from] RulesError),
}

/// Hosts policies and constitution, as `[governance]` of the builder's configuration says; [`Governance::begin`] makes them work.
///
/// # Errors
/// See [`InstallError`].
pub fn install(builder: VillageBuilder) -> Result<(VillageBuilder, Governance), InstallError> {
    let config: GovernanceConfig = section(builder.table(), "governance")?;
    config.validate()?;
    let chain = Arc::new(Chain::embedded()?);
    let pdp = PdpHandle::new(config.policy.cache);
    let moderator = ModeratorHandle::new(Engine::embedded(HashList::default())?);
    let policy = Policy::default();
    let gate = Gate::new(Parts {
        pdp: pdp.clone(),
        judge: Arc::new(Moderation { handle: moderator.clone(), policy: policy.clone() }),
        policy,
        defence: config.defence.clone(),
        dlp: config.dlp.clone(),
        constitution: chain.clone(),
        clock: clock::unix_ms,
    })?;
    let constitution = Constitution::new(chain);
    let governance = Governance { pdp: pdp.clone(), moderator, gate: gate.clone() };
    let builder = builder
        .provide(gate)
        .control_machine(PolicyMachine::default)
        .host(move |_: &ActorCx| Pdp::new(pdp.clone(), config.policy.clone()))
        .host(move |_: &ActorCx| constitution.clone());
    Ok((builder, governance))
}

impl Governance {
    /// Puts the node's policies to work. A node that runs alone has them when this returns, or has said why not; one of a
    /// cluster once it takes part in it.
    pub async fn begin(&self, village: &Village) {
        let wake = wake(village.clone());
        if village.cluster().is_some() {
            village.task("policy.begin", wake).detach();
        } else {
            wake.await;
        }
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
