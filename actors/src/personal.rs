//! What an agent was asked to remember: notes that survive everything, found again by shared words.
//!
//! A note's text is kept sealed, for whoever asked for it: see [`Personal`]. Its number and time are in the clear.

use std::collections::VecDeque;

use aivillage_governance::erasure::{DataOwner, Places, Subject};
use aivillage_governance::keys::{Kept, Personal, SubjectTag, VaultError};
use aivillage_runtime::{CallError, Durable, StoreError, Village};
use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::agent::{Agent, AgentMsg};
use crate::rank::Index;
use crate::text;

/// What notes are kept for, as their keys name it.
pub const PURPOSE: &str = "note";

/// A remembered text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// Number, unique for the agent and tenant.
    pub id: u64,
    /// When it was told, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was told.
    pub text: String,
}

/// A note as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    id: u64,
    at_ms: u64,
    text: Kept,
}

impl Entry {
    /// Reads it; none if whoever told it was erased.
    ///
    /// # Errors
    /// As [`Personal::open`]. `record` is the key of the agent.
    pub async fn open(&self, personal: &Personal, record: &[u8]) -> Result<Option<Note>, VaultError> {
        let text: Option<String> = personal.open(record, &self.text).await?;
        Ok(text.map(|text| Note { id: self.id, at_ms: self.at_ms, text }))
    }

    fn is_of(&self, subject: SubjectTag) -> bool {
        self.text.subject() == Some(subject)
    }
}

/// All notes of one agent for one tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Notes {
    entries: VecDeque<Entry>,
    last: u64,
}

/// What happened to the notes.
#[derive(Debug, Serialize, Deserialize)]
pub enum NoteEvent {
    /// A text was remembered.
    Remembered {
        /// When.
        at_ms: u64,
        /// What.
        text: Kept,
        /// How many notes were kept at that time; older ones went.
        keep: u32,
    },
    /// A note was deleted.
    Forgotten {
        /// Its number.
        id: u64,
    },
    /// All that one person told was deleted.
    Erased(SubjectTag),
}

impl Durable for Notes {
    type Event = NoteEvent;
    const SCHEMA: u16 = 2;

    fn apply(&mut self, event: &NoteEvent) {
        match event {
            NoteEvent::Remembered { at_ms, text, keep } => {
                self.last += 1;
                self.entries.push_back(Entry { id: self.last, at_ms: *at_ms, text: text.clone() });
                while self.entries.len() > *keep as usize {
                    self.entries.pop_front();
                }
            }
            NoteEvent::Forgotten { id } => self.entries.retain(|entry| entry.id != *id),
            NoteEvent::Erased(subject) => self.entries.retain(|entry| !entry.is_of(*subject)),
        }
    }

    fn upgrade(from: u16, bytes: &[u8]) -> Result<NoteEvent, StoreError> {
        Ok(match read_clear(from, bytes)? {
            ClearEvent::Remembered { at_ms, text, keep } => {
                NoteEvent::Remembered { at_ms, text: Kept::clear(&text)?, keep }
            }
            ClearEvent::Forgotten { id } => NoteEvent::Forgotten { id },
        })
    }

    fn upgrade_snapshot(from: u16, bytes: &[u8]) -> Result<Self, StoreError> {
        let (notes, last): (Vec<Note>, u64) = read_clear(from, bytes)?;
        let entry = |note: Note| Ok(Entry { id: note.id, at_ms: note.at_ms, text: Kept::clear(&note.text)? });
        Ok(Self { entries: notes.into_iter().map(entry).collect::<Result<_, StoreError>>()?, last })
    }
}

/// What was stored before it was sealed: schema 1.
#[derive(Serialize, Deserialize)]
enum ClearEvent {
    Remembered { at_ms: u64, text: String, keep: u32 },
    Forgotten { id: u64 },
}

fn read_clear<T: DeserializeOwned>(from: u16, bytes: &[u8]) -> Result<T, StoreError> {
    if from != 1 {
        return Err(StoreError::Schema { found: from, known: Notes::SCHEMA });
    }
    postcard::from_bytes(bytes).map_err(|error| StoreError::Decode { what: "notes", detail: error.to_string() })
}

impl Notes {
    /// The newest note.
    #[must_use]
    pub fn newest(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// Whether there is a note of this number.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.entries.iter().any(|entry| entry.id == id)
    }

    /// All notes, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev()
    }

    /// The notes that one person told, the newest first.
    pub fn of(&self, subject: SubjectTag) -> impl Iterator<Item = &Entry> {
        self.newest_first().filter(move |entry| entry.is_of(subject))
    }
}

