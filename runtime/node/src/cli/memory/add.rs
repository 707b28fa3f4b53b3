//! `village memory add`: files and folders into the memory, bad ones listed, good ones kept.
//!
//! The village parses; this side only walks, reads and shows progress. A file's id is its full path, so adding it again
//! makes a new version instead of a second document.

use std::{
    fs,
    io::{IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use futures::{StreamExt as _, stream};
use ignore::WalkBuilder;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{
    Method, Url,
    header::CONTENT_TYPE,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use crate::cli::{
    Exit, Failure, Outcome,
    client::Client,
    output::{self, BAD, BOLD, DIM, GOOD, NAME, WARN, items, paint, text},
};

/// Requests on their way at once: keeps two parsers and the disk busy.
const IN_FLIGHT: usize = 4;
/// Small files travel together, so that a folder of notes is not one request and one `fdatasync` for each.
const PARCEL_FILES: usize = 32;
/// Bytes of a parcel; a larger file goes alone.
const PARCEL_BYTES: u64 = 256 << 10;
/// How often a file that became a job, or the index, is looked after.
const JOB_POLL: Duration = Duration::from_millis(100);
/// Longest wait for the index.
const SETTLE: Duration = Duration::from_secs(30);
/// Errors shown in full; more are counted (`--json` lists all).
const ERRORS_SHOWN: usize = 20;

/// Arguments of `village memory add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village memory add ~/notes handbook.pdf
  village memory add --collection handbook ~/handbook
  pg_dump --schema-only shop | village memory add - --name schema.sql

Folders are walked; hidden files and what .gitignore names are left out. A file is known by its path:
adding it again makes a new version, and an unchanged one costs nothing.")]
pub(crate) struct Add {
    /// Files and folders; `-` reads a document from standard input.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Collection to put them in [default: main].
    #[arg(short, long, value_name = "NAME")]
    collection: Option<String>,
    /// Name of the document on standard input.
    #[arg(long, default_value = "stdin.txt")]
    name: String,
    /// Larger files are left out.
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    max_mib: u64,
}

/// What became of one file.
#[derive(Debug, Default)]
struct Tally {
    created: u64,
    updated: u64,
    unchanged: u64,
    bytes: u64,
    /// File and why it could not be read or parsed.
    failed: Vec<(String, String)>,
    /// File that holds no text.
    skipped: Vec<(String, String)>,
}

/// One document to send.
#[derive(Debug)]
enum Source {
    File(PathBuf),
    Text(Vec<u8>),
}

impl Add {
    /// Walks, sends, sums up.
    ///
    /// # Errors
    /// No village or a wrong key at once; otherwise the exit code is 1 when a file failed or nothing came in.
    pub(crate) async fn run(self, client: &Client, as_json: bool) -> Outcome {
        let mut tally = Tally::default();
        let sources = self.sources(&mut tally)?;
        // One cheap question first: a missing village or a wrong key is one error, not one per file.
        client.get(&["v1", "agents"], &[("limit", "1")]).await?;
        let bar = progress(sources.len(), as_json);
        let this = &self;
        let sent = parcels(sources).into_iter().map(|parcel| this.deliver(client, parcel));
        let mut sent = stream::iter(sent).buffer_unordered(IN_FLIGHT);
        while let Some(parcel) = sent.next().await {
            for Delivery { name, files, answer } in parcel {
                bar.set_message(name.rsplit('/').next().unwrap_or_default().to_owned());
                bar.inc(files);
                match answer {
                    Ok(Sent { results, bytes }) => tally.count(&name, &results, bytes),
                    Err(failure) if failure.exit == Exit::Unavailable && failure.code.is_none() => {
                        bar.finish_and_clear();
                        return Err(
                            failure.hint("the files sent so far are in; run the same command again for the rest")
                        );
                    }
                    Err(failure) if failure.code.as_deref().is_some_and(has_no_text) => {
                        tally.skipped.push((name, failure.message));
                    }
                    Err(failure) => tally.failed.push((name, failure.message)),
                }
            }
        }
        bar.set_message("making it searchable");
        if tally.created + tally.updated > 0 {
            searchable(client).await?;
        }
        bar.finish_and_clear();
        if as_json {
            output::json(&tally.as_json());
        } else {
            tally.print();
        }
        tally.outcome()
    }

    fn sources(&self, tally: &mut Tally) -> Result<Vec<Source>, Failure> {
        let mut sources = Vec::new();
        for path in &self.paths {
            if path.as_os_str() == "-" {
                let mut bytes = Vec::new();
                let limit = self.max_mib.saturating_mul(1 << 20);
                let read = std::io::stdin().lock().take(limit.saturating_add(1)).read_to_end(&mut bytes);
                read.map_err(|error| Failure::new(Exit::Failed, format!("cannot read standard input: {error}")))?;
                if bytes.len() as u64 > limit {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!("standard input is larger than {} MiB", self.max_mib),
                    ));
                }
                sources.push(Source::Text(bytes));
            } else if !path.exists() {
                return Err(Failure::new(Exit::Usage, format!("{} does not exist", path.display())));
            } else {
                walk(path, tally, &mut sources);
            }
        }
        Ok(sources)
    }

    fn name_of(&self, source: &Source) -> String {
        match source {
            Source::File(path) => path.canonicalize().unwrap_or_else(|_| path.clone()).to_string_lossy().into_owned(),
            Source::Text(_) => self.name.clone(),
        }
    }

    /// Sends the files of a parcel together. If that is refused, each goes alone, so that only the bad one fails.
    async fn deliver(&self, client: &Client, parcel: Vec<Source>) -> Vec<Delivery> {
        let mut names: Vec<_> = parcel.iter().map(|source| self.name_of(source)).collect();
        if parcel.len() > 1
            && names.iter().all(|name| is_plain(name))
            && let Ok(sent) = self.send_together(client, &parcel, &names).await
        {
            let name = names.pop().unwrap_or_default();
            return vec![Delivery { name, files: parcel.len() as u64, answer: Ok(sent) }];
        }
        let mut deliveries = Vec::new();
        for (source, name) in parcel.into_iter().zip(names) {
            let answer = self.send(client, &source, &name).await;
            deliveries.push(Delivery { name, files: 1, answer });
        }
        deliveries
    }

    async fn send_together(&self, client: &Client, parcel: &[Source], names: &[String]) -> Result<Sent, Failure> {
        let (mut form, mut size) = (Form::new(), 0);
        for (source, name) in parcel.iter().zip(names) {
            let bytes = self.bytes_of(source)?;
            size += bytes.len() as u64;
            form = form.part("file", Part::bytes(bytes).file_name(name.clone()));
        }
        let request = client.request(Method::POST, self.url(client, None)).multipart(form);
        let answer = finished(client, client.json(request).await?).await?;
        Ok(Sent { results: items(&answer, "results").to_vec(), bytes: size })
    }

    async fn send(&self, client: &Client, source: &Source, name: &str) -> Result<Sent, Failure> {
        let bytes = self.bytes_of(source)?;
        let size = bytes.len() as u64;
        let request = client.request(Method::POST, self.url(client, Some(name)));
        let request = request.header(CONTENT_TYPE, "application/octet-stream").body(bytes);
        let answer = finished(client, client.json(request).await?).await?;
        Ok(Sent { results: items(&answer, "results").to_vec(), bytes: size })
    }

    fn bytes_of(&self, source: &Source) -> Result<Vec<u8>, Failure> {
        match source {
            Source::Text(bytes) => Ok(bytes.clone()),
            Source::File(path) => read(path, self.max_mib.saturating_mul(1 << 20)),
        }
    }

    fn url(&self, client: &Client, name: Option<&str>) -> Url {
        let mut url = client.url(&["v1", "memory", "documents"]);
        let pairs = [("name", name), ("collection", self.collection.as_deref())];
        for (key, value) in pairs {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(key, value);
            }
        }
        url
    }
}

