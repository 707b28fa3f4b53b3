//! `/v1/policy` and `/v1/constitution`: who may do what, and by which rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use aivillage_governance::HERE;
use aivillage_governance::constitution::{self, Constitution, ConstitutionMsg};
use aivillage_governance::policy::{Facts, Pdp, PdpMsg, Request, Resource, Sources, Subject};
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Body, ok};
use crate::door::Door;
use crate::error::{ApiError, Code};
use crate::pipeline::Caller;

/// May somebody do something to a thing?
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuestionBody {
    /// Who wants it; the caller if nobody is named.
    #[serde(default)]
    principal: Option<Subject>,
    /// What, `area.verb`.
    action: String,
    /// To which thing.
    resource: Resource,
    /// What else is true of it.
    #[serde(default)]
    facts: Facts,
}

impl QuestionBody {
    fn asked_by(self, caller: &Caller) -> Request {
        let Self { principal, action, resource, facts } = self;
        let principal = principal.unwrap_or_else(|| (&*caller.principal).into());
        Request { principal, action, resource, facts }
    }
}

/// The files of a folder of policies.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BundleBody {
    /// Their paths, with `/`, and texts.
    files: BTreeMap<String, String>,
    /// The version that they are to take the place of, as `GET /v1/policy` tells it.
    expect: u64,
}

/// The policies at work on this node.
#[utoipa::path(get, path = "/v1/policy", tag = "governance",
    responses((status = 200, description = "Which policies are at work", body = ref("#/components/schemas/PolicyStatus"))))]
pub(crate) async fn status(State(door): State<Arc<Door>>) -> Answer<Response> {
    Ok(ok(door.village.addr::<Pdp>(HERE).query(PdpMsg::Epoch).await?))
}

/// Makes these the policies of all nodes, in place of those there are. They are validated first; when anything is wrong with
/// them, or somebody else was faster, the old ones stay.
#[utoipa::path(post, path = "/v1/policy", tag = "governance",
    request_body(content = ref("#/components/schemas/PolicyBundle"), content_type = "application/json"),
    responses((status = 200, description = "Decided, and at work on this node", body = ref("#/components/schemas/PolicyApplied")),
        (status = 409, description = "Another version is there by now", body = ref("#/components/schemas/Problem")),
        (status = 422, description = "Something is wrong with them", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn apply(State(door): State<Arc<Door>>, Body(body): Body<BundleBody>) -> Answer<Response> {
    let mut sources = Sources::embedded();
    for (path, text) in body.files {
        sources = sources.with(path, text).map_err(|error| ApiError::new(Code::PayloadInvalid, error.to_string()))?;
    }
    let expect = body.expect;
    Ok(ok(door.village.addr::<Pdp>(HERE).ask(|reply| PdpMsg::Apply { sources, expect, reply }).await?))
}

/// Whether something may be done, by the policies at work on this node.
#[utoipa::path(post, path = "/v1/policy/decide", tag = "governance",
    request_body(content = ref("#/components/schemas/PolicyQuestion"), content_type = "application/json"),
    responses((status = 200, description = "The decision", body = ref("#/components/schemas/PolicyDecision")),
        (status = 503, description = "No policies are loaded", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn decide(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<QuestionBody>,
) -> Answer<Response> {
    let request = body.asked_by(&caller);
    Ok(ok(door.village.addr::<Pdp>(HERE).ask(|reply| PdpMsg::Decide(request, reply)).await?))
}

/// Why something may be done or not: the policies that decide with their text, and the permits that were near.
#[utoipa::path(post, path = "/v1/policy/explain", tag = "governance",
    request_body(content = ref("#/components/schemas/PolicyQuestion"), content_type = "application/json"),
    responses((status = 200, description = "The decision and its reasons", body = ref("#/components/schemas/PolicyExplanation")),
        (status = 503, description = "No policies are loaded", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn explain(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body<QuestionBody>,
) -> Answer<Response> {
    let request = body.asked_by(&caller);
    Ok(ok(door.village.addr::<Pdp>(HERE).ask(|reply| PdpMsg::Explain(request, reply)).await?))
}

/// A version of the constitution.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConstitutionView {
    /// Which, from 1.
    version: u32,
    /// SHA-256 of its canonical bytes, in hexadecimal digits.
    hash: String,
    /// `constitution.toml`.
    toml: String,
    /// `constitution.sig`; empty as long as the node has not the key that signs the constitution of the program itself.
    note: String,
    /// Whose signatures count, `name+hash+key`.
    root_keys: Vec<String>,
}

/// The constitution in force.
#[utoipa::path(get, path = "/v1/constitution", tag = "governance",
    responses((status = 200, description = "The version in force", body = ref("#/components/schemas/Constitution"))))]
pub(crate) async fn constitution(State(door): State<Arc<Door>>) -> Answer<Response> {
    let get = |reply| ConstitutionMsg::Get { version: None, reply };
    let found = door.village.addr::<Constitution>(constitution::KEY).ask(get).await?;
    let version = found.ok_or_else(|| ApiError::not_found("a constitution"))?;
    let hash = version.hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let root_keys = version.root_keys.iter().map(ToString::to_string).collect();
    let (toml, note) = (version.signed.toml, version.signed.note);
    Ok(ok(ConstitutionView { version: version.version, hash, toml, note, root_keys }))
}
