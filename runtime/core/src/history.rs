//! What happened on this node and around it lately: members, leaders, crashes. For people who look; nothing decides by it.

use std::collections::VecDeque;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;

use crate::clock;

/// How much a node remembers.
const RING: usize = 1000;
/// Characters of a detail. It may be the text of a panic.
const DETAIL: usize = 200;

/// Something that happened, perhaps several times in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Happening {
    /// When it did last, Unix milliseconds.
    pub at_ms: u64,
    /// What kind of thing.
    pub what: What,
    /// The member, group or kind that it happened to.
    pub about: String,
    /// More of it, in words.
    pub detail: String,
    /// How often it happened in a row.
    pub count: u64,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A member is in another state.
    Member,
    /// A group has another leader.
    Leader,
    /// An actor crashed and is started again when it gets mail.
    Crash,
    /// An actor crashed too often and refuses mail for a while.
    Quarantine,
    /// A part of the node itself crashed and is started again.
    Restart,
}

#[derive(Debug, Default)]
pub(crate) struct History(Mutex<VecDeque<Happening>>);

impl History {
    pub(crate) fn note(&self, what: What, about: &str, detail: &str) {
        let detail: String = detail.lines().next().unwrap_or_default().chars().take(DETAIL).collect();
        let at_ms = clock::unix_ms();
        let mut ring = self.0.lock();
        // A key in a crash loop does not drive out all else.
        if let Some(last) = ring.back_mut()
            && (last.what, &*last.about, &*last.detail) == (what, about, &*detail)
        {
            (last.at_ms, last.count) = (at_ms, last.count + 1);
            return;
        }
        if ring.len() == RING {
            ring.pop_front();
        }
        ring.push_back(Happening { at_ms, what, about: about.to_owned(), detail, count: 1 });
    }

    /// The newest first.
    pub(crate) fn latest(&self, limit: usize) -> Vec<Happening> {
        self.0.lock().iter().rev().take(limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_is_bounded_newest_first_and_counts_what_repeats() {
        let history = History::default();
        for n in 0..=RING {
            history.note(What::Member, &format!("n{n}"), "up");
        }
        for _ in 0..3 {
            history.note(What::Crash, "agent", "out of paper\nat line 3");
        }
        let all = history.latest(usize::MAX);
        assert_eq!((all.len(), &*all[RING - 1].about), (RING, "n2"));
        assert_eq!((all[0].what, &*all[0].detail, all[0].count), (What::Crash, "out of paper", 3));
        assert_eq!(history.latest(1), all[..1]);
    }

    #[test]
    fn details_are_cut() {
        let history = History::default();
        history.note(What::Crash, "agent", &"é".repeat(1000));
        assert_eq!(history.latest(1)[0].detail.chars().count(), DETAIL);
    }
}
