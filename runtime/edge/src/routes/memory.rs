//! `/v1/memory`: documents in, cited passages out.

use std::sync::Arc;

use aivillage_memory::{
    DEFAULT_COLLECTION, Document, DocumentView, Memory, Put, Query as MemoryQuery, RawDocument, WaitFor,
};
use aivillage_runtime::Principal;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, Body, Path, Query, Route, ok};
use crate::door::Door;
use crate::error::{ApiError, Code};
use crate::job::{Work, Worker, WorkerMsg};
use crate::pipeline::{Caller, body, deadline};

/// Documents that are written while the client waits; more become a job.
const MAX_WAITED: usize = 1_000;
/// Files of one multipart upload.
const MAX_FILES: usize = 1_000;

/// Documents for one collection.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct PutBody {
    /// Target; the default collection if absent.
    #[serde(default)]
    collection: Option<String>,
    /// What to store; the good ones are stored even if others are refused.
    documents: Vec<Document>,
}

/// `?wait=durable|searchable&collection=&name=`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PutQuery {
    #[serde(default)]
    wait: WaitFor,
    collection: Option<String>,
    name: Option<String>,
}

/// Stores documents: JSON, or files as `multipart/form-data`, or one file as the raw body (`?name=` or `Content-Disposition`).
/// Answers 202 with a job for `Prefer: respond-async` and for more than 1,000 documents.
#[utoipa::path(post, path = "/v1/memory/documents", tag = "memory",
    params(("wait" = Option<String>, Query, description = "durable (default) or searchable"),
        ("collection" = Option<String>, Query, description = "for uploads of files"),
        ("name" = Option<String>, Query, description = "file name of a raw body")),
    request_body(content = ref("#/components/schemas/PutBody"), content_type = "application/json"),
    responses((status = 200, description = "One result per document", body = ref("#/components/schemas/PutReport")),
        (status = 202, description = "A job does it", body = ref("#/components/schemas/Job")),
        (status = 413, description = "Too large", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn put(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<PutQuery>,
    request: Request,
) -> Answer<Response> {
    let headers = request.headers().clone();
    let large = body::announced(&headers).is_none_or(|bytes| bytes > door.config.max_body.bytes());
    let _place =
        if large { Some(door.admission.upload().inspect_err(|_| door.metrics.shed("uploads"))?) } else { None };
    let memory = door.memory(caller.tenant());
    let (collection, documents) = match content(&headers) {
        ContentKind::Json => {
            let bytes = read(&door, request).await?;
            let body: PutBody = body::json(&bytes)?;
            (body.collection.or(query.collection), body.documents)
        }
        ContentKind::Multipart => (query.collection, parse(&memory, files(&door, request).await?).await?),
        ContentKind::File(mime) => {
            let name = query.name.or_else(|| disposition(&headers)).unwrap_or_else(|| "upload".to_owned());
            let bytes = read(&door, request).await?;
            (
                query.collection,
                parse(&memory, vec![RawDocument { name, mime, bytes: bytes.into(), source: None }]).await?,
            )
        }
    };
    if documents.len() > MAX_WAITED || deadline::wants_async(&headers) {
        return start(&door, &caller, Work::Ingest { collection, documents }).await;
    }
    Ok(ok(memory.put(Put { collection, documents, wait: query.wait }).await?))
}

async fn start(door: &Door, caller: &Caller, work: Work) -> Answer<Response> {
    let owner = Principal::clone(&caller.principal);
    let id = caller.job.unwrap_or_else(uuid::Uuid::now_v7).to_string();
    let job = door.village.addr::<Worker>(&id).ask(|reply| WorkerMsg::Start { owner, work, reply }).await?;
    let location = HeaderValue::from_str(&job.links.own).unwrap_or(HeaderValue::from_static("/v1/jobs"));
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], axum::Json(job)).into_response())
}

/// What the body holds.
#[derive(Debug, PartialEq, Eq)]
enum ContentKind {
    Json,
    Multipart,
    /// A file of this media type, if one is named.
    File(Option<String>),
}

fn content(headers: &HeaderMap) -> ContentKind {
    let mime = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let essence = mime.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => ContentKind::Json,
        "multipart/form-data" => ContentKind::Multipart,
        "application/octet-stream" => ContentKind::File(None),
        _ => ContentKind::File(Some(essence)),
    }
}

/// `filename` of `Content-Disposition` (RFC 6266), the simple form.
fn disposition(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_DISPOSITION)?.to_str().ok()?;
    let name = text.split(';').find_map(|part| part.trim().strip_prefix("filename="))?;
    Some(name.trim_matches('"').to_owned()).filter(|name| !name.is_empty())
}

async fn read(door: &Door, request: Request) -> Answer<Bytes> {
    let (parts, payload) = request.into_parts();
    let matched = parts.extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str);
    body::read(&parts.headers, payload, Route::of(matched).body_limits(&door.config)).await
}

