//! The agents of the village.

pub mod answer;
pub mod provider;
pub mod rank;
pub mod text;
pub mod wire;
