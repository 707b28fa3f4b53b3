//! `governance.pdp`: keeps this node's policies at the version that the cluster agreed on.
//!
//! Key: any, usually `local`. Placement: one per node. Durable: no; the bundle is in the control group, or in a folder of a
//! node that runs alone. Lost in a crash: the mail in hand; [`PdpHandle`] goes on deciding by the bundle it has.
//!
//! Decisions are made through the handle, without this actor. A bundle that cannot be loaded leaves the old one at work.

use std::sync::Arc;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Cluster, DecideError, Kind, KindOptions, Mail,
    Placement, Reply, TaskError, Village,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bundle::{Bundle, BundleError};
use super::cases::{Case, Report};
use super::config::PolicyConfig;
use super::decide::Decision;
use super::explain::Explanation;
use super::handle::{PdpHandle, Unavailable};
use super::machine::{NS, PolicyMachine, PolicyRefused};
use super::request::Request;
use super::sources::{Sources, SourcesError};

/// Epochs between two versions of the cluster's bundle: a folder may be read again so often before the first one.
const RELOADS: u64 = 1 << 20;

/// What a [`Pdp`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum PdpMsg {
    /// May this be done? For callers on this node the handle is faster.
    Decide(Request, Reply<Decision>),
    /// The same with reasons.
    Explain(Request, Reply<Explanation>),
    /// Runs tests against the bundle at work.
    Test(Vec<Case>, Reply<Report>),
    /// Makes a bundle that of all nodes, if the one there is has version `expect`, 0 for none.
    Apply {
        /// The keeper's files.
        sources: Sources,
        /// The version it was made from.
        expect: u64,
        /// Sent when it is decided and at work on this node.
        reply: Reply<Applied>,
    },
    /// Reads the folder again, on a node that runs alone.
    Reload(Reply<PdpStatus>),
    /// What is at work.
    Epoch(Reply<PdpStatus>),
    /// Looks for a newer bundle; sent by itself.
    Refresh,
    /// A bundle was loaded, or not; sent by itself.
    Loaded {
        /// Its version.
        version: u64,
        /// Why it is not at work.
        problem: Option<String>,
    },
}

/// A bundle that was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// Its version.
    pub version: u64,
    /// The epoch of the decisions by it.
    pub epoch: u64,
    /// SHA-256 over its files, in hexadecimal digits.
    pub hash: String,
}

/// What decides on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PdpStatus {
    /// The version of the bundle at work, 0 for one that the cluster did not decide on.
    pub version: u64,
    /// The epoch of its decisions; `None` when nothing is loaded and nothing is allowed.
    pub epoch: Option<u64>,
    /// SHA-256 over the bundle's files, in hexadecimal digits.
    pub hash: Option<String>,
    /// Policies in the bundle.
    pub policies: usize,
    /// Why a newer bundle is not at work.
    pub problem: Option<String>,
}

/// The behaviour; its data is [`Keeper`].
#[derive(Debug)]
pub struct Pdp {
    handle: PdpHandle,
    config: PolicyConfig,
}

impl Pdp {
    /// Keeps `handle` up to date.
    #[must_use]
    pub fn new(handle: PdpHandle, config: PolicyConfig) -> Self {
        Self { handle, config }
    }
}

impl Kind for Pdp {
    const NAME: &'static str = "governance.pdp";
    type Body = PdpMsg;

    fn options() -> KindOptions {
        KindOptions::default().placement(Placement::PerNode).idle(None)
    }
}

/// What a [`Pdp`] knows.
#[derive(Debug)]
pub struct Keeper {
    cx: ActorCx,
    handle: PdpHandle,
    config: PolicyConfig,
    /// A bundle is being loaded.
    loading: bool,
    /// The newest version that could not be loaded, 0 for the folder, and why.
    problem: Option<(u64, String)>,
}

impl Actor for Pdp {
    type Msg = Mail<PdpMsg>;
    type State = Keeper;
    type Arguments = ActorCx;

