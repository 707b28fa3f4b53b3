//! `[governance.policy]` of `cluster.toml`.

use std::time::Duration;

use aivillage_runtime::config::Period;
use serde::{Deserialize, Serialize};

use super::sources::{Sources, SourcesError};

/// `dir` of a node that has no folder of policies.
const EMBEDDED: &str = "embedded";

/// Where policies come from and what is remembered of decisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// `embedded`, or a folder of policies for as long as the cluster has decided on none.
    pub dir: String,
    /// Decisions that are remembered.
    pub cache: usize,
    /// How often a node looks whether the cluster has newer policies.
    pub refresh: Period,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        // Less than the second after which a revocation has to count.
        Self { dir: EMBEDDED.to_owned(), cache: 100_000, refresh: Duration::from_millis(500).into() }
    }
}

impl PolicyConfig {
    /// The files of the folder.
    pub(super) fn sources(&self) -> Result<Sources, SourcesError> {
        if self.dir == EMBEDDED { Ok(Sources::embedded()) } else { Sources::read_dir(&self.dir) }
    }
}
