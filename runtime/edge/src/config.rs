//! `[edge]` of `cluster.toml`.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use aivillage_runtime::config::{Period, Rate, RateUnit, Size};
use serde::{Deserialize, Serialize};

use crate::error::EdgeError;
use crate::pipeline::admission::Limits;

/// Where the door listens and what it lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Address of the API. Loopback only.
    pub listen: SocketAddr,
    /// Address of health and metrics. Loopback only.
    pub admin_listen: SocketAddr,
    /// Names in the Host header that this server answers to.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may call the API, e.g. `https://app.example`.
    pub cors_origins: Vec<String>,
    /// Largest body of an ordinary request.
    pub max_body: Size,
    /// Largest body of an upload to the memory.
    pub upload_max: Size,
    /// Longest time for a request's head, and longest pause while its body arrives.
    pub header_timeout: Period,
    /// Longest time of an ordinary request.
    pub request_timeout: Period,
    /// Longest time of a question to an agent or of a chat.
    pub chat_timeout: Period,
    /// Connections open at once on each listener.
    pub max_connections: usize,
    /// Requests that run at once.
    pub max_in_flight: usize,
    /// Requests that wait for a place.
    pub max_queued: usize,
    /// Longest wait for a place.
    pub queue_wait: Period,
    /// Event streams open at once.
    pub max_streams: usize,
    /// Uploads above `max_body` that are held in memory at once.
    pub max_uploads: usize,
    /// How long requests in flight may finish when the node stops.
    pub drain: Period,
    /// Rates of those who have not said who they are; all others are limited by `[governance.defence]`.
    pub limits: LimitsConfig,
}

/// `[edge.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Attempts to log in or to show a second factor, of one address; loopback is an address like any other.
    pub login: Rate,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        const LOGINS: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
        LimitsConfig { login: Rate { count: LOGINS, per: RateUnit::Minute, burst: LOGINS } }
    }
}

impl Default for EdgeConfig {
    fn default() -> Self {
        EdgeConfig {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            admin_listen: (Ipv4Addr::LOCALHOST, 9090).into(),
            allowed_hosts: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            cors_origins: Vec::new(),
            max_body: Size::from_mib(10),
            upload_max: Size::from_mib(256),
            header_timeout: Period::from_secs(10),
            request_timeout: Period::from_secs(30),
            chat_timeout: Period::from_secs(300),
            max_connections: 10_000,
            max_in_flight: 4_096,
            max_queued: 8_192,
            queue_wait: Period::from_secs(1),
            max_streams: 10_000,
            max_uploads: 4,
            drain: Period::from_secs(20),
            limits: LimitsConfig::default(),
        }
    }
}

impl EdgeConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// [`EdgeError::Config`] naming the key.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let wrong = |key, why: &str| Err(EdgeError::Config { key, why: why.to_owned() });
        if self.max_in_flight == 0 {
            return wrong("edge.max_in_flight", "must be at least 1");
        }
        if self.max_connections == 0 {
            return wrong("edge.max_connections", "must be at least 1");
        }
        if self.upload_max < self.max_body {
            return wrong("edge.upload_max", "must not be below edge.max_body");
        }
        if self.header_timeout.get().is_zero() || self.request_timeout.get().is_zero() {
            return wrong("edge.request_timeout", "and edge.header_timeout must be above zero");
        }
        for origin in &self.cors_origins {
            if axum::http::HeaderValue::from_str(origin).is_err() || !origin.contains("://") || origin.ends_with('/') {
                return wrong("edge.cors_origins", "must be origins such as \"https://app.example\", without a path");
            }
        }
        Ok(())
    }

    pub(crate) fn admission(&self) -> Limits {
        Limits {
            in_flight: self.max_in_flight,
            queued: self.max_queued,
            queue_wait: self.queue_wait.get(),
            streams: self.max_streams,
            uploads: self.max_uploads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default_and_unknown_keys_are_named() {
        assert_eq!(toml::from_str::<EdgeConfig>("").unwrap(), EdgeConfig::default());
        let error = toml::from_str::<EdgeConfig>("listn = \"127.0.0.1:1\"").unwrap_err().to_string();
        assert!(error.contains("listn") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn defaults_survive_a_round_trip() {
        let text = toml::to_string(&EdgeConfig::default()).unwrap();
        assert_eq!(toml::from_str::<EdgeConfig>(&text).unwrap(), EdgeConfig::default());
    }

    type Spoil = fn(&mut EdgeConfig);

    #[test]
    fn values_that_make_no_sense_are_refused_by_key() {
        let cases: [(&str, Spoil); 4] = [
            ("edge.max_in_flight", |c| c.max_in_flight = 0),
            ("edge.upload_max", |c| c.upload_max = Size::from_kib(1)),
            ("edge.cors_origins", |c| c.cors_origins = vec!["app.example".into()]),
            ("edge.max_connections", |c| c.max_connections = 0),
        ];
        for (key, spoil) in cases {
            let mut config = EdgeConfig::default();
            spoil(&mut config);
            assert!(config.validate().unwrap_err().to_string().contains(key));
        }
    }
}