    async fn pre_start(&self, me: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Keeper, ActorProcessingErr> {
        let (handle, config) = (self.handle.clone(), self.config.clone());
        let mut keeper = Keeper { cx, handle, config, loading: false, problem: None };
        match keeper.wanted() {
            // The first question then already has an answer.
            Some((version, sources)) => {
                keeper.loading = true;
                let problem = load_version(&keeper.cx, &keeper.handle, version, sources).await;
                keeper.loaded(&me, version, problem);
            }
            None => keeper.refresh(&me),
        }
        Ok(keeper)
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        keeper: &mut Keeper,
    ) -> Result<(), ActorProcessingErr> {
        let handle = &keeper.handle;
        match mail.body {
            PdpMsg::Decide(request, reply) => {
                reply.complete(handle.decide(&request).map(Arc::unwrap_or_clone).map_err(unavailable));
            }
            PdpMsg::Explain(request, reply) => reply.complete(handle.explain(&request).map_err(unavailable)),
            PdpMsg::Test(cases, reply) => {
                let report = handle.snapshot().map(|snapshot| snapshot.bundle().test(&cases));
                reply.complete(report.ok_or_else(|| unavailable(Unavailable::NotLoaded)));
            }
            PdpMsg::Apply { sources, expect, reply } => keeper.apply(sources, expect, reply),
            PdpMsg::Reload(reply) => keeper.reload(&me, reply),
            PdpMsg::Epoch(reply) => reply.send(keeper.status()),
            PdpMsg::Refresh => keeper.refresh(&me),
            PdpMsg::Loaded { version, problem } => keeper.loaded(&me, version, problem),
        }
        Ok(())
    }
}

/// Where a bundle's files come from.
#[derive(Debug)]
enum Wanted {
    Folder(PolicyConfig),
    Packed(Vec<u8>),
}

impl Wanted {
    fn sources(&self) -> Result<Sources, SourcesError> {
        match self {
            Self::Folder(config) => config.sources(),
            Self::Packed(bytes) => Sources::unpack(bytes),
        }
    }
}

impl Keeper {
    fn cluster(&self) -> Option<&Cluster> {
        self.cx.village().cluster()
    }

    /// The version that the cluster decided on, as this node knows it.
    fn decided(&self) -> u64 {
        self.cluster().and_then(|cluster| cluster.machine(NS, PolicyMachine::version)).unwrap_or(0)
    }

    /// A bundle that should be at work and is not.
    fn wanted(&self) -> Option<(u64, Wanted)> {
        let failed = self.problem.as_ref().map(|(version, _)| *version);
        let decided = self.decided();
        if decided == 0 {
            let first = self.handle.epoch().is_none() && failed.is_none() && self.is_admitted();
            return first.then(|| (0, Wanted::Folder(self.config.clone())));
        }
        if self.handle.epoch().map_or(0, version_of).max(failed.unwrap_or(0)) >= decided {
            return None;
        }
        let read = |machine: &PolicyMachine| {
            machine.packed().map(|packed| (machine.version(), Wanted::Packed(packed.to_vec())))
        };
        self.cluster()?.machine(NS, read).flatten()
    }

    /// Whether this node has what the cluster decided before it let it in: before that, "no policies yet" means nothing.
    fn is_admitted(&self) -> bool {
        let me = self.cx.village().node_id();
        self.cluster().is_none_or(|cluster| cluster.members().iter().any(|member| member.record.id == me))
    }

    /// Loads what should be at work, or looks again later.
    fn refresh(&mut self, me: &ActorRef<Mail<PdpMsg>>) {
        match self.wanted() {
            Some((version, wanted)) if !self.loading => {
                self.loading = true;
                let (cx, me, handle) = (self.cx.clone(), me.clone(), self.handle.clone());
                let work = async move {
                    let problem = load_version(&cx, &handle, version, wanted).await;
                    cx.tell_self(&me, PdpMsg::Loaded { version, problem });
                };
                self.cx.village().task("policy.load", work).detach();
            }
            // A node that runs alone hears of changes by `Reload`.
            _ if self.cluster().is_none() => (),
            _ => self.cx.timer(me, self.config.refresh.into(), PdpMsg::Refresh).detach(),
        }
    }

    fn loaded(&mut self, me: &ActorRef<Mail<PdpMsg>>, version: u64, problem: Option<String>) {
        let was_loading = std::mem::take(&mut self.loading);
        if let Some(problem) = &problem {
            tracing::error!(version, problem, "policies not loaded, the old ones stay");
        }
        self.problem = problem.map(|problem| (version, problem));
        // After a reload the next look is under way already.
        if was_loading {
            self.refresh(me);
        }
    }

    fn apply(&self, sources: Sources, expect: u64, reply: Reply<Applied>) {
        let (village, handle) = (self.cx.village().clone(), self.handle.clone());
        let work = async move { reply.complete(apply(&village, &handle, sources, expect).await) };
        self.cx.village().task("policy.apply", work).detach();
    }

    fn reload(&self, me: &ActorRef<Mail<PdpMsg>>, reply: Reply<PdpStatus>) {
        if self.decided() > 0 {
            return reply.fail(replicated());
        }
        let (cx, me, handle, folder) = (self.cx.clone(), me.clone(), self.handle.clone(), self.config.clone());
        let work = async move {
            let reloaded = reload(cx.village(), &handle, Wanted::Folder(folder)).await;
            if reloaded.is_ok() {
                cx.tell_self(&me, PdpMsg::Loaded { version: 0, problem: None });
            }
            reply.complete(reloaded);
        };
        self.cx.village().task("policy.reload", work).detach();
    }

