//! Cursors of paged lists: where the last page ended, for which filter, signed by this village.
//!
//! Text form: base64url( MAC 8 bytes | filter hash 8 bytes | last key, UTF-8 ). The MAC is BLAKE3 with a key that the village keeps
//! and all its nodes have, so a cursor outlives a restart, and a mistake does not pass for one. It guards no secret: whoever
//! made one up would start the list somewhere else, and read no more than the list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::error::{ApiError, Code};

/// Longest cursor that is looked at; keys are at most 512 bytes.
const MAX_TEXT: usize = 1_024;

/// `?limit=&cursor=` of a list.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PageQuery {
    /// Items wanted, 1 to 200.
    limit: Option<u32>,
    /// Where the page before ended.
    cursor: Option<String>,
}

impl PageQuery {
    /// From parameters that were read with others.
    pub(crate) fn new(limit: Option<u32>, cursor: Option<String>) -> Self {
        PageQuery { limit, cursor }
    }
}

/// One page request, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Items wanted.
    pub(crate) limit: usize,
    /// The last key of the page before.
    pub(crate) after: Option<String>,
}

/// Signs and checks cursors.
#[derive(Clone)]
pub(crate) struct Cursors {
    key: [u8; 32],
}

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cursors")
    }
}

impl Cursors {
    /// With the secret `key`.
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Cursors { key }
    }

    /// The cursor behind `last` in the list named `filter`.
    pub(crate) fn issue(&self, filter: &str, last: &str) -> String {
        let body = body(filter, last);
        let mut bytes = self.mac(&body).to_vec();
        bytes.extend_from_slice(&body);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Checks a page request against the list named `filter`.
    pub(crate) fn page(&self, filter: &str, query: PageQuery) -> Result<Page, ApiError> {
        let limit = query.limit.unwrap_or(50);
        if !(1..=200).contains(&limit) {
            return Err(ApiError::new(Code::BadRequest, "limit must be between 1 and 200").param("limit"));
        }
        let after = query.cursor.map(|text| self.read(filter, &text)).transpose()?;
        Ok(Page { limit: limit as usize, after })
    }

    fn read(&self, filter: &str, text: &str) -> Result<String, ApiError> {
        let refuse = || ApiError::new(Code::BadCursor, "use the next_cursor of the page before, with the same filter");
        if text.len() > MAX_TEXT {
            return Err(refuse());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse())?;
        let (mac, rest) = bytes.split_at_checked(8).ok_or_else(refuse)?;
        if !bool::from(mac.ct_eq(&self.mac(rest))) {
            return Err(refuse());
        }
        let (hash, last) = rest.split_at_checked(8).ok_or_else(refuse)?;
        if hash != filter_hash(filter) {
            return Err(refuse());
        }
        String::from_utf8(last.to_vec()).map_err(|_| refuse())
    }

    fn mac(&self, body: &[u8]) -> [u8; 8] {
        first8(blake3::keyed_hash(&self.key, body))
    }
}

fn body(filter: &str, last: &str) -> Vec<u8> {
    let mut body = filter_hash(filter).to_vec();
    body.extend_from_slice(last.as_bytes());
    body
}

fn filter_hash(filter: &str) -> [u8; 8] {
    first8(blake3::hash(filter.as_bytes()))
}

fn first8(hash: blake3::Hash) -> [u8; 8] {
    let mut first = [0; 8];
    first.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(cursor: &str) -> PageQuery {
        PageQuery { limit: None, cursor: Some(cursor.to_owned()) }
    }

    #[test]
    fn limits_outside_the_range_are_refused() {
        let cursors = Cursors::new([7; 32]);
        for limit in [0, 201, u32::MAX] {
            assert!(cursors.page("", PageQuery { limit: Some(limit), cursor: None }).is_err());
        }
        assert_eq!(cursors.page("", PageQuery::default()).unwrap(), Page { limit: 50, after: None });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn round_trip_and_tamper(last in ".{0,60}", filter in ".{0,20}", at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let cursors = Cursors::new([7; 32]);
            let text = cursors.issue(&filter, &last);
            prop_assert_eq!(cursors.page(&filter, query(&text)).unwrap().after, Some(last));
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(cursors.page(&filter, query(&URL_SAFE_NO_PAD.encode(bytes))).is_err());
            let other = format!("{filter}x");
            prop_assert!(cursors.page(&other, query(&text)).is_err());
            prop_assert!(Cursors::new([8; 32]).page(&filter, query(&text)).is_err());
        }

        #[test]
        fn garbage_is_refused(text in ".{0,80}") {
            prop_assert!(Cursors::new([7; 32]).page("", query(&text)).is_err());
        }
    }
}
