//! How a command fails: exit code, one sentence, and what to do about it.

use std::process::ExitCode;

use serde_json::Value;

/// Exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Tried and failed.
    Failed = 1,
    /// Wrong arguments or configuration.
    Usage = 2,
    /// Understood and refused: wrong key, data directory or port in use.
    Refused = 3,
    /// No village answers, or it cannot serve now.
    Unavailable = 4,
    /// The node's own services crashed too often to go on. A service manager may start it again.
    GaveUp = 70,
    /// The transparency log does not verify: a person must look before the node may start.
    Unsound = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failed command, as the person at the terminal gets it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What went wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Stable code of the village's answer, such as `not_found`.
    pub code: Option<String>,
    /// Finds the request in logs and traces.
    pub trace_id: Option<String>,
    /// The command has said all there is to say; only the exit code is left.
    pub silent: bool,
}

impl Failure {
    /// A failure without a hint.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, code: None, trace_id: None, silent: false }
    }

    /// An exit code after an output that says it all.
    #[must_use]
    pub fn silent(exit: Exit) -> Self {
        Self { silent: true, ..Self::new(exit, "") }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Reads a problem document (RFC 9457) or an `OpenAI` error body; anything else is quoted as it is.
    #[must_use]
    pub fn from_answer(status: u16, body: &str) -> Self {
        let problem: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        let text = |pointer: &str| problem.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let message = text("/detail")
            .or_else(|| text("/error/message"))
            .or_else(|| text("/title"))
            .unwrap_or_else(|| format!("the village answered {status}: {}", excerpt(body)));
        let details =
            problem.get("errors").and_then(Value::as_array).map_or_else(String::new, |errors| describe(errors));
        let mut failure = Self::new(exit_of(status), message + &details);
        failure.code = text("/code").or_else(|| text("/error/code"));
        failure.trace_id = text("/trace_id");
        failure.hint = hint_for(status, problem.get("retry_after_s").and_then(Value::as_u64));
        if failure.code.as_deref() == Some("mfa_required") {
            failure.hint = Some("`village login NAME` asks for the code of your second factor".to_owned());
        }
        failure
    }
}

fn exit_of(status: u16) -> Exit {
    match status {
        401 | 403 | 423 | 451 => Exit::Refused,
        429 | 502..=504 | 507 => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

fn hint_for(status: u16, retry_after_s: Option<u64>) -> Option<String> {
    match (status, retry_after_s) {
        (401, _) => {
            Some("give the right key with --key-file FILE or VILLAGE_KEY; `village up` prints where its key is".into())
        }
        (423 | 429 | 503, Some(seconds)) => Some(format!("try again in {seconds} s")),
        (429 | 503, None) => Some("try again in a moment".into()),
        (507, _) => Some("free some disk space; reading goes on meanwhile".into()),
        _ => None,
    }
}

fn describe(errors: &[Value]) -> String {
    let text = |error: &Value, name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    errors.iter().take(5).map(|error| format!("\n  {} {}", text(error, "pointer"), text(error, "detail"))).collect()
}

fn excerpt(body: &str) -> String {
    let mut short: String = body.chars().take(200).collect();
    if short.len() < body.len() {
        short.push('…');
    }
    if short.is_empty() { "(no text)".into() } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_document_becomes_one_sentence_with_code_and_trace() {
        let body =
            r#"{"title":"Not found","detail":"no agent `sag`; nearest: sage","code":"not_found","trace_id":"ab"}"#;
        let failure = Failure::from_answer(404, body);
        assert_eq!(failure.message, "no agent `sag`; nearest: sage");
        assert_eq!(
            (failure.exit, failure.code.as_deref(), failure.trace_id.as_deref()),
            (Exit::Failed, Some("not_found"), Some("ab"))
        );
    }

    #[test]
    fn schema_errors_are_listed_with_their_pointer() {
        let body = r#"{"detail":"payload does not fit","errors":[{"pointer":"/0","detail":"is not a number"}]}"#;
        assert_eq!(Failure::from_answer(422, body).message, "payload does not fit\n  /0 is not a number");
    }

    #[test]
    fn wrong_key_is_refused_and_says_how_to_give_another() {
        let failure = Failure::from_answer(401, r#"{"detail":"unauthenticated"}"#);
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.hint.unwrap().contains("--key-file"));
    }

    #[test]
    fn what_is_withheld_is_refused() {
        let failure = Failure::from_answer(451, r#"{"detail":"withheld, by article A1.1","code":"moderated"}"#);
        assert_eq!((failure.exit, failure.code.as_deref()), (Exit::Refused, Some("moderated")));
    }

    #[test]
    fn overload_is_unavailable_and_says_when_to_retry() {
        let failure = Failure::from_answer(503, r#"{"detail":"shed","retry_after_s":3}"#);
        assert_eq!((failure.exit, failure.hint.as_deref()), (Exit::Unavailable, Some("try again in 3 s")));
    }

    #[test]
    fn body_that_is_no_problem_is_quoted_and_cut() {
        let failure = Failure::from_answer(500, &"x".repeat(1000));
        assert!(failure.message.chars().count() < 300, "{}", failure.message);
    }
}
