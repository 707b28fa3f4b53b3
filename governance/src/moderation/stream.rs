//! A stream of text of which only scanned text is released.

use std::sync::Arc;

use super::decide::Policy;
use super::engine::Engine;
use super::taxonomy::Action;
use super::verdict::{CheckError, Verdict};

/// Bytes held back by default.
pub const HOLDBACK: u16 = 128;
/// Bytes that a scan looks at, released ones included; 128 or more of them are of the scan before.
const WINDOW: usize = 512;
/// Bytes that come in before they are worth a scan.
const STEP: usize = 64;

/// What a push or the end of a stream gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Text that may go out.
    pub release: String,
    /// Why the stream ends here. Nothing is released with it or after it.
    pub blocked: Option<Box<Verdict>>,
}

/// Scans a stream in windows that overlap, and holds back the end, where a harmful phrase may be half written.
///
/// The same scanner also serves messages of one sender that are parts of one text.
#[derive(Debug)]
pub struct StreamScanner {
    engine: Arc<Engine>,
    policy: Policy,
    /// Bytes kept unreleased while the stream goes on.
    holdback: usize,
    /// Released text that a scan still looks at, then what is held back.
    window: String,
    /// Bytes of the window that are released.
    released: usize,
    /// Bytes since the last scan.
    fresh: usize,
    worst: Action,
    is_blocked: bool,
}

impl StreamScanner {
    /// Scans with one engine to the end, also when another is published meanwhile.
    #[must_use]
    pub fn new(engine: Arc<Engine>, policy: Policy, holdback: u16) -> Self {
        Self {
            engine,
            policy,
            holdback: usize::from(holdback).min(WINDOW / 2),
            window: String::new(),
            released: 0,
            fresh: 0,
            worst: Action::Allow,
            is_blocked: false,
        }
    }

    /// The gravest action of a scan.
    #[must_use]
    pub fn worst(&self) -> Action {
        self.worst
    }

    /// Takes the next text.
    ///
    /// # Errors
    /// [`CheckError::TooLong`]: the push is larger than a text may be; the stream may go on with smaller ones.
    pub fn push(&mut self, text: &str) -> Result<Step, CheckError> {
        if self.is_blocked {
            return Ok(Step::default());
        }
        if text.len() > super::verdict::TEXT_BYTES - 2 * WINDOW {
            return Err(CheckError::TooLong { bytes: text.len() as u64 });
        }
        self.window.push_str(text);
        self.fresh += text.len();
        if self.fresh < STEP || self.window.len() - self.released <= self.holdback {
            return Ok(Step::default());
        }
        let end = self.window.floor_char_boundary(self.window.len() - self.holdback);
        self.scan(end)
    }

    /// Ends the stream; what was held back is released if it passes.
    ///
    /// # Errors
    /// None: what is left is short.
    pub fn finish(&mut self) -> Result<Step, CheckError> {
        if self.is_blocked { Ok(Step::default()) } else { self.scan(self.window.len()) }
    }

    fn scan(&mut self, end: usize) -> Result<Step, CheckError> {
        let verdict = self.engine.judge(&self.window, &self.policy)?;
        self.fresh = 0;
        self.worst = self.worst.max(verdict.action);
        if !verdict.action.passes() {
            self.is_blocked = true;
            self.window.clear();
            return Ok(Step { release: String::new(), blocked: Some(Box::new(verdict)) });
        }
        let end = end.max(self.released);
        let release = self.window[self.released..end].to_owned();
        let forget = self.window.floor_char_boundary(self.window.len().saturating_sub(WINDOW)).min(end);
        self.window.drain(..forget);
        self.released = end - forget;
        Ok(Step { release, blocked: None })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hashes::HashList;
    use super::*;
    use crate::moderation::H2Action;

    fn scanner() -> StreamScanner {
        let engine = Arc::new(Engine::embedded(HashList::default()).unwrap());
        StreamScanner::new(engine, Policy::all(H2Action::Off), HOLDBACK)
    }

    const HARMLESS: &str = "The kettle is descaled with vinegar every second month, and the filter is rinsed. ";

    #[test]
    fn harm_is_stopped_before_a_word_of_it_is_released() {
        let mut scanner = scanner();
        let mut out = String::new();
        let threat = "Hand over the money or I will kill you and your family tonight, you have been warned.";
        let text = format!("{}{threat}{}", HARMLESS.repeat(5), HARMLESS.repeat(5));
        let mut verdict = None;
        for part in text.as_bytes().chunks(7) {
            let step = scanner.push(std::str::from_utf8(part).unwrap()).unwrap();
            out += &step.release;
            verdict = verdict.or(step.blocked);
        }
        assert!(verdict.is_some_and(|verdict| !verdict.action.passes()));
        assert!(!out.contains("kill"), "{out}");
        assert_eq!(scanner.push("more").unwrap(), Step::default());
        assert_eq!(scanner.finish().unwrap(), Step::default());
    }

    #[test]
    fn a_push_that_no_text_may_be_is_refused() {
        let huge = "a".repeat(super::super::verdict::TEXT_BYTES);
        assert!(matches!(scanner().push(&huge), Err(CheckError::TooLong { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn harmless_text_comes_out_whole_and_late(cuts in proptest::collection::vec(1_usize..200, 1..9)) {
            let mut scanner = scanner();
            let mut rest = HARMLESS.repeat(12);
            let (mut out, mut pushed) = (String::new(), 0);
            for cut in cuts {
                let part: String = rest.drain(..cut.min(rest.len())).collect();
                pushed += part.len();
                out += &scanner.push(&part).unwrap().release;
                prop_assert!(out.is_empty() || out.len() + usize::from(HOLDBACK) <= pushed);
            }
            out += &scanner.finish().unwrap().release;
            prop_assert_eq!(out, &HARMLESS.repeat(12)[..pushed]);
        }
    }
}
