//! The answers of one shard of idempotency keys, and the claims that wait for one, in the store of its group.
//!
//! | tree | key | value |
//! |---|---|---|
//! | [`CLAIMS`] | shard, key | [`Claim`] |
//! | [`ANSWERS`] | shard, key | [`Head`] |
//! | [`PARTS`] | shard, key, `part u32 BE` | part of a body that is too large for the head |
//!
//! Shard: first 8 bytes of BLAKE3 of the actor's key. Values are postcard; those of [`ANSWERS`] begin with [`SCHEMA`]. Parts are written before their head, which makes
//! them count; parts that no head names were left by an interruption and are swept. An answer takes the place of its claim.

use std::collections::BTreeSet;
use std::sync::Arc;

use aivillage_governance::keys::{Kept as Sealed, SubjectTag};
use aivillage_runtime::store::{Batch, Level, Store, StoreError, TreeId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Answer, Claim, StoredResponse};
use crate::shelf::Shelf;

/// Answers, with small bodies.
const ANSWERS: TreeId = TreeId(66);
/// Parts of large bodies.
const PARTS: TreeId = TreeId(67);
/// Claims of keys that have no answer yet.
const CLAIMS: TreeId = TreeId(69);
/// Bytes of a part, and of a body that needs none: a replicated commit takes 256 KiB.
const PART: usize = 64 * 1024;
/// How long an answer is kept, and a claim without one.
pub(super) const KEEP_MS: u64 = 24 * 60 * 60 * 1_000;
/// Records looked at in one step of a sweep.
const SWEEP: usize = 64;

/// First byte of a [`Head`]. One of before, when answers were not sealed, begins with the low bits of a time of now and the
/// sign that more follow, which is 128 or more.
const SCHEMA: u8 = 2;

/// A record of [`ANSWERS`].
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    at_ms: u64,
    hash: [u8; 32],
    /// Whom it is sealed for; none in the clear.
    subject: Option<SubjectTag>,
    /// Empty if it is in parts.
    response: ByteBuf,
    parts: u32,
    /// Status and headers of an answer of before; what is kept is its body then.
    #[serde(skip)]
    unsealed: Option<(u16, Vec<(String, ByteBuf)>)>,
}

/// What a [`Head`] was before answers were sealed.
#[derive(Deserialize)]
struct ClearHead {
    at_ms: u64,
    hash: [u8; 32],
    status: u16,
    headers: Vec<(String, ByteBuf)>,
    body: ByteBuf,
    parts: u32,
}

impl Head {
    fn read(stored: &[u8]) -> Result<Self, StoreError> {
        if let Some(head) = stored.strip_prefix(&[SCHEMA]) {
            return postcard::from_bytes(head).map_err(|error| unreadable(&error));
        }
        let ClearHead { at_ms, hash, status, headers, body, parts } =
            postcard::from_bytes(stored).map_err(|error| unreadable(&error))?;
        Ok(Self { at_ms, hash, subject: None, response: body, parts, unsealed: Some((status, headers)) })
    }

    fn write(&self) -> Result<Vec<u8>, StoreError> {
        postcard::to_extend(self, vec![SCHEMA]).map_err(|error| unreadable(&error))
    }

    fn expired(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) >= KEEP_MS
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Kept(Shelf);

impl Kept {
    /// The answers of the actor with this key.
    pub(super) async fn open(store: Arc<dyn Store>, actor: &str) -> Result<Self, StoreError> {
        Shelf::open(store, actor).await.map(Self)
    }

    /// The answer for a key, unless it has expired.
    pub(super) fn get(&self, key: [u8; 32], now_ms: u64) -> Result<Option<Answer>, StoreError> {
        let Some(head) = self.head(&key)?.filter(|head| !head.expired(now_ms)) else { return Ok(None) };
        self.answer(&key, head).map(Some)
    }

    fn answer(&self, key: &[u8; 32], head: Head) -> Result<Answer, StoreError> {
        let mut response = head.response.into_vec();
        for part in 0..head.parts {
            let part = self.0.get(PARTS, &[key, &part.to_be_bytes()])?;
            response.extend_from_slice(&part.ok_or_else(|| unreadable(&"a part is missing"))?);
        }
        let response = match (head.unsealed, head.subject) {
            (Some((status, headers)), _) => Sealed::clear(&StoredResponse { status, headers, body: response })?,
            (None, None) => Sealed::Clear(response.into()),
            (None, Some(subject)) => Sealed::Sealed(subject, response.into()),
        };
        Ok(Answer { hash: head.hash, response })
    }

