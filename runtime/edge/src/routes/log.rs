//! The transparency log: its files for any C2SP client, its entries and proofs for the owner.

use std::path::PathBuf;
use std::sync::Arc;

use aivillage_governance::tlog::{Checkpoint, Evidence, Home, LogStatus, Note, VerifierKey};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Answer, Path, Query, ok};
use crate::door::Door;
use crate::error::{ApiError, Code};

/// A tile never changes under its name.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ALWAYS_ASK: HeaderValue = HeaderValue::from_static("no-cache");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// How the log is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LogView {
    /// The key that checks it, `name+id+base64`; the name is the log's origin.
    key: String,
    /// Entries that are safe.
    size: u64,
    /// Why it takes nothing, if so; then nothing but reading is let in.
    refuses: Option<String>,
    /// Entries of the last checkpoint.
    checkpoint: Option<u64>,
    /// Witnesses that have cosigned the last checkpoint.
    cosigned: usize,
    /// How many are wanted.
    wanted: usize,
    /// The witnesses of the log: other nodes of its cluster.
    witnesses: Vec<WitnessView>,
    /// What convicts logs of the cluster.
    forks: Vec<ForkView>,
}

/// A witness of the log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WitnessView {
    /// The key that checks its cosignatures, `name+id+base64`.
    key: String,
    /// When it cosigned the last checkpoint, Unix seconds; none if it has not.
    cosigned_s: Option<u64>,
}

impl WitnessView {
    fn of(key: &VerifierKey, checkpoint: Option<&Note>) -> Self {
        let signed = checkpoint.and_then(|note| note.verify([key]).ok()?.first()?.unix_s);
        Self { key: key.to_string(), cosigned_s: signed }
    }
}

/// Two checkpoints of one log that cannot both be true, as signed notes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ForkView {
    /// The log's origin.
    origin: String,
    /// One that a witness cosigned.
    ours: String,
    /// Another that the log signed.
    theirs: String,
}

impl From<Evidence> for ForkView {
    fn from(evidence: Evidence) -> Self {
        let origin = evidence.origin().to_owned();
        Self { origin, ours: evidence.ours.to_string(), theirs: evidence.theirs.to_string() }
    }
}

/// Which entries.
#[derive(Debug, Deserialize)]
pub(crate) struct EntriesQuery {
    from: Option<u64>,
    #[serde(default = "a_page")]
    limit: u64,
}

fn a_page() -> u64 {
    100
}

/// Some entries in a row.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EntriesView {
    /// The entries; `seq` is the number of each.
    data: Vec<Value>,
    /// Where to read on.
    next: u64,
    /// Entries that the log has.
    size: u64,
}

fn home(door: &Door) -> Answer<&Home> {
    door.log.as_ref().ok_or_else(|| ApiError::not_found("the transparency log of a village that keeps nothing"))
}

/// The transparency log of this node.
#[utoipa::path(get, path = "/v1/log", tag = "log",
    responses((status = 200, description = "Key and size", body = ref("#/components/schemas/Log")), (status = 404, description = "This node has no log")))]
pub(crate) async fn status(State(door): State<Arc<Door>>) -> Answer<Response> {
    let home = home(&door)?;
    let LogStatus { size, refuses, cosigned, wanted, witnesses, checkpoint } = home.log().status();
    let note = checkpoint.as_deref();
    Ok(ok(LogView {
        key: home.log().key().to_string(),
        size,
        refuses: refuses.map(|error| error.to_string()),
        checkpoint: note.and_then(|note| note.text().parse::<Checkpoint>().ok()).map(|body| body.size),
        cosigned,
        wanted,
        witnesses: witnesses.iter().map(|key| WitnessView::of(key, note)).collect(),
        forks: home.convicted().into_iter().map(ForkView::from).collect(),
    }))
}

/// Entries of the log: what was done and denied here. Who, to what and in which tenant are pseudonyms.
#[utoipa::path(get, path = "/v1/log/entries", tag = "log",
    params(("from" = Option<u64>, Query, description = "number of the first; if not given, the newest"),
        ("limit" = Option<u64>, Query, description = "at most so many, 100 if not given and at most 1000")),
    responses((status = 200, description = "Entries", body = ref("#/components/schemas/LogEntries")), (status = 404, description = "No such entry, or no log")))]
pub(crate) async fn entries(State(door): State<Arc<Door>>, Query(query): Query<EntriesQuery>) -> Answer<Response> {
    let read = home(&door)?.log().entries(query.from, query.limit).await?;
    let data: Result<Vec<Value>, _> = read.entries.iter().map(|entry| serde_json::from_slice(entry)).collect();
    let data =
        data.map_err(|error| ApiError::new(Code::Internal, format!("an entry of the log is no JSON: {error}")))?;
    Ok(ok(EntriesView { next: read.from + data.len() as u64, data, size: read.size }))
}

/// A proof that an entry is in the log, to be checked offline: a C2SP `tlog-proof` file with the entry in it.
#[utoipa::path(get, path = "/v1/log/proof/{index}", tag = "log", params(("index" = u64, Path, description = "number of the entry")),
    responses((status = 200, description = "The file", content_type = "text/plain"), (status = 404, description = "No such entry, or no log")))]
pub(crate) async fn proof(State(door): State<Arc<Door>>, Path(index): Path<u64>) -> Answer<Response> {
    let log = home(&door)?.log();
    let proof = match log.proof(index).await {
        // The newest entries are under no checkpoint yet.
        Err(aivillage_governance::tlog::LogError::OutOfRange { .. }) => {
            log.checkpoint().await?;
            log.proof(index).await?
        }
        other => other?,
    };
    Ok(([(header::CONTENT_TYPE, TEXT)], proof.to_string()).into_response())
}

/// The last checkpoint of the log, with its cosignatures: a C2SP signed note. Its tiles are at `/tlog/tile/`.
#[utoipa::path(get, path = "/tlog/checkpoint", tag = "log", security(()),
    responses((status = 200, description = "The note", content_type = "text/plain"), (status = 404, description = "Nothing was signed yet, or no log")))]
pub(crate) async fn checkpoint(State(door): State<Arc<Door>>) -> Answer<Response> {
    let file = home(&door)?.file("checkpoint");
    serve(file, "checkpoint", [(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, ALWAYS_ASK)]).await
}

/// A tile of hashes or a bundle of entries. C2SP tlog-tiles.
pub(crate) async fn tile(State(door): State<Arc<Door>>, Path(path): Path<String>) -> Answer<Response> {
    let name = format!("tile/{path}");
    let file = home(&door)?.file(&name);
    serve(file, &name, [(header::CONTENT_TYPE, BYTES), (header::CACHE_CONTROL, FOREVER)]).await
}

async fn serve(file: Option<PathBuf>, name: &str, headers: [(header::HeaderName, HeaderValue); 2]) -> Answer<Response> {
    let file = file.ok_or_else(|| ApiError::not_found(name))?;
    match tokio::fs::read(file).await {
        Ok(bytes) => Ok((headers, bytes).into_response()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(ApiError::not_found(name)),
        Err(error) => Err(ApiError::new(Code::Internal, format!("{name} cannot be read: {error}"))),
    }
}
