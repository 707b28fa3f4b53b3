//! What a log says about itself: origin, size, root. C2SP tlog-checkpoint.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::hash::Hash;

/// The text is not a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("not a checkpoint: origin, size and base64 root are wanted, a line each")]
pub struct BadCheckpoint;

/// The body of a checkpoint; lines behind the third are not of interest here, though they are signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, self.root)
    }
}

impl FromStr for Checkpoint {
    type Err = BadCheckpoint;

    fn from_str(text: &str) -> Result<Self, BadCheckpoint> {
        let mut lines = text.strip_suffix('\n').ok_or(BadCheckpoint)?.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(BadCheckpoint);
        let origin = line()?.to_owned();
        let size = number(line()?).ok_or(BadCheckpoint)?;
        let root = Hash::from_base64(line()?).ok_or(BadCheckpoint)?;
        if lines.any(str::is_empty) { Err(BadCheckpoint) } else { Ok(Self { origin, size, root }) }
    }
}

/// Reads a number as the formats write it: digits without leading zeros.
pub(crate) fn number(digits: &str) -> Option<u64> {
    digits.parse::<u64>().ok().filter(|number| number.to_string() == digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_round_trips() {
        let checkpoint = Checkpoint { origin: "example.com/log".into(), size: 7, root: Hash([7; 32]) };
        assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
    }

    #[test]
    fn only_the_exact_form_is_read() {
        let root = Hash::empty();
        for text in [
            format!("\n0\n{root}\n"),
            format!("a\n00\n{root}\n"),
            format!("a\n+1\n{root}\n"),
            format!("a\n1\n{root}"),
            format!("a\n1\n{root}\n\n"),
            "a\n1\nAAAA\n".to_owned(),
            "a\n1\n".to_owned(),
            format!("a\n18446744073709551616\n{root}\n"),
        ] {
            assert_eq!(text.parse::<Checkpoint>(), Err(BadCheckpoint), "{text:?}");
        }
        assert!(format!("a\n1\n{root}\nextension\n").parse::<Checkpoint>().is_ok());
    }
}
