//! Reading a request's body: bounded in size, bounded in time, decoded with errors that point at the place.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::error::{ApiError, Code, FieldError};

/// How much of a refused body is still taken from the socket. A client that is writing sees our answer instead of a
/// reset connection, if the rest is small.
const LINGER_BYTES: usize = 1 << 20;
const LINGER_TIME: Duration = Duration::from_millis(500);

/// How much and how slowly a body may come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Most bytes.
    pub(crate) bytes: usize,
    /// Longest pause between two pieces.
    pub(crate) pause: Duration,
}

/// Reads the whole body.
///
/// # Errors
/// 413 before anything is read if the length is announced, else at the limit; 408 after a pause; 400 if the peer breaks off.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limits: BodyLimits) -> Result<Bytes, ApiError> {
    if announced(headers).is_some_and(|length| length > limits.bytes as u64) {
        linger(body).await;
        return Err(too_large(limits.bytes));
    }
    let mut body = body;
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(limits.pause, body.frame()).await {
            Err(_) => return Err(ApiError::new(Code::RequestTimeout, "the body stopped arriving")),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if rest.len() + first.as_ref().map_or(0, Bytes::len) + data.len() > limits.bytes {
            linger(body).await;
            return Err(too_large(limits.bytes));
        }
        // A body of one piece, the usual case, is not copied.
        match first.take() {
            None if rest.is_empty() => first = Some(data),
            None => rest.extend_from_slice(&data),
            Some(head) => {
                rest.extend_from_slice(&head);
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

/// The length the client announced.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::PayloadTooLarge, format!("the body may have at most {limit} bytes on this route"))
}

fn broken(error: &axum::Error) -> ApiError {
    ApiError::new(Code::BadRequest, format!("the body broke off: {error}"))
}

async fn linger(mut body: Body) {
    let drain = async {
        let mut taken = 0;
        while let Some(Ok(frame)) = body.frame().await {
            taken += frame.data_ref().map_or(0, Bytes::len);
            if taken > LINGER_BYTES {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIME, drain).await;
}

/// Decodes a JSON body.
///
/// # Errors
/// 400 `bad_json` with line and column if it is not JSON, 422 `payload_invalid` with every wrong place if it has another
/// shape than `T`.
pub(crate) fn json<T: DeserializeOwned + JsonSchema>(bytes: &[u8]) -> Result<T, ApiError> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        Err(error) if error.is_data() => Err(wrong_shape::<T>(bytes, &error)),
        Err(error) => Err(not_json(&error)),
    }
}

/// The 400 for bytes that are not JSON.
pub(crate) fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::new(Code::BadJson, format!("line {} column {}: {error}", error.line(), error.column()))
}

/// The decoder stops at the first fault; the schema is walked only now, to find them all.
fn wrong_shape<T: JsonSchema>(bytes: &[u8], error: &serde_json::Error) -> ApiError {
    let value: serde_json::Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return not_json(&error),
    };
    let schema = schemars::schema_for!(T).to_value();
    let mut errors: Vec<FieldError> = match jsonschema::validator_for(&schema) {
        Ok(validator) => validator
            .iter_errors(&value)
            .take(32)
            .map(|e| FieldError { pointer: e.instance_path().to_string(), detail: clip(&e.to_string()) })
            .collect(),
        Err(_) => Vec::new(),
    };
    if errors.is_empty() {
        errors.push(FieldError { pointer: String::new(), detail: clip(&error.to_string()) });
    }
    ApiError::invalid(errors)
}

/// Messages quote the offending value, which may be the whole body.
fn clip(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or("")),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { bytes: 8, pause: Duration::from_secs(10) };

    #[derive(Debug, Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Sample {
        text: String,
        k: Option<u32>,
    }

    #[test]
    fn all_wrong_places_are_told_at_once() {
        let error = json::<Sample>(br#"{"text": 1, "k": "x"}"#).unwrap_err();
        let problem = error.problem("/", "t");
        assert_eq!(problem["status"], 422);
        let mut pointers: Vec<_> =
            problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/k", "/text"]);
    }

    #[test]
    fn broken_json_tells_line_and_column() {
        let error = json::<Sample>(b"{\n  \"text\": }").unwrap_err();
        assert_eq!(error.code(), "bad_json");
        assert!(error.to_string().contains("line 2 column 11"), "{error}");
        assert_eq!(json::<Sample>(b"{\"text\": \"\xff\"}").unwrap_err().status().as_u16(), 400);
        assert_eq!(json::<Sample>(b"").unwrap_err().code(), "bad_json");
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_with_and_without_an_announced_length() {
        let mut headers = HeaderMap::new();
        let error = read(&headers, Body::from("123456789"), LIMITS).await.unwrap_err();
        assert_eq!(error.status().as_u16(), 413);
        headers.insert(header::CONTENT_LENGTH, 9.into());
        assert_eq!(read(&headers, Body::empty(), LIMITS).await.unwrap_err().status().as_u16(), 413);
        assert_eq!(read(&HeaderMap::new(), Body::from("12345678"), LIMITS).await.unwrap(), "12345678");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_a_timeout_and_pieces_are_joined() {
        let stream = futures::stream::iter(["ab", "cd", "ef"].map(Ok::<_, std::io::Error>));
        let joined = read(&HeaderMap::new(), Body::from_stream(stream), LIMITS).await.unwrap();
        assert_eq!(joined, "abcdef");
        let stuck = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(&HeaderMap::new(), stuck, LIMITS).await.unwrap_err().status().as_u16(), 408);
    }
}
