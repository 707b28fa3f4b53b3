//! `village send`: one message to one actor, by kind and key.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, DIM, paint},
};

/// Arguments of `village send`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village send counter visits Add '[2]'
  village send memory.registry local List
  village send counter visits Reset --cast

`village status --json` lists the kinds and their messages with schemas.")]
pub(crate) struct Send {
    /// Kind of the actor.
    kind: String,
    /// Key of the actor.
    key: String,
    /// Name of the message.
    #[arg(value_name = "TYPE")]
    message: String,
    /// Its payload as JSON.
    #[arg(value_name = "PAYLOAD_JSON")]
    payload: Option<String>,
    /// Do not wait for a reply.
    #[arg(long)]
    cast: bool,
    /// Longest wait for the reply, such as `5s`.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

impl Send {
    /// Sends and prints the reply.
    ///
    /// # Errors
    /// A payload that is no JSON or does not fit the message, an unknown kind, or what the actor answered.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let body = self.body()?;
        let client = Client::open(global)?;
        let answer = client.post(&["v1", "actors", &self.kind, &self.key, "messages"], &body).await?;
        if global.json {
            output::json(&answer);
        } else if self.cast {
            output::say(paint(DIM, "sent"));
        } else {
            output::say(match answer.get("reply") {
                Some(Value::String(text)) => text.clone(),
                Some(reply) => format!("{reply:#}"),
                None => "null".to_owned(),
            });
        }
        Ok(())
    }

    fn body(&self) -> Result<Value, Failure> {
        let payload = match &self.payload {
            Some(text) => serde_json::from_str(text).map_err(|error| {
                Failure::new(Exit::Usage, format!("the payload is no JSON: {error}"))
                    .hint("quote it for the shell: '[2]', '{\"name\":\"x\"}', '\"text\"'")
            })?,
            None => Value::Null,
        };
        let mut body =
            json!({ "type": self.message, "payload": payload, "mode": if self.cast { "cast" } else { "call" } });
        if let (Some(timeout), Some(body)) = (self.timeout, body.as_object_mut()) {
            body.insert("timeout_ms".into(), u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).into());
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(payload: Option<&str>, cast: bool) -> Send {
        let timeout = Some(Duration::from_millis(1500));
        Send {
            kind: "k".into(),
            key: "1".into(),
            message: "Add".into(),
            payload: payload.map(Into::into),
            cast,
            timeout,
        }
    }

    #[test]
    fn body_carries_type_payload_mode_and_timeout() {
        let body = send(Some("[2]"), false).body().unwrap();
        assert_eq!(body, json!({"type": "Add", "payload": [2], "mode": "call", "timeout_ms": 1500}));
        assert_eq!(send(None, true).body().unwrap().get("mode"), Some(&json!("cast")));
    }

    #[test]
    fn payload_that_is_no_json_is_a_usage_error_with_an_example() {
        let failure = send(Some("{x}"), false).body().unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.hint.is_some());
    }
}
