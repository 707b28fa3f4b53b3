//! Log lines: JSON for machines, text for people, one event a line, at most 8 KiB and ten a second from one place in the code.
//!
//! JSON keys in this order: `ts`, `level`, `target`, `msg`, `node`, then where known `trace_id` and `span`, then the fields of
//! the event and of the spans around it (the innermost wins), `suppressed` (lines this place did not print since its last) and
//! `cut` (the line was longer).

mod limiter;

use std::fmt::{self, Write as _};
use std::io::Write;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use limiter::Limiter;

/// Longest line, line break included.
const LINE_MAX: usize = 8 * 1024;

/// The form of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// With colours or without.
    Text {
        colour: bool,
    },
}

/// Writes each event as one line.
pub(super) struct LogLines<W> {
    form: Form,
    node: String,
    limiter: Mutex<Limiter>,
    out: Mutex<W>,
}

impl<W: Write> LogLines<W> {
    pub(super) fn new(form: Form, node: String, out: W) -> Self {
        Self { form, node, limiter: Mutex::default(), out: Mutex::new(out) }
    }
}

/// The fields of a span, kept while it is open.
struct SpanFields(Map<String, Value>);

/// What stands in a line.
struct Line<'a> {
    ts: String,
    level: Level,
    target: &'a str,
    msg: String,
    node: &'a str,
    trace_id: Option<String>,
    span: Option<&'static str>,
    fields: Map<String, Value>,
}

impl<S, W> Layer<S> for LogLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + Send + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = cx.span(id) {
            span.extensions_mut().insert(SpanFields(fields.named));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        let Some(span) = cx.span(id) else { return };
        if let Some(SpanFields(named)) = span.extensions_mut().get_mut() {
            let mut fields = Fields { message: String::new(), named: std::mem::take(named) };
            values.record(&mut fields);
            *named = fields.named;
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let metadata = event.metadata();
        let Some(suppressed) = self.limiter.lock().admit(metadata.callsite(), Instant::now()) else { return };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut span_name = None;
        for span in cx.event_scope(event).into_iter().flatten() {
            span_name = span_name.or(Some(span.metadata().name()));
            if let Some(SpanFields(outer)) = span.extensions().get() {
                for (key, value) in outer {
                    fields.named.entry(key).or_insert_with(|| value.clone());
                }
            }
        }
        if suppressed > 0 {
            fields.named.insert("suppressed".into(), suppressed.into());
        }
        let line = Line {
            ts: humantime::format_rfc3339_millis(crate::clock::now()).to_string(),
            level: *metadata.level(),
            target: metadata.target(),
            msg: fields.message,
            node: &self.node,
            trace_id: trace_id(),
            span: span_name,
            fields: fields.named,
        };
        let text = match self.form {
            Form::Json => line.json(),
            Form::Text { colour } => line.text(colour),
        };
        // Nobody is left to be told that the log cannot be written.
        _ = self.out.lock().write_all(text.as_bytes());
    }
}

impl<W> fmt::Debug for LogLines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLines").field("form", &self.form).field("node", &self.node).finish_non_exhaustive()
    }
}

/// The trace of the mail in hand, or else of the exported span that is open.
fn trace_id() -> Option<String> {
    let trace = crate::mail::MsgCx::current().trace().or_else(super::traces::current);
    trace.map(crate::trace_cx::TraceCx::trace_hex)
}

impl Line<'_> {
    const FIXED: [&'static str; 7] = ["ts", "level", "target", "msg", "node", "trace_id", "span"];

    fn json(self) -> String {
        let mut all = Map::new();
        let fixed = [
            Some(self.ts),
            Some(self.level.to_string()),
            Some(self.target.to_owned()),
            Some(self.msg),
            Some(self.node.to_owned()),
            self.trace_id,
            self.span.map(str::to_owned),
        ];
        for (key, value) in Self::FIXED.into_iter().zip(fixed) {
            if let Some(value) = value {
                all.insert(key.to_owned(), value.into());
            }
        }
        for (key, value) in self.fields {
            // A field that is called like a fixed key keeps its value under another name.
            let key = if Self::FIXED.contains(&key.as_str()) { format!("field.{key}") } else { key };
            all.insert(key, value);
        }
        let mut line = Value::Object(all.clone()).to_string();
        while line.len() >= LINE_MAX && shorten(&mut all, line.len() - LINE_MAX) {
            all.insert("cut".to_owned(), true.into());
            line = Value::Object(all.clone()).to_string();
        }
        line.push('\n');
        line
    }

    fn text(&self, colour: bool) -> String {
        let (start, dim, end) = match (colour, self.level) {
            (false, _) => ("", "", ""),
            (true, Level::ERROR) => ("\x1b[31m", "\x1b[2m", "\x1b[0m"),
            (true, Level::WARN) => ("\x1b[33m", "\x1b[2m", "\x1b[0m"),
            (true, Level::INFO) => ("\x1b[32m", "\x1b[2m", "\x1b[0m"),
            (true, _) => ("\x1b[34m", "\x1b[2m", "\x1b[0m"),
        };
        let mut line = format!("{dim}{}{end} {start}{:>5}{end} {}", self.ts, self.level.as_str(), escaped(&self.msg));
        for (key, value) in &self.fields {
            let value = match value {
                Value::String(text) => escaped(text),
                other => other.to_string(),
            };
            // Writing to a string cannot fail.
            _ = write!(line, " {dim}{key}={end}{value}");
        }
        if line.len() >= LINE_MAX {
            line.truncate(line.floor_char_boundary(LINE_MAX - 16));
            line.push_str(end);
            line.push_str(" cut=true");
        }
        line.push('\n');
        line
    }
}

