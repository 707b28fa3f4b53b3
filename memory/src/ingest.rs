//! Reading files.

mod chat;
pub mod detect;
mod html;
mod json;
pub mod parse;
mod pdf;
mod record;
mod table;
