use proptest::prelude::*;

use super::*;

/// Kinds and texts of the findings.
fn found(text: &str) -> Vec<(DataKind, &str)> {
    scan(text).into_iter().map(|finding| (finding.kind, &text[finding.span])).collect()
}

fn only(text: &str, kind: DataKind, value: &str) {
    assert_eq!(found(text), [(kind, value)], "{text}");
}

fn nothing(text: &str) {
    assert_eq!(found(text), [], "{text}");
}

// The card networks' and Stripe's published test numbers (governance.md 12).
#[test]
fn published_cards_are_found_and_a_wrong_check_digit_is_not() {
    for card in [
        "4111111111111111",
        "5555555555554444",
        "378282246310005",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
        "2223003122003222",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "3782 822463 10005",
    ] {
        only(&format!("It was {card}."), DataKind::Pan, card);
    }
    nothing("It was 4111111111111112.");
}

#[test]
fn cards_inside_other_things_are_none() {
    for text in [
        "id 4111111111111111abc",
        "0x4111111111111111ff",
        "550e8400-e29b-41d4-a716-4111111111111111",
        "v1.4111111111111111",
        "4111111111111111.5",
        "41111111111111111111111111",
    ] {
        assert!(found(text).iter().all(|(kind, _)| *kind != DataKind::Pan), "{text} {:?}", found(text));
    }
}

// The registry's example (governance.md 12), 49 CFR 565.
#[test]
fn account_and_vehicle_vectors() {
    only("pay to GB82WEST12345698765432 today", DataKind::Iban, "GB82WEST12345698765432");
    only("pay to GB82 WEST 1234 5698 7654 32 today", DataKind::Iban, "GB82 WEST 1234 5698 7654 32");
    only("the van 1M8GDM9AXKP042788 moved", DataKind::Vin, "1M8GDM9AXKP042788");
}

#[test]
fn one_example_of_each_kind() {
    for (text, kind, value) in [
        ("mail ann.lee+x@mail.example.org, please", DataKind::Email, "ann.lee+x@mail.example.org"),
        ("mail jörg@bücher.de!", DataKind::Email, "jörg@bücher.de"),
        ("call (415) 555-2671 now", DataKind::Phone, "(415) 555-2671"),
        ("call 415-555-2671 now", DataKind::Phone, "415-555-2671"),
        ("call +49 30 901820 now", DataKind::Phone, "+49 30 901820"),
        ("call +44 (0)20 7946 0958 now", DataKind::Phone, "+44 (0)20 7946 0958"),
        ("tel. 030 12345678", DataKind::Phone, "030 12345678"),
        ("au 01 42 68 53 00, merci", DataKind::Phone, "01 42 68 53 00"),
        ("fax: 415-555-2671", DataKind::Fax, "415-555-2671"),
        ("his 536-22-1234 leaked", DataKind::Ssn, "536-22-1234"),
        ("SSN 536221234", DataKind::Ssn, "536221234"),
        ("passport C01X00T47", DataKind::Passport, "C01X00T47"),
        ("cvv: 123", DataKind::Cvv, "123"),
        ("the cvv on the back is 123", DataKind::Cvv, "123"),
        ("DNI 12345678Z", DataKind::NationalId, "12345678Z"),
        ("Aadhaar 2341 2341 2346", DataKind::NationalId, "2341 2341 2346"),
        ("near 52.520008, 13.404954.", DataKind::Coordinates, "52.520008, 13.404954"),
        ("on 2024-03-01 we", DataKind::Date, "2024-03-01"),
        ("on March 1st, 2024 we", DataKind::Date, "March 1st, 2024"),
        ("am 1. März 2024 war", DataKind::Date, "1. März 2024"),
        ("she is 93 years old", DataKind::Age, "93"),
        ("MRN: 00123456", DataKind::Mrn, "00123456"),
        ("member ID XQZ123456789", DataKind::HealthPlan, "XQZ123456789"),
        ("account number 12345678", DataKind::Account, "12345678"),
        ("driver's license D1234567", DataKind::Licence, "D1234567"),
        ("license plate 7ABC123", DataKind::Plate, "7ABC123"),
        ("serial number SN-99X812345", DataKind::DeviceSerial, "SN-99X812345"),
        ("at 00:1b:44:11:3a:b7", DataKind::DeviceSerial, "00:1b:44:11:3a:b7"),
        ("see https://example.org/a?b=1.", DataKind::Url, "https://example.org/a?b=1"),
        ("see (https://en.wikipedia.org/wiki/A_(b))", DataKind::Url, "https://en.wikipedia.org/wiki/A_(b)"),
        ("host 192.168.17.4 is", DataKind::Ip, "192.168.17.4"),
        ("host 2001:db8::8a2e:370:7334 is", DataKind::Ip, "2001:db8::8a2e:370:7334"),
        ("iris_scan_0042 stored", DataKind::Biometric, "iris_scan_0042"),
        ("file ann_portrait.jpg", DataKind::FaceImage, "ann_portrait.jpg"),
        ("ref 123e4567-e89b-12d3-a456-426614174000", DataKind::UniqueId, "123e4567-e89b-12d3-a456-426614174000"),
        ("the box in TX 73301", DataKind::Zip, "73301"),
        ("her name is Maria Gonzalez", DataKind::Name, "Maria Gonzalez"),
        ("she lives in Barcelona now", DataKind::Place, "Barcelona"),
        ("lives at 12 Elm Street, Apt 4", DataKind::Address, "12 Elm Street, Apt 4"),
    ] {
        only(text, kind, value);
    }
}

