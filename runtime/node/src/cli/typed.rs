//! Passwords and codes, as a person types them: without echo from a terminal, a line from anything else. Never an argument,
//! which every user of the machine can read.

use std::io::{self, BufRead as _, IsTerminal as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{Exit, Failure, output};

/// Longest line that is read, bytes.
const LONGEST: usize = 4_096;

/// Asks for a secret and reads a line.
///
/// # Errors
/// Nothing can be read, or the line is empty.
pub(crate) fn secret(what: &str) -> Result<Zeroizing<String>, Failure> {
    let stdin = io::stdin();
    let failed = |error: &io::Error| Failure::new(Exit::Failed, format!("cannot read the {what}: {error}"));
    let quiet = if stdin.is_terminal() {
        output::note_part(format_args!("{what}: "));
        Some(Quiet::new().map_err(|error| failed(&error))?)
    } else {
        None
    };
    let mut line = Zeroizing::new(String::with_capacity(LONGEST));
    let read = io::Read::take(stdin.lock(), LONGEST as u64).read_line(&mut line);
    if quiet.is_some() {
        drop(quiet);
        output::note("");
    }
    read.map_err(|error| failed(&error))?;
    let text = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if text.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("no {what} was given"))
            .hint("type it, or give it as a line on standard input"));
    }
    Ok(text)
}

/// Asks for a new password, twice of a person.
///
/// # Errors
/// As [`secret`]; the two differ.
pub(crate) fn new_password() -> Result<Zeroizing<String>, Failure> {
    let password = secret("new password")?;
    if io::stdin().is_terminal() && secret("again")? != password {
        return Err(Failure::new(Exit::Usage, "the two passwords differ"));
    }
    Ok(password)
}

/// The terminal does not show what is typed until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // The terminal is gone if this fails.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
