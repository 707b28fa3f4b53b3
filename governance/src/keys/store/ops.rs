//! The writes of a [`Batch`], which itself tells them to its own crate only: they are read out of its serde form.

use aivillage_runtime::{Batch, StoreError, TreeId};
use serde::Deserialize;

/// A batch as bytes that its writes are borrowed from.
pub(super) struct Ops(Vec<u8>);

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    ops: Vec<Op<'a>>,
}

/// A put, or a delete without value.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Op<'a> {
    pub(super) tree: TreeId,
    pub(super) key: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
}

impl Ops {
    pub(super) fn of(batch: &Batch) -> Result<Self, StoreError> {
        postcard::to_allocvec(batch).map(Self).map_err(|error| bad(&error))
    }

    /// The writes, in order.
    pub(super) fn writes(&self) -> Result<Vec<Op<'_>>, StoreError> {
        let read: Read<'_> = postcard::from_bytes(&self.0).map_err(|error| bad(&error))?;
        Ok(read.ops)
    }
}

fn bad(error: &postcard::Error) -> StoreError {
    StoreError::Decode { what: "batch", detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_those_of_the_batch() {
        let batch = Batch::new().put(TreeId(40), b"a".to_vec(), b"".to_vec()).delete(TreeId(41), b"".to_vec());
        let ops = Ops::of(&batch).unwrap();
        let [put, delete] = &ops.writes().unwrap()[..] else { panic!("not two writes") };
        assert_eq!(put, &Op { tree: TreeId(40), key: b"a", value: Some(b"") });
        assert_eq!(delete, &Op { tree: TreeId(41), key: b"", value: None });
    }
}
