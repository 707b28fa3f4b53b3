//! (replaced at merge)
use xxhash_rust::xxh3::Xxh3;
pub(crate) struct SlotId(pub(crate) u8);
pub(crate) fn slot(kind: &str, key: &str) -> SlotId {
    let mut hash = Xxh3::new();
    hash.update(kind.as_bytes());
    hash.update(&[0]);
    hash.update(key.as_bytes());
    SlotId((hash.digest() % 256) as u8)
}
pub(crate) fn kind_id(kind: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(kind.as_bytes()) as u32
}
