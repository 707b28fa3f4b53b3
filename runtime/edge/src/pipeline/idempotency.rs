//! `Idempotency-Key` (IETF draft): the first request runs, its repetitions get the stored answer byte for byte.
//!
//! A request with a key goes on when its client has left: who gives a key may come back for the answer, here or at another
//! node, and must not find the request half done and given back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, Span};
use uuid::Uuid;

use aivillage_governance::keys::Personal;
use aivillage_runtime::{Addr, CallError, Idem as RuntimeKey};

use super::tenure::is_stream;
use super::{Caller, Rendered, Visit, body, handle, is_unsafe};
use crate::door::Door;
use crate::error::{ApiError, Code};
use crate::idem::{self, Answer, Begun, Idem, IdemMsg, StoredResponse, shard};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MAX_KEY: usize = 255;
/// Largest answer that is kept.
const MAX_ANSWER: usize = 1 << 20;
/// Headers that belong to the answer; all others are made anew for each response.
const KEPT: [HeaderName; 4] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG, header::RETRY_AFTER];

/// Runs the handler, at most once for each key.
pub(super) async fn run(
    door: &Arc<Door>,
    visit: &Visit,
    (mut caller, place): (Caller, OwnedSemaphorePermit),
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let Some(value) = request.headers().get(KEY).filter(|_| is_unsafe(request.method())) else {
        return Ok(handle(caller, request, next).await);
    };
    if visit.route.is_secret {
        // Neither a password's hash nor a new key is to lie among the answers for a day.
        return Err(ApiError::new(Code::BadRequest, "this route keeps no answers: send no idempotency-key"));
    }
    if value.is_empty() || value.len() > MAX_KEY {
        return Err(ApiError::new(Code::BadRequest, "idempotency-key must have 1 to 255 bytes"));
    }
    let key = scope(&caller, &request, value.as_bytes());
    let (parts, payload) = request.into_parts();
    let bytes = body::read(&parts.headers, payload, visit.route.body_limits(&door.config)).await?;
    let hash = digest(&[parts.uri.query().unwrap_or("").as_bytes(), &bytes]);
    caller.idem = key.first_chunk().copied().map(RuntimeKey);

    let personal = Personal::new(&door.village, caller.tenant(), idem::PURPOSE).map_err(CallError::from)?;
    let subject = caller.principal.subject.clone();
    // What could not be kept afterwards does not run: a repetition would run again.
    personal.seal(&subject, &key, &()).await.map_err(CallError::from)?;

    let keeper = door.village.addr::<Idem>(&shard(caller.tenant(), key));
    let name = Uuid::now_v7().into_bytes();
    let mut claim = Claim { keeper: keeper.clone(), key, name, settled: false };
    // The claim ends with this deadline, also if this node is gone by then.
    let call = keeper.call().deadline(caller.deadline.saturating_duration_since(Instant::now()));
    // The name of the claim makes it safe to send this again when the keeper has moved.
    let by = door.village.run();
    let begun = call.idem(RuntimeKey(name)).ask(|reply| IdemMsg::Begin { key, hash, claim: name, by, reply }).await?;
    claim.settled = !matches!(begun, Begun::New { .. });
    match begun {
        Begun::New { first_ms } => caller.job = Some(job(key, first_ms)),
        Begun::Replay(answer) => {
            door.metrics.replays.inc();
            let gone = || ApiError::new(Code::Erased, "whoever got the answer was erased");
            let answered = personal.open(&key, &answer.response).await.map_err(CallError::from)?;
            return replay(answered.ok_or_else(gone)?);
        }
        Begun::InProgress => {
            return Err(ApiError::new(Code::IdempotencyInProgress, "the first request with this key still runs")
                .retry_after(std::time::Duration::from_secs(1)));
        }
        Begun::Mismatch => {
            return Err(ApiError::new(Code::IdempotencyMismatch, "this key was used with another body or query"));
        }
    }
    let (visit, deadline) = (visit.clone(), caller.deadline);
    let handled = async move {
        let response = handle(caller, Request::from_parts(parts, Body::from(bytes)), next).await;
        settle(&visit, claim, (&personal, &subject, hash), response).await
    };
    let (done, answered) = oneshot::channel();
    let going_on = async move {
        let _place = place;
        if let Ok(response) = tokio::time::timeout_at(deadline, handled).await {
            // The client may have left.
            let _ = done.send(response);
        }
    };
    door.village.task("edge.once", going_on.instrument(Span::current())).detach();
    answered.await.unwrap_or_else(|_| {
        Err(ApiError::new(Code::Internal, "the request hit a fault of the server; its trace id is in the log"))
    })
}

