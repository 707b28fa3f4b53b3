//! The receipt of an entry, checked offline. C2SP tlog-proof.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::checkpoint::{BadCheckpoint, Checkpoint, number};
use super::hash::Hash;
use super::note::{BadNote, MAX_NOTE, Note, VerifierKey};
use super::tree::{BadProof, MAX_PROOF, verify_inclusion};

const HEAD: &str = "c2sp.org/tlog-proof@v1";
/// Most bytes of a proof file: an entry in base64, the proof, the note.
const MAX_FILE: usize = (128 << 10) + MAX_NOTE;

/// Whose signatures count.
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    /// The key of the log.
    pub log: VerifierKey,
    /// The keys of witnesses.
    pub witnesses: Vec<VerifierKey>,
    /// How many of them must have cosigned.
    pub quorum: usize,
}

/// Why a proof does not convince.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is no proof file.
    #[error("not a proof file: {0}")]
    Malformed(&'static str),
    /// The checkpoint is not signed as the policy wants.
    #[error("the checkpoint: {0}")]
    Note(#[from] BadNote),
    /// What is signed is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] BadCheckpoint),
    /// It is the checkpoint of another log.
    #[error("the checkpoint is of another log")]
    OtherLog,
    /// Too few witnesses cosigned.
    #[error("{have} of the wanted {wanted} witnesses cosigned")]
    TooFewWitnesses {
        /// How many did.
        have: usize,
        /// How many must.
        wanted: usize,
    },
    /// The entry is not where the proof says.
    #[error("the entry is not at that place of the log")]
    Inclusion(#[from] BadProof),
}

/// What a proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Which entry of the log it is.
    pub index: u64,
    /// The checkpoint that covers it.
    pub checkpoint: Checkpoint,
    /// Names of the witnesses that cosigned, and when: Unix seconds.
    pub witnesses: Vec<(String, u64)>,
}

/// Proves, without a server, that an entry is in a log; shown and read as a `.tlog-proof` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlogProof {
    /// The entry itself: what its hash is made of.
    #[serde(with = "serde_bytes")]
    pub extra: Option<Vec<u8>>,
    /// Which entry of the log it is.
    pub index: u64,
    /// Inclusion proof, from the leaf up.
    pub hashes: Vec<Hash>,
    /// The checkpoint.
    pub note: Note,
}

impl TlogProof {
    /// Checks the proof for `entry`, or, if that is `None`, for the entry it carries.
    ///
    /// # Errors
    /// Each [`ProofError`] says what does not convince.
    pub fn verify(&self, entry: Option<&[u8]>, policy: &TrustPolicy) -> Result<Verified, ProofError> {
        let entry = entry.or(self.extra.as_deref()).ok_or(ProofError::Malformed("it carries no entry"))?;
        let signed = self.note.verify([&policy.log])?;
        debug_assert_eq!(signed.len(), 1);
        let checkpoint: Checkpoint = self.note.text().parse()?;
        if checkpoint.origin != policy.log.name() {
            return Err(ProofError::OtherLog);
        }
        let witnesses = self.witnesses(policy)?;
        verify_inclusion(&self.hashes, self.index, Hash::leaf(entry), checkpoint.size, checkpoint.root)?;
        Ok(Verified { index: self.index, checkpoint, witnesses })
    }

    fn witnesses(&self, policy: &TrustPolicy) -> Result<Vec<(String, u64)>, ProofError> {
        let signed = match self.note.verify(&policy.witnesses) {
            Err(BadNote::Unsigned) => Vec::new(),
            other => other?,
        };
        if signed.len() < policy.quorum {
            return Err(ProofError::TooFewWitnesses { have: signed.len(), wanted: policy.quorum });
        }
        Ok(signed.iter().map(|by| (by.key.name().to_owned(), by.unix_s.unwrap_or(0))).collect())
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.note)
    }
}

impl FromStr for TlogProof {
    type Err = ProofError;

    fn from_str(file: &str) -> Result<Self, ProofError> {
        if file.len() > MAX_FILE {
            return Err(ProofError::Malformed("too large"));
        }
        let (head, note) = file.split_once("\n\n").ok_or(ProofError::Malformed("no checkpoint"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEAD) {
            return Err(ProofError::Malformed("the first line is another"));
        }
        let extra =
            lines.next_if(|line| line.starts_with("extra ")).map(|line| STANDARD.decode(&line["extra ".len()..]));
        let extra = extra.transpose().map_err(|_| ProofError::Malformed("the extra data is not base64"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(number);
        let index = index.ok_or(ProofError::Malformed("no index"))?;
        let hashes: Option<Vec<_>> = lines.take(MAX_PROOF + 1).map(Hash::from_base64).collect();
        let hashes = hashes.filter(|hashes| hashes.len() <= MAX_PROOF);
        let hashes = hashes.ok_or(ProofError::Malformed("the hashes are not base64 or too many"))?;
        Ok(Self { extra, index, hashes, note: note.parse()? })
    }
}

#[cfg(test)]
mod tests;