/// A file with very many rows becomes a job; its result is what a small file answers at once.
async fn finished(client: &Client, mut answer: Value) -> Result<Value, Failure> {
    while answer.get("results").is_none() {
        let id = text(&answer, "id").to_owned();
        match text(&answer, "state") {
            "queued" | "running" => tokio::time::sleep(JOB_POLL).await,
            "succeeded" => return Ok(answer.get("result").cloned().unwrap_or_default()),
            _ => {
                let problem =
                    answer.get("problem").map_or_else(|| "the upload did not finish".to_owned(), ToString::to_string);
                return Err(Failure::from_answer(500, &problem));
            }
        }
        answer = client.get(&["v1", "jobs", &id], &[]).await?;
    }
    Ok(answer)
}

/// Waits until a question finds what was stored. Writes are durable before; the index follows within half a second, or later
/// while the village is busy, and then the person need not wait for it.
async fn searchable(client: &Client) -> Outcome {
    let started = Instant::now();
    loop {
        let stats = client.get(&["v1", "memory", "stats"], &[]).await?;
        let seq = |collection: &Value, name: &str| collection.get(name).and_then(Value::as_u64).unwrap_or_default();
        let behind = items(&stats, "collections").iter().any(|of| seq(of, "searchable_seq") < seq(of, "journal_seq"));
        if !behind || started.elapsed() > SETTLE {
            return Ok(());
        }
        tokio::time::sleep(JOB_POLL).await;
    }
}

