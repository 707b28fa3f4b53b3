use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::keys::envelope::Envelope;

fn tenant() -> TenantId {
    TenantId::of("local")
}

fn scope(subject: &str) -> Scope {
    Scope::new(tenant(), subject, "memory").unwrap()
}

fn id(n: u128) -> DekId {
    DekId(Uuid::from_u128(n))
}

/// A ring with one DEK for each of `subjects`.
fn ring(root: &Root, subjects: &[&str]) -> KeyRing {
    let mut ring = KeyRing::default();
    ring.apply(&KeyRing::found(tenant(), root).unwrap());
    for (n, subject) in subjects.iter().enumerate() {
        let event = ring.new_dek(root, &scope(subject), id(n as u128), 1).unwrap();
        ring.apply(&event);
    }
    ring
}

fn settle(ring: &mut KeyRing, root: &Root) -> usize {
    let mut steps = 0;
    while let Some(event) = ring.next_step(root).unwrap() {
        ring.apply(&event);
        steps += 1;
    }
    steps
}

/// One day: the root's epoch, then the ring's, then the old ones go.
fn next_epoch(ring: &mut KeyRing, root: &mut Root) -> usize {
    root.advance();
    let steps = settle(ring, root);
    root.retire(ring.epoch().unwrap());
    steps
}

fn seal(ring: &KeyRing, root: &Root, subject: &str) -> Vec<u8> {
    let deks = ring.open_subject(root, scope(subject).subject).unwrap();
    deks.last().unwrap().1.seal(tenant(), b"record", b"content").unwrap()
}

fn open(ring: &KeyRing, root: &Root, subject: &str, sealed: &[u8]) -> Result<Vec<u8>, CryptError> {
    let envelope = Envelope::parse(sealed)?;
    let deks = ring.open_subject(root, scope(subject).subject)?;
    let dek = deks.iter().find(|(_, dek)| dek.id == envelope.dek());
    dek.ok_or(CryptError::UnknownKey { dek: envelope.dek() })?.1.open(tenant(), b"record", &envelope)
}

#[test]
fn old_copy_of_a_shredded_subject_cannot_be_opened_after_two_epochs() {
    let mut root = Root::generate().unwrap();
    let mut ring = ring(&root, &["ada", "bob"]);
    let (ada, bob) = (seal(&ring, &root, "ada"), seal(&ring, &root, "bob"));
    let backup = ring.clone();
    ring.apply(&ring.shred(scope("ada").subject, 5).unwrap());
    assert!(open(&ring, &root, "ada", &ada).is_err());
    assert_eq!(open(&backup, &root, "ada", &ada).unwrap(), b"content", "the backup opens as long as its epoch lasts");
    next_epoch(&mut ring, &mut root);
    let backup_of_the_day_after = ring.clone();
    next_epoch(&mut ring, &mut root);
    let gone = open(&backup, &root, "ada", &ada);
    assert_eq!(gone, Err(CryptError::EpochGone { epoch: 1, first: 2 }));
    assert_eq!(open(&ring, &root, "bob", &bob).unwrap(), b"content");
    assert_eq!(open(&backup_of_the_day_after, &root, "bob", &bob).unwrap(), b"content");
}

/// The attack that a mere rewrapping of the KEK would allow: the KEK out of today's ring, the wrapped DEK out of the backup.
#[test]
fn todays_keks_do_not_open_the_deks_of_an_old_copy() {
    let mut root = Root::generate().unwrap();
    let mut ring = ring(&root, &["ada", "bob"]);
    next_epoch(&mut ring, &mut root);
    let ada = seal(&ring, &root, "ada");
    let backup = ring.clone();
    ring.apply(&ring.shred(scope("ada").subject, 5).unwrap());
    for _ in 0..2 {
        next_epoch(&mut ring, &mut root);
        for generation in ring.keks.keys() {
            let mut forged = KeyRing { keks: ring.keks.clone(), ..backup.clone() };
            for dek in forged.subjects.values_mut().flatten() {
                dek.kek = *generation;
            }
            assert_eq!(open(&forged, &root, "ada", &ada), Err(CryptError::Authenticate));
        }
    }
}

