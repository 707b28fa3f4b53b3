use aivillage_runtime::Village;
use aivillage_runtime::testing::{asked, sent};

use super::*;
use crate::keys::keystore::{Keystore, Unlock};

async fn village(handle: VaultHandle, dir: Option<&std::path::Path>, config: &str) -> Vault {
    let hosted = handle.clone();
    let mut builder = Village::builder().host(move |_: &ActorCx| KeyVault::new(hosted.clone()));
    builder = builder.config(toml::from_str(config).unwrap());
    if let Some(dir) = dir {
        builder = builder.data_dir(dir);
    }
    Vault::new(builder.start().await.unwrap(), handle)
}

async fn vault() -> Vault {
    village(VaultHandle::new(Keystore::in_memory().unwrap()), None, "").await
}

fn tenant() -> TenantId {
    TenantId::of("local")
}

fn scope(subject: &str) -> Scope {
    Scope::new(tenant(), subject, "memory").unwrap()
}

async fn status(vault: &Vault) -> VaultStatus {
    vault.village().addr::<KeyVault>(tenant().to_string()).ask(KeyVaultMsg::Status).await.unwrap()
}

#[tokio::test]
async fn key_is_made_with_the_first_value_and_kept() {
    let vault = vault().await;
    let one = vault.seal(&scope("ada"), b"r", b"one").await.unwrap();
    let two = vault.handle().seal(&scope("ada"), b"r", b"two").unwrap();
    assert_eq!(vault.open(&scope("ada"), b"r", &one).await.unwrap(), b"one");
    assert_eq!(vault.handle().open(&scope("ada"), b"r", &two).unwrap(), b"two");
    let status = status(&vault).await;
    assert_eq!((status.epoch, status.generation, status.keys, status.shredded), (Some(1), 1, 1, 0));
}

#[tokio::test]
async fn messages_serve_a_node_without_the_keys() {
    let vault = vault().await;
    let elsewhere = VaultHandle::new(Keystore::in_memory().unwrap());
    let far = Vault::new(vault.village().clone(), elsewhere);
    let sealed = far.seal(&scope("ada"), b"r", b"x").await.unwrap();
    assert_eq!(far.open(&scope("ada"), b"r", &sealed).await.unwrap(), b"x");
    let refused = far.open(&scope("ada"), b"other", &sealed).await;
    assert_eq!(refused, Err(VaultError::Crypt(CryptError::Authenticate)));
    assert_eq!(vault.handle().refused(), 1);
}

#[tokio::test]
async fn rotated_key_seals_and_the_old_one_opens() {
    let vault = vault().await;
    let old = vault.seal(&scope("ada"), b"r", b"x").await.unwrap();
    vault.rotate(&scope("ada")).await.unwrap();
    assert_eq!(vault.handle().is_current(&scope("ada"), &old), Ok(false));
    assert_eq!(vault.open(&scope("ada"), b"r", &old).await.unwrap(), b"x");
    let new = vault.seal(&scope("ada"), b"r", b"x").await.unwrap();
    assert_eq!(vault.handle().is_current(&scope("ada"), &new), Ok(true));
}

#[tokio::test]
async fn shredded_subject_is_gone_and_stays_gone() {
    let vault = vault().await;
    let (ada, bob) = (scope("ada"), scope("bob"));
    let (of_ada, of_bob) = (vault.seal(&ada, b"r", b"x").await.unwrap(), vault.seal(&bob, b"r", b"x").await.unwrap());
    let shredding = vault.shred(tenant(), ada.subject).await.unwrap();
    assert_eq!((shredding.keys.len(), shredding.keys[0].epoch), (1, 1));
    assert_eq!(shredding.backups_unreadable_by.0 - shredding.at.0, 2 * 24 * 60 * 60 * 1_000);
    let gone = CryptError::Shredded { at_ms: shredding.at.0 };
    assert_eq!(vault.open(&ada, b"r", &of_ada).await, Err(gone.clone().into()));
    assert_eq!(vault.seal(&ada, b"r", b"x").await, Err(gone.clone().into()));
    assert_eq!(vault.prepare(&ada).await, Err(gone.clone().into()));
    assert_eq!(vault.rotate(&ada).await, Err(gone.into()));
    assert_eq!(vault.shred(tenant(), ada.subject).await.unwrap(), shredding, "a repetition gets the same answer");
    assert_eq!(vault.open(&bob, b"r", &of_bob).await.unwrap(), b"x");
}