    /// The claim of a key, unless it has expired.
    pub(super) fn claim(&self, key: [u8; 32], now_ms: u64) -> Result<Option<Claim>, StoreError> {
        Ok(self.stored_claim(&key)?.filter(|claim| !claim.expired(now_ms)))
    }

    /// Writes the claim of a key. The members of a group agree on it; on a node alone a loss of power may lose it, which
    /// ends the claim's request too.
    pub(super) async fn set_claim(&self, key: [u8; 32], claim: &Claim) -> Result<(), StoreError> {
        let bytes = postcard::to_allocvec(claim).map_err(|error| unreadable(&error))?;
        self.0.commit(Batch::new().put(CLAIMS, self.0.key(&[&key]), bytes), Level::Async).await
    }

    /// Keeps an answer, and ends its claim; it is durable when this returns.
    pub(super) async fn put(&self, key: [u8; 32], now_ms: u64, answer: Answer) -> Result<(), StoreError> {
        let Answer { hash, response } = answer;
        let subject = response.subject();
        let (Sealed::Clear(mut inline) | Sealed::Sealed(_, mut inline)) = response;
        let mut parts = 0_u32;
        if inline.len() > PART {
            for part in std::mem::take(&mut inline).chunks(PART) {
                let batch = Batch::new().put(PARTS, self.0.key(&[&key, &parts.to_be_bytes()]), part);
                self.0.commit(batch, Level::Async).await?;
                parts += 1;
            }
        }
        let bytes = Head { at_ms: now_ms, hash, subject, response: inline, parts, unsealed: None }.write()?;
        let batch = Batch::new().put(ANSWERS, self.0.key(&[&key]), bytes).delete(CLAIMS, self.0.key(&[&key]));
        self.0.commit(batch, Level::Disk).await
    }

    /// Removes what has expired or is left over among the next few keys; the key to go on with, if there are more.
    pub(super) async fn sweep(&self, from: Option<[u8; 32]>, now_ms: u64) -> Result<Option<[u8; 32]>, StoreError> {
        let from = from.unwrap_or_default();
        let [claims, heads, parts] = [self.keys(CLAIMS, &from)?, self.keys(ANSWERS, &from)?, self.keys(PARTS, &from)?];
        // Up to the shortest of the pages all are known.
        let last = |keys: &[[u8; 32]]| keys.last().filter(|_| keys.len() == SWEEP).copied();
        let until = [last(&claims), last(&heads), last(&parts)].into_iter().flatten().min();
        let seen = claims.into_iter().chain(heads).chain(parts).filter(|key| until.is_none_or(|until| *key <= until));
        let mut batch = Batch::new();
        for key in seen.collect::<BTreeSet<_>>() {
            if self.stored_claim(&key)?.is_some_and(|claim| claim.expired(now_ms)) {
                batch = batch.delete(CLAIMS, self.0.key(&[&key]));
            }
            let kept = self.head(&key)?.filter(|head| !head.expired(now_ms)).map(|head| head.parts);
            if kept.is_none() {
                batch = batch.delete(ANSWERS, self.0.key(&[&key]));
            }
            for part in self.parts_from(&key, kept.unwrap_or(0))? {
                batch = batch.delete(PARTS, self.0.key(&[&part]));
            }
        }
        if !batch.is_empty() {
            self.0.commit(batch, Level::Async).await?;
        }
        Ok(until.and_then(after))
    }

    /// The keys whose answers one person got, in their order.
    pub(super) fn keys_of(&self, subject: SubjectTag) -> Result<Vec<[u8; 32]>, StoreError> {
        let (mut found, mut from) = (Vec::new(), Some([0; 32]));
        while let Some(first) = from {
            let page = self.0.page(ANSWERS, &first, SWEEP)?;
            from = None;
            let is_full = page.len() == SWEEP;
            for (key, stored) in page {
                let key = *key.first_chunk().ok_or_else(|| unreadable(&"a key is short"))?;
                if Head::read(&stored)?.subject == Some(subject) {
                    found.push(key);
                }
                from = after(key).filter(|_| is_full);
            }
        }
        Ok(found)
    }

    /// The answers that one person got.
    pub(super) fn of(&self, subject: SubjectTag) -> Result<Vec<([u8; 32], Answer)>, StoreError> {
        let mut all = Vec::new();
        for key in self.keys_of(subject)? {
            if let Some(head) = self.head(&key)? {
                all.push((key, self.answer(&key, head)?));
            }
        }
        Ok(all)
    }

