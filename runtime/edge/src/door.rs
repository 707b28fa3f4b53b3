//! What all handlers share: the village, the limits and the snapshots made once.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aivillage_actors::Agents;
use aivillage_governance::Governance;
use aivillage_governance::moderation::ModeratorHandle;
use aivillage_governance::policy::PdpHandle;
use aivillage_governance::tlog::Home;
use aivillage_memory::Memory;
use aivillage_runtime::{Cluster, Village};
use axum::http::HeaderMap;
use bytes::Bytes;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio_util::sync::CancellationToken;

use crate::auth::{Known, TENANT, Verifier};
use crate::config::EdgeConfig;
use crate::cursor::Cursors;
use crate::error::{ApiError, Code, EdgeError};
use crate::idem::{Idem, IdemMsg};
use crate::job::{JobActor, JobMsg};
use crate::metrics::EdgeMetrics;
use crate::pipeline::admission::Admission;
use crate::pipeline::host::Hosts;
use crate::pipeline::record::Denials;
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
    /// Who may do what.
    pub(crate) pdp: PdpHandle,
    /// What content may pass.
    pub(crate) moderator: ModeratorHandle,
    /// The `OpenAPI` document, serialised once.
    pub(crate) openapi: Bytes,
    /// Cancelled when the drain begins: no new requests, streams end.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the public listener is closed.
    pub(crate) closed: CancellationToken,
    verifier: Verifier,
    by_address: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

/// Lets the actors of the edge forget what has expired, hourly; they do the same when they start.
async fn sweep(village: Village) {
    loop {
        tokio::time::sleep(SWEEP).await;
        // An actor that cannot be reached now sweeps when it starts again, or is asked in an hour.
        for shard in 0..idem::SHARDS {
            let _ = village.addr::<Idem>(idem::shard_key(TENANT, shard)).tell(IdemMsg::Sweep(None)).await;
        }
        for shard in 0..job::SHARDS {
            let _ = village.addr::<JobActor>(job::shard_key(TENANT, shard)).tell(JobMsg::Sweep).await;
        }
    }
}

/// What cursors are signed with: the same on all nodes of a cluster, so that any of them gives the next page.
fn cursor_key(village: &Village, verifier: &Verifier) -> [u8; 32] {
    const CONTEXT: &str = "aivillage edge cursor v1";
    let shared = |cluster: &Cluster| blake3::derive_key(CONTEXT, &cluster.id().to_be_bytes());
    village.cluster().map_or_else(|| verifier.derived(CONTEXT), shared)
}

impl Door {
    pub(crate) fn open(
        village: &Village,
        config: EdgeConfig,
        data_dir: &Path,
        (governance, log): (&Governance, Option<Home>),
        listens: [SocketAddr; 2],
    ) -> Result<(Arc<Self>, PathBuf), EdgeError> {
        let (verifier, key_path) = Verifier::open(data_dir)?;
        village.task("edge.sweep", sweep(village.clone())).detach();
        let own = listens.iter().map(|addr| addr.ip().to_string());
        let rate = config.limits.ip;
        let quota = Quota::with_period(rate.interval())
            .ok_or_else(|| EdgeError::Config { key: "edge.limits.ip", why: "is too fast to be measured".into() })?
            .allow_burst(rate.burst);
        let door = Door {
            admission: Admission::new(config.admission()),
            hosts: Hosts::new(config.allowed_hosts.iter().cloned().chain(own)),
            metrics: village.metrics::<EdgeMetrics>(),
            log,
            denials: Denials::default(),
            cursors: Cursors::new(cursor_key(village, &verifier)),
            roster: Roster::default(),
            pdp: governance.pdp.clone(),
            moderator: governance.moderator.clone(),
            openapi: openapi::document(village),
            stop: CancellationToken::new(),
            closed: CancellationToken::new(),
            by_address: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            village: village.clone(),
            verifier,
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

    /// Who calls.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, from: Option<IpAddr>) -> Result<Known, ApiError> {
        let checked = self.verifier.check(headers, from);
        self.metrics.auth(match &checked {
            Ok(_) => "ok",
            Err(error) if error.code() == Code::RateLimited.as_str() => "throttled",
            Err(_) => "refused",
        });
        checked
    }

    /// Counts a request against its address. Loopback is exempt: everything on this machine shares it.
    pub(crate) fn limit_address(&self, from: Option<IpAddr>) -> Result<(), ApiError> {
        let Some(from) = from.filter(|ip| !ip.is_loopback()) else { return Ok(()) };
        self.by_address.check_key(&from).map_err(|until| {
            self.metrics.rate_limited("ip");
            let wait = until.wait_time_from(self.clock.now()).max(Duration::from_millis(1));
            ApiError::new(Code::RateLimited, "too many requests from this address").retry_after(wait)
        })
    }

    /// Forgets what the limiters need no longer.
    pub(crate) fn tidy(&self) {
        self.by_address.retain_recent();
        self.verifier.tidy();
    }
}
