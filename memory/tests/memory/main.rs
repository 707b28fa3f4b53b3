//! Memory through its front, on a village of its own for each test.

mod bad_input;
mod documents;
mod gate;
mod questions;
mod recovery;
mod wire;

use std::path::Path;

use aivillage_memory::{Document, Memory, Put, PutReport, WaitFor, install};
use aivillage_runtime::Village;

/// A village with memory, in this folder or in memory.
async fn village(dir: Option<&Path>) -> Village {
    let mut builder = install(Village::builder());
    if let Some(dir) = dir {
        builder = builder.data_dir(dir);
    }
    builder.start().await.expect("starts")
}

fn document(id: &str, text: &str) -> Document {
    Document { id: Some(id.to_owned()), text: text.to_owned(), ..Document::default() }
}

/// Stores documents and waits until queries find them.
async fn put(memory: &Memory, documents: Vec<Document>) -> PutReport {
    let put = Put { documents, wait: WaitFor::Searchable, ..Put::default() };
    memory.put(put).await.expect("stored")
}
