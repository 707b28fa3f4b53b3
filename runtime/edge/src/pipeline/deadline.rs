//! How long a request may take: the route's maximum, shortened by what the caller asks for.

use std::time::Duration;

use axum::http::HeaderMap;

use crate::error::{ApiError, Code};

/// The smaller of `max`, `Request-Timeout-Ms` and `Prefer: wait=N`.
///
/// # Errors
/// 400 if `Request-Timeout-Ms` is not a number above zero. A `Prefer` that is not understood is ignored, as RFC 7240 says.
pub(crate) fn limit(headers: &HeaderMap, max: Duration) -> Result<Duration, ApiError> {
    let mut limit = max;
    if let Some(value) = headers.get("request-timeout-ms") {
        let ms = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()).filter(|ms| *ms > 0);
        let ms = ms.ok_or_else(|| {
            ApiError::new(Code::BadRequest, "request-timeout-ms must be a number of milliseconds above zero")
        })?;
        limit = limit.min(Duration::from_millis(ms));
    }
    if let Some(seconds) = preference(headers, "wait").and_then(|value| value.parse::<u64>().ok()) {
        // RFC 7240 4.3: wait=0 asks for an immediate answer; one second is the least that can be given.
        limit = limit.min(Duration::from_secs(seconds.max(1)));
    }
    Ok(limit)
}

/// True if the caller wants the work done in the background (RFC 7240 4.1).
pub(crate) fn wants_async(headers: &HeaderMap) -> bool {
    preference(headers, "respond-async").is_some()
}

/// The value of one preference, empty if it has none.
fn preference<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).find_map(
        |item| {
            let item = item.split(';').next().unwrap_or("").trim();
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
        },
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (axum::http::HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn the_smallest_limit_wins() {
        let max = Duration::from_secs(30);
        assert_eq!(limit(&headers(&[]), max).unwrap(), max);
        assert_eq!(limit(&headers(&[("request-timeout-ms", "250")]), max).unwrap(), Duration::from_millis(250));
        assert_eq!(limit(&headers(&[("prefer", "wait=5, respond-async")]), max).unwrap(), Duration::from_secs(5));
        assert_eq!(limit(&headers(&[("request-timeout-ms", "99999999")]), max).unwrap(), max);
    }

    #[test]
    fn nonsense_is_refused_or_ignored() {
        let max = Duration::from_secs(30);
        for bad in ["0", "-1", "soon", ""] {
            assert!(limit(&headers(&[("request-timeout-ms", bad)]), max).is_err());
        }
        assert_eq!(limit(&headers(&[("prefer", "wait=soon")]), max).unwrap(), max);
    }

    #[test]
    fn respond_async_is_found_in_any_list() {
        assert!(wants_async(&headers(&[("prefer", "wait=1, Respond-Async")])));
        assert!(!wants_async(&headers(&[("prefer", "return=minimal")])));
    }
}
