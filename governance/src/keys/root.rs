//! The root of all keys, which moves on with each epoch and cannot go back.
//!
//! It is one secret, the *chain key* of the oldest epoch that is kept. HKDF-SHA256 makes two things of it: the key of that
//! epoch, and the chain key of the next. To destroy an epoch is to replace the chain key by the next one; nobody computes it
//! backwards. Nodes that have the same root have the same epoch keys without telling each other any: a random key per epoch
//! would have to be brought to every node, through a log that keeps it for those who have a backup of the log.
//!
//! What this does not give: whoever takes the root today can follow the chain. Against that helps a new root.

use std::fmt;

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};

use super::error::CryptError;
use super::secret::Secret;

/// Epochs that are kept: the current one and the one before.
pub const KEPT_EPOCHS: u64 = 2;
/// How far a state may be ahead of this node's epoch: a node that was away for ten years of daily epochs.
const MAX_AHEAD: u64 = 4_000;

/// The root key at some point of its chain.
pub struct Root {
    chain: Secret,
    first: u64,
    current: u64,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("first", &self.first).field("current", &self.current).finish_non_exhaustive()
    }
}

impl Root {
    /// A new root at epoch 1.
    ///
    /// # Errors
    /// [`CryptError::NoRandom`].
    pub fn generate() -> Result<Self, CryptError> {
        Ok(Self { chain: Secret::generate()?, first: 1, current: 1 })
    }

    /// Goes on from a chain key; none if these are not epochs that a root can have.
    pub(crate) fn resume(chain: Secret, first: u64, current: u64) -> Option<Self> {
        let ahead = current.checked_sub(first)?;
        (first > 0 && ahead < MAX_AHEAD).then_some(Self { chain, first, current })
    }

    /// The oldest epoch whose key exists.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The epoch that new keys are wrapped in.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.current
    }

    pub(crate) fn chain(&self) -> &Secret {
        &self.chain
    }

    /// Begins the next epoch; nothing is destroyed yet.
    pub(crate) fn advance(&mut self) {
        self.current += 1;
    }

    /// Goes on to an epoch that other nodes have begun; nothing is destroyed yet.
    ///
    /// # Errors
    /// [`CryptError::EpochAhead`].
    pub(crate) fn reach(&mut self, epoch: u64) -> Result<(), CryptError> {
        if epoch.saturating_sub(self.first) >= MAX_AHEAD {
            return Err(CryptError::EpochAhead { epoch, current: self.current });
        }
        self.current = self.current.max(epoch);
        Ok(())
    }

    /// Tells this root from others, by what it is at an epoch. It tells nothing of the keys.
    ///
    /// # Errors
    /// As [`Root::epoch_key`].
    pub(crate) fn mark(&self, epoch: u64) -> Result<[u8; 32], CryptError> {
        Ok(*derive(&self.epoch_key(epoch)?, b"aivillage mark of an epoch").bytes())
    }

    /// Destroys the keys of epochs before `epoch`, but keeps the newest [`KEPT_EPOCHS`].
    pub(crate) fn retire(&mut self, epoch: u64) {
        let until = epoch.min((self.current + 1).saturating_sub(KEPT_EPOCHS));
        while self.first < until {
            self.chain = derive(&self.chain, b"aivillage next epoch");
            self.first += 1;
        }
    }

    /// The key of an epoch, also of one that other nodes have begun already.
    ///
    /// # Errors
    /// [`CryptError::EpochGone`], [`CryptError::EpochAhead`].
    pub(crate) fn epoch_key(&self, epoch: u64) -> Result<Secret, CryptError> {
        let Some(steps) = epoch.checked_sub(self.first) else {
            return Err(CryptError::EpochGone { epoch, first: self.first });
        };
        if epoch > self.current.saturating_add(MAX_AHEAD) {
            return Err(CryptError::EpochAhead { epoch, current: self.current });
        }
        let mut chain = derive(&self.chain, b"aivillage this epoch");
        if steps > 0 {
            chain = derive(&self.chain, b"aivillage next epoch");
            for _ in 1..steps {
                chain = derive(&chain, b"aivillage next epoch");
            }
            chain = derive(&chain, b"aivillage this epoch");
        }
        Ok(chain)
    }
}

