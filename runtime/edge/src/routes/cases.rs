//! `/v1/cases`: what followed from verdicts, and how to have them looked at again. A case exists only for its sender, its jury and
//! the moderators of its tenant.

use std::sync::Arc;

use aivillage_governance::cases::{CaseId, CaseView, Cases, Choice, Grounds, Quarter};
use aivillage_runtime::CallError;
use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Body, PageOf, Path, Query, ok};
use crate::cursor::PageQuery;
use crate::door::Door;
use crate::error::{ApiError, Code};
use crate::pipeline::Caller;

/// An appeal.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppealBody {
    /// What is held against the verdict.
    grounds: Grounds,
    /// In words, at most 4 KiB; asked for with the grounds `other`.
    #[serde(default)]
    text: String,
    /// Asks the community about what a jury has upheld, H2 only.
    #[serde(default)]
    community: bool,
}

/// A juror's vote.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VoteBody {
    /// For what.
    choice: Choice,
    /// Why, at most 4 KiB.
    reason: String,
}

/// A text that names no case says no more than one that names none of the caller's.
fn named(id: &str) -> Answer<CaseId> {
    id.parse().map_err(|_| none())
}

fn none() -> ApiError {
    ApiError::new(Code::NotFound, "there is no such case")
}

fn answered(view: Result<CaseView, CallError>) -> Answer<Response> {
    Ok(ok(view?))
}

/// The cases that the caller has a part in, newest first.
#[utoipa::path(get, path = "/v1/cases", tag = "governance",
    params(("limit" = Option<u32>, Query, description = "1 to 200, 50 if absent"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, description = "A page of cases", body = ref("#/components/schemas/CasePage"))))]
pub(crate) async fn list(
    State(door): State<Arc<Door>>,
    axum::Extension(caller): axum::Extension<Caller>,
    Query(query): Query<PageQuery>,
) -> Answer<Response> {
    let filter = format!("cases/{}/{}", caller.tenant(), caller.principal.subject);
    let page = door.cursors.page(&filter, query)?;
    let before = page.after.as_deref().map(named).transpose()?;
    // One more than asked for tells whether there is another page.
    let mut data = Cases::new(&door.village).list(before, page.limit + 1).await?;
    let more = data.len() > page.limit;
    data.truncate(page.limit);
    let next_cursor = data.last().filter(|_| more).map(|view| door.cursors.issue(&filter, &view.case));
    Ok(ok(PageOf { data, next_cursor }))
}

/// One case.
#[utoipa::path(get, path = "/v1/cases/{id}", tag = "governance", params(("id" = String, Path)),
    responses((status = 200, description = "The case", body = ref("#/components/schemas/Case")),
        (status = 404, description = "No such case for the caller", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn show(State(door): State<Arc<Door>>, Path(id): Path<String>) -> Answer<Response> {
    answered(Cases::new(&door.village).get(named(&id)?).await)
}

/// Appeals against the verdict of a case, or asks the community about what the jury upheld.
#[utoipa::path(post, path = "/v1/cases/{id}/appeal", tag = "governance", params(("id" = String, Path)),
    request_body(content = ref("#/components/schemas/AppealBody"), content_type = "application/json"),
    responses((status = 200, description = "The case as it is now", body = ref("#/components/schemas/Case")),
        (status = 403, description = "The caller did not send it", body = ref("#/components/schemas/Problem")),
        (status = 404, description = "No such case for the caller", body = ref("#/components/schemas/Problem")),
        (status = 409, description = "It was appealed before", body = ref("#/components/schemas/Problem")),
        (status = 410, description = "The time for it has passed", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn appeal(
    State(door): State<Arc<Door>>,
    Path(id): Path<String>,
    Body(body): Body<AppealBody>,
) -> Answer<Response> {
    let (cases, id) = (Cases::new(&door.village), named(&id)?);
    if body.community {
        return answered(cases.refer(id).await);
    }
    answered(cases.appeal(id, body.grounds, body.text).await)
}

/// Votes as a juror of the case.
#[utoipa::path(post, path = "/v1/cases/{id}/votes", tag = "governance", params(("id" = String, Path)),
    request_body(content = ref("#/components/schemas/VoteBody"), content_type = "application/json"),
    responses((status = 200, description = "The case as it is now", body = ref("#/components/schemas/Case")),
        (status = 403, description = "The caller has not the role of a juror, or administers", body = ref("#/components/schemas/Problem")),
        (status = 404, description = "The caller is no juror of such a case", body = ref("#/components/schemas/Problem")),
        (status = 409, description = "The juror has voted, or no vote is open", body = ref("#/components/schemas/Problem")),
        (status = 410, description = "The time for it has passed", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn vote(
    State(door): State<Arc<Door>>,
    Path(id): Path<String>,
    Body(body): Body<VoteBody>,
) -> Answer<Response> {
    answered(Cases::new(&door.village).vote(named(&id)?, body.choice, body.reason).await)
}

/// How often which rule was applied, appealed and overturned in a quarter. Numbers of 1 to 4 are left out.
#[utoipa::path(get, path = "/v1/transparency/report/{period}", tag = "governance",
    params(("period" = String, Path, description = "such as 2026-Q4")),
    responses((status = 200, description = "The report", body = ref("#/components/schemas/TransparencyReport")),
        (status = 404, description = "No such quarter", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn report(State(door): State<Arc<Door>>, Path(period): Path<String>) -> Answer<Response> {
    let quarter = period.parse::<Quarter>().map_err(|error| ApiError::new(Code::NotFound, error.to_string()))?;
    let tally = Cases::new(&door.village).tally(quarter).await?;
    Ok(ok(tally.report(quarter, door.moderator.engine().name())))
}