    /// Removes the answers that one person got, and tells how many.
    pub(super) async fn forget(&self, subject: SubjectTag) -> Result<u64, StoreError> {
        let keys = self.keys_of(subject)?;
        for some in keys.chunks(SWEEP) {
            let mut batch = Batch::new();
            for key in some {
                batch = batch.delete(ANSWERS, self.0.key(&[key]));
                for part in self.parts_from(key, 0)? {
                    batch = batch.delete(PARTS, self.0.key(&[&part]));
                }
            }
            self.0.commit(batch, Level::Disk).await?;
        }
        Ok(keys.len() as u64)
    }

    fn head(&self, key: &[u8; 32]) -> Result<Option<Head>, StoreError> {
        self.0.get(ANSWERS, &[key])?.map(|stored| Head::read(&stored)).transpose()
    }

    fn stored_claim(&self, key: &[u8; 32]) -> Result<Option<Claim>, StoreError> {
        let stored = self.0.get(CLAIMS, &[key])?;
        stored.map(|bytes| postcard::from_bytes(&bytes).map_err(|error| unreadable(&error))).transpose()
    }

    /// The keys of the next records of a tree.
    fn keys(&self, tree: TreeId, from: &[u8]) -> Result<Vec<[u8; 32]>, StoreError> {
        let page = self.0.page(tree, from, SWEEP)?;
        page.iter().map(|(key, _)| key.first_chunk().copied().ok_or_else(|| unreadable(&"a key is short"))).collect()
    }

    /// The keys of an answer's parts from a number on; there are few.
    fn parts_from(&self, key: &[u8; 32], from: u32) -> Result<Vec<Bytes>, StoreError> {
        let page = self.0.page(PARTS, &[&key[..], &from.to_be_bytes()].concat(), SWEEP)?;
        Ok(page.into_iter().map(|(part, _)| part).take_while(|part| part.starts_with(key)).collect())
    }
}

/// The least key that is greater.
fn after(mut key: [u8; 32]) -> Option<[u8; 32]> {
    for byte in key.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(key);
        }
    }
    None
}

