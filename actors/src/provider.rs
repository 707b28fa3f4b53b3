//! The back ends that write an answer's text: sentences of the passages themselves, or a model behind an endpoint.

pub mod breaker;
pub mod extractive;
pub mod openai;
