//! The records of a lane: what two nodes write to each other, one after another, nothing around them.
//!
//! Little-endian. `len u32` (bytes that follow) · `type u8` · `flags u8` · then by type:
//!
//! | type | fields |
//! |---|---|
//! | 1 TELL | head · `kind u32` · `version u16` · `key length u16` · key · body (to the end) |
//! | 2 ASK | `corr u64`, then as TELL |
//! | 3 REPLY | `corr u64` · \[PARTS: `id u64`\] · body |
//! | 4 FAIL | `corr u64` · postcard of a [`CallError`]; flag 1 HANDLED: the actor's own handler says so |
//! | 5 CANCEL | `corr u64`: nobody waits for this answer any more |
//! | 7 HELLO | `proto u16` · `cluster u64` · `node u64` · `incarnation u64`; the first record each way |
//! | 8 PART | `id u64` · bytes: the next piece of a body that is too large for one record; no bytes: its sender gave up |
//! | 9 SHED | `kind u32` · `retry after ms u32` · key: a TELL to this actor found its mailbox full |
//! | 10 PING, 11 PONG | none: whether anybody is there |
//!
//! The head of a mail has, in this order, what its flags say: 1 TRACE `trace id 16, span id 8, flags 1` · 2 DEADLINE
//! `remaining ms u32` (relative, so clocks need not agree) · 4 IDEM `16` · 16 PRINCIPAL `length u16`, postcard ·
//! 32 PARTS `id u64`: the body begins with the pieces sent under this id. 64 TAINT: the context is tainted. 8 NODE means a service of the node, not an actor.
//!
//! Decoding is total: any bytes give records or a [`BadRecord`], and nothing is allocated for a length that is only claimed.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{CallError, Failure};
use crate::kind::KEY_MAX;
use crate::mail::{Idem, MsgCx};
use crate::principal::Principal;
use crate::trace_cx::TraceCx;

/// Version of this format.
pub(crate) const PROTO: u16 = 1;
/// Longest body in one record; longer ones go in parts.
pub(crate) const PART: usize = 256 << 10;
/// Longest record: a part and what stands before it.
const MAX_LEN: usize = PART + (4 << 10);
/// Longest body, all parts together.
pub(crate) const MAX_BODY: usize = 64 << 20;
/// Longest principal; a caller with more roles than fit is refused.
const MAX_PRINCIPAL: usize = 2 << 10;

const TELL: u8 = 1;
const ASK: u8 = 2;
const REPLY: u8 = 3;
const FAIL: u8 = 4;
const CANCEL: u8 = 5;
const HELLO: u8 = 7;
const PIECE: u8 = 8;
const SHED: u8 = 9;
const PING: u8 = 10;
const PONG: u8 = 11;

const TRACE: u8 = 1;
const DEADLINE: u8 = 2;
const IDEM: u8 = 4;
const NODE: u8 = 8;
const PRINCIPAL: u8 = 16;
const PARTS: u8 = 32;
/// Of a mail: its context is tainted.
const TAINT: u8 = 64;
/// Of a FAIL.
const HANDLED: u8 = 1;

/// Where a mail goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct To<'a> {
    /// A service of the node instead of an actor.
    pub(crate) node: bool,
    /// Short name of the kind, or the number of the service.
    pub(crate) kind: u32,
    pub(crate) version: u16,
    pub(crate) key: &'a str,
}

/// A mail as it came.
#[derive(Debug, PartialEq)]
pub(crate) struct MailRecord<'a> {
    /// Names the ask; `None` for a tell.
    pub(crate) corr: Option<u64>,
    pub(crate) to: To<'a>,
    pub(crate) head: Head,
    pub(crate) body: &'a [u8],
}

/// The context of a mail as it came.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Head {
    pub(crate) trace: Option<TraceCx>,
    pub(crate) remaining: Option<Duration>,
    pub(crate) idem: Option<Idem>,
    pub(crate) principal: Option<Principal>,
    /// The body begins with the pieces under this id.
    pub(crate) parts: Option<u64>,
    pub(crate) taint: bool,
}

/// Who is at the other end of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) proto: u16,
    pub(crate) cluster: u64,
    pub(crate) node: u64,
    pub(crate) incarnation: u64,
}

