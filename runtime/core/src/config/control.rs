//! `[join]` and `[control]`: how a node becomes a member, and how the members agree.

use serde::{Deserialize, Serialize};

use super::{ConfigError, Period, check, within};
use crate::home::MAX_GROUPS;
use crate::membership::liveness::LivenessConfig;

/// `[join]`: the cluster that a node with a fresh data directory joins. A node that is a member already ignores it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JoinConfig {
    /// Addresses to join through, each tried in turn; the node that issued the token has to be among them. A member looks
    /// there for others that are not where they were, so one address that is right brings together a cluster that has moved.
    pub seeds: Vec<String>,
    /// Join token, or `file:PATH` of a file that holds it. Empty: a fresh node founds a cluster of its own.
    pub token: String,
}

impl JoinConfig {
    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a token without a node to show it to.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check(self.token.is_empty() || !self.seeds.is_empty(), "join.seeds", || {
            "a join token needs the address of the node that issued it".into()
        })
    }
}

/// `[control]`: consensus and failure detection. All nodes of a cluster should have the same values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// Most voters of the control group.
    pub max_voters: u8,
    /// Shard groups; counts when a cluster is founded.
    pub groups: u8,
    /// Voters of each shard group; counts when a cluster is founded.
    pub replicas: u8,
    /// Interval of a leader's beats.
    pub heartbeat: Period,
    /// Shortest and longest time without a leader after which a node stands for election.
    pub election: [Period; 2],
    /// A node silent for this long is down.
    pub down_after: Period,
    /// Interval of a node's beats to the control leader.
    pub beat: Period,
    /// Whether a closed link and two refused dials are enough to call a node down.
    pub fast_down: bool,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            max_voters: 5,
            groups: 8,
            replicas: 3,
            heartbeat: Period::from_millis(600),
            election: [Period::from_millis(1800), Period::from_secs(2)],
            down_after: Period::from_secs(4),
            beat: Period::from_millis(500),
            fast_down: true,
        }
    }
}

impl ControlConfig {
    pub(crate) fn liveness(&self) -> LivenessConfig {
        LivenessConfig::new(self.beat.get(), self.down_after.get(), self.fast_down)
    }

    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a value out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let odd = |key, value: u8, most| {
            check(value % 2 == 1 && value <= most, key, || format!("{value} is not an odd number of at most {most}"))
        };
        odd("control.max_voters", self.max_voters, 7)?;
        odd("control.replicas", self.replicas, 5)?;
        check((1..=MAX_GROUPS).contains(&usize::from(self.groups)), "control.groups", || {
            format!("{} is not in 1..={MAX_GROUPS}", self.groups)
        })?;
        within("control.heartbeat", self.heartbeat, Period::from_millis(10), Period::from_secs(10))?;
        let [shortest, longest] = self.election;
        within("control.election", shortest, Period(self.heartbeat.get() * 3), longest)?;
        within("control.down_after", self.down_after, longest, Period::from_secs(60))?;
        self.liveness().validate(longest.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_work_are_named() {
        ControlConfig::default().validate().unwrap();
        let bad = |text: &str| toml::from_str::<ControlConfig>(text).unwrap().validate().unwrap_err().to_string();
        assert!(bad("max_voters = 4").starts_with("control.max_voters: 4 is not an odd"));
        assert!(bad("groups = 0").starts_with("control.groups"));
        assert!(bad("election = ['100ms', '2s']").starts_with("control.election"));
        assert!(bad("beat = '2s'").starts_with("control.beat"));
        assert!(bad("down_after = '1s'").starts_with("control."));
        let join: JoinConfig = toml::from_str("token = 'vj1.x'").unwrap();
        assert!(join.validate().unwrap_err().to_string().starts_with("join.seeds"));
    }
}