    fn status(&self) -> PdpStatus {
        status(&self.handle, self.problem.as_ref().map(|(_, problem)| problem.clone()))
    }
}

fn status(handle: &PdpHandle, problem: Option<String>) -> PdpStatus {
    let snapshot = handle.snapshot();
    PdpStatus {
        version: snapshot.as_ref().map_or(0, |snapshot| version_of(snapshot.epoch())),
        epoch: snapshot.as_ref().map(|snapshot| snapshot.epoch()),
        hash: snapshot.as_ref().map(|snapshot| snapshot.bundle().hash_hex()),
        policies: snapshot.map_or(0, |snapshot| snapshot.bundle().len()),
        problem,
    }
}

/// Puts the folder to work unless it is at work already.
async fn reload(village: &Village, handle: &PdpHandle, folder: Wanted) -> Result<PdpStatus, CallError> {
    let bundle = Arc::new(load(village, handle, move || folder.sources()).await?);
    // Again when another reload was between.
    loop {
        let next = match handle.snapshot() {
            None => 0,
            Some(old) if old.bundle().hash() == bundle.hash() => break,
            Some(old) if version_of(old.epoch() + 1) > 0 => return Err(replicated()),
            Some(old) => old.epoch() + 1,
        };
        if handle.publish(bundle.clone(), next) {
            break;
        }
    }
    Ok(status(handle, None))
}

fn replicated() -> CallError {
    let message = "the cluster has decided on its policies, the folder does not count; apply a new bundle";
    AppError::new("policy_replicated", message).into()
}

/// The epoch of decisions by a version: above that of any folder's bundle, the same on all nodes, exact in JSON.
fn epoch_of(version: u64) -> u64 {
    version.saturating_mul(RELOADS)
}

fn version_of(epoch: u64) -> u64 {
    epoch / RELOADS
}

/// Puts a bundle to work; says why not.
async fn load_version(cx: &ActorCx, handle: &PdpHandle, version: u64, wanted: Wanted) -> Option<String> {
    match load(cx.village(), handle, move || wanted.sources()).await {
        Ok(bundle) => {
            handle.publish(Arc::new(bundle), epoch_of(version));
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

/// Loads on a thread of its own.
async fn load(
    village: &Village,
    handle: &PdpHandle,
    sources: impl FnOnce() -> Result<Sources, SourcesError> + Send + 'static,
) -> Result<Bundle, LoadError> {
    let before = handle.snapshot();
    let work = move || {
        let before = before.as_ref().map(|snapshot| &**snapshot.bundle());
        Ok(Bundle::load_after(&sources()?, before)?)
    };
    village.blocking("policy.load", work).await?
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Sources(#[from] SourcesError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl From<LoadError> for CallError {
    fn from(error: LoadError) -> Self {
        AppError::new("policy_invalid", error.to_string()).into()
    }
}

/// Loads, lets the cluster decide, and puts to work here at once; other nodes find it with their next refresh.
async fn apply(village: &Village, handle: &PdpHandle, sources: Sources, expect: u64) -> Result<Applied, CallError> {
    let Some(cluster) = village.cluster() else {
        let message = "this node runs alone: change the files of its policy folder and reload";
        return Err(AppError::new("policy_not_replicated", message).into());
    };
    let bundle = load(village, handle, move || Ok(sources)).await?;
    let packed = bundle.sources().pack().map_err(LoadError::from)?;
    let command = PolicyMachine::put(expect, bundle.hash(), packed);
    let answer = cluster.command(NS, command).await.map_err(|error| undecided(&error))?;
    let version = PolicyMachine::answer(&answer).map_err(|refused| match refused {
        PolicyRefused::Conflict { .. } => AppError::new("conflict", refused.to_string()),
        _ => AppError::new("policy_invalid", refused.to_string()),
    })?;
    let (epoch, hash) = (epoch_of(version), bundle.hash_hex());
    handle.publish(Arc::new(bundle), epoch);
    Ok(Applied { version, epoch, hash })
}

fn undecided(error: &DecideError) -> CallError {
    match error {
        DecideError::NoQuorum { .. } => CallError::NoQuorum { detail: error.to_string() },
        _ => AppError::new("policy_undecided", error.to_string()).into(),
    }
}

fn unavailable(error: Unavailable) -> CallError {
    AppError::new("policy_unavailable", error.to_string()).into()
}
