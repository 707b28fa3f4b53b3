//! The one door to the village memory: queries in, evidence out.

use aivillage_runtime::{CallError, CallOptions, MsgCx, Village};
use serde::Deserialize;
use serde_json::json;

use crate::answer::Evidence;
use crate::tools::memory::CollectionSize;

/// Most passages asked for.
pub(crate) const MAX_PASSAGES: usize = 64;

#[derive(Deserialize)]
struct Context {
    passages: Vec<Evidence>,
}

/// Passages that fit `text`, best first.
pub(crate) async fn query(
    village: &Village,
    tenant: &str,
    text: &str,
    k: usize,
    collections: Vec<String>,
) -> Result<Vec<Evidence>, CallError> {
    let body = json!({ "Query": [{ "text": text, "k": k.clamp(1, MAX_PASSAGES), "mode": "fast", "collections": collections }, null] });
    let options = CallOptions { deadline: MsgCx::current().remaining(), ..CallOptions::default() };
    let context = village.send_json("memory.retriever", tenant, body, options).await?.unwrap_or_default();
    let context: Context = serde_json::from_value(context).map_err(|error| CallError::Decode { detail: error.to_string() })?;
    Ok(context.passages)
}

/// Sizes of one collection or of all.
pub(crate) async fn stats(_: &Village, _: &str, _: Option<String>) -> Result<Vec<CollectionSize>, CallError> {
    Ok(Vec::new())
}