/// The job that a request with this key starts: `UUIDv7` of the key's first use, so that jobs stay in the order of creation,
/// with bits that come from the key.
fn job(key: [u8; 32], first_ms: u64) -> Uuid {
    let mut bits = [0; 10];
    bits.iter_mut().zip(digest(&[b"job", &key])).for_each(|(to, from)| *to = from);
    uuid::Builder::from_unix_timestamp_millis(first_ms, &bits).into_uuid()
}

/// A key that was begun. Dropped before it is settled (no answer worth keeping, a panic), it is given back.
struct Claim {
    keeper: Addr<Idem>,
    key: [u8; 32],
    name: [u8; 16],
    settled: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let abandon = IdemMsg::Abandon { key: self.key, claim: self.name };
        if !self.settled && self.keeper.try_tell(abandon).is_err() {
            tracing::warn!("an idempotency key could not be given back, repetitions get 409 until it expires");
        }
    }
}

/// Stores the answer if it is one that a repetition should get.
async fn settle(
    visit: &Visit,
    mut claim: Claim,
    (personal, subject, hash): (&Personal, &str, [u8; 32]),
    response: Response,
) -> Result<Response, ApiError> {
    let mut response = response;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = visit.render(&error);
        response.extensions_mut().insert(Rendered);
    }
    if !is_final(response.status()) || is_stream(response.headers()) {
        return Ok(response);
    }
    let (mut parts, payload) = response.into_parts();
    let bytes = Limited::new(payload, MAX_ANSWER).collect().await.map(http_body_util::Collected::to_bytes);
    let Ok(bytes) = bytes else {
        return Err(ApiError::new(
            Code::PayloadTooLarge,
            "the answer is too large to be kept for repetition; send the request without idempotency-key",
        ));
    };
    let headers = KEPT
        .iter()
        .filter_map(|name| Some((name.as_str().to_owned(), ByteBuf::from(parts.headers.get(name)?.as_bytes()))))
        .collect();
    let answered = StoredResponse { status: parts.status.as_u16(), headers, body: bytes.to_vec() };
    let (key, name) = (claim.key, claim.name);
    let kept = async {
        let answer = Answer { hash, response: personal.seal(subject, &key, &answered).await? };
        let call = claim.keeper.call().idem(RuntimeKey(name));
        call.ask(|reply| IdemMsg::Complete { key, claim: name, answer, reply }).await
    };
    match kept.await {
        Ok(()) => claim.settled = true,
        // The effect happened and the caller must hear of it; a repetition is stopped by the runtime's own key.
        Err(error) => tracing::warn!(%error, "answer not kept for repetition"),
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

/// Faults of the server and refusals that pass by themselves are not final: the repetition may succeed.
fn is_final(status: StatusCode) -> bool {
    !status.is_server_error()
        && !matches!(
            status,
            StatusCode::UNAUTHORIZED
                | StatusCode::REQUEST_TIMEOUT
                | StatusCode::CONFLICT
                | StatusCode::TOO_MANY_REQUESTS
        )
}

fn replay(answer: StoredResponse) -> Result<Response, ApiError> {
    let corrupt = |_| ApiError::new(Code::Internal, "the stored answer cannot be read");
    let status = StatusCode::from_u16(answer.status)
        .map_err(|_| ApiError::new(Code::Internal, "the stored answer cannot be read"))?;
    let mut response = (status, answer.body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in answer.headers {
        let name: HeaderName = name.parse().map_err(|_| ApiError::new(Code::Internal, "stored header"))?;
        response.headers_mut().insert(name, HeaderValue::from_bytes(&value).map_err(corrupt)?);
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response.extensions_mut().insert(Rendered);
    Ok(response)
}

/// One key of one caller on one route. The path is taken raw: two documents are two effects.
fn scope(caller: &Caller, request: &Request, key: &[u8]) -> [u8; 32] {
    let principal = &caller.principal;
    digest(&[
        principal.tenant.as_bytes(),
        principal.subject.as_bytes(),
        request.method().as_str().as_bytes(),
        request.uri().path().as_bytes(),
        key,
    ])
}

/// SHA-256 over the parts, each with its length, so that boundaries count.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_of_a_key_is_always_the_same_and_in_the_order_of_creation() {
        let one = job([1; 32], 1_000);
        assert_eq!((one, one.get_version_num()), (job([1; 32], 1_000), 7));
        assert_ne!(one, job([2; 32], 1_000));
        assert!(one < job([2; 32], 1_001) && job([2; 32], 1_000) < job([1; 32], 1_001));
    }
}
