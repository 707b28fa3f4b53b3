//! `/v1/vault`, `/v1/dsar` and `/v1/erasures`: the keys that personal data is sealed with, and what is kept of a person.

use std::collections::BTreeMap;
use std::sync::Arc;

use aivillage_governance::erasure::{CertificateSigner, Erased, Erasure, ErasureMsg};
use aivillage_governance::identity::{Identity, IdentityMsg};
use aivillage_governance::keys::keeper::KEY;
use aivillage_governance::keys::vault::VaultStatus;
use aivillage_governance::keys::{EpochStatus, KeyVault, KeyVaultMsg, RootKeeper, RootMsg, TenantId};
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Answer, Body, Path, ok};
use crate::door::Door;
use crate::error::{ApiError, Code};
use crate::pipeline::Caller;

/// How the keys are, without secrets.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct VaultView {
    /// The epoch that new keys are wrapped in.
    epoch: u64,
    /// The oldest epoch whose key is left.
    oldest_epoch: u64,
    /// When the current epoch began, Unix milliseconds.
    since_ms: u64,
    /// Milliseconds until the next one begins.
    next_ms: u64,
    /// Tenants with keys.
    tenants: u64,
    /// Of them, those that still need an epoch that is over.
    behind: u64,
    /// Keys that seal data of the caller's tenant.
    keys: u64,
    /// Its subjects that were erased.
    erased: u64,
    /// Stored values that this node refused since it started, because they were not what was sealed.
    refused: u64,
    /// The Ed25519 key that certificates of erasure verify with, hex; null until the village's secret is there.
    certificate_key: Option<String>,
}

async fn view(door: &Door, tenant: &str, epochs: EpochStatus) -> Answer<Response> {
    let vault = door.village.addr::<KeyVault>(TenantId::of(tenant).to_string());
    let VaultStatus { keys, shredded, refused, .. } = vault.query(KeyVaultMsg::Status).await?;
    let EpochStatus { current, first, since_ms, next_ms, tenants, behind } = epochs;
    let signer = door.village.provided::<CertificateSigner>();
    let certificate_key = signer.and_then(|signer| signer.public_key()).map(|key| key.to_string());
    let (epoch, oldest_epoch, erased) = (current, first, shredded);
    Ok(ok(VaultView {
        epoch,
        oldest_epoch,
        since_ms,
        next_ms,
        tenants,
        behind,
        keys,
        erased,
        refused,
        certificate_key,
    }))
}

/// How the keys are that personal data is sealed with.
#[utoipa::path(get, path = "/v1/vault", tag = "governance",
    responses((status = 200, description = "Epochs and keys", body = ref("#/components/schemas/Vault")),
        (status = 503, description = "The root key is not there yet", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn vault(State(door): State<Arc<Door>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let epochs = door.village.addr::<RootKeeper>(KEY).query(RootMsg::Status).await?;
    view(&door, &caller.principal.tenant, epochs).await
}

/// Begins the next epoch of the keys now: what backups hold of the erased is unreadable after two.
#[utoipa::path(post, path = "/v1/vault/rotate", tag = "governance",
    responses((status = 200, description = "It began", body = ref("#/components/schemas/Vault")),
        (status = 503, description = "It could not begin", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn rotate(State(door): State<Arc<Door>>, Extension(caller): Extension<Caller>) -> Answer<Response> {
    let epochs = door.village.addr::<RootKeeper>(KEY).ask(RootMsg::Advance).await?;
    view(&door, &caller.principal.tenant, epochs).await
}

/// Who is meant: an account by its name or id, or somebody without one by the subject of their key.
async fn subject(door: &Door, caller: &Caller, whom: String) -> Answer<String> {
    let desk = door.village.addr::<Identity>(caller.tenant());
    let found = desk.ask(|reply| IdentityMsg::Find(whom.clone(), reply)).await?;
    Ok(found.map_or(whom, |account| account.id.to_string()))
}

/// All that is kept of a person, by store.
#[utoipa::path(get, path = "/v1/dsar/{subject}", tag = "governance",
    params(("subject" = String, Path, description = "Their account, by name or id; or the subject of their key")),
    responses((status = 200, description = "What each store has"),
        (status = 503, description = "A node does not answer", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn export(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(subject): Path<String>,
) -> Answer<Response> {
    let subject = self::subject(&door, &caller, subject).await?;
    let erasure = door.village.addr::<Erasure>(&caller.principal.tenant);
    let stores = erasure.query(|reply| ErasureMsg::Export(subject, reply)).await?;
    let read = |(owner, json): (String, serde_bytes::ByteBuf)| Some((owner, serde_json::from_slice(&json).ok()?));
    Ok(ok(stores.into_iter().filter_map(read).collect::<BTreeMap<String, Value>>()))
}

/// Who is to be erased, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ErasureBody {
    /// Their account, by name or id; or the subject of their key.
    subject: String,
    /// Why, e.g. `gdpr-17`.
    #[serde(default = "gdpr")]
    basis: String,
}

fn gdpr() -> String {
    "gdpr-17".to_owned()
}

/// An erasure that is done.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ErasureView {
    /// Its id.
    id: Uuid,
    /// The signed certificate.
    certificate: Value,
}

impl ErasureView {
    fn of(erased: &Erased) -> Answer<Self> {
        let damaged = |error: serde_json::Error| ApiError::new(Code::Internal, error.to_string());
        Ok(Self { id: erased.id, certificate: serde_json::from_slice(&erased.certificate).map_err(damaged)? })
    }
}

/// Destroys the keys of a person for good, removes what is kept of them on every node, counts that nothing is left, and certifies it.
/// A repetition gets the same certificate.
#[utoipa::path(post, path = "/v1/erasures", tag = "governance",
    request_body(content = ref("#/components/schemas/ErasureBody"), content_type = "application/json"),
    responses((status = 201, description = "They are erased", body = ref("#/components/schemas/Erasure")),
        (status = 409, description = "Something of them has to be kept for now, or is not removed yet",
            body = ref("#/components/schemas/Problem")),
        (status = 503, description = "A node does not answer; nothing was destroyed unless it says so",
            body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn erase(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(ErasureBody { subject, basis }): Body<ErasureBody>,
) -> Answer<Response> {
    let subject = self::subject(&door, &caller, subject).await?;
    let erasure = door.village.addr::<Erasure>(&caller.principal.tenant);
    let erased = erasure.ask(|reply| ErasureMsg::Erase { subject, basis, reply }).await?;
    Ok((StatusCode::CREATED, ok(ErasureView::of(&erased)?)).into_response())
}

/// The certificate of an erasure.
#[utoipa::path(get, path = "/v1/erasures/{id}", tag = "governance",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "The certificate", body = ref("#/components/schemas/Erasure")),
        (status = 404, description = "No such erasure", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn erasure(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Response> {
    let missing = || ApiError::not_found(format_args!("an erasure `{}`", id.chars().take(64).collect::<String>()));
    let known = id.parse::<Uuid>().map_err(|_| missing())?;
    let erasure = door.village.addr::<Erasure>(&caller.principal.tenant);
    let found = erasure.query(|reply| ErasureMsg::Get(known, reply)).await?;
    Ok(ok(ErasureView::of(&found.ok_or_else(missing)?)?))
}
