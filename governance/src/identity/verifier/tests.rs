//! Credentials one by one; sequences of commands are in `model`.

use aivillage_runtime::{Durable, ReplicaView};
use proptest::prelude::*;

use super::*;
use crate::identity::accounts::tests::{TENANT, founded, id, kept, lives, mint, seal, with_password};
use crate::identity::accounts::{AccountEvent, Accounts, NewKey, NewSubject};
use crate::identity::bearer::{BEARER_LEN, BEARER_RANDOM, BearerKind, Minted};
use crate::identity::jwt::Signer;
use crate::identity::role::Role;
use crate::identity::secret::Secret;

pub(super) const MINUTE: u64 = 60_000;

/// The accounts of a tenant, as their actor keeps them, with a verifier that follows.
pub(super) struct Bench {
    pub(super) accounts: Accounts,
    watch: Watch,
    verifier: VerifierHandle,
    pub(super) made: u64,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let verifier = VerifierHandle::new(IdentityConfig::default());
        let mut watch = Watch::new(verifier.clone());
        let accounts = founded();
        watch.restored(TENANT, 1, &accounts).await;
        Self { accounts, watch, verifier, made: 0 }
    }

    pub(super) async fn take(&mut self, events: Vec<AccountEvent>) {
        for event in events {
            self.accounts.apply(&event);
            self.watch.applied(TENANT, 2, event).await;
        }
    }

    fn mint(&mut self, kind: BearerKind) -> Minted {
        self.made += 1;
        mint(kind, self.made)
    }

    pub(super) async fn key(&mut self, subject: u128, expires_ms: Option<u64>, now: u64) -> Minted {
        let minted = self.mint(BearerKind::ApiKey);
        let new = NewKey { subject: id(subject), label: String::new(), scopes: vec!["a.b".into()], expires_ms };
        self.take(self.accounts.create_key(new, kept("l"), &minted, now).unwrap()).await;
        minted
    }

    pub(super) async fn session(&mut self, subject: u128, now: u64) -> Minted {
        let minted = self.mint(BearerKind::Session);
        let opened = self.accounts.open_session(id(subject), &minted, with_password(), &lives(), now);
        self.take(opened.unwrap()).await;
        minted
    }

    pub(super) async fn family(&mut self, subject: u128, now: u64) -> Minted {
        let minted = self.mint(BearerKind::Refresh);
        let opened = self.accounts.open_family((id(subject), vec![]), &minted, with_password(), &lives(), now);
        self.take(opened.unwrap()).await;
        minted
    }

    fn signer(&self) -> Signer {
        self.accounts.ring().current().unwrap().open(TENANT, &seal()).unwrap()
    }

    pub(super) fn access(&mut self, family: TokenId, now: u64) -> Secret {
        self.made += 1;
        let jti = Uuid::from_u128(self.made.into());
        let claims = self.accounts.claims((TENANT, family), jti, &IdentityConfig::default(), now).unwrap();
        self.signer().sign(&claims).unwrap()
    }

    pub(super) fn check(&self, secret: &Secret, now: u64) -> Result<Admitted, Refusal> {
        self.verifier.bearer(secret.expose(), now)
    }

    pub(super) fn refusal(&self, secret: &Secret, now: u64) -> Refusal {
        self.check(secret, now).unwrap_err()
    }
}

#[tokio::test]
async fn each_credential_stands_for_its_subject() {
    let mut bench = Bench::new().await;
    let key = bench.key(2, None, 0).await;
    let admitted = bench.check(&key.secret, 5).unwrap();
    let principal = &admitted.verified.principal;
    assert_eq!((&*principal.tenant, &principal.subject), (TENANT, &id(2).to_string()));
    assert_eq!((&principal.roles[..], &principal.scopes[..]), (&["user".to_owned()][..], &["a.b".to_owned()][..]));
    assert_eq!(admitted.verified.credential, Credential::ApiKey(key.id));
    let session = bench.session(2, 0).await;
    assert_eq!(bench.check(&session.secret, 5).unwrap().verified.auth_ms, Some(0));
    let family = bench.family(2, 0).await;
    let token = bench.access(family.id, 0);
    for _ in 0..2 {
        let verified = bench.check(&token, 5).unwrap().verified;
        assert_eq!(verified.principal.subject, id(2).to_string());
        assert!(matches!(verified.credential, Credential::Token { family: of, .. } if of == family.id));
    }
}

#[tokio::test]
async fn strong_roles_count_after_a_second_factor_only() {
    let mut bench = Bench::new().await;
    let roles = |bench: &Bench, secret: &Secret| bench.check(secret, 1).unwrap().verified.principal.roles.clone();
    let (session, family) = (bench.session(1, 0).await, bench.family(1, 0).await);
    let token = bench.access(family.id, 0);
    assert!(roles(&bench, &session.secret).is_empty() && roles(&bench, &token).is_empty());
    let raised = bench.mint(BearerKind::Session);
    bench.take(bench.accounts.raise_session(session.id, &raised, &lives(), 1).unwrap()).await;
    assert_eq!(roles(&bench, &raised.secret), ["super_admin"]);
    assert_eq!(bench.refusal(&session.secret, 1), Refusal::Unknown);
}

