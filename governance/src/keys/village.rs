//! What every node of a village knows, and nothing that it stores in the clear: [`VillageSecret`].

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use zeroize::Zeroizing;

use super::root::derive;
use super::secret::Secret;

/// A secret that does not change, the same on every node; keys for one purpose each are derived of it. Clones see the same.
///
/// A node that founds a village makes it, one that joins gets it from a member, so it is not there at once.
#[derive(Clone)]
pub struct VillageSecret(Arc<Shared>);

struct Shared {
    secret: OnceLock<Secret>,
    is_there: watch::Sender<bool>,
}

impl Default for VillageSecret {
    fn default() -> Self {
        Self(Arc::new(Shared { secret: OnceLock::new(), is_there: watch::Sender::new(false) }))
    }
}

impl fmt::Debug for VillageSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VillageSecret").field("is_there", &self.is_there()).finish()
    }
}

impl VillageSecret {
    /// Takes the secret; the first one stays.
    pub fn set(&self, mut bytes: Zeroizing<[u8; 32]>) {
        self.0.secret.get_or_init(|| Secret::take(&mut bytes));
        self.0.is_there.send_replace(true);
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.secret.get().is_some()
    }

    /// Waits until it is.
    pub async fn ready(&self) {
        // The sender lives as long as this does.
        let _ = self.0.is_there.subscribe().wait_for(|is_there| *is_there).await;
    }

    /// The secret itself, for another member.
    pub(super) fn bytes(&self) -> Option<Zeroizing<[u8; 32]>> {
        self.0.secret.get().map(|secret| Zeroizing::new(*secret.bytes()))
    }

    /// A key for one purpose, by HKDF-Expand with SHA-256 (RFC 5869); none before the secret is there. A purpose is never used
    /// for two things.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Option<Zeroizing<[u8; 32]>> {
        let info = format!("aivillage for {purpose}");
        self.0.secret.get().map(|secret| Zeroizing::new(*derive(secret, info.as_bytes()).bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_the_same_on_every_node_and_differ_by_purpose() {
        let (a, b) = (VillageSecret::default(), VillageSecret::default());
        assert_eq!(a.derive("pepper"), None);
        let set = async {
            for secret in [&a, &b] {
                secret.set(Zeroizing::new([7; 32]));
            }
        };
        tokio::join!(a.ready(), set);
        assert_eq!(a.derive("pepper"), b.derive("pepper"));
        assert_ne!(a.derive("pepper"), a.derive("totp"));
        a.set(Zeroizing::new([8; 32]));
        assert_eq!(a.derive("pepper"), b.derive("pepper"), "the first one stays");
        assert_eq!(format!("{a:?}"), "VillageSecret { is_there: true }");
    }
}
