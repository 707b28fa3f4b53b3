//! Who decides what a turn does next: rules over example utterances, or a model that calls tools.

pub mod command;
pub mod intents;
pub mod llm;
pub mod rule;
pub mod slots;
