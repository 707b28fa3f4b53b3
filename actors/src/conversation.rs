//! `agent.conversation`: what was said, in order.
//!
//! Key: `{tenant}:{conversation}`. Durable: yes, every acknowledged message survives a crash of the node.
//! Lost in a crash: the mail in hand; its sender got no acknowledgement.
//!
//! What was said is kept sealed, for whoever asked: see [`Personal`]. What an erased person said is not shown any more.

use std::collections::VecDeque;
use std::time::Duration;

use aivillage_governance::keys::{Kept, Personal, SubjectTag};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Durability, Durable, Entity, Expose, Kind, KindOptions,
    Mail, MsgCx, Reply, StoreError,
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Messages kept; older ones go.
pub(crate) const MAX_KEPT: usize = 1000;
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
    /// The messages that are about one person, who is erased or wants to see them.
    #[schemars(skip)]
    Of(SubjectTag, Reply<Vec<Message>>),
    /// Forgets the messages that are about one person, and tells how many.
    #[schemars(skip)]
    Forget(SubjectTag, Reply<u64>),
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

/// What messages of conversations are kept for, as their keys name it.
pub const PURPOSE: &str = "conversation";

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
    messages: VecDeque<Kept>,
    total: u64,
}

impl Dialogue {
    /// What is kept, oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Kept> {
        self.messages.iter()
    }
}

/// What happened in a conversation.
#[derive(Debug, Serialize, Deserialize)]
pub enum DialogueEvent {
    /// Messages were said.
    Said(Vec<Kept>),
    /// All was forgotten.
    Erased,
    /// What is about one person was forgotten.
    Forgotten(SubjectTag),
}

impl Durable for Dialogue {
    type Event = DialogueEvent;
    const SCHEMA: u16 = 2;

    fn apply(&mut self, event: &DialogueEvent) {
        match event {
            DialogueEvent::Said(messages) => {
                self.total += messages.len() as u64;
                self.messages.extend(messages.iter().cloned());
                while self.messages.len() > MAX_KEPT {
                    self.messages.pop_front();
                }
            }
            DialogueEvent::Erased => *self = Self::default(),
            DialogueEvent::Forgotten(subject) => self.messages.retain(|kept| kept.subject() != Some(*subject)),
        }
    }

    fn upgrade(from: u16, bytes: &[u8]) -> Result<DialogueEvent, StoreError> {
        Ok(match read_clear(from, bytes)? {
            ClearEvent::Said(messages) => {
                DialogueEvent::Said(messages.iter().map(Kept::clear).collect::<Result<_, _>>()?)
            }
            ClearEvent::Erased => DialogueEvent::Erased,
        })
    }

    fn upgrade_snapshot(from: u16, bytes: &[u8]) -> Result<Self, StoreError> {
        let (messages, total): (Vec<Message>, u64) = read_clear(from, bytes)?;
        Ok(Self { messages: messages.iter().map(Kept::clear).collect::<Result<_, _>>()?, total })
    }
}

/// What was stored before it was sealed: schema 1.
#[derive(Serialize, Deserialize)]
enum ClearEvent {
    Said(Vec<Message>),
    Erased,
}

fn read_clear<T: DeserializeOwned>(from: u16, bytes: &[u8]) -> Result<T, StoreError> {
    if from != 1 {
        return Err(StoreError::Schema { found: from, known: Dialogue::SCHEMA });
    }
    let bad = |error: postcard::Error| StoreError::Decode { what: "conversation", detail: error.to_string() };
    postcard::from_bytes(bytes).map_err(bad)
}

/// A conversation at work.
#[derive(Debug)]
pub struct Talk {
    said: Entity<Dialogue>,
    personal: Personal,
    /// What a message is sealed for: it does not open in another conversation.
    record: Vec<u8>,
}

