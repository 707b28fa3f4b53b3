//! `village memory`: put documents in, search them, take them out.

mod add;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, BOLD, DIM, NAME, WARN, items, paint, text},
};

/// Commands of `village memory`.
#[derive(Debug, Subcommand)]
pub(crate) enum Memory {
    /// Put files and folders into the memory.
    Add(add::Add),
    /// Search for passages.
    Query(Query),
    /// Show a document.
    Get(Get),
    /// Take documents out.
    Rm(Rm),
    /// How much the memory holds.
    Stats(Stats),
}

impl Memory {
    /// Runs the command.
    ///
    /// # Errors
    /// What the village answered, or that none answers.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        match self {
            Self::Add(add) => add.run(&client, global.json).await,
            Self::Query(query) => query.run(&client, global.json).await,
            Self::Get(get) => get.run(&client, global.json).await,
            Self::Rm(rm) => rm.run(&client, global.json).await,
            Self::Stats(stats) => stats.run(&client, global.json).await,
        }
    }
}

/// Arguments of `village memory query`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village memory query \"descale the kettle\" -k 3")]
pub(crate) struct Query {
    /// What to look for.
    #[arg(required = true)]
    text: Vec<String>,
    /// Number of passages.
    #[arg(short, long, default_value_t = 8)]
    k: usize,
    /// Search only in these collections.
    #[arg(short, long, value_name = "NAME")]
    collection: Vec<String>,
}

impl Query {
    async fn run(self, client: &Client, as_json: bool) -> Outcome {
        let mut body = json!({ "text": self.text.join(" "), "k": self.k });
        if let (false, Some(body)) = (self.collection.is_empty(), body.as_object_mut()) {
            body.insert("collections".into(), self.collection.into());
        }
        let found = client.post(&["v1", "memory", "query"], &body).await?;
        if as_json {
            output::json(&found);
            return Ok(());
        }
        let passages = items(&found, "passages");
        if passages.is_empty() {
            output::say(format_args!("{} nothing found; `village memory stats` shows what is there", paint(WARN, "·")));
        }
        for passage in passages {
            output::say(show(passage));
        }
        Ok(())
    }
}

fn show(passage: &Value) -> String {
    let number = passage.get("n").and_then(Value::as_u64).unwrap_or_default();
    let score = passage.get("score").and_then(Value::as_f64).unwrap_or_default();
    let (title, doc) = (text(passage, "title"), text(passage, "doc"));
    let copies = passage.get("copies").and_then(Value::as_u64).filter(|copies| *copies > 0);
    let copies = copies.map(|copies| format!(" (+{copies} copies)")).unwrap_or_default();
    format!(
        "{} {}  {}\n{}\n",
        paint(NAME, format_args!("[{number}]")),
        paint(BOLD, if title.is_empty() { doc } else { title }),
        paint(DIM, format_args!("{doc}  score {score:.2}{copies}")),
        output::wrap(text(passage, "text"), 100, "    "),
    )
}

/// Which collection a document is in.
#[derive(Debug, Args)]
struct Place {
    /// Collection of the document [default: main].
    #[arg(short, long, value_name = "NAME")]
    collection: Option<String>,
}

impl Place {
    fn query(&self) -> Vec<(&str, &str)> {
        self.collection.iter().map(|name| ("collection", name.as_str())).collect()
    }
}

/// The id of a document: a file on this machine is known by its full path.
fn document_id(given: &str) -> String {
    Path::new(given)
        .canonicalize()
        .ok()
        .and_then(|path| path.to_str().map(str::to_owned))
        .unwrap_or_else(|| given.to_owned())
}

/// Arguments of `village memory get`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village memory get notes/kettle.md")]
pub(crate) struct Get {
    /// Id of the document, or the file it came from.
    id: String,
    #[command(flatten)]
    place: Place,
}

impl Get {
    async fn run(self, client: &Client, as_json: bool) -> Outcome {
        let document = client.get(&["v1", "memory", "documents", &document_id(&self.id)], &self.place.query()).await?;
        if as_json {
            output::json(&document);
            return Ok(());
        }
        let version = document.get("version").and_then(Value::as_u64).unwrap_or_default();
        output::say(format_args!(
            "{}  {}\n\n{}",
            paint(BOLD, text(&document, "title")),
            paint(DIM, format_args!("{} version {version}", text(&document, "id"))),
            text(&document, "text"),
        ));
        Ok(())
    }
}

/// Arguments of `village memory rm`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village memory rm notes/kettle.md")]
pub(crate) struct Rm {
    /// Ids of the documents, or the files they came from.
    #[arg(required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    place: Place,
}

impl Rm {
    async fn run(self, client: &Client, as_json: bool) -> Outcome {
        let mut results = Vec::new();
        let mut last = None;
        for given in &self.ids {
            let id = document_id(given);
            let path = ["v1", "memory", "documents", &id];
            match client.delete(&path, &self.place.query()).await {
                Ok(_) => results.push(json!({ "id": id, "status": "deleted" })),
                Err(failure) if failure.exit == Exit::Unavailable => return Err(failure),
                Err(failure) => {
                    results.push(json!({ "id": id, "status": "failed", "error": failure.message }));
                    last = Some(failure);
                }
            }
        }
        if as_json {
            output::json(&json!({ "results": results }));
        } else {
            for result in &results {
                output::say(
                    format_args!("{} {} {}", text(result, "status"), text(result, "id"), text(result, "error"))
                        .to_string()
                        .trim_end(),
                );
            }
        }
        last.map_or(Ok(()), |failure: Failure| Err(failure))
    }
}

/// Arguments of `village memory stats`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village memory stats")]
pub(crate) struct Stats {}

impl Stats {
    async fn run(self, client: &Client, as_json: bool) -> Outcome {
        let stats = client.get(&["v1", "memory", "stats"], &[]).await?;
        if as_json {
            output::json(&stats);
        } else {
            output::say(table(items(&stats, "collections")));
        }
        Ok(())
    }
}

/// One line for each collection.
pub(super) fn table(collections: &[Value]) -> String {
    if collections.is_empty() {
        return "the memory is empty; `village memory add PATH` puts files in".to_owned();
    }
    let rows = collections.iter().map(|collection| {
        let number = |name: &str| collection.get(name).and_then(Value::as_u64).unwrap_or_default();
        vec![
            text(collection, "collection").to_owned(),
            number("documents").to_string(),
            number("duplicates").to_string(),
            number("chunks").to_string(),
            output::size(number("index_bytes")),
        ]
    });
    output::table(&["collection", "#documents", "#duplicates", "#chunks", "#index"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_full_path_and_anything_else_as_given() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        std::fs::write(&file, "x").unwrap();
        assert_eq!(document_id(file.to_str().unwrap()), file.canonicalize().unwrap().to_str().unwrap());
        assert_eq!(document_id("no such file"), "no such file");
    }

    #[test]
    fn passage_shows_number_title_score_and_copies() {
        let passage =
            json!({"n": 1, "title": "Kettle", "doc": "k.md", "text": "Use vinegar.", "score": 1.234, "copies": 2});
        let plain = anstream::adapter::strip_str(&show(&passage)).to_string();
        assert_eq!(plain, "[1] Kettle  k.md  score 1.23 (+2 copies)\n    Use vinegar.\n");
    }
}