#[test]
fn kek_without_shredded_keys_moves_on_unchanged() {
    let mut root = Root::generate().unwrap();
    let mut ring = ring(&root, &["ada"]);
    let ada = seal(&ring, &root, "ada");
    for epoch in 2..6 {
        assert_eq!(next_epoch(&mut ring, &mut root), 1);
        assert_eq!((ring.epoch(), ring.generation()), (Some(epoch), 1));
        assert_eq!(open(&ring, &root, "ada", &ada).unwrap(), b"content");
    }
    assert_eq!(settle(&mut ring, &root), 0);
}

#[test]
fn subject_shredded_while_keys_move_is_gone_too() {
    let mut root = Root::generate().unwrap();
    let names: Vec<_> = (0..STEP + 2).map(|n| format!("s{n}")).collect();
    let mut ring = ring(&root, &names.iter().map(String::as_str).collect::<Vec<_>>());
    ring.apply(&ring.shred(scope("s0").subject, 1).unwrap());
    root.advance();
    for _ in 0..2 {
        ring.apply(&ring.next_step(&root).unwrap().unwrap());
    }
    assert_eq!(ring.keks.len(), 2, "one key is still under the old KEK");
    let under = |kek| *ring.subjects.iter().find(|(_, deks)| deks[0].kek == kek).unwrap().0;
    let (unmoved, moved) = (under(1), under(2));
    ring.apply(&ring.shred(unmoved, 2).unwrap());
    assert_eq!((ring.keks.len(), ring.tainted), (1, false), "it was the last one under the old KEK");
    ring.apply(&ring.shred(moved, 2).unwrap());
    assert!(ring.tainted, "the new KEK has wrapped it");
    assert_eq!(ring.deks(), STEP as u64 - 1);
    next_epoch(&mut ring, &mut root);
    assert_eq!(ring.generation(), 3);
}

#[test]
fn shredded_subject_gets_no_new_key_and_is_shredded_once() {
    let root = Root::generate().unwrap();
    let mut ring = ring(&root, &["ada"]);
    for subject in ["ada", "nobody yet"] {
        let event = ring.shred(scope(subject).subject, 7).unwrap();
        ring.apply(&event);
        assert_eq!(ring.new_dek(&root, &scope(subject), id(9), 8).err(), Some(CryptError::Shredded { at_ms: 7 }));
        assert_eq!(ring.shred(scope(subject).subject, 9), None);
    }
    assert_eq!(ring.tombstone(scope("ada").subject), Some(&Tombstone { at_ms: 7, keys: vec![(id(0), 1)] }));
    assert_eq!((ring.deks(), ring.shredded()), (0, 2));
}

#[test]
fn newest_key_of_a_purpose_seals_and_older_ones_open() {
    let root = Root::generate().unwrap();
    let mut ring = ring(&root, &["ada"]);
    let old = seal(&ring, &root, "ada");
    ring.apply(&ring.new_dek(&root, &scope("ada"), id(50), 2).unwrap());
    assert!(ring.is_current(&scope("ada"), id(50)) && !ring.is_current(&scope("ada"), id(0)));
    assert_eq!(Envelope::parse(&seal(&ring, &root, "ada")).unwrap().dek(), id(50));
    assert_eq!(open(&ring, &root, "ada", &old).unwrap(), b"content");
    let other = Scope::new(tenant(), "ada", "audit").unwrap();
    assert!(ring.newest(&other).is_none() && !ring.is_current(&other, id(50)));
}

