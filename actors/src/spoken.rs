//! Which conversations have words of whom: on every node that has copies of them, for exporting and erasing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aivillage_governance::erasure::{DataOwner, Places, Subject};
use aivillage_governance::keys::{Kept, SubjectTag};
use aivillage_runtime::{CallError, ReplicaView, Village};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::conversation::{Conversation, ConversationMsg, Dialogue, DialogueEvent, MAX_KEPT};

/// Whose each message of a conversation is, oldest first; none of one in the clear.
type Speakers = VecDeque<Option<SubjectTag>>;

/// The speakers of all conversations that this node has copies of, by group. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Spoken(Arc<Mutex<HashMap<u8, HashMap<String, Speakers>>>>);

impl Spoken {
    /// What follows one group.
    #[must_use]
    pub(crate) fn view(&self, group: u8) -> SpokenView {
        SpokenView { spoken: self.clone(), group }
    }

    /// The conversations of a tenant with words of a subject, and how many messages.
    fn of(&self, tenant: &str, subject: SubjectTag) -> Places {
        let groups = self.0.lock();
        let mut places = Places::new();
        for (key, speakers) in groups.values().flatten() {
            let messages = speakers.iter().filter(|speaker| **speaker == Some(subject)).count() as u64;
            if messages > 0 && key.split_once(':').is_some_and(|(of, _)| of == tenant) {
                places.insert(key.clone(), messages);
            }
        }
        places
    }
}

/// Follows the conversations of one group.
#[derive(Debug)]
pub(crate) struct SpokenView {
    spoken: Spoken,
    group: u8,
}

impl ReplicaView for SpokenView {
    type State = Dialogue;

    async fn clear(&mut self) {
        self.spoken.0.lock().remove(&self.group);
    }

    async fn restored(&mut self, key: &str, _: u64, state: &Dialogue) {
        let speakers = state.messages().map(Kept::subject).collect();
        self.spoken.0.lock().entry(self.group).or_default().insert(key.to_owned(), speakers);
    }

    async fn applied(&mut self, key: &str, _: u64, event: DialogueEvent) {
        let mut groups = self.spoken.0.lock();
        let conversations = groups.entry(self.group).or_default();
        match event {
            DialogueEvent::Said(messages) => {
                let speakers = conversations.entry(key.to_owned()).or_default();
                speakers.extend(messages.iter().map(Kept::subject));
                while speakers.len() > MAX_KEPT {
                    speakers.pop_front();
                }
            }
            DialogueEvent::Erased => drop(conversations.remove(key)),
            DialogueEvent::Forgotten(subject) => {
                let Some(speakers) = conversations.get_mut(key) else { return };
                speakers.retain(|speaker| *speaker != Some(subject));
                if speakers.is_empty() {
                    conversations.remove(key);
                }
            }
        }
    }
}

/// What people said in conversations, as a store that keeps data about people.
#[derive(Debug, Clone, Copy)]
pub struct ConversationData;

impl DataOwner for ConversationData {
    fn name(&self) -> &'static str {
        "conversations"
    }

    fn enumerate<'a>(&'a self, village: &'a Village, subject: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>> {
        async move {
            let spoken = village.provided::<Spoken>().ok_or(CallError::UnknownKind { kind: self.name().to_owned() })?;
            Ok(spoken.of(&subject.tenant, subject.tag()?))
        }
        .boxed()
    }

    fn export<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<Vec<Value>, CallError>> {
        async move {
            let (tag, mut said) = (subject.tag()?, Vec::new());
            for key in places.keys() {
                let addr = village.addr::<Conversation>(key);
                let messages = addr.query(|reply| ConversationMsg::Of(tag, reply)).await?;
                let conversation = key.split_once(':').map_or(key.as_str(), |(_, id)| id);
                said.push(json!({ "conversation": conversation, "messages": messages }));
            }
            Ok(said)
        }
        .boxed()
    }

    fn erase<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        async move {
            let tag = subject.tag()?;
            for key in places.keys() {
                village.addr::<Conversation>(key).ask(|reply| ConversationMsg::Forget(tag, reply)).await?;
            }
            Ok(())
        }
        .boxed()
    }
}
