//! The Host header must name this server. A page on another site whose name was rebound to 127.0.0.1 (DNS rebinding)
//! reaches the loopback port, but its requests carry its own name.

use axum::http::{HeaderMap, Uri, header};

use crate::error::{ApiError, Code};

/// The names this server answers to, lower case, without ports.
#[derive(Debug)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Hosts(names.into_iter().map(|name| name.trim_matches(['[', ']']).to_ascii_lowercase()).collect())
    }

    /// Refuses a request that is meant for somebody else. HTTP/2 carries the name in the request's URI.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let named = match (uri.host(), headers.get(header::HOST)) {
            (Some(host), _) => host,
            (None, Some(value)) => value.to_str().map_or("", without_port),
            (None, None) => return Err(ApiError::new(Code::BadRequest, "the Host header is missing")),
        };
        let named = named.trim_matches(['[', ']']);
        if self.0.iter().any(|known| known.eq_ignore_ascii_case(named)) {
            return Ok(());
        }
        Err(ApiError::new(Code::HostNotAllowed, "this server does not answer for that host; see edge.allowed_hosts"))
    }
}

/// The host of `host[:port]`; an IPv6 address stands in brackets.
fn without_port(authority: &str) -> &str {
    match authority.split_once(']') {
        Some((host, "")) => host,
        Some((host, port)) if port.starts_with(':') => host,
        Some(_) => authority,
        None => authority.split(':').next().unwrap_or(authority),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(host: &'static str) -> Result<(), ApiError> {
        let hosts = Hosts::new(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
        let headers = [(header::HOST, HeaderValue::from_static(host))].into_iter().collect();
        hosts.check(&Uri::from_static("/v1/agents"), &headers)
    }

    #[test]
    fn own_names_pass_with_any_port() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
            assert!(check(host).is_ok(), "{host}");
        }
    }

    #[test]
    fn foreign_names_are_misdirected() {
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "", "127.0.0.1.evil", "[::1].evil"]
        {
            assert_eq!(check(host).unwrap_err().status().as_u16(), 421, "{host}");
        }
    }

    #[test]
    fn a_missing_host_is_a_bad_request() {
        let hosts = Hosts::new(["localhost".to_owned()]);
        assert_eq!(hosts.check(&Uri::from_static("/"), &HeaderMap::new()).unwrap_err().status().as_u16(), 400);
    }
}
