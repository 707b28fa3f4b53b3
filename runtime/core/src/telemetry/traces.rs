//! Traces to an OTLP collector: HTTP with protobuf, in batches, from a thread of its own.
//!
//! A span that does not fit the queue is dropped and counted by the SDK (it logs the total when it ends): a dead or slow
//! collector never makes a request wait. A trace is recorded or not where it begins; what follows obeys the flag that travels.

use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider,
    ShouldSample,
};
use tracing::Subscriber;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{ConfigError, TelemetryConfig};
use crate::trace_cx::{self, TraceCx};

/// Spans that wait for the next batch; at 0.5 KiB each about 2 MiB. More are dropped.
const QUEUE: usize = 4096;
/// Time a collector has to answer.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// Time that ending waits for the last batch.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// A running exporter.
#[derive(Debug)]
pub(super) struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Starts to export if a collector is configured. It need not be reachable.
    pub(super) fn start(config: &TelemetryConfig, node: &str) -> Result<Option<Self>, ConfigError> {
        config.validate()?;
        if config.otlp.is_empty() {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", config.otlp.trim_end_matches('/')))
            .with_timeout(SEND_LIMIT)
            .build()
            .map_err(|error| ConfigError::invalid("telemetry.otlp", format!("{:?}: {error}", config.otlp)))?;
        let batch = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
        let resource = Resource::builder()
            .with_service_name("aivillage")
            .with_attribute(KeyValue::new("service.instance.id", node.to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(SampleShare)))
            .with_resource(resource)
            .build();
        set_sample(config.sample);
        Ok(Some(Self { provider }))
    }

    /// The layer that hands spans to the exporter.
    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> OpenTelemetryLayer<S, SdkTracer> {
        let tracer = self.provider.tracer("aivillage");
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_tracer(tracer)
    }

    /// Sends what waits, for at most two seconds, and ends. Blocks.
    pub(super) fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(SHUTDOWN_LIMIT) {
            tracing::warn!(%error, "traces lost at the end");
        }
    }
}

/// Samples traces that begin here by the same share as [`TraceCx::new_root`], which may change at run time.
#[derive(Debug, Clone)]
struct SampleShare;

impl ShouldSample for SampleShare {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        _: &str,
        _: &opentelemetry::trace::SpanKind,
        _: &[KeyValue],
        _: &[opentelemetry::trace::Link],
    ) -> SamplingResult {
        let recorded = trace_cx::is_sampled(trace_id.to_bytes());
        SamplingResult {
            decision: if recorded { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop },
            attributes: Vec::new(),
            trace_state: parent.map(|cx| cx.span().span_context().trace_state().clone()).unwrap_or_default(),
        }
    }
}

/// Makes `span` part of the trace that came in with a request or a mail. To be called before `span` is entered.
pub fn set_parent(span: &tracing::Span, cx: TraceCx) {
    let (trace, parent) = (TraceId::from_bytes(cx.trace_id), SpanId::from_bytes(cx.span_id));
    let remote = SpanContext::new(trace, parent, TraceFlags::new(cx.flags), true, TraceState::default());
    // It fails where nothing is exported or the span is disabled: then there is nothing to connect.
    _ = span.set_parent(Context::new().with_remote_span_context(remote));
}

/// The trace and span that are open here, for handing on.
#[must_use]
pub fn current() -> Option<TraceCx> {
    let span = tracing::Span::current();
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let open = context.span().span_context().clone();
    open.is_valid().then(|| TraceCx {
        trace_id: open.trace_id().to_bytes(),
        span_id: open.span_id().to_bytes(),
        flags: open.trace_flags().to_u8(),
    })
}

/// Changes the share of new traces that are exported.
pub(super) fn set_sample(share: f64) {
    trace_cx::set_sample(share);
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::time::Instant;

    use tracing_subscriber::prelude::*;

    use super::*;

    fn config(listener: &TcpListener) -> TelemetryConfig {
        let otlp = format!("http://{}", listener.local_addr().unwrap());
        TelemetryConfig { otlp, sample: 0.0, ..TelemetryConfig::default() }
    }

    /// Reads one request, answers it and returns its first line and body.
    fn serve(stream: TcpStream) -> (String, Vec<u8>) {
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        (first.trim().to_owned(), body)
    }

    fn contains(body: &[u8], part: &[u8]) -> bool {
        body.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn a_span_reaches_the_collector_under_its_remote_parent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exporter = Exporter::start(&config(&listener), "n1").unwrap().unwrap();
        let (sender, requests) = mpsc::channel();
        let sink = std::thread::spawn(move || sender.send(serve(listener.accept().unwrap().0)).unwrap());
        let caller = TraceCx { flags: TraceCx::SAMPLED, ..TraceCx::new_root() };
        let unsampled = TraceCx { flags: 0, ..TraceCx::new_root() };
        let subscriber = tracing_subscriber::registry().with(exporter.layer());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("actor.handle", kind = "counter");
            set_parent(&span, caller);
            span.in_scope(|| {
                let here = current().unwrap();
                assert_eq!((here.trace_id, here.flags), (caller.trace_id, TraceCx::SAMPLED));
                assert_ne!(here.span_id, caller.span_id);
            });
            let quiet = tracing::info_span!("actor.quiet");
            set_parent(&quiet, unsampled);
            quiet.in_scope(|| assert_eq!(current().unwrap().flags, 0));
        });
        exporter.shutdown();
        let (first, body) = requests.recv_timeout(Duration::from_secs(10)).unwrap();
        sink.join().unwrap();
        assert_eq!(first, "POST /v1/traces HTTP/1.1");
        for part in [&b"actor.handle"[..], b"counter", b"aivillage", b"n1", &caller.trace_id, &caller.span_id] {
            assert!(contains(&body, part), "{part:?} is missing");
        }
        assert!(!contains(&body, b"actor.quiet"));
    }

    #[test]
    fn a_collector_that_never_answers_makes_nobody_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exporter = Exporter::start(&config(&listener), "n1").unwrap().unwrap();
        let caller = TraceCx { flags: TraceCx::SAMPLED, ..TraceCx::new_root() };
        let subscriber = tracing_subscriber::registry().with(exporter.layer());
        let begin = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 * QUEUE {
                let span = tracing::info_span!("actor.handle");
                set_parent(&span, caller);
                span.in_scope(|| {});
            }
        });
        let spent = begin.elapsed();
        exporter.shutdown();
        // Three queues full: a blocking one would have waited 5 s for each batch of 512.
        assert!(spent < SEND_LIMIT, "{spent:?}");
        assert!(begin.elapsed() < spent + SHUTDOWN_LIMIT + Duration::from_secs(1), "{:?}", begin.elapsed());
    }

    #[test]
    fn without_a_collector_nothing_starts() {
        assert!(Exporter::start(&TelemetryConfig::default(), "n1").unwrap().is_none());
    }
}