#[tokio::test]
async fn every_refusal_has_its_reason() {
    let mut bench = Bench::new().await;
    let key = bench.key(2, Some(10), 0).await;
    let family = bench.family(2, 0).await;
    let token = bench.access(family.id, 0);
    assert_eq!(bench.refusal(&Secret::new("avk_"), 0), Refusal::Malformed(Malformed::Length));
    assert_eq!(bench.refusal(&Secret::new("eyJ"), 0), Refusal::Token(BadToken::Malformed));
    assert_eq!(bench.refusal(&family.secret, 0), Refusal::Kind);
    assert_eq!(bench.refusal(&key.secret, 10), Refusal::Expired);
    assert_eq!(bench.refusal(&token, 16 * MINUTE), Refusal::Token(BadToken::Expired));
    let guessed = Bearer::mint_again(BearerKind::ApiKey, TenantTag::of(TENANT), key.id, &[9; BEARER_RANDOM]);
    assert_eq!(bench.refusal(&guessed.secret, 0), Refusal::Mismatch);
    let elsewhere = Bearer::mint(BearerKind::ApiKey, TenantTag::of("other"), &[9; BEARER_RANDOM]);
    assert_eq!(bench.refusal(&elsewhere.secret, 0), Refusal::Unknown);
    let claims = bench.verifier.claims(token.expose(), 0).unwrap();
    let foreign = Signer::try_new(&[77; 32]).unwrap().sign(&claims).unwrap();
    assert_eq!(bench.refusal(&foreign, 0), Refusal::Unknown);
    // A key of this tenant speaks for no other, nor for another's family.
    let other = bench.signer().sign(&Claims { tid: "other".into(), ..claims.clone() }).unwrap();
    assert_eq!(bench.refusal(&other, 0), Refusal::Token(BadToken::Claims));
    let other = bench.signer().sign(&Claims { sub: id(1), ..claims }).unwrap();
    assert_eq!(bench.refusal(&other, 0), Refusal::Token(BadToken::Claims));
    bench.watch.clear().await;
    assert_eq!(bench.refusal(&key.secret, 0), Refusal::NotReady);
    bench.watch.applied(TENANT, 7, AccountEvent::Suspended(id(1), true)).await;
    assert_eq!(bench.refusal(&key.secret, 0), Refusal::NotReady);
    let unseen = bench.access(family.id, MINUTE);
    assert_eq!(bench.refusal(&unseen, MINUTE), Refusal::NotReady);
    bench.watch.restored(TENANT, 9, &bench.accounts).await;
    assert!(bench.check(&key.secret, 0).is_ok() && bench.check(&unseen, MINUTE).is_ok());
    drop(bench.watch);
    assert_eq!(bench.verifier.bearer(key.secret.expose(), 0).unwrap_err(), Refusal::Unknown);
}

#[tokio::test]
async fn a_session_in_use_is_reported_once_a_minute() {
    let mut bench = Bench::new().await;
    let session = bench.session(2, 0).await;
    let seen = |bench: &Bench, now| bench.check(&session.secret, now).unwrap().seen(now);
    assert_eq!(seen(&bench, MINUTE - 1), None);
    assert_eq!(seen(&bench, MINUTE), Some(session.id));
    assert_eq!(seen(&bench, MINUTE), None);
    // Nobody told the actor: it ends half an hour after it began.
    assert_eq!(bench.refusal(&session.secret, 30 * MINUTE), Refusal::Expired);
    let event = bench.accounts.see_session(session.id, &lives(), 2 * MINUTE).unwrap();
    bench.take(vec![event]).await;
    assert!(bench.check(&session.secret, 31 * MINUTE).is_ok());
}

#[tokio::test]
async fn a_delegated_token_is_worth_what_its_actor_is() {
    let mut bench = Bench::new().await;
    let agent =
        NewSubject { kind: aivillage_runtime::PrincipalKind::Agent, name: "sage".into(), roles: [Role::User].into() };
    bench.take(bench.accounts.create_subject(id(3), agent, kept("x"), 0).unwrap()).await;
    let family = bench.family(2, 0).await;
    let parent = {
        let token = bench.access(family.id, 0);
        bench.verifier.claims(token.expose(), 0).unwrap()
    };
    let claims = bench.accounts.delegate(&parent, (id(3), &[]), Uuid::from_u128(1), 0).unwrap();
    let token = bench.signer().sign(&claims).unwrap();
    let verified = bench.check(&token, 0).unwrap().verified;
    assert_eq!((&verified.actors[..], &verified.principal.roles[..]), (&[id(3)][..], &["user".to_owned()][..]));
    bench.take(bench.accounts.set_roles(id(3), [Role::Guest].into()).unwrap()).await;
    assert!(bench.check(&token, 0).unwrap().verified.principal.roles.is_empty());
    bench.take(bench.accounts.suspend(id(3), true).unwrap()).await;
    assert_eq!(bench.refusal(&token, 0), Refusal::Unknown);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Garbage is refused for its form, before anything of it is looked up or hashed.
    #[test]
    fn garbage_is_refused_by_its_form(text in "\\PC{0,200}", form in 0_usize..3) {
        let text = match form {
            0 => text,
            1 => format!("avk_{}", text.chars().filter(char::is_ascii).collect::<String>()),
            _ => format!("avs_{:A<70}", text.chars().filter(char::is_ascii_alphanumeric).take(70).collect::<String>()),
        };
        let verifier = VerifierHandle::new(IdentityConfig::default());
        let refusal = verifier.bearer(&text, 0).unwrap_err();
        prop_assert!(matches!(refusal, Refusal::Malformed(_) | Refusal::Token(BadToken::Malformed | BadToken::Header)));
        prop_assert!(text.len() != BEARER_LEN || !matches!(refusal, Refusal::Malformed(Malformed::Length)));
    }
}
