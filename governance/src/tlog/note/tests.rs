use ed25519_dalek::{Signer as _, SigningKey, Verifier as _, VerifyingKey};
use proptest::prelude::*;

use super::*;

/// Go `golang.org/x/mod/sumdb/note`, example of package note.
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\
    \n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
/// The key of the Go checksum database, and a checkpoint it signed (google/trillian-examples, addrwitness README).
const SUM_KEY: &str = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
const SUM_NOTE: &str = "go.sum database tree\n15067302\ngJyioq6dwR9n+NjEWORfYmH+ubeYm3kH42BBQ0bTpYI=\n\n\
    — sum.golang.org Az3grp1rvWOs5NKlr/xR4GLN/CDyzzakmt1o61uSxYKpK1SerqOP2ClbX/peKUZjYnyomH5Xz7GZG3TpB7OeKn4E2ww=\n";

fn log_signer(seed: u8) -> LogSigner {
    LogSigner::new("example.com/log", &[seed; 32]).unwrap()
}

fn signed(text: &str) -> Note {
    Note::new(text.to_owned(), log_signer(1).sign(text))
}

#[test]
fn notes_of_other_implementations_verify() {
    for (key, note) in [(GO_KEY, GO_NOTE), (SUM_KEY, SUM_NOTE)] {
        let key: VerifierKey = key.parse().unwrap();
        let note: Note = note.parse().unwrap();
        assert_eq!(note.verify([&key]).unwrap(), [Signed { key: &key, unix_s: None }]);
    }
}

#[test]
fn every_flipped_byte_of_a_foreign_note_is_refused() {
    let key: VerifierKey = GO_KEY.parse().unwrap();
    for at in 0..GO_NOTE.len() {
        for bit in 0..8 {
            let mut bytes = GO_NOTE.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let read = String::from_utf8(bytes).ok().and_then(|text| text.parse::<Note>().ok());
            assert!(read.is_none_or(|note| note.verify([&key]).is_err()), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_second_implementation_agrees_on_notes() {
    let theirs = SigningKey::from_bytes(&[1; 32]);
    let text = "example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
    let ours = log_signer(1).sign(text);
    assert_eq!(ours.signature, theirs.sign(text.as_bytes()).to_bytes());
    assert_eq!(log_signer(1).public().key, theirs.verifying_key().to_bytes());
    let signature = ed25519_dalek::Signature::from_slice(&ours.signature).unwrap();
    assert!(VerifyingKey::from_bytes(&log_signer(1).public().key).unwrap().verify(text.as_bytes(), &signature).is_ok());
}

#[test]
fn a_second_implementation_agrees_on_cosignatures() {
    // C2SP tlog-cosignature: the message is two lines, then the note's text; the payload is the time, then the signature.
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let message = format!("cosignature/v1\ntime 1679315147\n{text}");
    let theirs = SigningKey::from_bytes(&[2; 32]).sign(message.as_bytes());
    let witness = Cosigner::new("witness.example.com/w1", &[2; 32]).unwrap();
    let line = witness.cosign(text, 1_679_315_147);
    assert_eq!(line.signature, [&1_679_315_147_u64.to_be_bytes()[..], &theirs.to_bytes()].concat());
    let note = Note::new(text.to_owned(), line);
    let key = witness.public();
    assert_eq!(note.verify([key]).unwrap(), [Signed { key, unix_s: Some(1_679_315_147) }]);
}

#[test]
fn times_beyond_the_specification_are_refused() {
    let witness = Cosigner::new("w", &[2; 32]).unwrap();
    let note = Note::new("a\n".to_owned(), witness.cosign("a\n", 1 << 63));
    assert_eq!(note.verify([witness.public()]), Err(BadNote::WrongSignature));
}

#[test]
fn unknown_signatures_are_ignored_and_wrong_ones_refused() {
    let mut note = signed("hello\n");
    assert_eq!(note.verify([log_signer(2).public()]), Err(BadNote::Unsigned));
    note.add(LogSigner::new("other", &[9; 32]).unwrap().sign("hello\n"));
    assert_eq!(note.verify([log_signer(1).public()]).unwrap().len(), 1);
    assert!(!note.is_signed_by_only(&[log_signer(1).public()]));
    note.add(log_signer(1).sign("other text\n"));
    assert_eq!(note.signatures().len(), 2);
    assert_eq!(note.verify([log_signer(1).public()]), Err(BadNote::WrongSignature));
}

#[test]
fn keys_round_trip_and_wrong_ones_are_refused() {
    for key in [log_signer(1).public().clone(), Cosigner::new("w/1", &[3; 32]).unwrap().public().clone()] {
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
    }
    let other_id = GO_KEY.replace("c74f20a3", "c74f20a4");
    for text in ["", "a", "a+b", "a+00000000+", "+c74f20a3+AR", &other_id, &GO_KEY.replace("+AR", "+BR")] {
        assert_eq!(text.parse::<VerifierKey>(), Err(BadNote::BadKey), "{text}");
    }
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\nb"] {
        assert!(LogSigner::new(name, &[1; 32]).is_err(), "{name:?}");
    }
}

#[test]
fn malformed_notes_are_refused() {
    let line = log_signer(1).sign("a\n").to_string();
    let cases = [
        ("a\n".to_owned(), Malformed::NoSignatures),
        ("a\n\n".to_owned(), Malformed::NoSignatures),
        (format!("a\n\n{}", line.trim_end()), Malformed::NoSignatures),
        (format!("a\r\n\n{line}"), Malformed::Control),
        (format!("a\n\n- x AAAAAAA=\n{line}"), Malformed::SignatureLine),
        ("a\n\n— x AAAAAA==\n".to_owned(), Malformed::SignatureLine),
        (format!("a\n\n{}", line.repeat(65)), Malformed::TooLarge),
        (format!("{}\n\n{line}", "a".repeat(MAX_NOTE)), Malformed::TooLarge),
    ];
    for (text, what) in cases {
        assert_eq!(text.parse::<Note>(), Err(BadNote::Malformed(what)), "{}", &text[..text.len().min(80)]);
    }
}

#[test]
fn secrets_do_not_show() {
    assert_eq!(format!("{:?}", log_signer(1)), format!("LogSigner({})", log_signer(1).public()));
    let cosigner = Cosigner::new("w", &[1; 32]).unwrap();
    assert_eq!(format!("{cosigner:?}"), format!("Cosigner({})", cosigner.public()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn notes_round_trip(text in "[^\\x00-\\x1f\\x7f]{0,40}(\n[^\\x00-\\x1f\\x7f]{0,40}){0,4}") {
        let note = signed(&format!("{text}\n"));
        let read: Note = note.to_string().parse().unwrap();
        prop_assert_eq!(&read, &note);
        prop_assert!(read.verify([log_signer(1).public()]).is_ok());
        let packed = postcard::to_allocvec(&note).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Note>(&packed).unwrap(), note);
    }
}
