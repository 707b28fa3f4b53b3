use proptest::prelude::*;
use serde_json::json;

use super::*;

fn key() -> LogKey {
    LogKey::new(&[7; 32])
}

pub(in super::super) fn event(kind: &str) -> Event {
    let key = key();
    Event {
        kind: kind.to_owned(),
        actor: key.pseudonym("ada@example.com"),
        action: "submit".to_owned(),
        object: key.pseudonym("doc-1"),
        tenant: key.pseudonym("acme"),
        article: Some("A4".to_owned()),
        decision: Decision::Deny,
        case: None,
        payload: Payload::Clear(json!({ "b": 1, "a": [true, null, 1.5] })),
    }
}

fn entry(payload: Payload) -> Entry {
    Entry::new(Event { payload, ..event("mod.verdict") }, "0000000000000001", 3, 1_700_000_000_000)
}

#[test]
fn bytes_are_canonical_and_tell_nothing_of_names() {
    let bytes = entry(Payload::Sealed("AAAA".to_owned())).to_bytes().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (actor, object, tenant) =
        (key().pseudonym("ada@example.com"), key().pseudonym("doc-1"), key().pseudonym("acme"));
    let wanted = format!(
        r#"{{"action":"submit","actor":"{}","article":"A4","decision":"deny","kind":"mod.verdict","node":"0000000000000001","object":"{}","payload":{{"sealed":"AAAA"}},"seq":3,"t":1700000000000,"tenant":"{}","v":1}}"#,
        actor.as_str(),
        object.as_str(),
        tenant.as_str(),
    );
    assert_eq!(text, wanted);
    assert!(!text.contains("ada") && !text.contains("acme"));
}

#[test]
fn pseudonyms_are_keyed_hashes() {
    // RFC 4231 test case 2: HMAC-SHA-256 of this text under the key "Jefe" begins 5bdcc146bf60754e6a042426.
    let key = LogKey(hmac::Key::new(hmac::HMAC_SHA256, b"Jefe"));
    let bytes = data_encoding::HEXLOWER.decode(b"5bdcc146bf60754e6a0424260895").unwrap();
    assert_eq!(key.pseudonym("what do ya want for nothing?").as_str(), &BASE32_NOPAD.encode(&bytes)[..20]);
    assert_ne!(key.pseudonym("ada"), LogKey::new(&[8; 32]).pseudonym("ada"));
    assert_eq!(format!("{key:?}"), "LogKey");
}

#[test]
fn names_in_clear_are_no_pseudonyms() {
    for text in ["ada@example.com", "", "abcdefghijklmnopqrst", "ABCDEFGHIJKLMNOPQRS1", "ABCDEFGHIJKLMNOPQRSTU"] {
        assert_eq!(Pseudonym::parse(text), None, "{text}");
        assert!(serde_json::from_value::<Pseudonym>(json!(text)).is_err());
    }
}

#[test]
fn commitments_open_only_with_their_salt_and_content() {
    let commitment = Payload::commit(&[1; 32], b"verdict");
    assert!(commitment.opens(&[1; 32], b"verdict"));
    assert!(!commitment.opens(&[2; 32], b"verdict") && !commitment.opens(&[1; 32], b"Verdict"));
}

#[test]
fn large_numbers_and_entries_are_refused() {
    for number in [json!(u64::MAX), json!(i64::MIN), json!([{ "a": (1_u64 << 53) + 1 }])] {
        assert!(matches!(entry(Payload::Clear(number)).to_bytes(), Err(EntryError::Malformed(_))));
    }
    let late = Entry::new(event("a"), "n", 0, u64::MAX).to_bytes();
    assert!(matches!(late, Err(EntryError::Malformed(_))));
    let large = entry(Payload::Sealed("A".repeat(MAX_ENTRY))).to_bytes();
    assert!(matches!(large, Err(EntryError::TooLarge(bytes)) if bytes > MAX_ENTRY));
    assert!(matches!(Entry::from_bytes(&vec![b' '; MAX_ENTRY + 1]), Err(EntryError::TooLarge(_))));
}

#[test]
fn other_forms_of_the_same_entry_are_refused() {
    let bytes = entry(Payload::Clear(json!({ "a": 1 }))).to_bytes().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(Entry::from_bytes(text.as_bytes()).is_ok());
    let spaced = text.replacen(':', ": ", 1);
    assert_eq!(Entry::from_bytes(spaced.as_bytes()), Err(EntryError::NotCanonical));
    let longer = text.replacen("\"v\":1", "\"v\":1,\"x\":2", 1);
    assert!(Entry::from_bytes(longer.as_bytes()).is_err(), "unknown fields are not dropped silently");
    for bad in [text.replacen("\"v\":1", "\"v\":2", 1), "{}".to_owned(), String::new()] {
        assert!(matches!(Entry::from_bytes(bad.as_bytes()), Err(EntryError::Malformed(_))), "{bad}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..1 << 53).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn entries_round_trip(value in value(), seq in 0..1_u64 << 53, case in proptest::option::of(any::<String>())) {
        let event = Event { case, payload: Payload::Clear(value), ..event("mod.verdict") };
        let entry = Entry::new(event, "n", seq, seq);
        let bytes = entry.to_bytes().unwrap();
        prop_assert_eq!(Entry::from_bytes(&bytes).unwrap().to_bytes().unwrap(), bytes);
    }
}