/// One record.
#[derive(Debug, PartialEq)]
pub(crate) enum Record<'a> {
    Mail(MailRecord<'a>),
    Reply { corr: u64, parts: Option<u64>, body: &'a [u8] },
    Fail { corr: u64, failure: Failure },
    Cancel { corr: u64 },
    Hello(Hello),
    Part { id: u64, bytes: &'a [u8] },
    Shed { kind: u32, retry_after_ms: u32, key: &'a str },
    Ping,
    Pong,
}

/// Bytes that no node of this format writes; the lane they came from is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bad record: {0}")]
pub(crate) struct BadRecord(pub(crate) &'static str);

/// Reads the first record of `bytes`: it, and how many bytes it takes; `None` when it is not complete yet.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Record<'_>, usize)>, BadRecord> {
    let Some(len) = bytes.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*len) as usize;
    if !(2..=MAX_LEN).contains(&len) {
        return Err(BadRecord("length out of range"));
    }
    let Some(record) = bytes.get(4..4 + len) else { return Ok(None) };
    Ok(Some((parse(record)?, 4 + len)))
}

fn parse(record: &[u8]) -> Result<Record<'_>, BadRecord> {
    let mut rest = Reader(record);
    let (kind, flags) = (rest.u8()?, rest.u8()?);
    Ok(match kind {
        TELL | ASK => {
            let corr = if kind == ASK { Some(rest.u64()?) } else { None };
            let head = head(flags, &mut rest)?;
            let (kind, version) = (rest.u32()?, rest.u16()?);
            let key_len = usize::from(rest.u16()?);
            let key = rest.key(key_len)?;
            let to = To { node: flags & NODE != 0, kind, version, key };
            Record::Mail(MailRecord { corr, to, head, body: rest.0 })
        }
        REPLY => {
            let corr = rest.u64()?;
            let parts = if flags & PARTS == 0 { None } else { Some(rest.u64()?) };
            Record::Reply { corr, parts, body: rest.0 }
        }
        FAIL => {
            let corr = rest.u64()?;
            // A newer node may know errors that this one does not.
            let error = postcard::from_bytes(rest.0).unwrap_or(CallError::NoReply);
            Record::Fail { corr, failure: Failure { error, is_handled: flags & HANDLED != 0 } }
        }
        CANCEL => Record::Cancel { corr: rest.u64()? },
        HELLO => {
            let (proto, cluster, node, incarnation) = (rest.u16()?, rest.u64()?, rest.u64()?, rest.u64()?);
            Record::Hello(Hello { proto, cluster, node, incarnation })
        }
        PIECE => Record::Part { id: rest.u64()?, bytes: rest.0 },
        SHED => {
            let (kind, retry_after_ms) = (rest.u32()?, rest.u32()?);
            let key_len = rest.0.len();
            Record::Shed { kind, retry_after_ms, key: rest.key(key_len)? }
        }
        PING => Record::Ping,
        PONG => Record::Pong,
        _ => return Err(BadRecord("unknown type")),
    })
}

fn head(flags: u8, rest: &mut Reader<'_>) -> Result<Head, BadRecord> {
    let mut head = Head { taint: flags & TAINT != 0, ..Head::default() };
    if flags & TRACE != 0 {
        head.trace = Some(TraceCx { trace_id: *rest.array()?, span_id: *rest.array()?, flags: rest.u8()? });
    }
    if flags & DEADLINE != 0 {
        head.remaining = Some(Duration::from_millis(u64::from(rest.u32()?)));
    }
    if flags & IDEM != 0 {
        head.idem = Some(Idem(*rest.array()?));
    }
    if flags & PRINCIPAL != 0 {
        let len = usize::from(rest.u16()?);
        let bytes = rest.take(len)?;
        head.principal = Some(postcard::from_bytes(bytes).map_err(|_| BadRecord("principal"))?);
    }
    if flags & PARTS != 0 {
        head.parts = Some(rest.u64()?);
    }
    Ok(head)
}

/// What is left of a record.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BadRecord> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(BadRecord("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], BadRecord> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BadRecord("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, BadRecord> {
        self.array().map(|[byte]| *byte)
    }

    fn u16(&mut self) -> Result<u16, BadRecord> {
        self.array().map(|bytes| u16::from_le_bytes(*bytes))
    }

    fn u32(&mut self) -> Result<u32, BadRecord> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, BadRecord> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn key(&mut self, len: usize) -> Result<&'a str, BadRecord> {
        if len > KEY_MAX {
            return Err(BadRecord("key too long"));
        }
        std::str::from_utf8(self.take(len)?).map_err(|_| BadRecord("key is not UTF-8"))
    }
}

