//! The commands one by one; sequences of them are in the tests of the verifier.

use std::collections::BTreeSet;

use aivillage_runtime::PrincipalKind;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::*;
use crate::identity::bearer::{BEARER_RANDOM, Malformed, Minted};
use crate::identity::config::{IdentityConfig, Lives};
use crate::identity::lockout::LockKey;
use crate::identity::ring::SigningKey;
use crate::identity::role::Role;
use crate::identity::secret::{SealKey, Secret};
use crate::identity::totp;
use crate::keys::Kept;

pub(in crate::identity) const TENANT: &str = "local";
const HOUR: u64 = 3_600_000;

pub(in crate::identity) fn seal() -> SealKey {
    SealKey::new(&[5; 32]).unwrap()
}

pub(in crate::identity) fn lives() -> Lives {
    IdentityConfig::default().lives()
}

pub(in crate::identity) fn id(n: u128) -> SubjectId {
    SubjectId(Uuid::from_u128(n))
}

pub(in crate::identity) fn signing_key(seed: u8) -> SigningKey {
    SigningKey::new(TENANT, &[seed; 32], &seal()).unwrap()
}

pub(in crate::identity) fn mint(kind: BearerKind, n: u64) -> Minted {
    let mut random = [0; BEARER_RANDOM];
    random[..4].copy_from_slice(&u32::try_from(n).unwrap().to_be_bytes());
    random[10..18].copy_from_slice(&n.to_be_bytes());
    Bearer::mint(kind, TenantTag::of(TENANT), &random)
}

pub(in crate::identity) fn with_password() -> Shown {
    Shown { amr: [Amr::Pwd].into(), auth_ms: 0 }
}

impl Accounts {
    pub(in crate::identity) fn take(&mut self, events: Vec<AccountEvent>) {
        for event in events {
            self.apply(&event);
        }
    }
}

/// A tenant with its administrator 1 and a user 2.
pub(in crate::identity) fn founded() -> Accounts {
    let mut accounts = Accounts::default();
    accounts.take(accounts.found((id(1), "root", kept("root")), [signing_key(1), signing_key(2)], 0).unwrap());
    accounts.take(accounts.create_subject(id(2), user("Ada"), kept("Ada"), 0).unwrap());
    accounts
}

/// What stands for something sealed.
pub(in crate::identity) fn kept(text: &str) -> Kept {
    Kept::clear(text).unwrap()
}

fn user(name: &str) -> NewSubject {
    NewSubject { kind: PrincipalKind::User, name: name.to_owned(), roles: [Role::User].into() }
}

fn not_found<T>(result: Result<T, IdentityError>) -> bool {
    matches!(result.err(), Some(IdentityError::NotFound { .. }))
}

fn invalid<T>(result: Result<T, IdentityError>) -> bool {
    matches!(result.err(), Some(IdentityError::Invalid { .. }))
}

#[test]
fn a_tenant_is_founded_once() {
    let accounts = founded();
    let ring = [signing_key(3), signing_key(4)];
    assert_eq!(accounts.found((id(3), "eve", kept("eve")), ring, 0), Err(IdentityError::Founded));
    assert_eq!(accounts.ring().current().unwrap().kid, signing_key(1).kid);
    assert!(not_found(Accounts::default().create_subject(id(2), user("ada"), kept("x"), 0)));
}

#[test]
fn names_and_kinds_are_checked() {
    let accounts = founded();
    for name in ["", "  ", "a\nb", &"x".repeat(129)] {
        assert!(invalid(accounts.create_subject(id(9), user(name), kept("x"), 0)), "{name}");
    }
    let node = NewSubject { kind: PrincipalKind::Node, ..user("node") };
    assert!(invalid(accounts.create_subject(id(9), node, kept("x"), 0)));
}

#[test]
fn roles_that_conflict_are_refused() {
    let accounts = founded();
    let both = BTreeSet::from([Role::Admin, Role::Juror]);
    assert!(matches!(accounts.set_roles(id(2), both.clone()), Err(IdentityError::Sod(_))));
    let new = NewSubject { roles: both, ..user("eve") };
    assert!(matches!(accounts.create_subject(id(9), new, kept("x"), 0), Err(IdentityError::Sod(_))));
    assert!(not_found(accounts.set_roles(id(9), BTreeSet::new())));
    assert!(not_found(accounts.suspend(id(9), true)));
    assert!(not_found(accounts.set_password(id(9), String::new())));
}

