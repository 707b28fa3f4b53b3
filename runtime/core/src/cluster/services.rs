//! What the nodes of a cluster say to each other beside the mail of actors: the numbers of the services, and the small ones.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::blob::{BlobLane, Download, FetchError, Offers};
use crate::error::CallError;
use crate::node_id::NodeId;
use crate::raft::{Courier, Group, GroupId, Lost};
use crate::router::{Router, Service};
use crate::task::Tasks;
use crate::wire::WirePort;

/// Commands for the control group.
pub(crate) const CONTROL: u32 = 1;
/// Beats for the control leader.
pub(crate) const BEAT: u32 = 2;
/// News of who leads a shard group.
pub(crate) const LEADS: u32 = 3;
/// Where members are, in their own words.
pub(crate) const ADDRS: u32 = 4;
/// The first of the replicated groups; the others follow by number.
pub(crate) const RAFT: u32 = 256;

/// Carries the messages of replicated groups over the lanes.
#[derive(Clone)]
pub(crate) struct LaneCourier {
    pub(crate) router: Arc<Router>,
    pub(crate) blobs: Arc<BlobLane>,
}

impl Courier for LaneCourier {
    fn call(
        &self,
        to: NodeId,
        group: GroupId,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Lost>> {
        let router = self.router.clone();
        async move {
            let answer = router.call(to, RAFT + u32::from(group.0), &body, limit).await;
            answer.map_err(|error| match error {
                CallError::Unreachable { .. } => Lost::NoLink,
                CallError::Timeout => Lost::Late,
                other => Lost::Refused(other.to_string()),
            })
        }
        .boxed()
    }

    fn fetch(&self, from: NodeId, file: Arc<Download>) -> BoxFuture<'static, Result<(), FetchError>> {
        let blobs = self.blobs.clone();
        async move { blobs.fetch(from, &file).await }.boxed()
    }

    fn offers(&self) -> &Offers {
        self.blobs.offers()
    }
}

/// Hands a group what its other nodes send.
pub(crate) struct RaftService {
    pub(crate) group: Group,
    pub(crate) tasks: Arc<Tasks>,
}

impl Service for RaftService {
    fn serve(&self, from: NodeId, _: &str, body: Bytes, port: Option<WirePort>) {
        let Some(port) = port else { return };
        let group = self.group.clone();
        let serving = async move {
            let answer = group.serve(from, body).await;
            port.complete_bytes(answer.map_err(|error| CallError::Denied { reason: error.to_string() }.into()));
        };
        self.tasks.spawn("raft", serving).detach();
    }
}