/// Writes a record whose fields `fields` appends.
fn record(out: &mut Vec<u8>, kind: u8, flags: u8, fields: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind, flags]);
    fields(out);
    let len = u32::try_from(out.len() - at - 4).expect("a record is at most MAX_LEN");
    debug_assert!(len as usize <= MAX_LEN, "a record of {len} bytes");
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// The context of a mail, ready to be written many times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Envelope {
    trace: Option<TraceCx>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) idem: Option<Idem>,
    principal: Option<Vec<u8>>,
    taint: bool,
}

impl Envelope {
    /// What of a context travels.
    pub(crate) fn of(cx: &MsgCx) -> Result<Self, CallError> {
        let principal = cx.principal().map(postcard::to_allocvec).transpose();
        let principal = principal.map_err(|e| CallError::Decode { detail: e.to_string() })?;
        if principal.as_ref().is_some_and(|bytes| bytes.len() > MAX_PRINCIPAL) {
            return Err(CallError::TooLarge { max: MAX_PRINCIPAL as u64 });
        }
        Ok(Self { trace: cx.trace(), deadline: cx.deadline(), idem: cx.idem(), principal, taint: cx.is_tainted() })
    }

    fn flags(&self) -> u8 {
        let bit = |present: bool, flag: u8| if present { flag } else { 0 };
        bit(self.trace.is_some(), TRACE)
            | bit(self.deadline.is_some(), DEADLINE)
            | bit(self.idem.is_some(), IDEM)
            | bit(self.principal.is_some(), PRINCIPAL)
            | bit(self.taint, TAINT)
    }

    fn write(&self, out: &mut Vec<u8>, now: Instant) {
        if let Some(trace) = &self.trace {
            out.extend_from_slice(&trace.trace_id);
            out.extend_from_slice(&trace.span_id);
            out.push(trace.flags);
        }
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(now).as_millis();
            out.extend_from_slice(&u32::try_from(left).unwrap_or(u32::MAX).to_le_bytes());
        }
        if let Some(idem) = &self.idem {
            out.extend_from_slice(&idem.0);
        }
        if let Some(principal) = &self.principal {
            out.extend_from_slice(&u16::try_from(principal.len()).expect("at most MAX_PRINCIPAL").to_le_bytes());
            out.extend_from_slice(principal);
        }
    }
}

/// Writes a mail; its body, or what the parts under `parts` left of it, is at most [`PART`] bytes.
pub(crate) fn write_mail(
    out: &mut Vec<u8>,
    corr: Option<u64>,
    to: &To<'_>,
    (envelope, now): (&Envelope, Instant),
    (parts, body): (Option<u64>, &[u8]),
) {
    let kind = if corr.is_some() { ASK } else { TELL };
    let flags = envelope.flags() | if to.node { NODE } else { 0 } | if parts.is_some() { PARTS } else { 0 };
    record(out, kind, flags, |out| {
        if let Some(corr) = corr {
            out.extend_from_slice(&corr.to_le_bytes());
        }
        envelope.write(out, now);
        if let Some(id) = parts {
            out.extend_from_slice(&id.to_le_bytes());
        }
        out.extend_from_slice(&to.kind.to_le_bytes());
        out.extend_from_slice(&to.version.to_le_bytes());
        out.extend_from_slice(&u16::try_from(to.key.len()).expect("at most KEY_MAX").to_le_bytes());
        out.extend_from_slice(to.key.as_bytes());
        out.extend_from_slice(body);
    });
}

