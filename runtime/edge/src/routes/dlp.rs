//! `/v1/dlp`: personal and secret data in a text: found, taken out, and what a token stands for taken back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use aivillage_governance::dlp::{
    self, Action, DataKind, DlpConfig, Edit, Finding, Profile, Token, TokenMsg, TokenVault,
};
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Body, ok};
use crate::door::Door;
use crate::error::{ApiError, Code};
use crate::pipeline::Caller;

/// Longest text, bytes.
const TEXT_BYTES: usize = 1 << 20;

/// Which text is looked at, and for what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScanBody {
    /// At most 1 MiB.
    text: String,
    /// What is looked for; `pii`, `pan` and `secrets` if not given.
    profiles: Option<Vec<Profile>>,
    /// Findings below this score are left, 50 to 100.
    min_score: Option<u8>,
    /// Kinds that are left although a profile has them.
    #[serde(default)]
    except: Vec<DataKind>,
}

/// Which text is redacted, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedactBody {
    /// At most 1 MiB.
    text: String,
    /// What is taken out; `pii`, `pan` and `secrets` if not given, `phi` with `safe_harbor`.
    profiles: Option<Vec<Profile>>,
    /// Findings below this score are left, 50 to 100.
    min_score: Option<u8>,
    /// Kinds that are left although a profile has them.
    #[serde(default)]
    except: Vec<DataKind>,
    /// What becomes of kinds for which the default is not right: cards are tokenised, dates shifted, the rest redacted.
    #[serde(default)]
    actions: BTreeMap<DataKind, Action>,
    /// HIPAA's Safe Harbor: dates become years, ages above 89 `90+`, ZIP codes their first three digits; no tokens, no shift.
    #[serde(default)]
    safe_harbor: bool,
    /// Whom the text is about: their dates move alike, and what tokens stand for goes when they are erased. The caller if nobody
    /// is named.
    subject: Option<String>,
}

/// Bytes of a text.
#[derive(Debug, Serialize, JsonSchema)]
struct Span {
    /// Of the first.
    start: usize,
    /// Behind the last.
    end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Findings {
    /// In the order of the text, none over another.
    findings: Vec<FindingView>,
}

/// One finding.
#[derive(Debug, Serialize, JsonSchema)]
struct FindingView {
    /// What it is.
    kind: DataKind,
    /// Where.
    span: Span,
    /// How sure that is, 50 to 100.
    score: u8,
}

impl From<Finding> for FindingView {
    fn from(Finding { kind, span, score }: Finding) -> Self {
        Self { kind, span: span.into(), score }
    }
}

/// A text without what was found in it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RedactedView {
    /// The text.
    text: String,
    /// What was changed, in order.
    edits: Vec<EditView>,
}

/// One change.
#[derive(Debug, Serialize, JsonSchema)]
struct EditView {
    /// What was found.
    kind: DataKind,
    /// What was done.
    action: Action,
    /// Where it was in the text that was sent.
    original: Span,
    /// Where its stand-in is in this one; empty if it was dropped.
    redacted: Span,
}

impl From<Edit> for EditView {
    fn from(Edit { kind, action, original, redacted }: Edit) -> Self {
        Self { kind, action, original: original.into(), redacted: redacted.into() }
    }
}

/// Which token is taken back, and what for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetokeniseBody {
    /// `tok_...`
    token: String,
    /// A code that the log keeps: 3 to 64 small letters, digits, `-` and `.`, such as `chargeback`.
    purpose: String,
}

/// What a token stands for.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DetokenisedView {
    /// What kind of data it is.
    kind: DataKind,
    /// What stood in the text.
    value: String,
}

fn checked(text: &str, config: &DlpConfig) -> Answer<()> {
    if text.len() > TEXT_BYTES {
        let detail = format!("the text has {} bytes; at most {TEXT_BYTES} are read at once", text.len());
        return Err(ApiError::new(Code::PayloadTooLarge, detail).param("text"));
    }
    config.validate().map_err(|error| ApiError::new(Code::PayloadInvalid, error.to_string()))
}

