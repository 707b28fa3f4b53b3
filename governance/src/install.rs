//! What a node hosts of governance, and what the other parts ask without a message.

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::config::{ConfigError, section};
use aivillage_runtime::{ActorCx, Village, VillageBuilder};

use crate::config::GovernanceConfig;
use crate::constitution::Constitution;
use crate::constitution::chain::{Chain, ConstitutionError};
use crate::ledger::Ledger;
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
}

/// Hosts policies, constitution and ledger, as `[governance]` of the builder's configuration says; [`Governance::begin`] makes them work.
///
/// # Errors
/// See [`InstallError`].
pub fn install(builder: VillageBuilder) -> Result<(VillageBuilder, Governance), InstallError> {
    let config: GovernanceConfig = section(builder.table(), "governance")?;
    config.validate()?;
    let governance = Governance { pdp: PdpHandle::new(config.policy.cache) };
    let constitution = Constitution::new(Arc::new(Chain::embedded()?));
    let pdp = governance.pdp.clone();
    let builder = builder
        .control_machine(PolicyMachine::default)
        .host(move |_: &ActorCx| Pdp::new(pdp.clone(), config.policy.clone()))
        .host(move |_: &ActorCx| constitution.clone())
        .host(move |_: &ActorCx| Ledger::new(config.ledger));
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
