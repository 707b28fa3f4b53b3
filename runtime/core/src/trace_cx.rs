//! The trace that a piece of work belongs to, in the form that travels: W3C Trace Context, `traceparent` version 00.
//!
//! `00-<trace id, 32 hex>-<span id, 16 hex>-<flags, 2 hex>` (<https://www.w3.org/TR/trace-context/> section 3.2).

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Identity of a trace and of the span in it that caused the work in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceCx {
    /// Never all zero.
    pub trace_id: [u8; 16],
    /// The parent span; never all zero.
    pub span_id: [u8; 8],
    /// Bit 0: the trace is recorded.
    pub flags: u8,
}

/// A `traceparent` that does not follow W3C Trace Context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TraceCxError {
    /// Not `version-trace_id-span_id-flags` in lower-case hex of the right lengths.
    #[error("traceparent is not 00-<32 hex>-<16 hex>-<2 hex>")]
    Malformed,
    /// Version `ff`, which the standard forbids.
    #[error("traceparent version ff is forbidden")]
    ForbiddenVersion,
    /// A trace or span id of zeroes, which stands for "none".
    #[error("traceparent has an id of zeroes")]
    ZeroId,
}

impl TraceCx {
    /// Bit of `flags`: whoever started the trace records it.
    pub const SAMPLED: u8 = 1;

    /// A trace of its own, recorded with the probability of `telemetry.sample`; never while nothing is exported.
    #[must_use]
    pub fn new_root() -> Self {
        let trace_id = non_zero();
        let flags = if is_sampled(trace_id) { Self::SAMPLED } else { 0 };
        Self { trace_id, span_id: non_zero(), flags }
    }

    /// The same trace with a fresh span id: what a caller hands on when it has no span of its own.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: non_zero(), ..self }
    }

    /// Says whether the trace is recorded.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0
    }

    /// The trace id as 32 lower-case hex digits, as it stands in logs and problem bodies.
    #[must_use]
    pub fn trace_hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }
}

/// Traces whose id, read as a number of 63 bits, lies below this are recorded. Set once, when the exporter starts: the
/// decision is made where a trace begins, and everything after it follows the flag.
static SAMPLE_BELOW: AtomicU64 = AtomicU64::new(0);

/// Records this share of the traces that begin in this process.
#[cfg(feature = "otlp")]
pub(crate) fn set_sample(ratio: f64) {
    SAMPLE_BELOW.store(threshold(ratio), Ordering::Relaxed);
}

/// Says whether a trace of this id that begins here is recorded.
pub(crate) fn is_sampled(trace_id: [u8; 16]) -> bool {
    is_recorded(trace_id, SAMPLE_BELOW.load(Ordering::Relaxed))
}

/// 63 bits, because that is what OpenTelemetry's ratio sampler compares; both then choose the same traces.
#[cfg(any(test, feature = "otlp"))]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the ratio is clamped to 0..=1")]
fn threshold(ratio: f64) -> u64 {
    const RANGE: f64 = 9_223_372_036_854_775_808.0;
    (ratio.clamp(0.0, 1.0) * RANGE) as u64
}

fn is_recorded(trace_id: [u8; 16], below: u64) -> bool {
    let low_half = u128::from_be_bytes(trace_id) & u128::from(u64::MAX);
    low_half >> 1 < u128::from(below)
}

/// Random bytes that are not all zero; the generator need not be unpredictable, ids are no secrets.
fn non_zero<const N: usize>() -> [u8; N] {
    loop {
        let id: [u8; N] = rand::rng().random();
        if id != [0; N] {
            return id;
        }
    }
}

impl fmt::Display for TraceCx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl FromStr for TraceCx {
    type Err = TraceCxError;

    fn from_str(text: &str) -> Result<Self, TraceCxError> {
        let mut fields = text.split('-');
        let version = hex::<1>(fields.next())?;
        if version == [0xff] {
            return Err(TraceCxError::ForbiddenVersion);
        }
        let (trace_id, span_id, [flags]) = (hex(fields.next())?, hex(fields.next())?, hex(fields.next())?);
        // Section 3.2.2: a later version may append fields, version 00 has exactly four.
        if version == [0] && fields.next().is_some() {
            return Err(TraceCxError::Malformed);
        }
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(TraceCxError::ZeroId);
        }
        Ok(Self { trace_id, span_id, flags })
    }
}

/// Exactly `N` bytes of lower-case hex.
fn hex<const N: usize>(field: Option<&str>) -> Result<[u8; N], TraceCxError> {
    let digits = field.map(str::as_bytes).filter(|digits| digits.len() == 2 * N).ok_or(TraceCxError::Malformed)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let mut value = 0;
        for digit in pair {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(TraceCxError::Malformed),
            };
            value = value << 4 | nibble;
        }
        *byte = value;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Example of W3C Trace Context section 3.2.4.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_standard_is_read_and_written() {
        let cx: TraceCx = EXAMPLE.parse().unwrap();
        assert_eq!(cx.trace_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(cx.is_sampled());
        assert_eq!(cx.to_string(), EXAMPLE);
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        assert_eq!(zero_trace.parse::<TraceCx>(), Err(TraceCxError::ZeroId));
        assert_eq!(zero_span.parse::<TraceCx>(), Err(TraceCxError::ZeroId));
        assert_eq!(EXAMPLE.replacen("00", "ff", 1).parse::<TraceCx>(), Err(TraceCxError::ForbiddenVersion));
        let upper = EXAMPLE.to_uppercase();
        for text in ["", "00", &upper, &EXAMPLE[1..], &format!("{EXAMPLE}-00"), &EXAMPLE.replace('-', "_")] {
            assert_eq!(text.parse::<TraceCx>(), Err(TraceCxError::Malformed), "{text}");
        }
    }

    #[test]
    fn a_later_version_with_more_fields_is_read_by_its_first_four() {
        let later = format!("{}-what-the-future-will-be-like", EXAMPLE.replacen("00", "cc", 1));
        assert_eq!(later.parse::<TraceCx>(), EXAMPLE.parse());
    }

    #[test]
    fn a_child_stays_in_the_trace_under_a_new_span() {
        let root = TraceCx::new_root();
        let child = root.child();
        assert_eq!(child.trace_id, root.trace_id);
        assert_ne!(child.span_id, root.span_id);
        assert_ne!(TraceCx::new_root().trace_id, root.trace_id);
    }

    #[test]
    fn roots_are_recorded_in_the_share_asked_for() {
        let recorded = (0..10_000).filter(|_| is_recorded(non_zero(), threshold(0.05))).count();
        // Binomial(10 000, 0.05): mean 500, sigma 21.8; 6 sigma.
        assert!((370..630).contains(&recorded), "{recorded}");
        assert!(is_recorded([0xff; 16], threshold(1.0)));
        assert!(!is_recorded([0; 16], threshold(0.0)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_context_reads_back_as_itself(trace in 1_u128.., span in 1_u64.., flags in any::<u8>()) {
            let cx = TraceCx { trace_id: trace.to_be_bytes(), span_id: span.to_be_bytes(), flags };
            prop_assert_eq!(cx.to_string().parse(), Ok(cx));
        }
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,60}") {
            let _ = text.parse::<TraceCx>();
        }
    }
}