/// What became of one file, or of all files of a parcel.
struct Delivery {
    name: String,
    files: u64,
    answer: Result<Sent, Failure>,
}

struct Sent {
    results: Vec<Value>,
    bytes: u64,
}

/// A picture or an empty file in a folder is no failure of the folder.
fn has_no_text(code: &str) -> bool {
    matches!(code, "unsupported_media_type" | "memory_empty")
}

/// The files under a path; a path named on the command line is taken even if it is hidden or ignored.
fn walk(path: &Path, tally: &mut Tally, sources: &mut Vec<Source>) {
    if path.is_file() {
        sources.push(Source::File(path.to_owned()));
        return;
    }
    for entry in WalkBuilder::new(path).sort_by_file_name(Ord::cmp).build() {
        match entry {
            Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                sources.push(Source::File(entry.into_path()));
            }
            Ok(_) => {}
            Err(error) => tally.failed.push((path.display().to_string(), error.to_string())),
        }
    }
}

/// Small files that follow each other in parcels, everything else alone.
fn parcels(sources: Vec<Source>) -> Vec<Vec<Source>> {
    let mut parcels: Vec<Vec<Source>> = Vec::new();
    let mut bytes = PARCEL_BYTES;
    for source in sources {
        let size = match &source {
            // One that cannot be looked at is told when it is read.
            Source::File(path) => fs::metadata(path).map_or(PARCEL_BYTES, |file| file.len()),
            Source::Text(_) => PARCEL_BYTES,
        };
        match parcels.last_mut() {
            Some(parcel) if parcel.len() < PARCEL_FILES && bytes + size <= PARCEL_BYTES => {
                bytes += size;
                parcel.push(source);
            }
            _ => {
                bytes = size;
                parcels.push(vec![source]);
            }
        }
    }
    parcels
}

