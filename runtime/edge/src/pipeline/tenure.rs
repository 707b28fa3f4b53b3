//! Step 17: an event stream ends when the right to it does.
//!
//! A stream was let in once and may stay open for hours. Whenever accounts, tenants or policies have changed on this node, its
//! credential is looked at again and the policies are asked again; each second too, for what only time ends: a credential that
//! expires, an answer of another node about one, a copy that is too old to decide by. What ends a stream is told in its last
//! event, `denied`, with the problem that a request would get now, and is in the transparency log.

use std::sync::Arc;
use std::time::Duration;

use aivillage_governance::identity::Secret;
use aivillage_governance::policy::Resource;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use futures::StreamExt;
use tokio::time::Instant;

use super::record::{self, What};
use super::{Caller, Visit};
use crate::auth::Given;
use crate::door::Door;
use crate::error::{ApiError, Dialect};
use crate::live;

/// How often a right is looked at when nothing is known to have changed.
const LOOK: Duration = Duration::from_secs(1);
/// How long accounts may be read again, or another node not answer, before a stream ends for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was decided, on which resource.
pub(super) type Claim = (&'static str, Resource);

/// The right that a request was let in by.
#[derive(Debug)]
pub(super) struct Tenure {
    door: Arc<Door>,
    visit: Visit,
    caller: Caller,
    credential: Secret,
    claim: Option<Claim>,
    what: What,
}

impl Tenure {
    /// Of a request that was let in; the credential is the one that its headers carry.
    pub(super) fn new(door: &Arc<Door>, visit: &Visit, caller: &Caller, headers: &HeaderMap, what: What) -> Self {
        let credential = Secret::new(Given::of(headers).map_or("", |given| given.text));
        let (door, visit, caller) = (door.clone(), visit.clone(), caller.clone());
        Self { door, visit, caller, credential, claim: None, what }
    }

    /// The same, by this decision of the policies.
    pub(super) fn by(self, claim: Option<Claim>) -> Self {
        Self { claim, ..self }
    }

    /// The response, which ends with this right if it is an event stream.
    pub(super) fn over(self, response: Response) -> Response {
        if !is_stream(response.headers()) {
            return response;
        }
        let (parts, body) = response.into_parts();
        let stream = async_stream::stream! {
            let mut events = body.into_data_stream();
            let mut over = std::pin::pin!(self.over_now());
            let error = loop {
                tokio::select! {
                    biased;
                    error = &mut over => break error,
                    next = events.next() => match next {
                        Some(event) => yield event,
                        None => return,
                    },
                }
            };
            // What feeds the stream ends before its reader is told.
            drop(events);
            let last = self.last(&error);
            let mut last = live::respond(futures::stream::once(std::future::ready(last))).into_body().into_data_stream();
            if let Some(event) = last.next().await {
                yield event;
            }
        };
        Response::from_parts(parts, Body::from_stream(stream))
    }

    /// Waits until the right is gone, and says what of it.
    async fn over_now(&self) -> ApiError {
        let mut accounts = self.door.credentials().changes();
        let mut policies = self.door.gate.changes();
        let mut unsure: Option<Instant> = None;
        loop {
            match self.look().await {
                Ok(()) => unsure = None,
                Err(error) if error.status().is_server_error() => {
                    if unsure.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                        return error;
                    }
                }
                Err(error) => {
                    record::ended(&self.door, &self.what, &self.caller.principal, &error).await;
                    return error;
                }
            }
            tokio::select! {
                () = accounts.next() => {}
                _ = policies.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), ApiError> {
        let known = self.door.look_again(&self.credential).await?;
        let Some((action, resource)) = &self.claim else { return Ok(()) };
        // A second factor that was fresh at the beginning is not asked for again.
        let caller = Caller { principal: known.principal, verified: known.verified, ..self.caller.clone() };
        caller.may(&self.door.gate, action, resource.clone())
    }

    fn last(&self, error: &ApiError) -> axum::response::sse::Event {
        let trace = self.visit.trace.trace_hex();
        let told = match self.visit.route.dialect {
            Dialect::Problem => error.problem(&self.visit.instance, &trace),
            Dialect::OpenAi => error.openai(&trace),
        };
        live::event("denied", &told)
    }
}

/// Whether a response is one of events.
pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|mime| mime.as_bytes().starts_with(b"text/event-stream"))
}