/// Finds personal and secret data in a text; nothing is kept of it.
#[utoipa::path(post, path = "/v1/dlp/scan", tag = "governance",
    request_body(content = ref("#/components/schemas/DlpScanBody"), content_type = "application/json"),
    responses((status = 200, description = "What is in it and where", body = ref("#/components/schemas/DlpFindings")),
        (status = 413, description = "More than 1 MiB of text", body = ref("#/components/schemas/Problem")),
        (status = 422, description = "A setting that cannot be", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn scan(State(door): State<Arc<Door>>, Body(body): Body<ScanBody>) -> Answer<Response> {
    let ScanBody { text, profiles, min_score, except } = body;
    let default = DlpConfig::default();
    let (profiles, min_score) = (profiles.unwrap_or(default.profiles), min_score.unwrap_or(default.min_score));
    let config = DlpConfig { profiles, min_score, except, ..DlpConfig::default() };
    checked(&text, &config)?;
    // A text as long as may be takes a while.
    let found = door.village.blocking("edge.dlp", move || dlp::scan_for(&text, &config)).await;
    let found = found.map_err(|error| ApiError::new(Code::Internal, error.to_string()))?;
    Ok(ok(Findings { findings: found.into_iter().map(FindingView::from).collect() }))
}

/// Takes personal and secret data out of a text. What a token stands for is kept, sealed, when this answers.
#[utoipa::path(post, path = "/v1/dlp/redact", tag = "governance",
    request_body(content = ref("#/components/schemas/DlpRedactBody"), content_type = "application/json"),
    responses((status = 200, description = "The text without it", body = ref("#/components/schemas/DlpRedacted")),
        (status = 413, description = "More than 1 MiB of text, or more than 1024 tokens",
            body = ref("#/components/schemas/Problem")),
        (status = 422, description = "A setting that cannot be", body = ref("#/components/schemas/Problem")),
        (status = 503, description = "The keys are not there yet", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn redact(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<RedactBody>,
) -> Answer<Response> {
    let RedactBody { text, profiles, min_score, except, actions, safe_harbor, subject } = body;
    let mut config = if safe_harbor { DlpConfig::safe_harbor() } else { DlpConfig::default() };
    config.profiles = profiles.unwrap_or(config.profiles);
    config.min_score = min_score.unwrap_or(config.min_score);
    config.except = except;
    config.actions.extend(actions);
    checked(&text, &config)?;
    let subject = subject.unwrap_or_else(|| caller.principal.subject.clone());
    let redacted = door.tokens.redact(&door.village, (&caller.principal.tenant, &subject), text, config).await?;
    let edits = redacted.edits.into_iter().map(EditView::from).collect();
    Ok(ok(RedactedView { text: redacted.text, edits }))
}

/// What a token of the caller's tenant stands for. The log has who asked, for which token and what for before this answers.
#[utoipa::path(post, path = "/v1/dlp/detokenise", tag = "governance",
    request_body(content = ref("#/components/schemas/DlpDetokeniseBody"), content_type = "application/json"),
    responses((status = 200, description = "The value", body = ref("#/components/schemas/DlpDetokenised")),
        (status = 404, description = "No such token, or whom it was about was erased",
            body = ref("#/components/schemas/Problem")),
        (status = 422, description = "The purpose is no code", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn detokenise(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(DetokeniseBody { token, purpose }): Body<DetokeniseBody>,
) -> Answer<Response> {
    // What is no token is as one that nobody has: its form tells nothing.
    let token = Token::try_from(token).map_err(|_| ApiError::not_found("this token"))?;
    let vault = door.village.addr::<TokenVault>(&caller.principal.tenant);
    let found = vault.ask(|reply| TokenMsg::Reveal(token, purpose, reply)).await?;
    let found = found.ok_or_else(|| ApiError::not_found("this token"))?;
    Ok(ok(DetokenisedView { kind: found.kind, value: found.value }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_and_settings_that_cannot_be_are_refused() {
        let config = DlpConfig::default();
        assert!(checked(&"x".repeat(TEXT_BYTES), &config).is_ok());
        assert_eq!(checked(&"x".repeat(TEXT_BYTES + 1), &config).unwrap_err().code(), "payload_too_large");
        let kept = DlpConfig { except: vec![DataKind::Cvv], ..config };
        assert_eq!(checked("", &kept).unwrap_err().code(), "payload_invalid");
    }
}