#[tokio::test]
async fn epochs_move_all_tenants_and_keep_two() {
    let vault = vault().await;
    let scopes: Vec<_> = (0..40).map(|n| Scope::new(TenantId::of(&n.to_string()), "ada", "memory").unwrap()).collect();
    let mut sealed = Vec::new();
    for scope in &scopes {
        sealed.push(vault.seal(scope, b"r", b"x").await.unwrap());
    }
    vault.shred(scopes[0].tenant, scopes[0].subject).await.unwrap();
    for epoch in 2..5 {
        let advanced = vault.advance_epoch(epoch).await.unwrap();
        assert_eq!(advanced, Advanced { current: epoch, first: epoch - 1, behind: vec![] });
    }
    assert_eq!(vault.handle().keystore(|keystore| keystore.since_ms()), Ok(4));
    vault.open(&scopes[0], b"r", &sealed[0]).await.unwrap_err();
    for (scope, sealed) in scopes.iter().zip(&sealed).skip(1) {
        assert_eq!(vault.open(scope, b"r", sealed).await.unwrap(), b"x");
    }
}

#[tokio::test]
async fn tenant_that_cannot_move_keeps_its_epoch() {
    let vault = vault().await;
    vault.seal(&scope("ada"), b"r", b"x").await.unwrap();
    let lost = TenantId::of("of a node that is away");
    vault.handle().keystore(|keystore| keystore.enroll(lost, 1)).unwrap().unwrap();
    vault.village().shutdown().await.unwrap();
    for epoch in 2..5 {
        let advanced = vault.advance_epoch(epoch).await.unwrap();
        assert_eq!((advanced.current, advanced.first, advanced.behind.len()), (epoch, 1, 2));
        assert!(matches!(advanced.behind[0].1, VaultError::Call(_)));
    }
}

#[tokio::test]
async fn keys_that_are_due_are_replaced() {
    let vault =
        village(VaultHandle::new(Keystore::in_memory().unwrap()), None, "[governance.keys]\nrotate_messages = 3").await;
    let first = vault.seal(&scope("ada"), b"r", b"1").await.unwrap();
    vault.seal(&scope("ada"), b"r", b"2").await.unwrap();
    vault.prepare(&scope("ada")).await.unwrap();
    vault.advance_epoch(1).await.unwrap();
    assert_eq!(vault.handle().is_current(&scope("ada"), &first), Ok(true), "two messages are not three");
    vault.seal(&scope("ada"), b"r", b"3").await.unwrap();
    vault.advance_epoch(2).await.unwrap();
    assert_eq!(vault.handle().is_current(&scope("ada"), &first), Ok(false));
    let second = vault.seal(&scope("ada"), b"r", b"1").await.unwrap();
    for _ in 0..2 {
        vault.seal(&scope("ada"), b"r", b"x").await.unwrap();
    }
    vault.prepare(&scope("ada")).await.unwrap();
    assert_eq!(vault.handle().is_current(&scope("ada"), &second), Ok(false), "who prepares need not wait for an epoch");
    assert_eq!(vault.open(&scope("ada"), b"r", &first).await.unwrap(), b"1");
}