/// Writes an answer; as [`write_mail`] for its body.
pub(crate) fn write_reply(out: &mut Vec<u8>, corr: u64, parts: Option<u64>, body: &[u8]) {
    record(out, REPLY, if parts.is_some() { PARTS } else { 0 }, |out| {
        out.extend_from_slice(&corr.to_le_bytes());
        if let Some(id) = parts {
            out.extend_from_slice(&id.to_le_bytes());
        }
        out.extend_from_slice(body);
    });
}

/// Writes the end of an ask without answer.
pub(crate) fn write_fail(out: &mut Vec<u8>, corr: u64, Failure { error, is_handled }: &Failure) {
    let mut body = postcard::to_allocvec(error).unwrap_or_default();
    if body.len() > PART {
        body = postcard::to_allocvec(&CallError::TooLarge { max: PART as u64 }).unwrap_or_default();
    }
    record(out, FAIL, if *is_handled { HANDLED } else { 0 }, |out| {
        out.extend_from_slice(&corr.to_le_bytes());
        out.extend_from_slice(&body);
    });
}

/// Writes that nobody waits any more.
pub(crate) fn write_cancel(out: &mut Vec<u8>, corr: u64) {
    record(out, CANCEL, 0, |out| out.extend_from_slice(&corr.to_le_bytes()));
}

/// Writes the greeting.
pub(crate) fn write_hello(out: &mut Vec<u8>, hello: &Hello) {
    record(out, HELLO, 0, |out| {
        out.extend_from_slice(&hello.proto.to_le_bytes());
        for field in [hello.cluster, hello.node, hello.incarnation] {
            out.extend_from_slice(&field.to_le_bytes());
        }
    });
}

/// Writes the question whether anybody is there.
pub(crate) fn write_ping(out: &mut Vec<u8>) {
    record(out, PING, 0, |_| ());
}

/// Writes that somebody is.
pub(crate) fn write_pong(out: &mut Vec<u8>) {
    record(out, PONG, 0, |_| ());
}

/// Writes a piece of a large body, at most [`PART`] bytes.
pub(crate) fn write_part(out: &mut Vec<u8>, id: u64, bytes: &[u8]) {
    record(out, PIECE, 0, |out| {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(bytes);
    });
}