#[test]
fn the_last_five_passwords_are_kept() {
    let mut accounts = founded();
    for n in 0..7 {
        accounts.take(accounts.set_password(id(2), n.to_string()).unwrap());
    }
    accounts.apply(&AccountEvent::PasswordRehashed(id(2), "6 again".to_owned()));
    let subject = accounts.subject(id(2)).unwrap();
    assert_eq!(
        (&subject.passwords[..], subject.password_sets),
        (&["6 again", "5", "4", "3", "2"].map(String::from)[..], 7)
    );
}

#[test]
fn keys_are_bounded_and_checked() {
    let mut accounts = founded();
    let new = |label: &str, scopes: &[&str], expires_ms| NewKey {
        subject: id(2),
        label: label.to_owned(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires_ms,
    };
    let minted = mint(BearerKind::ApiKey, 0);
    assert!(invalid(accounts.create_key(new(&"x".repeat(65), &[], None), kept("l"), &minted, 0)));
    assert!(invalid(accounts.create_key(new("", &["two words"], None), kept("l"), &minted, 0)));
    assert!(invalid(accounts.create_key(new("", &["a"; 33], None), kept("l"), &minted, 0)));
    assert!(invalid(accounts.create_key(new("", &[], Some(7)), kept("l"), &minted, 7)));
    assert!(not_found(accounts.create_key(NewKey { subject: id(9), ..new("", &[], None) }, kept("l"), &minted, 0)));
    for n in 0..MAX_GRANTS as u64 {
        let expires_ms = (n == 0).then_some(10);
        accounts.take(
            accounts.create_key(new("", &["a.b"], expires_ms), kept("l"), &mint(BearerKind::ApiKey, n), 0).unwrap(),
        );
    }
    let next = mint(BearerKind::ApiKey, 1_000);
    assert_eq!(
        accounts.create_key(new("", &[], None), kept("l"), &next, 9),
        Err(IdentityError::TooMany { max: MAX_GRANTS })
    );
    assert_eq!(accounts.create_key(new("", &[], None), kept("l"), &minted, 0), Err(IdentityError::Taken));
    // One has expired: it makes room.
    accounts.take(accounts.create_key(new("", &[], None), kept("l"), &next, 10).unwrap());
    assert_eq!(accounts.keys().count(), MAX_GRANTS);
    accounts.take(accounts.revoke(next.id).unwrap());
    assert!(not_found(accounts.revoke(next.id)));
}

#[test]
fn the_oldest_session_makes_room() {
    let mut accounts = founded();
    for n in 0..MAX_GRANTS as u64 + 3 {
        let minted = mint(BearerKind::Session, n);
        accounts.take(accounts.open_session(id(2), &minted, with_password(), &lives(), n).unwrap());
        let minted = mint(BearerKind::Refresh, n);
        accounts.take(accounts.open_family((id(2), vec![]), &minted, with_password(), &lives(), n).unwrap());
    }
    assert_eq!((accounts.sessions().count(), accounts.families().count()), (MAX_GRANTS, MAX_GRANTS));
    assert!(accounts.session(mint(BearerKind::Session, 2).id).is_none());
    let again = mint(BearerKind::Session, 50);
    let taken = accounts.open_session(id(2), &again, with_password(), &lives(), 200);
    assert_eq!(taken, Err(IdentityError::Taken));
    // Twelve hours later all have ended, and 64 of them go with the next login.
    let next = mint(BearerKind::Session, 1_000);
    accounts.take(accounts.open_session(id(1), &next, with_password(), &lives(), 13 * HOUR).unwrap());
    assert_eq!(accounts.sessions().count(), MAX_GRANTS + 1 - 64);
}

#[test]
fn a_second_factor_replaces_the_session_but_not_its_end() {
    let mut accounts = founded();
    let (old, new) = (mint(BearerKind::Session, 1), mint(BearerKind::Session, 2));
    accounts.take(accounts.open_session(id(2), &old, with_password(), &lives(), 5).unwrap());
    accounts.take(accounts.raise_session(old.id, &new, &lives(), 9).unwrap());
    let tag = TenantTag::of(TENANT);
    assert_eq!(accounts.find_session(tag, &old.secret, &lives(), 9).unwrap_err(), IdentityError::Refused);
    let (_, raised) = accounts.find_session(tag, &new.secret, &lives(), 9).unwrap();
    assert_eq!((raised.made_ms, raised.shown.auth_ms), (5, 9));
    assert!(raised.shown.amr.contains(&Amr::Mfa));
    let refused = accounts.raise_session(old.id, &mint(BearerKind::Session, 3), &lives(), 9);
    assert_eq!(refused, Err(IdentityError::Refused));
    assert!(accounts.see_session(new.id, &lives(), 59_999).is_none());
    assert!(accounts.see_session(new.id, &lives(), 60_009).is_some());
}

#[test]
fn a_code_counts_once_and_only_after_it_was_confirmed() {
    let (mut accounts, secret) = (founded(), [7; totp::TOTP_RANDOM]);
    let whose = (TENANT, id(2));
    let builder = totp_rs::Builder::new().with_secret(secret.to_vec());
    let device = builder.build().unwrap();
    let code = |now_ms: u64| Secret::new(device.generate(now_ms / 1_000).to_string());
    let check = |accounts: &Accounts, code: &Secret, now| accounts.check_factor(whose, code, &seal(), now);
    accounts.take(accounts.offer_totp(id(2), seal().seal(&place(TENANT, id(2)), &secret).unwrap()).unwrap());
    assert_eq!(check(&accounts, &code(HOUR), HOUR), Err(IdentityError::Refused));
    let (shown, hashes) = totp::recovery_codes(&id(2).to_string(), &[3; totp::RECOVERY_RANDOM]);
    let confirm =
        |accounts: &Accounts, code: &Secret, now| accounts.confirm_totp(whose, (code, hashes.clone()), &seal(), now);
    assert_eq!(confirm(&accounts, &Secret::new("000000"), HOUR), Err(IdentityError::Refused));
    accounts.take(confirm(&accounts, &code(HOUR), HOUR).unwrap());
    assert!(not_found(confirm(&accounts, &code(HOUR), HOUR)));
    assert_eq!(accounts.offer_totp(id(2), vec![]), Err(IdentityError::Taken));
    assert_eq!(check(&accounts, &code(HOUR), HOUR), Err(IdentityError::Refused), "it was the first code");
    let later = HOUR + 30_000;
    let used = check(&accounts, &code(later), later).unwrap();
    accounts.apply(&used);
    assert_eq!(check(&accounts, &code(later), later), Err(IdentityError::Refused));
    let used = check(&accounts, &shown[0], later).unwrap();
    accounts.apply(&used);
    assert_eq!(check(&accounts, &shown[0], later), Err(IdentityError::Refused));
    let other = SealKey::new(&[6; 32]).unwrap();
    assert_eq!(accounts.check_factor(whose, &code(9 * HOUR), &other, 9 * HOUR), Err(IdentityError::Sealed));
}

#[test]
fn a_challenge_ends_in_time_and_with_the_password() {
    let mut accounts = founded();
    let minted = mint(BearerKind::Challenge, 1);
    let challenge = Challenge {
        hash: minted.hash,
        subject: id(2),
        lock: LockKey::of("ada", ""),
        wants: Wants::Session,
        expires_ms: 100,
    };
    accounts.take(accounts.challenge(&minted, challenge, 0));
    let open = |accounts: &Accounts, now| accounts.open_challenge(TenantTag::of(TENANT), &minted.secret, now).is_ok();
    assert!(open(&accounts, 99) && !open(&accounts, 100));
    let foreign = accounts.open_challenge(TenantTag::of("other"), &minted.secret, 0);
    assert_eq!(foreign.unwrap_err(), IdentityError::Refused);
    accounts.take(accounts.set_password(id(2), "new".to_owned()).unwrap());
    assert!(!open(&accounts, 99));
}

#[test]
fn agents_get_no_more_than_both_have() {
    let mut accounts = founded();
    for n in 3..9 {
        let agent = NewSubject { kind: PrincipalKind::Agent, ..user(&n.to_string()) };
        accounts.take(accounts.create_subject(id(n), agent, kept("x"), 0).unwrap());
    }
    accounts.take(accounts.set_roles(id(2), [Role::User, Role::Developer].into()).unwrap());
    let minted = mint(BearerKind::Refresh, 1);
    let scopes = vec!["a".to_owned(), "b".to_owned()];
    accounts.take(accounts.open_family((id(2), scopes), &minted, with_password(), &lives(), 0).unwrap());
    let config = IdentityConfig::default();
    let mut claims = accounts.claims((TENANT, minted.id), Uuid::nil(), &config, 0).unwrap();
    let delegate = |accounts: &Accounts, parent: &_, to, scope: &str| {
        accounts.delegate(parent, (id(to), &[scope.to_owned()]), Uuid::nil(), 60_000)
    };
    assert_eq!(delegate(&accounts, &claims, 3, "c"), Err(IdentityError::Forbidden));
    for depth in 3..7 {
        claims = delegate(&accounts, &claims, depth, "a").unwrap();
    }
    assert_eq!((&*claims.scope, claims.sub, claims.exp), ("a", id(2), 15 * 60));
    assert_eq!(claims.roles, BTreeSet::from([Role::User]));
    assert_eq!(claims.actors().collect::<Vec<_>>(), [id(6), id(5), id(4), id(3)]);
    assert_eq!(delegate(&accounts, &claims, 7, "a"), Err(IdentityError::TooDeep { max: 4 }));
    accounts.take(accounts.suspend(id(3), true).unwrap());
    assert_eq!(delegate(&accounts, &claims, 3, "a"), Err(IdentityError::Refused));
    accounts.take(accounts.revoke(minted.id).unwrap());
    assert_eq!(accounts.claims((TENANT, minted.id), Uuid::nil(), &config, 0), Err(IdentityError::Refused));
}

#[test]
fn a_refresh_token_of_another_kind_or_tenant_is_refused() {
    let accounts = founded();
    let refresh = |text: &str| {
        let mint = |_| unreachable!("nothing is minted for a refused token");
        accounts.refresh(TenantTag::of(TENANT), &Secret::new(text), mint, &lives(), 0).err()
    };
    let foreign = Bearer::mint(BearerKind::Refresh, TenantTag::of("other"), &[1; BEARER_RANDOM]);
    for text in ["", mint(BearerKind::Session, 1).secret.expose(), foreign.secret.expose()] {
        assert_eq!(refresh(text), Some(IdentityError::Refused));
    }
    assert_eq!(Bearer::parse("").unwrap_err(), Malformed::Length);
}

/// What is stored and what is sent comes back as it was.
fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    assert_eq!(&postcard::from_bytes::<T>(&postcard::to_allocvec(value).unwrap()).unwrap(), value);
}