/// Control characters would break the line or drive the terminal: foreign text is written with escapes. Line breaks of a
/// backtrace stay readable.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => safe.extend(c.escape_default()),
            c if c.is_control() => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// Makes a record that is `excess` bytes too long shorter: cuts its longest text, or drops its last field when all texts are
/// short. Says whether there was anything to shorten.
fn shorten(fields: &mut Map<String, Value>, excess: usize) -> bool {
    const SHORT: usize = 64;
    let longest = fields
        .iter_mut()
        .filter_map(|(_, value)| match value {
            Value::String(text) if text.len() > SHORT => Some(text),
            _ => None,
        })
        .max_by_key(|text| text.len());
    if let Some(text) = longest {
        // An escaped character is up to six bytes long, so this cuts at least as much as needed in a few rounds.
        let keep = text.len().saturating_sub(excess / 6 + SHORT).max(SHORT);
        text.truncate(text.floor_char_boundary(keep));
        return true;
    }
    fields.remove("cut");
    let last = fields.keys().next_back().filter(|key| !Line::FIXED.contains(&key.as_str())).cloned();
    last.is_some_and(|key| fields.remove(&key).is_some())
}

/// Collects the fields of an event or a span as JSON values.
#[derive(Default)]
struct Fields {
    message: String,
    named: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.named.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.put(field, value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.put(field, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::prelude::*;

    use super::*;

    /// Output that the test can read.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `events` writes.
    fn lines(form: Form, events: impl FnOnce()) -> Vec<String> {
        let out = Shared::default();
        let subscriber = tracing_subscriber::registry().with(LogLines::new(form, "n2".into(), out.clone()));
        tracing::subscriber::with_default(subscriber, events);
        let text = String::from_utf8(out.0.lock().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn json(events: impl FnOnce()) -> Vec<Map<String, Value>> {
        lines(Form::Json, events).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_json_line_has_the_fixed_keys_first_and_its_fields_flat() {
        let lines = lines(Form::Json, || {
            let span = tracing::info_span!("fog.run", job = "j1", epoch = 6);
            let _entered = span.enter();
            tracing::warn!(target: "aivillage_fog::runner", epoch = 7, ratio = 0.5, ok = true, why = ?Some(1), "lease {}", "lost");
        });
        let (ts, rest) = lines[0].strip_prefix(r#"{"ts":""#).unwrap().split_at(24);
        assert!(humantime::parse_rfc3339(ts).is_ok() && ts.ends_with('Z') && ts.as_bytes()[19] == b'.', "{ts}");
        let expected =
            r#"","level":"WARN","target":"aivillage_fog::runner","msg":"lease lost","node":"n2","span":"fog.run","#;
        let expected = format!(r#"{expected}"epoch":7,"ratio":0.5,"ok":true,"why":"Some(1)","job":"j1"}}"#);
        assert_eq!(rest, expected);
    }

    #[test]
    fn a_field_cannot_pose_as_a_fixed_key_or_as_a_second_line() {
        let lines = lines(Form::Json, || tracing::info!(level = "ERROR", text = "a\nb\u{1b}[2J", "said"));
        assert_eq!(lines.len(), 1);
        let line: Map<String, Value> = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((line["level"].as_str(), line["field.level"].as_str()), (Some("INFO"), Some("ERROR")));
        let text = super::tests::lines(Form::Text { colour: false }, || tracing::info!(text = "a\nb\u{1b}[2J", "said"));
        assert!(text[0].ends_with(r" INFO said text=a\nb\u{1b}[2J"), "{}", text[0]);
        assert_eq!(text.len(), 1);
    }

    #[test]
    fn the_trace_of_the_mail_in_hand_is_named() {
        let trace = crate::trace_cx::TraceCx::new_root();
        let cx = crate::mail::MsgCx::request(None, Some(trace), None);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let lines = json(|| runtime.block_on(cx.scope(async { tracing::info!("handled") })));
        assert_eq!(lines[0]["trace_id"].as_str(), Some(trace.trace_hex().as_str()));
    }

    #[test]
    fn a_value_recorded_later_is_in_the_line() {
        let lines = json(|| {
            let span = tracing::info_span!("edge.request", status = tracing::field::Empty);
            span.record("status", 200);
            span.in_scope(|| tracing::info!("answered"));
        });
        assert_eq!(lines[0]["status"], 200);
    }

    #[test]
    fn a_long_line_is_cut_and_stays_json() {
        let long = "é\n".repeat(10_000);
        let lines = lines(Form::Json, || {
            tracing::error!(a = long, b = long, kept = 1, "long");
            tracing::error!(nothing = 1, "{long}");
        });
        for line in &lines {
            assert!(line.len() < LINE_MAX, "{}", line.len());
            assert!(line.len() > LINE_MAX / 2, "{} is cut too far", line.len());
            let line: Map<String, Value> = serde_json::from_str(line).unwrap();
            assert_eq!(line["cut"], true);
        }
        let text = super::tests::lines(Form::Text { colour: true }, || tracing::error!("{long}"));
        assert!(text[0].len() < LINE_MAX && text[0].ends_with("\u{1b}[0m cut=true"), "{}", text[0].len());
    }

    #[test]
    fn one_place_in_the_code_prints_ten_lines_a_second() {
        let printed = json(|| {
            for n in 0..50 {
                tracing::info!(n, "busy");
            }
            tracing::info!("another place");
        });
        assert_eq!(printed.len(), 11);
        assert_eq!(printed[10]["msg"], "another place");
    }
}
