//! What all handlers share: the village, the limits and the snapshots made once.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aivillage_actors::Agents;
use aivillage_governance::Governance;
use aivillage_governance::dlp::Tokens;
use aivillage_governance::gate::Gate;
use aivillage_governance::identity::{Credentials, Secret, Tenants};
use aivillage_governance::moderation::ModeratorHandle;
use aivillage_governance::tlog::Home;
use aivillage_memory::Memory;
use aivillage_runtime::config::Rate;
use aivillage_runtime::{Cluster, Village};
use axum::http::{HeaderMap, Method, Uri};
use bytes::Bytes;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio_util::sync::CancellationToken;

use crate::auth::{AdminKey, Known, Verifier};
use crate::config::EdgeConfig;
use crate::cursor::Cursors;
use crate::error::{ApiError, Code, EdgeError};
use crate::idem::{Idem, IdemMsg};
use crate::job::{JobActor, JobMsg};
use crate::metrics::EdgeMetrics;
use crate::pipeline::admission::Admission;
use crate::pipeline::host::Hosts;
use crate::pipeline::record::Denials;
use crate::routes::Class;
use crate::routes::agents::Roster;
use crate::{idem, job, openapi};

/// How often expired answers and jobs are removed.
const SWEEP: Duration = Duration::from_hours(1);

/// The state of the router.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) village: Village,
    pub(crate) config: EdgeConfig,
    pub(crate) admission: Admission,
    pub(crate) hosts: Hosts,
    pub(crate) metrics: Arc<EdgeMetrics>,
    /// The transparency log; none in a village that keeps nothing.
    pub(crate) log: Option<Home>,
    pub(crate) denials: Denials,
    pub(crate) cursors: Cursors,
    pub(crate) roster: Roster,
    /// What every request and every content passes.
    pub(crate) gate: Gate,
    /// What content may pass.
    pub(crate) moderator: ModeratorHandle,
    /// Redacts with tokens that can be taken back.
    pub(crate) tokens: Tokens,
    /// The `OpenAPI` document, serialised once.
    pub(crate) openapi: Bytes,
    /// Cancelled when the drain begins: no new requests, streams end.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the public listener is closed.
    pub(crate) closed: CancellationToken,
    verifier: Verifier,
    /// Who has no credential yet, by address: attempts to get one, and the rest.
    logins: DefaultKeyedRateLimiter<IpAddr>,
    public: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

/// Lets the actors of the edge forget what has expired, hourly; they do the same when they start.
async fn sweep(village: Village) {
    let tenants = Tenants::new(&village);
    loop {
        tokio::time::sleep(SWEEP).await;
        for tenant in tenants.list(None, usize::MAX) {
            sweep_tenant(&village, &tenant.name).await;
        }
    }
}

async fn sweep_tenant(village: &Village, tenant: &str) {
    // An actor that cannot be reached now sweeps when it starts again, or is asked in an hour.
    for shard in 0..idem::SHARDS {
        let _ = village.addr::<Idem>(idem::shard_key(tenant, shard)).tell(IdemMsg::Sweep(None)).await;
    }
    for shard in 0..job::SHARDS {
        let _ = village.addr::<JobActor>(job::shard_key(tenant, shard)).tell(JobMsg::Sweep).await;
    }
}

/// What cursors are signed with: the same on all nodes of a cluster, so that any of them gives the next page.
fn cursor_key(village: &Village, admin: &AdminKey) -> [u8; 32] {
    const CONTEXT: &str = "aivillage edge cursor v1";
    let shared = |cluster: &Cluster| blake3::derive_key(CONTEXT, &cluster.id().to_be_bytes());
    village.cluster().map_or_else(|| admin.derived(CONTEXT), shared)
}

/// Requests a minute of one address that ask for keys to check tokens with, refresh or end a login.
const PUBLIC: std::num::NonZeroU32 = std::num::NonZeroU32::new(60).expect("not zero");

fn quota(key: &'static str, rate: Rate) -> Result<Quota, EdgeError> {
    let quota = Quota::with_period(rate.interval());
    let quota = quota.ok_or_else(|| EdgeError::Config { key, why: "is too fast to be measured".into() })?;
    Ok(quota.allow_burst(rate.burst))
}

impl Door {
    pub(crate) fn open(
        village: &Village,
        config: EdgeConfig,
        data_dir: &Path,
        (governance, gate, log): (&Governance, Gate, Option<Home>),
        listens: [SocketAddr; 2],
    ) -> Result<(Arc<Self>, PathBuf), EdgeError> {
        let (admin, key_path) = AdminKey::open(data_dir)?;
        if let Some(log) = &log {
            gate.log_to(log.clone());
        }
        village.task("edge.sweep", sweep(village.clone())).detach();
        let own = listens.iter().map(|addr| addr.ip().to_string());
        let credentials = Credentials::new(village, governance.verifier.clone(), governance.freshness.clone());
        let door = Door {
            admission: Admission::new(config.admission()),
            hosts: Hosts::new(config.allowed_hosts.iter().cloned().chain(own)),
            metrics: village.metrics::<EdgeMetrics>(),
            log,
            denials: Denials::default(),
            cursors: Cursors::new(cursor_key(village, &admin)),
            roster: Roster::default(),
            gate,
            moderator: governance.moderator.clone(),
            tokens: governance.tokens.clone(),
            openapi: openapi::document(village),
            stop: CancellationToken::new(),
            closed: CancellationToken::new(),
            logins: RateLimiter::keyed(quota("edge.limits.login", config.limits.login)?),
            public: RateLimiter::keyed(Quota::per_minute(PUBLIC)),
            clock: DefaultClock::default(),
            village: village.clone(),
            verifier: Verifier::new(admin, credentials),
            config,
        };
        Ok((Arc::new(door), key_path))
    }

    /// The memory of one tenant.
    pub(crate) fn memory(&self, tenant: &str) -> Memory {
        Memory::new(&self.village, tenant)
    }

    /// The agents of one tenant.
    pub(crate) fn agents(&self, tenant: &str) -> Agents {
        Agents::new(&self.village, tenant)
    }

    /// Everybody's credentials, and the tenants.
    pub(crate) fn credentials(&self) -> &Credentials {
        self.verifier.credentials()
    }

    /// Who calls.
    pub(crate) async fn authenticate(
        &self,
        head: (&Method, &Uri, &HeaderMap),
        from: Option<IpAddr>,
    ) -> Result<Known, ApiError> {
        let checked = self.verifier.check(head, from).await;
        self.metrics.auth(match &checked {
            Ok(_) => "ok",
            Err(error) if error.code() == Code::RateLimited.as_str() => "throttled",
            Err(_) => "refused",
        });
        checked
    }

    /// Who a credential that was let in before stands for now.
    pub(crate) async fn look_again(&self, credential: &Secret) -> Result<Known, ApiError> {
        self.verifier.look_again(credential).await
    }

    /// Counts a request on a route that needs no credential against its address.
    pub(crate) fn limit_public(&self, class: Class, from: Option<IpAddr>) -> Result<(), ApiError> {
        let address = from.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let limiter = if class == Class::Login { &self.logins } else { &self.public };
        limiter.check_key(&address).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now()).max(Duration::from_millis(1));
            ApiError::new(Code::RateLimited, "too many attempts from this address").retry_after(wait)
        })
    }

    /// Forgets what the limiters need no longer.
    pub(crate) fn tidy(&self) {
        self.logins.retain_recent();
        self.public.retain_recent();
        self.verifier.tidy();
    }
}
