//! `/v1/tenants`: who shares the village. They belong to whoever runs it.

use std::sync::Arc;

use aivillage_governance::identity::{HOME, Identity, IdentityMsg, Tenant, TenantError, TenantRefused};
use aivillage_runtime::MsgCx;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::keys::NewKeyView;
use super::{Answer, Body, PageOf, Path, Query, ok};
use crate::cursor::PageQuery;
use crate::door::Door;
use crate::error::ApiError;
use crate::pipeline::Caller;

/// A tenant.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TenantView {
    /// Its name.
    name: String,
    /// None of its credentials is let in.
    suspended: bool,
    /// When it was made, Unix milliseconds; 0 for the one that was there from the start.
    made_at_ms: u64,
}

impl From<Tenant> for TenantView {
    fn from(Tenant { name, made_ms, is_suspended }: Tenant) -> Self {
        Self { name, suspended: is_suspended, made_at_ms: made_ms }
    }
}

/// The tenants, by name.
#[utoipa::path(get, path = "/v1/tenants", tag = "accounts",
    params(("limit" = Option<u32>, Query, description = "1 to 200, 50 if not given"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, description = "A page of tenants", body = ref("#/components/schemas/TenantPage"))))]
pub(crate) async fn list(State(door): State<Arc<Door>>, Query(query): Query<PageQuery>) -> Answer<Response> {
    let page = door.cursors.page("tenants", query)?;
    // One more than asked for tells whether there is another page.
    let mut tenants = door.credentials().tenants().list(page.after.as_deref(), page.limit + 1);
    let more = tenants.len() > page.limit;
    tenants.truncate(page.limit);
    let next_cursor = tenants.last().filter(|_| more).map(|last| door.cursors.issue("tenants", &last.name));
    Ok(ok(PageOf { data: tenants.into_iter().map(TenantView::from).collect(), next_cursor }))
}

/// A tenant to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenantBody {
    /// Its name: 1 to 63 of `a-z`, `0-9` and `-`, with a letter first.
    name: String,
    /// What its first administrator is called.
    admin: String,
}

/// A tenant that was just made.
#[derive(Serialize, JsonSchema)]
pub(crate) struct NewTenantView {
    /// Its name.
    name: String,
    /// The first key of its first administrator.
    admin: NewKeyView,
}

/// Makes a tenant with its first administrator, who gets a key.
#[utoipa::path(post, path = "/v1/tenants", tag = "accounts",
    request_body(content = ref("#/components/schemas/NewTenantBody"), content_type = "application/json"),
    responses((status = 201, description = "The tenant and a key", body = ref("#/components/schemas/NewTenant")),
        (status = 409, description = "There is one of this name, or no cluster", body = ref("#/components/schemas/Problem")),
        (status = 422, description = "A name that cannot be", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn create(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(NewTenantBody { name, admin }): Body<NewTenantBody>,
) -> Answer<Response> {
    if name == HOME {
        // It may have no accounts yet, and is founded by its first one all the same.
        return Err(TenantError::Refused(TenantRefused::Exists).into());
    }
    match door.credentials().tenants().make(&name).await {
        // One whose making was broken off has no accounts yet, and gets them now; another one answers that it has some.
        Ok(()) | Err(TenantError::Refused(TenantRefused::Exists)) => {}
        Err(error) => return Err(error.into()),
    }
    let desk = door.village.addr::<Identity>(&*name);
    // Only the village itself founds: the policies have let the caller ask it to.
    let context = MsgCx::request(Some(caller.deadline), Some(caller.trace), None);
    let found = async { desk.ask(|reply| IdentityMsg::Bootstrap(admin, reply)).await };
    let founded = context.scope(found).await??;
    door.credentials().settle(founded.secret.expose()).await;
    Ok((StatusCode::CREATED, Json(NewTenantView { name, admin: founded.into() })).into_response())
}

/// What is to be otherwise.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeTenantBody {
    /// Whether none of its credentials is let in.
    suspended: bool,
}

/// Suspends a tenant, or lets it in again.
#[utoipa::path(patch, path = "/v1/tenants/{name}", tag = "accounts", params(("name" = String, Path)),
    request_body(content = ref("#/components/schemas/ChangeTenantBody"), content_type = "application/json"),
    responses((status = 200, description = "The tenant as it is now", body = ref("#/components/schemas/Tenant")),
        (status = 404, description = "No such tenant", body = ref("#/components/schemas/Problem")),
        (status = 409, description = "The one that runs the village, or no cluster", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn change(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    Body(ChangeTenantBody { suspended }): Body<ChangeTenantBody>,
) -> Answer<Response> {
    let tenants = door.credentials().tenants();
    tenants.suspend(&name, suspended).await?;
    let changed = tenants.get(&name).ok_or_else(|| ApiError::not_found("this tenant"))?;
    Ok(ok(TenantView::from(changed)))
}