/// Whether a name comes through the header of a multipart body as it is.
fn is_plain(name: &str) -> bool {
    !name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\' | '%'))
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| Failure::new(Exit::Failed, format!("cannot be read: {error}"));
    let size = fs::metadata(path).map_err(cannot)?.len();
    if size > limit {
        let (size, limit) = (output::size(size), output::size(limit));
        return Err(Failure::new(
            Exit::Failed,
            format!("{size} is above the limit of {limit}; split it or raise --max-mib"),
        ));
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    fs::File::open(path).map_err(cannot)?.take(limit).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

fn progress(files: usize, as_json: bool) -> ProgressBar {
    if as_json || files < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(files as u64);
    let style = ProgressStyle::with_template("  {bar:30.cyan/dim} {pos}/{len}  {per_sec}  {msg:.dim}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

impl Tally {
    fn count(&mut self, name: &str, results: &[Value], bytes: u64) {
        self.bytes += bytes;
        for result in results {
            match text(result, "status") {
                "created" => self.created += 1,
                "updated" => self.updated += 1,
                "unchanged" => self.unchanged += 1,
                _ => self.refuse(name, result),
            }
        }
    }

    fn refuse(&mut self, name: &str, result: &Value) {
        let (error, id) = (result.get("error").unwrap_or(&Value::Null), text(result, "id"));
        let name = if id.is_empty() { name } else { id };
        let reason = [text(error, "message"), text(error, "detail"), error.as_str().unwrap_or_default(), "refused"];
        let reason = reason.into_iter().find(|reason| !reason.is_empty()).unwrap_or_default().to_owned();
        let list = if has_no_text(text(error, "code")) { &mut self.skipped } else { &mut self.failed };
        list.push((name.to_owned(), reason));
    }

    fn documents(&self) -> u64 {
        self.created + self.updated + self.unchanged
    }

    fn as_json(&self) -> Value {
        let list = |entries: &[(String, String)]| -> Vec<Value> {
            entries.iter().map(|(file, error)| json!({ "file": file, "error": error })).collect()
        };
        json!({
            "created": self.created, "updated": self.updated, "unchanged": self.unchanged, "bytes": self.bytes,
            "failed": list(&self.failed), "skipped": list(&self.skipped),
        })
    }

    fn print(&self) {
        for (file, error) in self.failed.iter().take(ERRORS_SHOWN) {
            output::note(format_args!("{} {file}: {error}", paint(BAD, "failed")));
        }
        for (file, error) in self.skipped.iter().take(ERRORS_SHOWN) {
            output::note(format_args!("{} {file}: {error}", paint(WARN, "skipped")));
        }
        let hidden = self.failed.len().saturating_sub(ERRORS_SHOWN) + self.skipped.len().saturating_sub(ERRORS_SHOWN);
        if hidden > 0 {
            output::note(paint(DIM, format_args!("… and {hidden} more; --json lists all")));
        }
        let parts = [(self.created, "new"), (self.updated, "updated"), (self.unchanged, "unchanged")];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        output::say(format_args!(
            "{} {} document{}{}  {}",
            if self.documents() > 0 { paint(GOOD, "✓") } else { paint(WARN, "·") },
            paint(BOLD, self.documents()),
            if self.documents() == 1 { "" } else { "s" },
            if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) },
            paint(DIM, output::size(self.bytes)),
        ));
        if self.documents() > 0 && output::is_terminal() {
            output::say(format_args!("  now ask: {}", paint(NAME, "village ask sage \"...\"")));
        }
    }

    fn outcome(&self) -> Outcome {
        if !self.failed.is_empty() {
            return Err(Failure::new(Exit::Failed, format!("{} of the files could not be added", self.failed.len()))
                .hint("all others are in; the reasons are above"));
        }
        if self.documents() == 0 {
            return Err(Failure::new(Exit::Failed, "nothing to add: no file with text was found"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_walked_in_order_without_hidden_files() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.md", "a.md", ".hidden", "sub/c.md"] {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        let (mut tally, mut sources) = (Tally::default(), Vec::new());
        walk(folder.path(), &mut tally, &mut sources);
        let names: Vec<_> = sources
            .iter()
            .map(|source| match source {
                Source::File(path) => path.file_name().unwrap().to_str().unwrap().to_owned(),
                Source::Text(_) => unreachable!("only files were walked"),
            })
            .collect();
        assert_eq!(names, ["a.md", "b.md", "c.md"]);
    }

    #[test]
    fn small_files_travel_together() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: String, size: u64| {
            let path = folder.path().join(name);
            fs::File::create(&path).unwrap().set_len(size).unwrap();
            Source::File(path)
        };
        let mut sources: Vec<_> = (0..40).map(|n| file(format!("{n}"), 1000)).collect();
        sources.push(file("large".into(), 1 << 20));
        sources.push(Source::Text(vec![1]));
        sources.extend((50..53).map(|n| file(format!("{n}"), 100 << 10)));
        let sizes: Vec<_> = parcels(sources).iter().map(Vec::len).collect();
        assert_eq!(sizes, [32, 8, 1, 1, 2, 1]);
    }

    #[test]
    fn names_that_a_header_would_change_travel_alone() {
        assert!(is_plain("/home/ada/größe 2.md"));
        assert!(!is_plain("a\"b") && !is_plain("a%20b") && !is_plain("a\\b") && !is_plain("a\nb"));
    }

    #[test]
    fn file_above_the_limit_is_refused_unread() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 30).unwrap();
        let failure = read(file.path(), 32 << 20).unwrap_err();
        assert_eq!(failure.message, "1.0 GiB is above the limit of 32.0 MiB; split it or raise --max-mib");
    }

    #[test]
    fn tally_tells_failed_from_skipped_and_sets_the_exit_code() {
        let mut tally = Tally::default();
        let refused = |code: &str| json!({"id": "x", "status": "failed", "error": {"code": code, "message": "why"}});
        tally.count("a", &[json!({"id": "a", "status": "created"}), refused("unsupported_media_type")], 3);
        assert!(tally.outcome().is_ok());
        tally.count("b", &[refused("bad_pdf")], 3);
        assert_eq!((tally.failed.len(), tally.skipped.len(), tally.bytes), (1, 1, 6));
        assert_eq!(tally.outcome().unwrap_err().exit, Exit::Failed);
        assert_eq!(Tally::default().outcome().unwrap_err().exit, Exit::Failed);
    }
}
