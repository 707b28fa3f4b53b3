//! What an agent was asked to remember: notes that survive everything, found again by shared words.

use std::collections::VecDeque;

use aivillage_runtime::Durable;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rank::Index;
use crate::text;

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

/// All notes of one agent for one tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Notes {
    entries: VecDeque<Note>,
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
        text: String,
        /// How many notes were kept at that time; older ones went.
        keep: u32,
    },
    /// A note was deleted.
    Forgotten {
        /// Its number.
        id: u64,
    },
}

impl Durable for Notes {
    type Event = NoteEvent;

    fn apply(&mut self, event: &NoteEvent) {
        match event {
            NoteEvent::Remembered { at_ms, text, keep } => {
                self.last += 1;
                self.entries.push_back(Note { id: self.last, at_ms: *at_ms, text: text.clone() });
                while self.entries.len() > *keep as usize {
                    self.entries.pop_front();
                }
            }
            NoteEvent::Forgotten { id } => self.entries.retain(|note| note.id != *id),
        }
    }
}

impl Notes {
    /// The newest note.
    #[must_use]
    pub fn newest(&self) -> Option<&Note> {
        self.entries.back()
    }

    /// Whether there is a note of this number.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.entries.iter().any(|note| note.id == id)
    }

    /// Notes that share words with `cue`, best first; the newest first when the cue names nothing.
    #[must_use]
    pub fn recall(&self, cue: &str, limit: usize) -> Vec<Note> {
        let query = text::terms(cue);
        let newest_first = self.entries.iter().rev();
        if query.is_empty() {
            return newest_first.take(limit).cloned().collect();
        }
        let notes: Vec<&Note> = newest_first.collect();
        let index = Index::new(&notes.iter().map(|note| text::terms(&note.text)).collect::<Vec<_>>());
        let mut scored: Vec<(f32, &Note)> =
            index.cosine(&query).into_iter().zip(notes).filter(|(score, _)| *score > 0.0).collect();
        // Stable: of equal scores the newer note stays first.
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().take(limit).map(|(_, note)| note.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(texts: &[&str], keep: u32) -> Notes {
        let mut notes = Notes::default();
        for text in texts {
            notes.apply(&NoteEvent::Remembered { at_ms: 0, text: (*text).to_owned(), keep });
        }
        notes
    }

    fn recalled(notes: &Notes, cue: &str) -> Vec<String> {
        notes.recall(cue, 10).into_iter().map(|note| note.text).collect()
    }

    #[test]
    fn notes_are_found_by_shared_words() {
        let notes = notes(&["my dog is called Rex", "the gate code is 1209", "my cat sleeps"], 10);
        assert_eq!(recalled(&notes, "dogs"), ["my dog is called Rex"]);
        assert_eq!(recalled(&notes, "submarines"), Vec::<String>::new());
        assert_eq!(recalled(&notes, "").first().unwrap(), "my cat sleeps");
    }

    #[test]
    fn the_oldest_note_goes_first() {
        let mut notes = notes(&["one", "two", "three"], 2);
        assert_eq!(recalled(&notes, ""), ["three", "two"]);
        notes.apply(&NoteEvent::Forgotten { id: 3 });
        assert_eq!(recalled(&notes, ""), ["two"]);
    }
}
