#[cfg(target_os = "linux")]
mod traces;

use std::fs;

use proptest::prelude::*;

use super::*;

/// Cheap, for tests: a real cost takes a second without optimisation.
const COST: Argon2Cost = Argon2Cost { m_kib: 64, t: 1, p: 1 };

fn passphrase(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

fn key(store: &Keystore) -> [u8; 32] {
    *store.root().epoch_key(store.root().current()).unwrap().bytes()
}

fn tenant(name: &str) -> TenantId {
    TenantId::of(name)
}

#[test]
fn root_comes_back_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("governance");
    let made = Keystore::open(&dir, &Unlock::File, 5).unwrap();
    let again = Keystore::open(&dir, &Unlock::File, 9).unwrap();
    assert_eq!((key(&made), again.since_ms()), (key(&again), 5));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no draft is left");
}

#[test]
fn root_that_cannot_be_written_stays_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Keystore::open(dir.path(), &Unlock::File, 1).unwrap();
    let (first, tenants) = (key(&store), BTreeMap::from([(tenant("a"), 3)]));
    let place =
        |store: &Keystore| (store.root().first(), store.root().current(), store.since_ms(), store.needs().len());
    fs::create_dir_all(dir.path().join("root.key.new/x")).unwrap();
    assert!(matches!(store.follow((2, 3), 9, &tenants), Err(CryptError::Keystore { .. })));
    let other = Root::generate().unwrap();
    assert!(matches!(Keystore::adopt(Some(dir.path()), &Unlock::File, other, 9), Err(KeystoreError::Io { .. })));
    let found = Keystore::find(dir.path(), &Unlock::File).unwrap().unwrap();
    assert_eq!((place(&store), place(&found), key(&found)), ((1, 1, 1, 0), (1, 1, 1, 0), first));
    assert!(store.is_unused());

    fs::remove_dir_all(dir.path().join("root.key.new")).unwrap();
    store.follow((2, 3), 9, &tenants).unwrap();
    store.follow((1, 1), 1, &tenants).unwrap();
    let found = Keystore::find(dir.path(), &Unlock::File).unwrap().unwrap();
    assert_eq!((place(&store), place(&found)), ((2, 3, 9, 1), (2, 3, 9, 1)));
    assert!(matches!(store.follow((2, u64::MAX), 9, &tenants), Err(CryptError::EpochAhead { .. })));
    assert_eq!(place(&store), (2, 3, 9, 1));
    assert!(Keystore::find(&dir.path().join("elsewhere"), &Unlock::File).unwrap().is_none());
}

#[test]
fn passphrase_guards_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let good = passphrase("correct horse");
    let made = Keystore::open(dir.path(), &Unlock::Passphrase(&good, COST), 1).unwrap();
    let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
    assert!(!text.contains(&data_encoding::HEXLOWER.encode(made.root().chain().bytes())));
    // The cost that counts is the one in the file.
    let again = Keystore::open(dir.path(), &Unlock::Passphrase(&good, Argon2Cost::default()), 1).unwrap();
    assert_eq!(key(&again), key(&made));
    let wrong = Keystore::open(dir.path(), &Unlock::Passphrase(&passphrase("wrong"), COST), 1);
    assert!(matches!(wrong, Err(KeystoreError::WrongPassphrase { .. })));
    assert!(matches!(Keystore::open(dir.path(), &Unlock::File, 1), Err(KeystoreError::NeedsPassphrase { .. })));
}

#[test]
fn resealing_keeps_the_root_and_changes_the_guard() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (passphrase("old"), passphrase("new"));
    let mut store = Keystore::open(dir.path(), &Unlock::File, 1).unwrap();
    let root = key(&store);
    let refused = Keystore::open(dir.path(), &Unlock::Passphrase(&old, COST), 1);
    assert!(matches!(refused, Err(KeystoreError::NotSealed { .. })));
    store.reseal(&Unlock::Passphrase(&old, COST)).unwrap();
    store.reseal(&Unlock::Passphrase(&new, COST)).unwrap();
    let refused = Keystore::open(dir.path(), &Unlock::Passphrase(&old, COST), 1);
    assert!(matches!(refused, Err(KeystoreError::WrongPassphrase { .. })));
    let mut store = Keystore::open(dir.path(), &Unlock::Passphrase(&new, COST), 1).unwrap();
    assert_eq!(key(&store), root);
    store.reseal(&Unlock::File).unwrap();
    assert_eq!(key(&Keystore::open(dir.path(), &Unlock::File, 1).unwrap()), root);
}