#[test]
fn key_is_due_by_messages_or_age() {
    let root = Root::generate().unwrap();
    let mut ring = ring(&root, &["ada"]);
    let when = RotateWhen { messages: 1 << 31, age_ms: 100 };
    ring.apply(&RingEvent::Counted(vec![(scope("ada").subject, id(0), 40), (scope("bob").subject, id(0), 9)]));
    ring.apply(&RingEvent::Counted(vec![(scope("ada").subject, id(0), 30)]));
    let dek = ring.newest(&scope("ada")).unwrap();
    assert_eq!(dek.messages, 40, "a count never goes back");
    assert!(!dek.is_due((1 << 31) - 1, when, 100));
    assert!(dek.is_due(1 << 31, when, 1) && dek.is_due(0, when, 101));
}

#[test]
fn full_ring_takes_no_more_keys() {
    let root = Root::generate().unwrap();
    let mut ring = ring(&root, &["ada"]);
    ring.deks = MAX_DEKS;
    assert_eq!(ring.new_dek(&root, &scope("bob"), id(1), 1).err(), Some(CryptError::Full { max: MAX_DEKS }));
}

#[test]
fn state_of_another_root_or_tenant_does_not_open() {
    let root = Root::generate().unwrap();
    let mut ring = ring(&root, &["ada", "bob"]);
    let refused = |ring: &KeyRing, root: &Root| ring.open_subject(root, scope("ada").subject).err();
    assert_eq!(refused(&ring, &Root::generate().unwrap()), Some(CryptError::Authenticate));
    let mut stolen = ring.clone();
    stolen.tenant = Some(TenantId::of("other"));
    assert_eq!(refused(&stolen, &root), Some(CryptError::Authenticate));
    let bobs = ring.subjects[&scope("bob").subject].clone();
    ring.subjects.insert(scope("ada").subject, bobs);
    assert_eq!(refused(&ring, &root), Some(CryptError::Authenticate), "a wrapped key opens for its subject only");
    ring.keks.clear();
    assert_eq!(refused(&ring, &root), Some(CryptError::Authenticate));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A snapshot at any point and the events after it make the same state, and what is sealed opens until its subject is shredded.
    #[test]
    fn state_is_the_fold_of_its_events(steps in prop::collection::vec((0..5_u8, 0..4_u8), 1..40), cut in 0..40_usize) {
        let mut root = Root::generate().unwrap();
        let mut events = vec![KeyRing::found(tenant(), &root).unwrap()];
        let mut ring = KeyRing::default();
        ring.apply(&events[0]);
        let mut sealed = Vec::new();
        for (n, (step, who)) in steps.into_iter().enumerate() {
            let name = who.to_string();
            let event = match step {
                0 | 1 => ring.new_dek(&root, &scope(&name), id(n as u128), 1).ok(),
                2 => ring.shred(scope(&name).subject, 2),
                3 => { root.advance(); None }
                _ => ring.next_step(&root).unwrap(),
            };
            if let Some(event) = event {
                ring.apply(&event);
                events.push(event);
            }
            if step < 2 && ring.tombstone(scope(&name).subject).is_none() {
                sealed.push((name, seal(&ring, &root, &who.to_string())));
            }
            root.retire(ring.epoch().unwrap());
        }
        let (before, after) = events.split_at(cut.min(events.len()));
        let mut again = KeyRing::default();
        for event in before {
            again.apply(event);
        }
        again = postcard::from_bytes(&postcard::to_allocvec(&again).unwrap()).unwrap();
        let after: Vec<RingEvent> = postcard::from_bytes(&postcard::to_allocvec(after).unwrap()).unwrap();
        for event in &after {
            again.apply(event);
        }
        prop_assert_eq!(&again, &ring);
        prop_assert_eq!(ring.deks, ring.keks.values().map(|kek| kek.deks).sum::<u64>());
        prop_assert_eq!(ring.deks, ring.subjects.values().map(|deks| deks.len() as u64).sum::<u64>());
        for (name, sealed) in sealed {
            let gone = ring.tombstone(scope(&name).subject).is_some();
            prop_assert_eq!(open(&ring, &root, &name, &sealed).is_err(), gone);
        }
    }
}
