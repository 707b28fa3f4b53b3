//! What a node hosts of governance, and what the other parts ask without a message.

use std::sync::Arc;
use std::time::Duration;

use aivillage_runtime::config::{ConfigError, section};
use aivillage_runtime::{ActorCx, Village, VillageBuilder, clock};
use tokio::sync::watch;

use crate::cases::{CaseActor, CaseData, CaseLog, Cases, Court, Juror, JurorPool, Roll, Standings, Watch};
use crate::config::GovernanceConfig;
use crate::constitution::Constitution;
use crate::constitution::chain::{Chain, ConstitutionError};
use crate::constitution::document::Document;
use crate::constitution::folder::{self, FolderError};
use crate::constitution::note::NoteKey;
use crate::dlp::{Held, HeldView, TokenData, TokenVault, Tokens};
use crate::erasure::{self, Owners};
use crate::freshness::Freshness;
use crate::gate::{Gate, Moderation, Parts};
use crate::identity::{self, AccountData, Identity, IdentityError, IdentityNode, TenantMachine, VerifierHandle};
use crate::keys::share::ShareError;
use crate::keys::{self, KeysNode, SecretKeeper, VillageSecret, share};
use crate::ledger::Ledger;
use crate::moderation::rules::RulesError;
use crate::moderation::{ModelError, Moderator, ModeratorHandle, Policy};
use crate::policy::{Pdp, PdpHandle, PdpMsg, PolicyMachine};

/// The key by which a node's own actors are asked.
pub const HERE: &str = "local";
/// How long to wait before the policies of a node that takes no part in its cluster yet are asked for again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long to wait until a disk that failed is tried again.
const LATER: Duration = Duration::from_secs(5);
/// Below a node's data directory: what governance keeps in files.
pub const FOLDER: &str = "governance";

/// When all cases are looked at first, and how often after that: their deadlines are days away.
const LOOK: [Duration; 2] = [Duration::from_mins(5), Duration::from_hours(1)];

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
    /// Whether this node's copies of policies and accounts count.
    pub freshness: Freshness,
    /// Where the keys come from that all nodes have; there once [`Governance::begin`] has found it.
    pub secret: VillageSecret,
    /// What senders may not do for a while.
    pub standings: Standings,
    /// Who may be drawn for juries.
    pub jurors: JurorPool,
    refusal: Arc<watch::Sender<Option<String>>>,
    /// Where it is logged what becomes of cases.
    pub case_log: CaseLog,
    /// Seals and opens what is stored, once [`Governance::begin`] has found the root key.
    pub keys: KeysNode,
    /// Redacts with tokens that can be taken back.
    pub tokens: Tokens,
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
    /// The model of moderation, or what else its configuration names, cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The constitution does not hold.
    #[error(transparent)]
    Constitution(#[from] ConstitutionError),
    /// Its rules do not.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// A file of the constitution cannot be read.
    #[error("governance.constitution: {0}")]
    Folder(#[from] FolderError),
}

/// Hosts policies, accounts, constitution, moderation, cases and ledger, as `[governance]` of the builder's configuration says;
/// [`Governance::begin`] makes them work.
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
    let rules = chain.current().clone();
    let freshness = Freshness::new(config.stale_after.get());
    let pdp = PdpHandle::new(config.policy.cache).fresh_by(freshness.clone());
    let moderator = config.moderation.load()?;
    let standings = Standings::default();
    let gate = gate(&config, &pdp, (&moderator, &standings), chain.clone())?;
    let (constitution, keeper) = (Constitution::new(chain, &roots, secret.clone()), SecretKeeper::new(secret.clone()));
    let jurors = config.moderation.jurors.iter().filter_map(|juror| Juror::parse(juror));
    let governance = Governance {
        pdp: pdp.clone(),
        gate: gate.clone(),
        verifier,
        freshness,
        tokens: Tokens::new(secret.clone()),
        secret,
        moderator,
        refusal: Arc::default(),
        standings,
        jurors: JurorPool::new(jurors),
        case_log: CaseLog::default(),
        keys: KeysNode::new(config.keys.clone()),
        owners: Owners::default(),
    };
    governance.owners.add(AccountData);
    governance.owners.add(CaseData);
    governance.owners.add(TokenData);
    let builder = keys::install(builder, &governance.keys);
    let builder = erasure::install(builder, &governance.owners, governance.secret.clone());
    let builder = tokens(builder);
    let builder = moderation(builder, &governance, rules);
    let builder = builder
        .provide(gate)
        .control_machine(PolicyMachine::default)
        .control_machine(TenantMachine::default)
        .host(move |_: &ActorCx| keeper.clone())
        .host(move |_: &ActorCx| Pdp::new(pdp.clone(), config.policy.clone()))
        .host(move |_: &ActorCx| constitution.clone())
        .host(move |_: &ActorCx| Ledger::new(config.ledger));
    Ok((builder, governance))
}

