use super::*;
use crate::tlog::note::{Cosigner, LogSigner};
use crate::tlog::tree::Frontier;

fn signer() -> LogSigner {
    LogSigner::new("example.com/log", &[1; 32]).unwrap()
}

fn witness(n: u8) -> Cosigner {
    Cosigner::new(&format!("w{n}"), &[n; 32]).unwrap()
}

fn policy(quorum: usize) -> TrustPolicy {
    let witnesses = vec![witness(2).public().clone(), witness(3).public().clone()];
    TrustPolicy { log: signer().public().clone(), witnesses, quorum }
}

/// The second of two entries, cosigned by one witness.
fn proof() -> TlogProof {
    let mut frontier = Frontier::default();
    frontier.push(Hash::leaf(b"first"));
    frontier.push(Hash::leaf(b"second"));
    let body = Checkpoint { origin: "example.com/log".into(), size: 2, root: frontier.root() }.to_string();
    let mut note = Note::new(body.clone(), signer().sign(&body));
    note.add(witness(2).cosign(&body, 1_700_000_000));
    TlogProof { extra: Some(b"second".to_vec()), index: 1, hashes: vec![Hash::leaf(b"first")], note }
}

#[test]
fn proof_file_convinces_offline() {
    let read: TlogProof = proof().to_string().parse().unwrap();
    assert_eq!(read, proof());
    let verified = read.verify(None, &policy(1)).unwrap();
    assert_eq!((verified.index, verified.checkpoint.size), (1, 2));
    assert_eq!(verified.witnesses, [("w2".to_owned(), 1_700_000_000)]);
    assert!(read.verify(Some(b"second"), &policy(0)).is_ok());
}

#[test]
fn file_has_the_lines_of_the_specification() {
    let lines: Vec<_> = proof().to_string().lines().map(str::to_owned).collect();
    // C2SP tlog-proof, "Format".
    assert_eq!(lines[..3], ["c2sp.org/tlog-proof@v1", "extra c2Vjb25k", "index 1"]);
    assert_eq!(lines[3], Hash::leaf(b"first").to_string());
    assert_eq!(lines[4..7], ["", "example.com/log", "2"]);
    assert!(lines[9].starts_with("— example.com/log ") && lines[10].starts_with("— w2 "));
}

#[test]
fn every_flipped_bit_of_a_proof_file_is_refused() {
    let file = proof().to_string();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut bytes = file.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let read = String::from_utf8(bytes).ok().and_then(|text| text.parse::<TlogProof>().ok());
            assert!(read.is_none_or(|proof| proof.verify(None, &policy(1)).is_err()), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn each_reason_to_doubt_is_named() {
    let proof = proof();
    assert_eq!(proof.verify(Some(b"other"), &policy(1)), Err(ProofError::Inclusion(BadProof)));
    assert_eq!(proof.verify(None, &policy(2)), Err(ProofError::TooFewWitnesses { have: 1, wanted: 2 }));
    let none = TlogProof { extra: None, ..proof.clone() };
    assert_eq!(none.verify(None, &policy(0)), Err(ProofError::Malformed("it carries no entry")));
    let stranger = TrustPolicy { log: LogSigner::new("x", &[9; 32]).unwrap().public().clone(), ..policy(0) };
    assert_eq!(proof.verify(None, &stranger), Err(ProofError::Note(BadNote::Unsigned)));
    let sign = |body: &str| TlogProof { note: Note::new(body.to_owned(), signer().sign(body)), ..proof.clone() };
    assert_eq!(sign("no checkpoint\n").verify(None, &policy(0)), Err(ProofError::Checkpoint(BadCheckpoint)));
    let other = Checkpoint { origin: "other".into(), size: 2, root: Hash::empty() };
    assert_eq!(sign(&other.to_string()).verify(None, &policy(0)), Err(ProofError::OtherLog));
}

#[test]
fn other_files_are_refused() {
    let file = proof().to_string();
    let hash = format!("{}\n", Hash::leaf(b"first"));
    for (bad, what) in [
        (file.replacen("@v1", "@v2", 1), "the first line is another"),
        (file.replacen("extra c2Vjb25k", "extra c2Vjb25", 1), "the extra data is not base64"),
        (file.replacen("index 1", "index 01", 1), "no index"),
        (file.replacen(&hash, "AAAA\n", 1), "the hashes are not base64 or too many"),
        (file.replacen(&hash, &hash.repeat(64), 1), "the hashes are not base64 or too many"),
        ("c2sp.org/tlog-proof@v1\n".to_owned(), "no checkpoint"),
        ("a".repeat(MAX_FILE + 1), "too large"),
    ] {
        assert_eq!(bad.parse::<TlogProof>(), Err(ProofError::Malformed(what)));
    }
    let unsigned = file.split_once("— ").unwrap().0.to_owned();
    assert!(matches!(unsigned.parse::<TlogProof>(), Err(ProofError::Note(BadNote::Malformed(_)))));
}

#[test]
fn proofs_travel_between_nodes() {
    let packed = postcard::to_allocvec(&proof()).unwrap();
    assert_eq!(postcard::from_bytes::<TlogProof>(&packed).unwrap(), proof());
}
