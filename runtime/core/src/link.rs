//! The links of a node to its peers: [`record`] is what travels, [`lane`] the stream, [`peers`] keeps one lane to each.

pub(crate) mod lane;
pub(crate) mod peers;
pub(crate) mod record;
