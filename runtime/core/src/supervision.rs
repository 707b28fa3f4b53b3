//! The supervision tree of a node, as it is shown to people.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::hosted_kind::{ActorInfo, HostedKind};
use crate::supervisor::{ChildView, SupervisorHandle};
use crate::village::Village;

/// A supervisor handles nothing else while it starts or stops a child; nobody waits longer for its list.
const ANSWER: Duration = Duration::from_millis(500);

/// A supervisor, or one whom it looks after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Supervised {
    /// Its name; of an actor the key.
    pub name: String,
    /// `running`, `restarting` or `ended`; `busy` for a supervisor that does not answer now; of an actor as in [`ActorInfo`].
    pub state: &'static str,
    /// Of itself, if it is an actor; of all its actors, if it is the host of a kind.
    pub restarts: u64,
    /// Messages waiting or in hand, likewise.
    pub waiting: u64,
    /// Whom it looks after, in the order of their start; actors with the most messages first.
    pub children: Vec<Supervised>,
    /// Children that are not listed.
    pub more: usize,
}

impl Supervised {
    fn new(name: impl Into<String>, state: &'static str) -> Self {
        Self { name: name.into(), state, restarts: 0, waiting: 0, children: Vec::new(), more: 0 }
    }

    fn actor(actor: ActorInfo) -> Self {
        let mut shown = Self::new(actor.key, actor.state);
        (shown.restarts, shown.waiting) = (u64::from(actor.restarts), actor.mailbox_depth);
        shown
    }

    /// The host of a kind with its busiest actors.
    fn host(child: &ChildView, kind: &dyn HostedKind, most: usize) -> Self {
        let mut shown = Self::new(&*child.id, state(child));
        let mut actors = kind.actors();
        actors.sort_by(|one, other| other.mailbox_depth.cmp(&one.mailbox_depth).then_with(|| one.key.cmp(&other.key)));
        shown.waiting = actors.iter().map(|actor| actor.mailbox_depth).sum();
        shown.restarts = kind.info().restarts;
        shown.more = actors.len().saturating_sub(most);
        shown.children = actors.into_iter().take(most).map(Self::actor).collect();
        shown
    }
}

fn state(child: &ChildView) -> &'static str {
    match (&child.cell, child.restarting) {
        (Some(_), _) => "running",
        (None, true) => "restarting",
        (None, false) => "ended",
    }
}

/// A supervisor with the children it has now.
async fn supervisor(name: &str, handle: &SupervisorHandle, shown: impl Fn(&ChildView) -> Supervised) -> Supervised {
    match tokio::time::timeout(ANSWER, handle.which_children()).await {
        Ok(Ok(children)) => {
            let mut all = Supervised::new(name, "running");
            all.children = children.iter().map(shown).collect();
            all
        }
        Ok(Err(_)) => Supervised::new(name, "ended"),
        Err(_) => Supervised::new(name, "busy"),
    }
}

impl Village {
    /// The trees of supervisors of this node: that of its kinds, with at most `most` actors of each, and that of what it does
    /// for its cluster.
    pub async fn supervision(&self, most: usize) -> Vec<Supervised> {
        let mut trees = Vec::new();
        if let Some(root) = self.root() {
            let shown = |child: &ChildView| match self.kind(&child.id) {
                Some(kind) => Supervised::host(child, &**kind, most),
                None => Supervised::new(&*child.id, state(child)),
            };
            trees.push(supervisor("root", root, shown).await);
        }
        if let Some(services) = self.cluster().and_then(|cluster| cluster.0.services.get()) {
            let shown = |child: &ChildView| Supervised::new(&*child.id, state(child));
            trees.push(supervisor("cluster", services, shown).await);
        }
        trees
    }
}