/// HKDF-Expand to 32 bytes, RFC 5869 section 2.3: `T(1) = HMAC(PRK, info | 0x01)`. The chain key is uniformly random, so nothing
/// has to be extracted first. `aws_lc_rs::hkdf` would keep a copy of the chain key that nobody overwrites.
pub(super) fn derive(chain: &Secret, info: &[u8]) -> Secret {
    let mut mac = Context::with_key(&Key::new(HMAC_SHA256, chain.bytes()));
    mac.update(info);
    mac.update(&[1]);
    let mut out = Secret::zero();
    out.bytes_mut().copy_from_slice(mac.sign().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Root {
        Root::resume(Secret::take(&mut [1; 32]), 1, 1).unwrap()
    }

    fn key(root: &Root, epoch: u64) -> [u8; 32] {
        *root.epoch_key(epoch).unwrap().bytes()
    }

    #[test]
    fn epochs_have_keys_of_their_own_that_stay() {
        let mut root = root();
        let keys: Vec<_> = (1..6).map(|epoch| key(&root, epoch)).collect();
        for (at, one) in keys.iter().enumerate() {
            assert!(keys[..at].iter().all(|other| other != one) && one != root.chain().bytes());
        }
        for epoch in 2..6 {
            root.advance();
            root.retire(epoch);
            assert_eq!((root.first(), root.current()), (epoch - 1, epoch));
            assert_eq!(key(&root, epoch), keys[usize::try_from(epoch).unwrap() - 1]);
            assert_eq!(key(&root, epoch - 1), keys[usize::try_from(epoch).unwrap() - 2]);
        }
    }

    #[test]
    fn destroyed_epochs_are_gone_and_far_ones_refused() {
        let mut root = root();
        root.retire(9);
        assert_eq!(root.first(), 1, "the newest epochs are kept whatever is asked");
        root.advance();
        root.advance();
        root.retire(1);
        assert_eq!(root.first(), 1, "an epoch that is in use is kept");
        root.retire(3);
        assert_eq!(root.epoch_key(1).err(), Some(CryptError::EpochGone { epoch: 1, first: 2 }));
        assert_eq!(root.epoch_key(u64::MAX).err(), Some(CryptError::EpochAhead { epoch: u64::MAX, current: 3 }));
    }

    #[test]
    fn roots_have_marks_of_their_own_that_stay() {
        let (mut root, other) = (root(), Root::generate().unwrap());
        let mark = root.mark(5).unwrap();
        root.reach(5).unwrap();
        root.reach(3).unwrap();
        root.retire(4);
        assert_eq!((root.first(), root.current(), root.mark(5).unwrap()), (4, 5, mark));
        assert!(mark != other.mark(5).unwrap() && mark != root.mark(4).unwrap() && mark != key(&root, 5));
        assert!(matches!(root.reach(u64::MAX), Err(CryptError::EpochAhead { epoch: u64::MAX, current: 5 })));
        assert_eq!(root.mark(3).err(), Some(CryptError::EpochGone { epoch: 3, first: 4 }));
    }

    #[test]
    fn epochs_that_no_root_has_are_refused() {
        for (first, current) in [(0, 1), (2, 1), (1, u64::MAX)] {
            assert!(Root::resume(Secret::zero(), first, current).is_none());
        }
    }

    #[test]
    fn derivation_is_that_of_rfc_5869() {
        // Appendix A.1: the PRK, the info f0f1..f9, the first 32 bytes of the OKM.
        let unhex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let prk = unhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
        let out = derive(&Secret::take(&mut prk.try_into().unwrap()), &unhex("f0f1f2f3f4f5f6f7f8f9"));
        assert_eq!(out.bytes()[..], unhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"));
    }
}
