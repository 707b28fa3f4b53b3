//! The credential that a request carries, and whether a browser may have been made to send it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use crate::error::{ApiError, Code};

/// The session of a browser. The prefix has browsers take it only with `Secure`, for this host and all of its paths.
const COOKIE: &str = "__Host-session";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What was shown, whatever its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given<'a> {
    pub(crate) text: &'a str,
    /// A browser sends it by itself, also for a page of somebody else.
    pub(crate) is_cookie: bool,
}

impl<'a> Given<'a> {
    /// `Authorization` before `x-api-key` before the cookie.
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let text = |value: &'a HeaderValue| value.to_str().unwrap_or("");
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let bearer = text(value).split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            return Some(Self { text: bearer.map_or(text(value), |(_, token)| token.trim()), is_cookie: false });
        }
        if let Some(value) = headers.get("x-api-key") {
            return Some(Self { text: text(value).trim(), is_cookie: false });
        }
        let cookies = headers.get_all(header::COOKIE).iter().flat_map(|value| text(value).split(';'));
        let mut sessions = cookies.filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        sessions.next().map(|text| Self { text, is_cookie: true })
    }
}

/// Refuses a request by which another site's page would act with a person's cookie, or set one.
///
/// # Errors
/// `csrf`
pub(crate) fn same_origin(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let is_same = match headers.get(SEC_FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).is_some_and(|origin| {
            let host = uri.authority().map(axum::http::uri::Authority::as_str);
            let host = host.or_else(|| headers.get(header::HOST).and_then(|host| host.to_str().ok()));
            let origin = origin.split_once("://").map(|(_, host)| host);
            origin.is_some() && origin == host
        }),
    };
    let why =
        "a cookie counts for pages of this server only: send `Origin`, or the credential as `Authorization: Bearer`";
    if is_same { Ok(()) } else { Err(ApiError::new(Code::Csrf, why)) }
}

/// The header that gives a browser its session, or takes it away when there is none.
pub(crate) fn set_cookie(session: Option<&str>, for_s: u64) -> HeaderValue {
    let (session, for_s) = session.map_or(("", 0), |session| (session, for_s));
    let text = format!("{COOKIE}={session}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={for_s}");
    // A credential is letters, digits, `-` and `_`.
    let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn a_credential_is_found_wherever_it_is() {
        let given = |pairs: &[(&'static str, &str)]| {
            let headers = headers(pairs);
            Given::of(&headers).map(|given| (given.text.to_owned(), given.is_cookie))
        };
        let found = |text: &str, is_cookie| Some((text.to_owned(), is_cookie));
        assert_eq!(given(&[]), None);
        assert_eq!(given(&[("authorization", "bearer  a "), ("x-api-key", "b")]), found("a", false));
        assert_eq!(given(&[("authorization", "a")]), found("a", false));
        assert_eq!(given(&[("x-api-key", " b "), ("cookie", "__Host-session=c")]), found("b", false));
        assert_eq!(given(&[("cookie", "x=1; __Host-session=c; y=2")]), found("c", true));
        assert_eq!(given(&[("cookie", "__Host-sessions=c")]), None);
    }

    #[test]
    fn only_pages_of_this_server_act_with_a_cookie() {
        let check = |method: Method, pairs: &[(&'static str, &str)]| {
            same_origin(&method, &Uri::from_static("/v1/keys"), &headers(pairs))
                .map_err(|error| error.code().to_owned())
        };
        let refused = Err("csrf".to_owned());
        assert_eq!(check(Method::GET, &[("sec-fetch-site", "cross-site")]), Ok(()));
        assert_eq!(check(Method::POST, &[("host", "h:1")]), refused);
        assert_eq!(check(Method::POST, &[("host", "h:1"), ("origin", "http://h:1")]), Ok(()));
        assert_eq!(check(Method::POST, &[("host", "h:1"), ("origin", "http://evil")]), refused);
        assert_eq!(check(Method::POST, &[("host", "h:1"), ("origin", "null")]), refused);
        assert_eq!(check(Method::DELETE, &[("sec-fetch-site", "same-origin")]), Ok(()));
        for site in ["same-site", "cross-site", "none"] {
            let pairs = [("sec-fetch-site", site), ("host", "h"), ("origin", "http://h")];
            assert_eq!(check(Method::PATCH, &pairs), refused, "{site}");
        }
    }

    #[test]
    fn a_cookie_is_for_this_host_and_no_script() {
        let text = set_cookie(Some("avs_x"), 60).to_str().unwrap().to_owned();
        assert_eq!(text, "__Host-session=avs_x; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=60");
        assert!(set_cookie(None, 60).to_str().unwrap().ends_with("Max-Age=0"));
    }
}