#[tokio::test]
async fn keys_and_tombstones_survive_a_restart_and_memory_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let open = || VaultHandle::new(Keystore::open(dir.path(), &Unlock::File, 1).unwrap());
    let vault = village(open(), Some(dir.path()), "").await;
    let kept = vault.seal(&scope("bob"), b"r", b"x").await.unwrap();
    let gone = vault.seal(&scope("ada"), b"r", b"x").await.unwrap();
    vault.shred(tenant(), scope("ada").subject).await.unwrap();
    vault.advance_epoch(2).await.unwrap();
    vault.village().shutdown().await.unwrap();
    assert_eq!(vault.handle().open(&scope("bob"), b"r", &kept), Err(CryptError::NotLoaded));
    drop(vault);
    let vault = village(open(), Some(dir.path()), "").await;
    vault.load(tenant()).await.unwrap();
    assert_eq!(vault.handle().open(&scope("bob"), b"r", &kept).unwrap(), b"x");
    assert!(matches!(vault.handle().open(&scope("ada"), b"r", &gone), Err(CryptError::Shredded { .. })));
    assert_eq!(status(&vault).await.generation, 2, "the KEK that wrapped the shredded key was replaced");
    vault.village().shutdown().await.unwrap();
}

#[tokio::test]
async fn vault_under_another_root_or_name_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let vault = village(VaultHandle::new(Keystore::in_memory().unwrap()), Some(dir.path()), "").await;
    vault.seal(&scope("ada"), b"r", b"x").await.unwrap();
    let named = vault.village().addr::<KeyVault>("local").ask(KeyVaultMsg::Status).await;
    assert!(matches!(named, Err(CallError::NotStarted { .. } | CallError::Overloaded { .. })), "{named:?}");
    vault.village().shutdown().await.unwrap();
    drop(vault);
    let vault = village(VaultHandle::new(Keystore::in_memory().unwrap()), Some(dir.path()), "").await;
    let refused = vault.load(tenant()).await;
    assert!(matches!(&refused, Err(VaultError::Call(_))), "{refused:?}");
    vault.village().shutdown().await.unwrap();
}

#[tokio::test]
async fn key_file_that_cannot_be_written_founds_no_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let handle = VaultHandle::new(Keystore::open(dir.path(), &Unlock::File, 1).unwrap());
    std::fs::create_dir_all(dir.path().join("root.key.new/x")).unwrap();
    let vault = village(handle, None, "").await;
    let refused = vault.seal(&scope("ada"), b"r", b"x").await;
    assert!(matches!(refused, Err(VaultError::Crypt(CryptError::Keystore { .. }))), "{refused:?}");
    assert!(matches!(vault.advance_epoch(2).await, Err(VaultError::Crypt(CryptError::Keystore { .. }))));
    assert_eq!(status(&vault).await.epoch, None);
    std::fs::remove_dir_all(dir.path().join("root.key.new")).unwrap();
    vault.seal(&scope("ada"), b"r", b"x").await.unwrap();
}

#[test]
fn messages_survive_the_way_to_another_node() {
    let scope = scope("ada");
    let KeyVaultMsg::Step = sent::<KeyVault>(&KeyVaultMsg::Step).unwrap() else { panic!("another message") };
    let plain = Plain::new(b"secret".to_vec());
    assert!(!format!("{plain:?}").contains("secret"));
    let seal = |reply| KeyVaultMsg::Seal {
        subject: scope.subject,
        purpose: scope.purpose.clone(),
        record: ByteBuf::from(b"r"),
        plain: plain.clone(),
        reply,
    };
    let open = |body| match body {
        KeyVaultMsg::Seal { subject, purpose, record, plain: sent, reply } => {
            assert_eq!((subject, purpose, &record[..]), (scope.subject, scope.purpose.clone(), &b"r"[..]));
            assert!(sent == plain);
            reply
        }
        other => panic!("{other:?}"),
    };
    let answer = Err(CryptError::UnknownKey { dek: DekId::now() });
    assert_eq!(asked::<KeyVault, _>(seal, open, answer.clone()).unwrap(), answer);
    let shredding = Shredding {
        at: Stamp(1_000),
        keys: vec![DestroyedKey { dek_id: DekId::now(), epoch: 1, destroyed_at: Stamp(1_000) }],
        backups_unreadable_by: Stamp(9_000),
    };
    let shred = |reply| KeyVaultMsg::Shred(scope.subject, reply);
    let open = |body| match body {
        KeyVaultMsg::Shred(subject, reply) if subject == scope.subject => reply,
        other => panic!("{other:?}"),
    };
    assert_eq!(asked::<KeyVault, _>(shred, open, Ok(shredding.clone())).unwrap().unwrap(), shredding);
}