impl Actor for Conversation {
    type Msg = Mail<ConversationMsg>;
    type State = Talk;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Self::State, ActorProcessingErr> {
        let (tenant, _) = cx.key().split_once(':').ok_or("the key is not `{tenant}:{conversation}`")?;
        let personal = Personal::new(cx.village(), tenant, PURPOSE)?;
        Ok(Talk { said: cx.recover().await?, personal, record: cx.key().as_bytes().to_vec() })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        talk: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            ConversationMsg::Append(messages, reply) => reply.complete(talk.append(&mail.cx, messages).await),
            ConversationMsg::History(query, reply) => reply.complete(talk.newest(query.limit as usize).await),
            ConversationMsg::Delete(reply) => reply.complete(talk.erase().await),
            ConversationMsg::Of(subject, reply) => reply.complete(talk.of(subject).await),
            ConversationMsg::Forget(subject, reply) => reply.complete(talk.forget(subject).await),
        }
        Ok(())
    }
}

impl Talk {
    async fn append(&mut self, cx: &MsgCx, messages: Vec<Message>) -> Result<u64, CallError> {
        if messages.iter().map(|message| message.text.len()).sum::<usize>() > MAX_TEXT_BYTES {
            return Err(CallError::TooLarge { max: MAX_TEXT_BYTES as u64 });
        }
        let mut kept = Vec::with_capacity(messages.len());
        for message in &messages {
            kept.push(self.personal.seal(Personal::subject_of(cx), &self.record, message).await?);
        }
        let total = self.said.commit_once(cx.idem(), DialogueEvent::Said(kept), |said| said.total);
        total.await.map_err(CallError::from)
    }

    async fn newest(&self, limit: usize) -> Result<Vec<Message>, CallError> {
        self.open(self.said.messages().skip(self.said.messages.len().saturating_sub(limit))).await
    }

    async fn of(&self, subject: SubjectTag) -> Result<Vec<Message>, CallError> {
        self.open(self.said.messages().filter(|kept| kept.subject() == Some(subject))).await
    }

    async fn open(&self, some: impl Iterator<Item = &Kept>) -> Result<Vec<Message>, CallError> {
        let mut opened = Vec::new();
        for kept in some {
            opened.extend(self.personal.open::<Message>(&self.record, kept).await?);
        }
        Ok(opened)
    }

    async fn forget(&mut self, subject: SubjectTag) -> Result<u64, CallError> {
        let messages = self.said.messages().filter(|kept| kept.subject() == Some(subject)).count() as u64;
        if messages > 0 {
            self.said.commit(DialogueEvent::Forgotten(subject)).await?;
        }
        Ok(messages)
    }

    async fn erase(&mut self) -> Result<bool, CallError> {
        let any = !self.said.messages.is_empty();
        if any {
            self.said.commit(DialogueEvent::Erased).await?;
        }
        Ok(any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(n: usize) -> Kept {
        Kept::Clear(n.to_le_bytes().to_vec().into())
    }

    #[test]
    fn only_the_newest_messages_are_kept() {
        let mut said = Dialogue::default();
        for n in 0..MAX_KEPT + 5 {
            said.apply(&DialogueEvent::Said(vec![kept(n)]));
        }
        assert_eq!((said.messages.len(), said.total), (MAX_KEPT, MAX_KEPT as u64 + 5));
        assert_eq!(said.messages.back(), Some(&kept(MAX_KEPT + 4)));
        said.apply(&DialogueEvent::Erased);
        assert!(said.messages.is_empty());
    }

    #[test]
    fn what_was_stored_before_it_was_sealed_is_read() {
        let message = Message { role: Role::User, agent: "sage".into(), text: "hello".into(), at_ms: 1 };
        let event = postcard::to_allocvec(&ClearEvent::Said(vec![message.clone()])).unwrap();
        let DialogueEvent::Said(kept) = Dialogue::upgrade(1, &event).unwrap() else { panic!("another event") };
        assert_eq!(kept, [Kept::clear(&message).unwrap()]);
        let snapshot = postcard::to_allocvec(&(vec![message.clone()], 4_u64)).unwrap();
        let said = Dialogue::upgrade_snapshot(1, &snapshot).unwrap();
        assert_eq!((said.messages, said.total), ([Kept::clear(&message).unwrap()].into(), 4));
        assert!(matches!(Dialogue::upgrade(3, &event), Err(StoreError::Schema { found: 3, known: 2 })));
        assert!(matches!(Dialogue::upgrade_snapshot(1, b"\xff"), Err(StoreError::Decode { .. })));
    }
}
