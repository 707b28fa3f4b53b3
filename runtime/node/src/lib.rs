//! x
#[doc(hidden)]
pub mod cli;