// Formats as the providers document them; the values are made up or the documentation's examples.
#[test]
fn credentials_are_found() {
    let pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\nSM49AgEG\n-----END PRIVATE KEY-----";
    let key = "avk_local_0123456789_".to_owned() + &"s".repeat(43);
    let key = format!("{key}_{:08x}", crc32c::crc32c(key.as_bytes()));
    let github = format!("ghp_{}", "aB3".repeat(12));
    for secret in [
        "AKIAIOSFODNN7EXAMPLE",
        &github,
        "xoxb-123456789012-abcdefABCDEF",
        "AIzaSyA-1234567890abcdefghijklmnopqrstu",
        "sk-proj-abcdefghijklmnop1234",
        &key,
        pem,
    ] {
        only(&format!("it is {secret} here"), DataKind::Secret, secret);
    }
    only("password = q9Zx7Lk2mP0vT4sW8yB1", DataKind::Secret, "q9Zx7Lk2mP0vT4sW8yB1");
    only("db postgres://app:hunter22@db/x", DataKind::Secret, "app:hunter22");
    nothing("commit q9Zx7Lk2mP0vT4sW8yB1");
    nothing(&format!("it is {key}0 here"));
}

#[test]
fn ordinary_text_has_nothing() {
    for text in [
        "We met 12 people in 2024 and paid 1,234,567.89 for 40 chairs.",
        "Version 1.2.3.4 of the driver was released.",
        "std::fs::read and 10:30:00 are no addresses; neither is a::b.",
        "Surface.png has 4096 x 2160 pixels, order 12345678.",
        "The score was 3-2, then 21-19; see page 123-124.",
        "lessn 123456789",
    ] {
        nothing(text);
    }
}

#[test]
fn placeholders_and_tokens_are_neither_data_nor_context() {
    let token = Token::derive(&PseudonymKey::new(&[1; 32]), DataKind::Pan, "4111111111111111");
    nothing(&format!("[SSN_1] 536221234 and {token}"));
    // More digits than a placeholder has could carry data.
    only("ssn [EMAIL_536221234]", DataKind::Ssn, "536221234");
}

#[test]
fn findings_survive_the_wire() {
    let findings = scan("a@x.org 415-555-2671");
    assert_eq!(findings.len(), 2);
    let bytes = postcard::to_allocvec(&findings).unwrap();
    assert_eq!(postcard::from_bytes::<Vec<Finding>>(&bytes).unwrap(), findings);
}

/// Pieces that rules like, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("4111111111111111".to_owned()),
        Just("4111 1111 1111 1111".to_owned()),
        Just("536-22-1234".to_owned()),
        Just("a@b.org".to_owned()),
        Just("https://x.org/".to_owned()),
        Just("ssn".to_owned()),
        Just("cvv".to_owned()),
        Just("passport".to_owned()),
        Just("iban".to_owned()),
        Just("password".to_owned()),
        Just("2024-01-31".to_owned()),
        Just("GB82 WEST 1234 5698 7654 32".to_owned()),
        Just("eyJhbGciOiJub25lIn0.eyJ".to_owned()),
        Just("93".to_owned()),
        Just("age".to_owned()),
        Just("ü".to_owned()),
        Just("[SSN_1]".to_owned()),
        Just("-----BEGIN PRIVATE KEY-----".to_owned()),
        "[ .,:/@+()_-]{1,3}",
        "[0-9]{1,6}",
        "[A-Z]{1,4}",
        "[a-z]{1,6}",
        "\\PC{1,3}",
    ];
    let gap = prop_oneof![Just(""), Just(" "), Just("-"), Just("."), Just("\n")];
    proptest::collection::vec((piece, gap), 0..40)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, gap)| piece + gap).collect())
}

fn whole() -> DlpConfig {
    let profiles = vec![Profile::Pii, Profile::Phi, Profile::Pan, Profile::Secrets];
    let actions = [(DataKind::Date, Action::Redact)].into();
    DlpConfig { profiles, actions, ..DlpConfig::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn spans_are_text_in_order_and_never_overlap(text in prop_oneof![pieces(), ".{0,200}"]) {
        let mut end = 0;
        for finding in scan(&text) {
            prop_assert!(finding.span.start >= end && !finding.span.is_empty());
            prop_assert!(text.get(finding.span.clone()).is_some());
            end = finding.span.end;
        }
    }

    #[test]
    fn redacted_text_has_nothing_left(text in prop_oneof![pieces(), ".{0,200}"]) {
        let (config, key) = (whole(), PseudonymKey::new(&[9; 32]));
        let redactor = Redactor::new(&config, &key, "s");
        let once = redactor.redact(&text);
        prop_assert_eq!(scan_for(&once.text, &config), vec![], "{}", once.text);
        let twice = redactor.redact(&once.text);
        prop_assert_eq!(&twice.text, &once.text);
        prop_assert_eq!(twice.edits, vec![]);
    }

    #[test]
    fn unchanged_parts_lead_back_to_themselves(text in pieces()) {
        let (config, key) = (whole(), PseudonymKey::new(&[9; 32]));
        let out = Redactor::new(&config, &key, "s").redact(&text);
        let mut at = 0;
        for edit in &out.edits {
            let kept = at..edit.redacted.start;
            prop_assert_eq!(&text[out.original(&kept)], &out.text[kept]);
            prop_assert_eq!(out.original(&edit.redacted), edit.original.clone());
            at = edit.redacted.end;
        }
    }
}