#[test]
fn accounts_and_events_survive_the_store() {
    let mut accounts = founded();
    let key = NewKey { subject: id(2), label: "l".into(), scopes: vec!["s".into()], expires_ms: Some(9) };
    let mut events = accounts.create_key(key, kept("l"), &mint(BearerKind::ApiKey, 1), 0).unwrap();
    let minted = mint(BearerKind::Session, 2);
    events.extend(accounts.open_session(id(2), &minted, with_password(), &lives(), 0).unwrap());
    let minted = mint(BearerKind::Refresh, 3);
    events.extend(accounts.open_family((id(2), vec![]), &minted, with_password(), &lives(), 0).unwrap());
    events.push(AccountEvent::LoginFailed(LockKey::of("a", "b"), 5));
    events.push(AccountEvent::RingRotated { next: signing_key(9), at_ms: 3, overlap_ms: 4 });
    events.push(AccountEvent::TotpOffered(id(2), vec![1, 2]));
    events.iter().for_each(there_and_back);
    accounts.take(events);
    there_and_back(&accounts);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However a client behaves: one refresh token of a family is valid, and one that was used ends it.
    #[test]
    fn a_used_refresh_token_ends_its_family(shown in prop::collection::vec(0_usize..6, 1..30)) {
        let (mut accounts, mut issued, mut alive) = (founded(), vec![mint(BearerKind::Refresh, 0)], true);
        accounts.take(accounts.open_family((id(2), vec![]), &issued[0], with_password(), &lives(), 0).unwrap());
        for (n, back) in shown.into_iter().enumerate() {
            let newest = issued.len() - 1;
            let at = newest.saturating_sub(back);
            let mut random = [u8::try_from(n + 1).unwrap(); BEARER_RANDOM];
            random[0] = 0xff;
            let mut next = None;
            let mint = |id| {
                let minted = Bearer::mint_again(BearerKind::Refresh, TenantTag::of(TENANT), id, &random);
                next.insert(minted).clone()
            };
            let text = issued[at].secret.clone();
            match accounts.refresh(TenantTag::of(TENANT), &text, mint, &lives(), 1) {
                Ok(Refreshed::Rotated(event, _)) => {
                    prop_assert!(alive && at == newest);
                    accounts.apply(&event);
                    issued.push(next.unwrap());
                }
                Ok(Refreshed::Reused(event)) => {
                    prop_assert!(alive && at < newest);
                    accounts.apply(&event);
                    alive = false;
                }
                Err(error) => prop_assert!(!alive && error == IdentityError::Refused),
            }
        }
    }
}