fn unreadable(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Decode { what: "idempotency record", detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use aivillage_governance::keys::TenantId;
    use aivillage_runtime::store::MemoryStore;
    use aivillage_runtime::{NodeId, Run};

    use super::*;

    fn claim(first_ms: u64) -> Claim {
        let by = Run { node: NodeId(7), incarnation: 1 };
        Claim { name: [3; 16], by, hash: [7; 32], first_ms, hold_ms: 1, is_released: true }
    }

    fn answer(bytes: usize) -> Answer {
        Answer { hash: [7; 32], response: Sealed::Clear((0..=255).cycle().take(bytes).collect::<Vec<u8>>().into()) }
    }

    fn sealed(subject: &str, bytes: usize) -> Answer {
        let tag = SubjectTag::of(TenantId::of("local"), subject).unwrap();
        Answer { hash: [7; 32], response: Sealed::Sealed(tag, vec![9; bytes].into()) }
    }

    async fn kept(store: &Arc<MemoryStore>, key: &str) -> Kept {
        Kept::open(store.clone(), key).await.unwrap()
    }

    fn count(store: &MemoryStore) -> usize {
        [CLAIMS, ANSWERS, PARTS].iter().map(|tree| store.scan(*tree, &[], usize::MAX).unwrap().len()).sum()
    }

    async fn sweep_all(kept: &Kept, now_ms: u64) {
        let mut from = None;
        loop {
            from = kept.sweep(from, now_ms).await.unwrap();
            if from.is_none() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn answers_of_any_size_are_the_same_for_the_next_activation() {
        let store = Arc::<MemoryStore>::default();
        for (key, bytes) in [(1, 0), (2, 1), (3, PART), (4, PART + 1), (5, 1 << 20)] {
            kept(&store, "local:1").await.put([key; 32], 1, answer(bytes)).await.unwrap();
            let again = kept(&store, "local:1").await.get([key; 32], 1).unwrap();
            assert_eq!(again, Some(answer(bytes)), "{bytes}");
            assert_eq!(kept(&store, "local:2").await.get([key; 32], 1).unwrap(), None);
        }
    }

    #[tokio::test]
    async fn sweep_removes_only_what_expired() {
        let store = Arc::<MemoryStore>::default();
        let (one, two) = (kept(&store, "local:1").await, kept(&store, "local:2").await);
        for key in 0..200 {
            one.put([key; 32], u64::from(key % 2), answer(if key % 8 < 2 { 3 * PART } else { 1 })).await.unwrap();
        }
        two.put([0; 32], 0, answer(1)).await.unwrap();
        sweep_all(&one, KEEP_MS).await;
        for key in 0..200 {
            let found = one.get([key; 32], 1).unwrap();
            assert_eq!(found, (key % 2 == 1).then(|| answer(if key % 8 < 2 { 3 * PART } else { 1 })), "{key}");
        }
        assert!(two.get([0; 32], 1).unwrap().is_some(), "another shard's");
        sweep_all(&one, KEEP_MS + 1).await;
        assert_eq!(count(&store), 1);
    }

    #[tokio::test]
    async fn a_claim_stays_until_its_answer_comes_or_it_expires() {
        let store = Arc::<MemoryStore>::default();
        let one = kept(&store, "local:1").await;
        for key in 0..200 {
            one.set_claim([key; 32], &claim(u64::from(key % 2))).await.unwrap();
        }
        one.put([1; 32], 1, answer(1)).await.unwrap();
        assert_eq!(kept(&store, "local:1").await.claim([1; 32], 1).unwrap(), None);
        assert_eq!(kept(&store, "local:2").await.claim([3; 32], 1).unwrap(), None, "another shard's");
        sweep_all(&one, KEEP_MS).await;
        assert_eq!(count(&store), 100);
        assert_eq!(kept(&store, "local:1").await.claim([3; 32], KEEP_MS).unwrap(), Some(claim(1)));
        assert_eq!(one.claim([3; 32], KEEP_MS + 1).unwrap(), None);
    }

    #[tokio::test]
    async fn parts_without_a_head_are_swept() {
        let store = Arc::<MemoryStore>::default();
        let kept = kept(&store, "local:1").await;
        kept.put([1; 32], 1, answer(3 * PART)).await.unwrap();
        store.commit(Batch::new().delete(ANSWERS, kept.0.key(&[&[1; 32]])), Level::Disk).await.unwrap();
        // An interrupted longer one, whose key was then answered shortly.
        kept.put([2; 32], 1, answer(3 * PART)).await.unwrap();
        kept.put([2; 32], 1, answer(2 * PART)).await.unwrap();
        sweep_all(&kept, 2).await;
        assert_eq!(kept.get([2; 32], 2).unwrap(), Some(answer(2 * PART)));
        assert_eq!(count(&store), 3);
    }

    #[tokio::test]
    async fn what_one_person_got_is_found_and_removed_with_its_parts() {
        let store = Arc::<MemoryStore>::default();
        let kept = kept(&store, "local:1").await;
        let ada = SubjectTag::of(TenantId::of("local"), "ada").unwrap();
        for key in 0..150 {
            let whose = if key % 2 == 0 { "ada" } else { "bob" };
            kept.put([key; 32], 1, sealed(whose, if key < 4 { 3 * PART } else { 1 })).await.unwrap();
        }
        kept.put([200; 32], 1, answer(1)).await.unwrap();
        let of_ada = kept.of(ada).unwrap();
        assert_eq!((of_ada.len(), of_ada.first()), (75, Some(&([0; 32], sealed("ada", 3 * PART)))));
        assert_eq!((kept.forget(ada).await.unwrap(), kept.forget(ada).await.unwrap()), (75, 0));
        assert_eq!(kept.get([2; 32], 1).unwrap(), None);
        assert_eq!(kept.get([3; 32], 1).unwrap(), Some(sealed("bob", 3 * PART)));
        // 75 of bob's, two of them with three parts, and the one that is nobody's.
        assert_eq!(count(&store), 75 + 6 + 1);
    }

    #[tokio::test]
    async fn an_answer_of_before_they_were_sealed_is_read() {
        let store = Arc::<MemoryStore>::default();
        let kept = kept(&store, "local:1").await;
        let (headers, at_ms) = (vec![("etag".to_owned(), ByteBuf::from([b'"', 0xff]))], 1_790_000_000_000_u64);
        let old = postcard::to_allocvec(&(at_ms, [7_u8; 32], 201_u16, &headers, ByteBuf::from([1, 2]), 0_u32)).unwrap();
        store.commit(Batch::new().put(ANSWERS, kept.0.key(&[&[1; 32]]), old), Level::Disk).await.unwrap();
        let response = Sealed::clear(&StoredResponse { status: 201, headers, body: vec![1, 2] }).unwrap();
        assert_eq!(kept.get([1; 32], at_ms).unwrap(), Some(Answer { hash: [7; 32], response }));
    }
}
