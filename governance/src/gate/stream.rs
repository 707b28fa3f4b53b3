//! A stream of an agent's words of which only judged text goes out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use uuid::Uuid;

use crate::moderation::{Stage, StreamScanner, Verdict};

use super::config::Treatment;
use super::record::{Subject, append};
use super::{Ctx, Denied, Gate};

/// What may go out now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Released(pub String);

/// Holds back the end of a stream until it is judged; once something was blocked, nothing goes out any more.
///
/// Where data is taken out of or kept from an agent's words, nothing goes out before [`OutputGuard::finish`]: the whole answer
/// passes the gate then, and is told at once.
#[derive(Debug)]
pub struct OutputGuard {
    gate: Gate,
    cx: Ctx,
    /// None where the stream cannot be scanned; its text passes, and the whole answer is judged.
    scanner: Option<StreamScanner>,
    holds_all: bool,
}

impl OutputGuard {
    pub(super) fn new(gate: Gate, cx: Ctx) -> Self {
        let scanner = catch_unwind(AssertUnwindSafe(|| gate.0.court.scanner())).ok().flatten();
        let holds_all = matches!(gate.0.dlp.at(Stage::AgentOutput), Treatment::Redact | Treatment::Block);
        Self { gate, cx, scanner, holds_all }
    }

    /// Takes the next piece; gives what may go out by now.
    ///
    /// # Errors
    /// [`Denied`]: the stream ends here.
    pub async fn push(&mut self, text: &str) -> Result<Released, Box<Denied>> {
        self.step(|scanner| scanner.push(text), text).await
    }

    /// Ends the stream; gives what was held back.
    ///
    /// # Errors
    /// [`Denied`]: the end must not go out.
    pub async fn finish(&mut self) -> Result<Released, Box<Denied>> {
        self.step(StreamScanner::finish, "").await
    }

    async fn step(
        &mut self,
        scan: impl FnOnce(&mut StreamScanner) -> Result<crate::moderation::stream::Step, crate::moderation::CheckError>,
        text: &str,
    ) -> Result<Released, Box<Denied>> {
        if self.holds_all {
            return Ok(Released::default());
        }
        let Some(scanner) = &mut self.scanner else { return Ok(Released(text.to_owned())) };
        let scanned = catch_unwind(AssertUnwindSafe(|| scan(scanner)));
        let step = match scanned {
            Ok(Ok(step)) => step,
            Ok(Err(error)) => return Err(Box::new(Denied::unavailable(Uuid::now_v7(), Stage::AgentOutput, &error))),
            Err(_) => {
                // What it held back is lost with it: the text would have a hole.
                let why = "the scanner failed";
                return Err(Box::new(Denied::unavailable(Uuid::now_v7(), Stage::AgentOutput, &why)));
            }
        };
        match step.blocked {
            Some(verdict) => Err(Box::new(self.blocked(&verdict).await)),
            None => Ok(Released(step.release)),
        }
    }

    async fn blocked(&self, verdict: &Verdict) -> Denied {
        let id = Uuid::now_v7();
        let subject = Subject { id, stage: Stage::AgentOutput, cx: &self.cx };
        if let Some(home) = self.gate.0.log.get()
            && let Err(error) = append(home, subject.verdict(home, verdict, false), false).await
        {
            tracing::error!(%error, "a denial is not in the transparency log");
        }
        let denied = self.gate.moderated(id, Stage::AgentOutput, verdict);
        self.gate.told(Stage::AgentOutput, &denied);
        denied
    }
}