/// Writes that an actor's mailbox was full for a tell.
pub(crate) fn write_shed(out: &mut Vec<u8>, kind: u32, retry_after_ms: u32, key: &str) {
    record(out, SHED, 0, |out| {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&retry_after_ms.to_le_bytes());
        out.extend_from_slice(key.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::principal::PrincipalKind;

    /// Kind `counter`, key `visits`, version 1.
    const VISITS: To<'static> = To { node: false, kind: 0x1635_581d, version: 1, key: "visits" };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn envelope(now: Instant, trace: Option<&str>) -> Envelope {
        let deadline = Some(now + Duration::from_millis(1500));
        Envelope { deadline, trace: trace.map(|text| text.parse().unwrap()), ..Envelope::default() }
    }

    #[test]
    fn records_have_the_documented_bytes() {
        let now = Instant::now();
        let mut out = Vec::new();
        write_mail(&mut out, None, &VISITS, (&envelope(now, None), now), (None, &[0, 5]));
        assert_eq!(hex(&out), "160000000102dc0500001d583516010006007669736974730005");
        let mut out = Vec::new();
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        write_mail(&mut out, Some(7), &VISITS, (&envelope(now, Some(trace)), now), (None, &[1]));
        let expected = "36000000020307000000000000004bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b701dc0500001d58351601000600\
                        76697369747301";
        assert_eq!(hex(&out), expected);
        let mut out = Vec::new();
        write_reply(&mut out, 7, None, &[5]);
        assert_eq!(hex(&out), "0b0000000300070000000000000005");
    }

    #[test]
    fn everything_a_mail_carries_arrives() {
        let now = Instant::now();
        let principal = Principal {
            tenant: "local".to_owned(),
            subject: "ada".to_owned(),
            kind: PrincipalKind::User,
            roles: vec!["admin".to_owned()],
            scopes: Vec::new(),
        };
        let trace: TraceCx = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        let mut cx = MsgCx::request(Some(now + Duration::from_secs(2)), Some(trace), Some(principal.clone().into()));
        cx.more_mut().idem = Some(Idem([7; 16]));
        let cx = cx.tainted();
        let mut out = Vec::new();
        let to = To { node: true, ..VISITS };
        write_mail(&mut out, Some(1), &to, (&Envelope::of(&cx).unwrap(), now), (Some(3), b"rest"));
        let (record, used) = read(&out).unwrap().unwrap();
        assert_eq!(used, out.len());
        let head = Head {
            trace: Some(trace),
            remaining: Some(Duration::from_secs(2)),
            idem: Some(Idem([7; 16])),
            principal: Some(principal),
            parts: Some(3),
            taint: true,
        };
        assert_eq!(record, Record::Mail(MailRecord { corr: Some(1), to, head, body: b"rest" }));
    }

    #[test]
    fn the_other_records_read_back() {
        let hello = Hello { proto: PROTO, cluster: 1, node: 2, incarnation: 3 };
        let failure = Failure { error: CallError::Overloaded { retry_after_ms: 50 }, is_handled: true };
        let mut out = Vec::new();
        write_hello(&mut out, &hello);
        write_fail(&mut out, 4, &failure);
        write_cancel(&mut out, 5);
        write_part(&mut out, 6, b"piece");
        write_shed(&mut out, 7, 20, "key");
        write_reply(&mut out, 8, Some(6), b"end");
        write_ping(&mut out);
        write_pong(&mut out);
        let expected = [
            Record::Hello(hello),
            Record::Fail { corr: 4, failure },
            Record::Cancel { corr: 5 },
            Record::Part { id: 6, bytes: b"piece" },
            Record::Shed { kind: 7, retry_after_ms: 20, key: "key" },
            Record::Reply { corr: 8, parts: Some(6), body: b"end" },
            Record::Ping,
            Record::Pong,
        ];
        let mut rest = &out[..];
        for expected in expected {
            let (record, used) = read(rest).unwrap().unwrap();
            assert_eq!(record, expected);
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn lengths_and_types_out_of_range_are_refused() {
        for len in [0, 1, u32::try_from(MAX_LEN + 1).unwrap(), u32::MAX] {
            assert_eq!(read(&len.to_le_bytes()), Err(BadRecord("length out of range")));
        }
        assert_eq!(read(&[2, 0, 0, 0, 6, 0]), Err(BadRecord("unknown type")));
        assert_eq!(read(&[2, 0, 0, 0, 5, 0]), Err(BadRecord("too short")));
        // A key that claims more bytes than there are, and one that is longer than any key.
        let mut out = Vec::new();
        write_mail(&mut out, None, &VISITS, (&Envelope::default(), Instant::now()), (None, &[]));
        out[12] = 7;
        assert_eq!(read(&out), Err(BadRecord("too short")));
        out[13] = 255;
        assert_eq!(read(&out), Err(BadRecord("key too long")));
    }

    #[test]
    fn principal_with_too_many_roles_is_refused() {
        let principal = Principal {
            tenant: String::new(),
            subject: String::new(),
            kind: PrincipalKind::User,
            roles: vec!["r".repeat(100); 30],
            scopes: Vec::new(),
        };
        let cx = MsgCx::request(None, None, Some(principal.into()));
        assert!(matches!(Envelope::of(&cx), Err(CallError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn arbitrary_records_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 2..200)) {
            let len = u32::try_from(bytes.len()).unwrap();
            bytes[0] %= 12;
            let _ = read(&[&len.to_le_bytes()[..], &bytes].concat());
        }

        #[test]
        fn any_split_of_the_stream_gives_the_same_records(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..8),
            cuts in prop::collection::vec(1_usize..40, 1..50),
        ) {
            let now = Instant::now();
            let mut stream = Vec::new();
            for (n, body) in bodies.iter().enumerate() {
                write_mail(&mut stream, Some(n as u64), &VISITS, (&Envelope::default(), now), (None, body));
            }
            let (mut buffer, mut found, mut rest) = (Vec::new(), Vec::new(), &stream[..]);
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                buffer.extend_from_slice(now);
                let mut at = 0;
                while let Some((Record::Mail(mail), used)) = read(&buffer[at..]).unwrap() {
                    found.push(mail.body.to_vec());
                    at += used;
                }
                buffer.drain(..at);
            }
            prop_assert_eq!(found, bodies);
        }
    }
}