#[test]
fn empty_passphrase_and_absurd_cost_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let absurd = Argon2Cost { m_kib: u32::MAX, t: 1, p: 1 };
    for (text, cost) in [("", COST), ("x", absurd)] {
        let refused = Keystore::open(dir.path(), &Unlock::Passphrase(&passphrase(text), cost), 1);
        assert!(matches!(refused, Err(KeystoreError::BadPassphrase)));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn altered_file_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let good = passphrase("good");
    let mut store = Keystore::open(dir.path(), &Unlock::Passphrase(&good, COST), 1).unwrap();
    store.enroll(tenant("local"), 1).unwrap();
    store.advance(2).unwrap();
    let path = dir.path().join(FILE);
    let text = fs::read_to_string(&path).unwrap();
    // A tenant that seems to need no old epoch, an epoch that seems destroyed: both would cost keys.
    for (from, to) in [("\":1}", "\":2}"), ("\"current\":2", "\"current\":3"), ("\"t\":1", "\"t\":2")] {
        assert!(text.contains(from), "{from} is in {text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let refused = Keystore::open(dir.path(), &Unlock::Passphrase(&good, COST), 1);
        assert!(matches!(refused, Err(KeystoreError::WrongPassphrase { .. })), "{from}");
    }
}

#[test]
fn file_that_is_no_key_file_is_named_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Keystore::open(dir.path(), &Unlock::File, 1).unwrap();
    let path = dir.path().join(FILE);
    let clear = fs::read_to_string(&path).unwrap();
    store.reseal(&Unlock::Passphrase(&passphrase("x"), COST)).unwrap();
    let sealed = fs::read_to_string(&path).unwrap();
    let salt = sealed.split("\"salt\":\"").nth(1).unwrap()[..32].to_owned();
    let wrapped = sealed.split("\"wrapped\":\"").nth(1).unwrap()[..120].to_owned();
    for (text, why) in [
        (String::new(), "no key file"),
        ("{}".to_owned(), "no key file"),
        (clear.replace("\"v\":1", "\"v\":2"), "version 2"),
        (clear.replace("\"first\":1", "\"first\":0"), "epochs"),
        (clear.replace("\"clear\":\"", "\"clear\":\"x"), "32 bytes"),
        (sealed.replace(&salt, "00"), "16 bytes"),
        (sealed.replace(&wrapped, "00"), "60 bytes"),
        (sealed.replace("\"m_kib\":64", "\"m_kib\":4294967295"), "cost"),
    ] {
        fs::write(&path, &text).unwrap();
        let secret = passphrase("x");
        let unlock = if text.contains("argon2id") { Unlock::Passphrase(&secret, COST) } else { Unlock::File };
        let error = Keystore::open(dir.path(), &unlock, 1).unwrap_err();
        assert!(matches!(error, KeystoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
#[cfg(unix)]
fn file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    Keystore::open(dir.path(), &Unlock::File, 1).unwrap();
    let path = dir.path().join(FILE);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Keystore::open(dir.path(), &Unlock::File, 1);
    assert!(matches!(refused, Err(KeystoreError::TooOpen { mode: 0o640, .. })));
}

#[test]
fn failed_write_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("governance");
    let mut store = Keystore::open(&dir, &Unlock::File, 1).unwrap();
    // A directory in the draft's place lets nothing be written, whoever runs the test.
    fs::create_dir(dir.join("root.key.new")).unwrap();
    fs::write(dir.join("root.key.new/x"), "x").unwrap();
    let failed = |outcome: Result<(), KeystoreError>| assert!(matches!(outcome, Err(KeystoreError::Io { .. })));
    failed(store.enroll(tenant("local"), 1));
    failed(store.advance(2).map(drop));
    failed(store.reseal(&Unlock::Passphrase(&passphrase("x"), COST)));
    failed(store.retire().map(drop));
    assert_eq!((store.tenants().count(), store.root().current(), store.since_ms()), (0, 1, 1));
    fs::remove_dir_all(dir.join("root.key.new")).unwrap();
    store.enroll(tenant("local"), 1).unwrap();
    assert_eq!(Keystore::open(&dir, &Unlock::File, 1).unwrap().tenants().count(), 1);
}

#[test]
fn epoch_that_a_tenant_needs_is_kept_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Keystore::open(dir.path(), &Unlock::File, 1).unwrap();
    store.enroll(tenant("a"), 1).unwrap();
    store.enroll(tenant("b"), 1).unwrap();
    for now in 2..5 {
        store.advance(now).unwrap();
        store.moved(tenant("a"), store.root().current());
        assert_eq!(store.retire().unwrap(), 1);
        store = Keystore::open(dir.path(), &Unlock::File, 1).unwrap();
    }
    store.moved(tenant("b"), 3);
    assert_eq!(store.retire().unwrap(), 3);
    assert_eq!(Keystore::open(dir.path(), &Unlock::File, 1).unwrap().root().first(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens in whichever order, no epoch goes that a tenant needs, and two are kept.
    #[test]
    fn no_needed_epoch_is_destroyed(steps in prop::collection::vec((0..4_u8, 0..3_u8), 0..40)) {
        let mut store = Keystore::in_memory().unwrap();
        for (step, who) in steps {
            let who = tenant(&who.to_string());
            match step {
                0 => store.enroll(who, store.root().current()).unwrap(),
                1 => drop(store.advance(1).unwrap()),
                2 => store.moved(who, store.root().current()),
                _ => drop(store.retire().unwrap()),
            }
            for needed in store.tenants.values() {
                prop_assert!(store.root().epoch_key(*needed).is_ok());
            }
            let current = store.root().current();
            prop_assert!(store.root().epoch_key(current.saturating_sub(1).max(1)).is_ok());
        }
    }
}