/// The files of a multipart body, read within the upload's limits.
async fn files(door: &Door, request: Request) -> Answer<Vec<RawDocument>> {
    let (parts, payload) = request.into_parts();
    let matched = parts.extensions.get::<axum::extract::MatchedPath>().map(axum::extract::MatchedPath::as_str);
    let bytes = body::read(&parts.headers, payload, Route::of(matched).body_limits(&door.config)).await?;
    let request = Request::from_parts(parts, axum::body::Body::from(bytes));
    let bad = |text: String| ApiError::new(Code::BadRequest, format!("multipart body: {text}"));
    let mut form = Multipart::from_request(request, &()).await.map_err(|e| bad(e.body_text()))?;
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|e| bad(e.body_text()))? {
        if files.len() == MAX_FILES {
            return Err(bad(format!("more than {MAX_FILES} parts, send fewer at a time")));
        }
        let name = field.file_name().or(field.name()).unwrap_or("upload").to_owned();
        let mime = field.content_type().map(str::to_owned);
        let bytes = field.bytes().await.map_err(|e| bad(e.body_text()))?;
        files.push(RawDocument { name, mime, bytes: bytes.into(), source: None });
    }
    Ok(files)
}

async fn parse(memory: &Memory, files: Vec<RawDocument>) -> Answer<Vec<Document>> {
    let mut documents = Vec::new();
    for file in files {
        documents.extend(memory.parse(file).await?);
    }
    Ok(documents)
}

/// `?collection=&version=`.
#[derive(Debug, Deserialize)]
pub(crate) struct DocumentQuery {
    collection: Option<String>,
    version: Option<u32>,
}

/// One document.
#[utoipa::path(get, path = "/v1/memory/documents/{id}", tag = "memory",
    params(("id" = String, Path, description = "percent-encoded"), ("collection" = Option<String>, Query), ("version" = Option<u32>, Query)),
    responses((status = 200, description = "The document", body = ref("#/components/schemas/DocumentView")),
        (status = 404, description = "No such document", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn get(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<DocumentQuery>,
) -> Answer<Response> {
    let collection = query.collection.as_deref().unwrap_or(DEFAULT_COLLECTION);
    let view: DocumentView = door.memory(caller.tenant()).get(collection, &id, query.version).await?;
    Ok(ok(view))
}

/// Deletes a document with all its versions.
#[utoipa::path(delete, path = "/v1/memory/documents/{id}", tag = "memory",
    params(("id" = String, Path, description = "percent-encoded"), ("collection" = Option<String>, Query)),
    responses((status = 200, description = "It is gone", body = ref("#/components/schemas/DeleteReport")),
        (status = 404, description = "No such document", body = ref("#/components/schemas/Problem"))))]
pub(crate) async fn delete(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(query): Query<DocumentQuery>,
) -> Answer<Response> {
    let collection = query.collection.as_deref().unwrap_or(DEFAULT_COLLECTION);
    let report = door.memory(caller.tenant()).delete(collection, vec![id]).await?;
    if report.deleted.is_empty() {
        return Err(ApiError::not_found("this document"));
    }
    Ok(ok(report))
}

/// Finds passages, with their sources.
#[utoipa::path(post, path = "/v1/memory/query", tag = "memory",
    request_body(content = ref("#/components/schemas/Query"), content_type = "application/json"),
    responses((status = 200, description = "Passages with citations", body = ref("#/components/schemas/Context"))))]
pub(crate) async fn query(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Body(query): Body<MemoryQuery>,
) -> Answer<Response> {
    Ok(ok(door.memory(caller.tenant()).query(query).await?))
}

/// `?collection=`.
#[derive(Debug, Deserialize)]
pub(crate) struct StatsQuery {
    collection: Option<String>,
}

/// What the memory holds.
#[utoipa::path(get, path = "/v1/memory/stats", tag = "memory", params(("collection" = Option<String>, Query)),
    responses((status = 200, description = "Counts per collection", body = ref("#/components/schemas/MemoryStats"))))]
pub(crate) async fn stats(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<StatsQuery>,
) -> Answer<Response> {
    let collections = door.memory(caller.tenant()).stats(query.collection.as_deref()).await?;
    Ok(ok(serde_json::json!({"collections": collections})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        [(name, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn content_type_decides_how_the_body_is_read() {
        let kind = |mime| content(&headers(header::CONTENT_TYPE, mime));
        assert_eq!(kind("application/json; charset=utf-8"), ContentKind::Json);
        assert_eq!(kind("multipart/form-data; boundary=x"), ContentKind::Multipart);
        assert_eq!(kind("application/octet-stream"), ContentKind::File(None));
        assert_eq!(kind("Application/PDF"), ContentKind::File(Some("application/pdf".into())));
        assert_eq!(content(&HeaderMap::new()), ContentKind::Json);
    }

    #[test]
    fn file_names_are_read_from_the_disposition() {
        let name = |text| disposition(&headers(header::CONTENT_DISPOSITION, text));
        assert_eq!(name("attachment; filename=\"a b.pdf\""), Some("a b.pdf".into()));
        assert_eq!(name("attachment"), None);
        assert_eq!(name("attachment; filename=\"\""), None);
    }
}
