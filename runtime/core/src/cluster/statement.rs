//! What a node states to the others in its own name, whoever brings it: signed with its identity, checked by its id.

use super::Cluster;
use crate::identity::PublicKey;
use crate::node_id::NodeId;

/// Begins what is signed, so that no other signature of a node's key can pass for this one.
const PREFIX: &[u8] = b"village statement 1\0";

impl Cluster {
    /// Signs a statement of this node's; [`Cluster::has_stated`] checks it. A statement counts for its purpose and in this
    /// cluster only.
    #[must_use]
    pub fn state(&self, purpose: &str, statement: &[u8]) -> [u8; 64] {
        self.0.identity.sign(&signed(self.id(), purpose, statement))
    }

    /// Whether the node signed this statement. Nobody but a member states anything.
    #[must_use]
    pub fn has_stated(&self, node: NodeId, purpose: &str, statement: &[u8], signature: &[u8]) -> bool {
        self.0.key_of(node).is_some_and(|key| is_signed(key, node, &signed(self.id(), purpose, statement), signature))
    }
}

/// Prefix, cluster `u64 BE`, length of the purpose `u64 BE`, purpose, statement to the end.
fn signed(cluster: u64, purpose: &str, statement: &[u8]) -> Vec<u8> {
    let length = (purpose.len() as u64).to_be_bytes();
    [PREFIX, &cluster.to_be_bytes(), &length, purpose.as_bytes(), statement].concat()
}

fn is_signed(key: PublicKey, node: NodeId, signed: &[u8], signature: &[u8]) -> bool {
    key.node_id() == node && key.verify(signed, signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_statement_counts_for_one_node_one_cluster_and_one_purpose() {
        let (me, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (key, node) = (me.public_key(), me.node_id());
        let signature = me.sign(&signed(1, "keys", b"text"));
        assert!(is_signed(key, node, &signed(1, "keys", b"text"), &signature));
        let others = [signed(2, "keys", b"text"), signed(1, "key", b"stext"), signed(1, "keys", b"texts")];
        assert!(others.iter().all(|said| !is_signed(key, node, said, &signature)));
        assert!(!is_signed(key, other.node_id(), &signed(1, "keys", b"text"), &signature));
        assert!(!is_signed(other.public_key(), other.node_id(), &signed(1, "keys", b"text"), &signature));
    }
}
