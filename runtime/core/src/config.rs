//! Configuration.
mod value;

pub use value::{Period, Rate, RateUnit, Size, ValueError};
