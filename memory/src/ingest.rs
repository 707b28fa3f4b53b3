//! Reading files: what they are ([`detect`]), what is in them ([`parse`]), and who does it ([`actor`]).

pub mod actor;
mod chat;
pub mod detect;
mod html;
mod json;
pub mod parse;
mod pdf;
mod record;
mod table;

pub use self::actor::{Ingest, IngestMsg};
