//! Join tokens: what lets a node that is not a member become one.

use serde::{Deserialize, Serialize};

use super::command::ControlRefused;
use super::table::Table;

/// Tokens that may exist at once.
const TOKENS_MAX: usize = 1024;
/// Longest note in bytes.
const NOTE_MAX: usize = 256;

/// A join token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Names the token.
    pub id: u64,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// From this Unix millisecond on it is worth nothing.
    pub expires_at_ms: u64,
    /// Nodes that may still join with it.
    pub uses_left: u32,
    /// What an operator noted.
    pub note: String,
}

/// All join tokens. Those that are used up stay until they expire, so that their use can be told from a wrong one.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) rows: Table<u64, TokenRecord>,
}

impl Tokens {
    /// Adds a token and drops those that have expired.
    pub(super) fn create(&mut self, token: TokenRecord, now_ms: u64) -> Result<(), ControlRefused> {
        ControlRefused::if_larger("token note", token.note.len(), NOTE_MAX)?;
        match self.rows.get(&token.id) {
            Some(known) if known.secret_hash == token.secret_hash => return Ok(()),
            Some(_) => return Err(ControlRefused::IdTaken),
            None => {}
        }
        let live = self.rows.iter().filter(|(_, token)| now_ms < token.expires_at_ms).count();
        ControlRefused::if_more("join tokens", live + 1, TOKENS_MAX)?;
        self.rows.retain(|token| now_ms < token.expires_at_ms);
        self.rows.insert(token.id, token);
        Ok(())
    }

    pub(super) fn revoke(&mut self, id: u64) -> Result<(), ControlRefused> {
        self.rows.remove(&id).map(|_| ()).ok_or(ControlRefused::TokenUnknown)
    }

    /// Whether one more node may join.
    pub(super) fn check(&self, id: u64, secret_hash: &[u8; 32], now_ms: u64) -> Result<(), ControlRefused> {
        let token = self.rows.get(&id).filter(|token| token.secret_hash == *secret_hash);
        let token = token.ok_or(ControlRefused::TokenUnknown)?;
        if now_ms >= token.expires_at_ms {
            return Err(ControlRefused::TokenExpired);
        }
        if token.uses_left == 0 {
            return Err(ControlRefused::TokenUsed);
        }
        Ok(())
    }

    /// Takes one use of a token that was checked.
    pub(super) fn spend(&mut self, id: u64) {
        if let Some(token) = self.rows.change(&id) {
            token.uses_left = token.uses_left.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u64) -> TokenRecord {
        TokenRecord { id, secret_hash: [1; 32], expires_at_ms: 100, uses_left: 1, note: String::new() }
    }

    #[test]
    fn a_token_admits_as_many_as_it_says_until_it_expires() {
        let mut tokens = Tokens::default();
        tokens.create(token(1), 0).unwrap();
        assert_eq!(tokens.check(2, &[1; 32], 0), Err(ControlRefused::TokenUnknown));
        assert_eq!(tokens.check(1, &[2; 32], 0), Err(ControlRefused::TokenUnknown));
        assert_eq!(tokens.check(1, &[1; 32], 100), Err(ControlRefused::TokenExpired));
        assert_eq!(tokens.check(1, &[1; 32], 99), Ok(()));
        tokens.spend(1);
        assert_eq!(tokens.check(1, &[1; 32], 99), Err(ControlRefused::TokenUsed));
    }

    #[test]
    fn a_repeated_creation_does_not_refill_the_token() {
        let mut tokens = Tokens::default();
        tokens.create(token(1), 0).unwrap();
        tokens.spend(1);
        assert_eq!(tokens.create(token(1), 1), Ok(()));
        assert_eq!(tokens.check(1, &[1; 32], 1), Err(ControlRefused::TokenUsed));
        let other = TokenRecord { secret_hash: [2; 32], ..token(1) };
        assert_eq!(tokens.create(other, 1), Err(ControlRefused::IdTaken));
    }

    #[test]
    fn expired_tokens_make_room() {
        let mut tokens = Tokens::default();
        for id in 0..1024 {
            tokens.create(token(id), 0).unwrap();
        }
        let more = TokenRecord { expires_at_ms: 200, ..token(2000) };
        assert!(matches!(tokens.create(more.clone(), 99), Err(ControlRefused::Limit { max: 1024, .. })));
        assert_eq!(tokens.create(more, 100), Ok(()));
        assert_eq!(tokens.rows.len(), 1);
    }

    #[test]
    fn a_revoked_token_is_unknown() {
        let mut tokens = Tokens::default();
        tokens.create(token(1), 0).unwrap();
        assert_eq!(tokens.revoke(1), Ok(()));
        assert_eq!(tokens.check(1, &[1; 32], 0), Err(ControlRefused::TokenUnknown));
        assert_eq!(tokens.revoke(1), Err(ControlRefused::TokenUnknown));
        let long = TokenRecord { note: "x".repeat(257), ..token(1) };
        assert!(matches!(tokens.create(long, 0), Err(ControlRefused::TooLarge { max: 256, .. })));
    }
}
