//! `agent.roster`: which agents there are.
//!
//! Key: empty, one per node. Durable: no, the specs are read at the start of the node.

use std::sync::Arc;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Expose, Kind, KindOptions, Mail, Placement, Reply,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::agent::Shared;
use crate::spec::AgentCard;

/// What the roster understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub enum RosterMsg {
    /// The cards of all agents, sorted by id.
    List(Reply<Vec<AgentCard>>),
    /// The card of one agent.
    Card(String, Reply<AgentCard>),
}

/// Messages that may be called from outside.
pub(crate) const EXPOSED: [Expose; 2] =
    [Expose::new("List", "agent.read").idempotent(), Expose::new("Card", "agent.read").idempotent()];

/// The behaviour.
#[derive(Debug)]
pub struct RosterActor {
    pub(crate) shared: Arc<Shared>,
}

impl Kind for RosterActor {
    const NAME: &'static str = "agent.roster";
    type Body = RosterMsg;

    fn options() -> KindOptions {
        KindOptions::default().placement(Placement::PerNode)
    }
}

impl Actor for RosterActor {
    type Msg = Mail<RosterMsg>;
    type State = ();
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match mail.body {
            RosterMsg::List(reply) => reply.send(self.shared.roster.iter().map(|spec| spec.card()).collect()),
            RosterMsg::Card(id, reply) => {
                reply.complete(
                    self.shared.roster.get(&id).map(|spec| spec.card()).ok_or_else(|| self.shared.unknown_agent(&id)),
                );
            }
        }
        Ok(())
    }
}
