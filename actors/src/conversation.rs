//! `agent.conversation`: what was said, in order.
//!
//! Key: `{tenant}:{conversation}`. Durable: yes, every acknowledged message survives a crash of the node.
//! Lost in a crash: the mail in hand; its sender got no acknowledgement.

use std::collections::VecDeque;
use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Durability, Durable, Entity, Expose, Kind, KindOptions,
    Mail, MsgCx, Reply,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Messages kept; older ones go.
const KEPT: usize = 1000;
/// Most text appended at once, bytes: it is one commit of the group, which takes little more.
pub const MAX_TEXT_BYTES: usize = 192 * 1024;

/// What a conversation understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub enum ConversationMsg {
    /// Appends messages and tells how many there are.
    Append(Vec<Message>, Reply<u64>),
    /// The newest messages, oldest first.
    History(HistoryQuery, Reply<Vec<Message>>),
    /// Forgets all messages; tells whether there were any.
    Delete(Reply<bool>),
}

/// Which part of a conversation is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryQuery {
    /// Most messages.
    pub limit: u32,
}

/// Who spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person or program that asks.
    User,
    /// An agent.
    Agent,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Who spoke.
    pub role: Role,
    /// The agent that was asked or that answered.
    pub agent: String,
    /// What was said.
    pub text: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// Messages that may be called from outside.
pub(crate) const EXPOSED: [Expose; 2] =
    [Expose::new("History", "agent.history").idempotent(), Expose::new("Delete", "agent.erase").idempotent()];

/// The behaviour; its data is [`Dialogue`].
#[derive(Debug)]
pub struct Conversation;

impl Kind for Conversation {
    const NAME: &'static str = "agent.conversation";
    type Body = ConversationMsg;

    fn options() -> KindOptions {
        // Each ask without a conversation opens one: they must not pile up in memory.
        KindOptions::default().durable(Durability::Replicated).idle(Duration::from_secs(30))
    }
}

/// The messages of a conversation.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Dialogue {
    messages: VecDeque<Message>,
    total: u64,
}

/// What happened in a conversation.
#[derive(Debug, Serialize, Deserialize)]
pub enum DialogueEvent {
    /// Messages were said.
    Said(Vec<Message>),
    /// All was forgotten.
    Erased,
}

impl Durable for Dialogue {
    type Event = DialogueEvent;

    fn apply(&mut self, event: &DialogueEvent) {
        match event {
            DialogueEvent::Said(messages) => {
                self.total += messages.len() as u64;
                self.messages.extend(messages.iter().cloned());
                while self.messages.len() > KEPT {
                    self.messages.pop_front();
                }
            }
            DialogueEvent::Erased => *self = Self::default(),
        }
    }
}

impl Actor for Conversation {
    type Msg = Mail<ConversationMsg>;
    type State = Entity<Dialogue>;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Self::State, ActorProcessingErr> {
        Ok(cx.recover().await?)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        said: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            ConversationMsg::Append(messages, reply) => reply.complete(append(said, &mail.cx, messages).await),
            ConversationMsg::History(query, reply) => reply.send(said.newest(query.limit as usize)),
            ConversationMsg::Delete(reply) => reply.complete(erase(said).await),
        }
        Ok(())
    }
}

async fn append(said: &mut Entity<Dialogue>, cx: &MsgCx, messages: Vec<Message>) -> Result<u64, CallError> {
    if messages.iter().map(|message| message.text.len()).sum::<usize>() > MAX_TEXT_BYTES {
        return Err(CallError::TooLarge { max: MAX_TEXT_BYTES as u64 });
    }
    let idem = cx.idem();
    said.commit_once(idem, DialogueEvent::Said(messages), |said| said.total).await.map_err(CallError::from)
}

async fn erase(said: &mut Entity<Dialogue>) -> Result<bool, CallError> {
    let any = !said.messages.is_empty();
    if any {
        said.commit(DialogueEvent::Erased).await?;
    }
    Ok(any)
}

impl Dialogue {
    fn newest(&self, limit: usize) -> Vec<Message> {
        self.messages.iter().skip(self.messages.len().saturating_sub(limit)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message { role: Role::User, agent: "sage".into(), text: text.into(), at_ms: 1 }
    }

    #[test]
    fn only_the_newest_messages_are_kept() {
        let mut said = Dialogue::default();
        for n in 0..KEPT + 5 {
            said.apply(&DialogueEvent::Said(vec![message(&n.to_string())]));
        }
        assert_eq!((said.messages.len(), said.total), (KEPT, KEPT as u64 + 5));
        assert_eq!(said.newest(1)[0].text, (KEPT + 4).to_string());
        said.apply(&DialogueEvent::Erased);
        assert!(said.newest(10).is_empty());
    }
}
