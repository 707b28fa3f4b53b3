//! Who asked. Opaque to the runtime, carried with every message; governance interprets it.

use serde::{Deserialize, Serialize};

/// What a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program with a key of its own.
    Service,
    /// An agent of the village.
    Agent,
    /// A node of the cluster.
    Node,
}

/// The caller on whose behalf a message is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Isolation boundary.
    pub tenant: String,
    /// Name within the tenant.
    pub subject: String,
    /// What the caller is.
    pub kind: PrincipalKind,
    /// Roles granted, e.g. `admin`.
    pub roles: Vec<String>,
    /// Narrowing of the roles; empty means no narrowing.
    pub scopes: Vec<String>,
}

impl Principal {
    /// Whether `role` was granted.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }
}
