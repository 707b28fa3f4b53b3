//! Who is at the other end of a session. TLS proved a key, `ractor_cluster` a shared secret and nothing else; here the
//! names that a peer goes by are compared with its key.

use std::collections::HashMap;

use parking_lot::RwLock;

use crate::node_id::NodeId;

/// Why a session is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// It did not come in through this node's own door.
    Stream,
    /// The peer calls itself something else.
    Name,
    /// Its gateway is missing, or stands for another node.
    Gateway,
}

impl Mismatch {
    /// The reason as a metric's label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "session_stream",
            Self::Name => "session_name",
            Self::Gateway => "session_gateway",
        }
    }
}

/// The full name that `ractor_cluster` makes of a node's name and its host, which are both the node's id.
pub(super) fn full_name(node: NodeId) -> String {
    format!("{node}@{node}")
}

/// `label` is that of the stream, `name` what the peer said in its handshake, `gateways` the nodes for which it has a gateway.
pub(super) fn check(label: &str, name: Option<&str>, gateways: &[String]) -> Result<NodeId, Mismatch> {
    let node: NodeId = label.parse().map_err(|_| Mismatch::Stream)?;
    if name != Some(&*full_name(node)) {
        return Err(Mismatch::Name);
    }
    let [gateway] = gateways else { return Err(Mismatch::Gateway) };
    if *gateway == node.to_string() { Ok(node) } else { Err(Mismatch::Gateway) }
}

/// The members at the other ends of the sessions that passed the check, by the number that `ractor_cluster` gives a session.
/// Invariant: one session a member.
#[derive(Debug, Default)]
pub(crate) struct Table(RwLock<HashMap<u64, NodeId>>);

impl Table {
    pub(crate) fn member(&self, session: u64) -> Option<NodeId> {
        self.0.read().get(&session).copied()
    }

    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.0.read().values().any(|member| *member == node)
    }

    pub(crate) fn all(&self) -> Vec<(u64, NodeId)> {
        self.0.read().iter().map(|(session, node)| (*session, *node)).collect()
    }

    pub(super) fn admit(&self, session: u64, node: NodeId) {
        let mut sessions = self.0.write();
        sessions.retain(|_, member| *member != node);
        sessions.insert(session, node);
    }

    pub(super) fn forget(&self, session: u64) {
        self.0.write().remove(&session);
    }

    pub(super) fn clear(&self) {
        self.0.write().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_name_and_gateway_must_agree() {
        let (node, other) = (NodeId(0xab), NodeId(0xac));
        let label = node.to_string();
        let gateways = |nodes: &[NodeId]| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>();
        let is = |label: &str, name: Option<&str>, nodes: &[NodeId]| check(label, name, &gateways(nodes));
        assert_eq!(is(&label, Some(&full_name(node)), &[node]), Ok(node));
        assert_eq!(is("127.0.0.1:4100", Some(&full_name(node)), &[node]), Err(Mismatch::Stream));
        for name in [None, Some(""), Some(&*label), Some(&*full_name(other))] {
            assert_eq!(is(&label, name, &[node]), Err(Mismatch::Name), "{name:?}");
        }
        for nodes in [&[][..], &[other], &[node, other]] {
            assert_eq!(is(&label, Some(&full_name(node)), nodes), Err(Mismatch::Gateway), "{nodes:?}");
        }
    }

    #[test]
    fn a_member_has_one_session() {
        let (table, node) = (Table::default(), NodeId(1));
        table.admit(4, node);
        table.admit(5, node);
        assert_eq!((table.member(4), table.member(5)), (None, Some(node)));
        table.forget(4);
        assert!(table.has(node));
        table.forget(5);
        assert!(!table.has(node));
    }
}