/// Of notes, the newest first, those that share words with `cue`, best first; all of them when the cue names nothing.
#[must_use]
pub fn recall(mut notes: Vec<Note>, cue: &str, limit: usize) -> Vec<Note> {
    let query = text::terms(cue);
    if !query.is_empty() {
        let index = Index::new(&notes.iter().map(|note| text::terms(&note.text)).collect::<Vec<_>>());
        let mut scored: Vec<(f32, Note)> =
            index.cosine(&query).into_iter().zip(notes).filter(|(score, _)| *score > 0.0).collect();
        // Stable: of equal scores the newer note stays first.
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        notes = scored.into_iter().map(|(_, note)| note).collect();
    }
    notes.truncate(limit);
    notes
}

/// What people had agents remember, as a store that keeps data about people.
#[derive(Debug, Clone, Copy)]
pub struct NoteData;

impl DataOwner for NoteData {
    fn name(&self) -> &'static str {
        "notes"
    }

    fn enumerate<'a>(&'a self, village: &'a Village, subject: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>> {
        async move {
            let (tag, mut places) = (subject.tag()?, Places::new());
            // As many as the tenant has agents, each with at most as many notes as it keeps.
            for key in village.copied_keys::<Agent>().await? {
                if key.rsplit_once(':').is_none_or(|(tenant, _)| tenant != subject.tenant) {
                    continue;
                }
                let told = village.copied::<Agent, Notes>(&key).await?.of(tag).count() as u64;
                if told > 0 {
                    places.insert(key, told);
                }
            }
            Ok(places)
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
            let (tag, mut told) = (subject.tag()?, Vec::new());
            for key in places.keys() {
                let notes = village.addr::<Agent>(key).ask(|reply| AgentMsg::NotesOf(tag, reply)).await?;
                let agent = key.rsplit_once(':').map_or(key.as_str(), |(_, id)| id);
                told.push(json!({ "agent": agent, "notes": notes }));
            }
            Ok(told)
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
                village.addr::<Agent>(key).ask(|reply| AgentMsg::ForgetOf(tag, reply)).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(id: u64, text: &str) -> Note {
        Note { id, at_ms: 7, text: text.to_owned() }
    }

    fn recalled(texts: &[&str], cue: &str) -> Vec<String> {
        let newest_first = texts.iter().rev().map(|text| told(0, text)).collect();
        recall(newest_first, cue, 10).into_iter().map(|note| note.text).collect()
    }

    fn notes(texts: &[&str], keep: u32) -> Notes {
        let mut notes = Notes::default();
        for text in texts {
            notes.apply(&NoteEvent::Remembered { at_ms: 7, text: Kept::clear(text).unwrap(), keep });
        }
        notes
    }

    fn ids(notes: &Notes) -> Vec<u64> {
        notes.newest_first().map(|entry| entry.id).collect()
    }

    #[test]
    fn notes_are_found_by_shared_words() {
        let texts = ["my dog is called Rex", "the gate code is 1209", "my cat sleeps"];
        assert_eq!(recalled(&texts, "dogs"), ["my dog is called Rex"]);
        assert_eq!(recalled(&texts, "submarines"), Vec::<String>::new());
        assert_eq!(recalled(&texts, "").first().unwrap(), "my cat sleeps");
    }

    #[test]
    fn the_oldest_note_goes_first() {
        let mut notes = notes(&["one", "two", "three"], 2);
        assert_eq!(ids(&notes), [3, 2]);
        notes.apply(&NoteEvent::Forgotten { id: 3 });
        assert_eq!(ids(&notes), [2]);
    }

    #[tokio::test]
    async fn what_was_stored_before_it_was_sealed_is_read() {
        let village = Village::builder().start().await.unwrap();
        let personal = Personal::new(&village, "local", PURPOSE).unwrap();
        let event = ClearEvent::Remembered { at_ms: 7, text: "my dog".to_owned(), keep: 9 };
        let event = Notes::upgrade(1, &postcard::to_allocvec(&event).unwrap()).unwrap();
        let mut notes = Notes::default();
        notes.apply(&event);
        let opened = notes.newest().unwrap().open(&personal, b"local:sage").await.unwrap();
        assert_eq!(opened, Some(told(1, "my dog")));
        let forgotten = postcard::to_allocvec(&ClearEvent::Forgotten { id: 4 }).unwrap();
        assert!(matches!(Notes::upgrade(1, &forgotten), Ok(NoteEvent::Forgotten { id: 4 })));
        let snapshot = postcard::to_allocvec(&(vec![told(3, "my cat")], 5_u64)).unwrap();
        let notes = Notes::upgrade_snapshot(1, &snapshot).unwrap();
        let opened = notes.newest().unwrap().open(&personal, b"local:sage").await.unwrap();
        assert_eq!((opened, notes.last), (Some(told(3, "my cat")), 5));
        assert!(matches!(Notes::upgrade(3, &forgotten), Err(StoreError::Schema { found: 3, known: 2 })));
        assert!(matches!(Notes::upgrade_snapshot(1, b"\xff"), Err(StoreError::Decode { .. })));
    }
}
