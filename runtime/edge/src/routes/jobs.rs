//! `/v1/jobs`: long operations, their state, their events, their end.

use std::sync::Arc;

use aivillage_runtime::{Addr, TopicItem};
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use futures::StreamExt;
use serde_json::json;
use uuid::Uuid;

use super::{Answer, PageOf, Path, Query, ok};
use crate::cursor::PageQuery;
use crate::door::Door;
use crate::error::ApiError;
use crate::job::{self, Job, JobActor, JobMsg, JobTable, JobTableMsg};
use crate::live::{self, Place};
use crate::pipeline::Caller;

/// The jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs",
    params(("limit" = Option<u32>, Query, description = "1 to 200, 50 if absent"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, description = "A page of jobs", body = ref("#/components/schemas/JobPage"))))]
pub(crate) async fn list(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<PageQuery>,
) -> Answer<Response> {
    let tenant = caller.tenant().to_owned();
    let filter = format!("jobs/{tenant}");
    let page = door.cursors.page(&filter, query)?;
    let before = page.after.as_deref().map(canonical).transpose()?;
    let limit = page.limit + 1;
    // One more than asked for tells whether there is another page.
    let list = |reply| JobTableMsg::List { before, limit, reply };
    let mut data = door.village.addr::<JobTable>(&tenant).query(list).await?;
    let more = data.len() > page.limit;
    data.truncate(page.limit);
    let next_cursor = data.last().filter(|_| more).map(|job| door.cursors.issue(&filter, &job.id));
    Ok(ok(PageOf { data, next_cursor }))
}

/// Where the record of a job is. Another tenant's jobs are elsewhere, so they do not exist for this one.
fn record(door: &Door, caller: &Caller, id: Uuid) -> Addr<JobActor> {
    door.village.addr(job::shard(caller.tenant(), id))
}

async fn find(door: &Door, caller: &Caller, id: Uuid) -> Answer<Job> {
    Ok(record(door, caller, id).query(|reply| JobMsg::Get(id, reply)).await?)
}

fn canonical(id: &str) -> Answer<Uuid> {
    Uuid::parse_str(id).map_err(|_| ApiError::not_found("this job"))
}

/// One job.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, description = "The job", body = ref("#/components/schemas/Job")),
        (status = 404, description = "No such job", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn show(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Response> {
    find(&door, &caller, canonical(&id)?).await.map(ok)
}

/// Cancels a job; one that has ended stays as it is.
#[utoipa::path(delete, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, description = "The job as it is now", body = ref("#/components/schemas/Job")),
        (status = 404, description = "No such job", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn cancel(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer<Response> {
    let id = canonical(&id)?;
    Ok(ok(record(&door, &caller, id).query(|reply| JobMsg::Cancel(id, reply)).await?))
}

/// The job's events: `progress`, then `result` or `error`; each carries the job. The first tells the present state. `denied` tells
/// that the caller may not have them any more.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, description = "Events", content_type = "text/event-stream"),
        (status = 404, description = "No such job", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn events(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer<Response> {
    let place = Place::take(&door, "job")?;
    let id = canonical(&id)?;
    let topic = door.village.topic(job::topic(&id.to_string()));
    // The position is taken before the state: what happens between the two is told twice, never lost.
    let newest = topic.newest().await?;
    let now = find(&door, &caller, id).await?;
    let resumed = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|id| id.parse().ok());
    let mut changes = Box::pin(topic.subscribe(Some(resumed.unwrap_or(newest))));
    let stop = door.stop.clone();
    Ok(live::respond(async_stream::stream! {
        let _place = place;
        yield live::opening();
        yield live::event(now.event(), &json!(now)).id(newest.to_string());
        let mut ended = now.state.is_final();
        while !ended {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                next = changes.next() => next,
            };
            let Some(Ok(item)) = next else { break };
            match item {
                TopicItem::Event { id, data } => {
                    let Ok(job) = serde_json::from_value::<Job>(data) else { continue };
                    ended = job.state.is_final();
                    yield live::event(job.event(), &json!(job)).id(id.to_string());
                }
                TopicItem::Gap { from, to } => {
                    yield live::event("gap", &json!({"from": from.to_string(), "to": to.to_string()}));
                }
            }
        }
        if !ended {
            yield live::event("drain", &json!({}));
        }
    }))
}
