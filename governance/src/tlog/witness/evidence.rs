//! Two checkpoints of one log that cannot both be true: what convicts it, in front of whoever has its key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::super::checkpoint::Checkpoint;
use super::super::note::{BadNote, Malformed, Note, VerifierKey};

/// Two checkpoints that one log signed and that cannot both be true: whoever has its key can check. Shown and read as both
/// notes with an empty line between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The one that was cosigned.
    pub ours: Note,
    /// The other.
    pub theirs: Note,
}

impl Evidence {
    /// Whether it shows that the log with this key has two histories: it signed two roots of one size.
    #[must_use]
    pub fn convicts(&self, key: &VerifierKey) -> bool {
        let signed = |note: &Note| {
            note.verify([key]).ok()?;
            note.text().parse::<Checkpoint>().ok().filter(|body| body.origin == key.name())
        };
        let pair = signed(&self.ours).zip(signed(&self.theirs));
        pair.is_some_and(|(ours, theirs)| ours.size == theirs.size && ours.root != theirs.root)
    }

    /// The origin of the log that it is about, by its own words.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.ours.text().lines().next().unwrap_or_default()
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.ours, self.theirs)
    }
}

impl FromStr for Evidence {
    type Err = BadNote;

    /// The empty line follows the signatures of the first note.
    fn from_str(text: &str) -> Result<Self, BadNote> {
        let at = text.match_indices("\n\n").nth(1).map(|(at, _)| at);
        let pair = at.and_then(|at| Some((text.get(..=at)?, text.get(at + 2..)?)));
        let (ours, theirs) = pair.ok_or(BadNote::Malformed(Malformed::NoSignatures))?;
        Ok(Self { ours: ours.parse()?, theirs: theirs.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::hash::Hash;
    use super::super::super::note::LogSigner;
    use super::*;

    fn signer(origin: &str) -> LogSigner {
        LogSigner::new(origin, &[1; 32]).unwrap()
    }

    fn note(signer: &LogSigner, origin: &str, size: u64, root: u8) -> Note {
        signer.checkpoint(&Checkpoint { origin: origin.to_owned(), size, root: Hash([root; 32]) })
    }

    #[test]
    fn only_two_roots_of_one_size_by_the_logs_own_key_convict() {
        let log = signer("village/1");
        let pair = |ours, theirs| Evidence { ours, theirs };
        let one = |size, root| note(&log, "village/1", size, root);
        assert!(pair(one(3, 1), one(3, 2)).convicts(log.public()));
        assert!(!pair(one(3, 1), one(3, 1)).convicts(log.public()));
        assert!(!pair(one(3, 1), one(4, 2)).convicts(log.public()));
        let forged = note(&LogSigner::new("village/1", &[2; 32]).unwrap(), "village/1", 3, 2);
        assert!(!pair(one(3, 1), forged).convicts(log.public()));
        // A log does not answer for what its key signed in another name.
        let other = note(&log, "village/2", 3, 2);
        assert!(!pair(other.clone(), other).convicts(log.public()));
    }

    #[test]
    fn it_round_trips_and_half_of_it_is_none() {
        let log = signer("village/1");
        let evidence = Evidence { ours: note(&log, "village/1", 3, 1), theirs: note(&log, "village/1", 3, 2) };
        assert_eq!(evidence.to_string().parse(), Ok(evidence.clone()));
        assert_eq!(evidence.origin(), "village/1");
        assert!(evidence.ours.to_string().parse::<Evidence>().is_err());
        assert!(format!("{}\nx", evidence.ours).parse::<Evidence>().is_err());
    }
}