/// Hosts what keeps the values of tokens.
fn tokens(builder: VillageBuilder) -> VillageBuilder {
    let held = Held::default();
    let shown = held.clone();
    builder
        .provide(held)
        .host(|_: &ActorCx| TokenVault)
        .replica_view::<TokenVault, HeldView>(move |group| shown.view(group))
}

/// Hosts who judges, and what follows.
fn moderation(builder: VillageBuilder, governance: &Governance, rules: Document) -> VillageBuilder {
    let (moderator, standings) = (governance.moderator.clone(), governance.standings.clone());
    let court = Court {
        moderator: moderator.clone(),
        constitution: rules,
        log: governance.case_log.clone(),
        jurors: governance.jurors.clone(),
        standings: standings.clone(),
    };
    let jurors = governance.jurors.clone();
    builder
        .host(move |_: &ActorCx| Moderator::new(moderator.clone()))
        .host(move |_: &ActorCx| CaseActor::new(court.clone()))
        .replica_view::<CaseActor, Watch>(move |_| Watch::new(standings.clone()))
        .replica_view::<Identity, Roll>(move |_| Roll::new(jurors.clone()))
}

/// The gate that joins all of them.
fn gate(
    config: &GovernanceConfig,
    pdp: &PdpHandle,
    (moderator, standings): (&ModeratorHandle, &Standings),
    constitution: Arc<Chain>,
) -> Result<Gate, RulesError> {
    let policy = Policy { h2: config.moderation.h2_default, ..Policy::default() };
    Gate::new(Parts {
        pdp: pdp.clone(),
        judge: Arc::new(Moderation { handle: moderator.clone(), policy: policy.clone() }),
        policy,
        defence: config.defence.clone(),
        dlp: config.dlp.clone(),
        constitution,
        standings: standings.clone(),
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
    /// Waits until this node must not go on in its cluster, and says why.
    ///
    /// # Cancel safety
    /// Safe: what was not told is told by the next call.
    pub async fn refused(&self) -> String {
        let mut refusal = self.refusal.subscribe();
        match refusal.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Puts the node's policies and secret to work, and keeps the deadlines of cases. A node that runs alone has them when this
    /// returns, or has said why not; one of a cluster once it takes part in it.
    pub async fn begin(&self, village: &Village) {
        self.freshness.begin(village);
        village.task("cases.look", look(village.clone())).detach();
        let settle = settle(village.clone(), self.secret.clone(), self.refusal.clone());
        let wake = wake(village.clone());
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
async fn settle(village: Village, secret: VillageSecret, refusal: Arc<watch::Sender<Option<String>>>) {
    let dir = village.data_dir().map(|dir| dir.join(FOLDER));
    while let Err(error) = share::settle(&village, &secret, dir.as_deref()).await {
        if village.is_draining() {
            return;
        }
        tracing::error!(%error, "no secret of the village, so no accounts");
        if matches!(error, ShareError::Foreign { .. }) {
            refusal.send_replace(Some(error.to_string()));
            return;
        }
        if village.cluster().is_none() {
            return;
        }
        tokio::time::sleep(LATER).await;
    }
}

/// Lets all cases end that time has ended, also those that nobody asks about; while there are any, they look by themselves.
async fn look(village: Village) {
    let [mut pause, often] = LOOK;
    loop {
        tokio::time::sleep(pause).await;
        pause = often;
        if let Err(error) = Cases::new(&village).look().await {
            tracing::debug!(%error, "the deadlines of cases are not looked at");
            [pause, _] = LOOK;
        }
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
