//! What a credential costs: `cargo bench -p aivillage-governance --bench identity`.
//!
//! Each figure is of one core. `password` is a login at the default cost, the slowest part of it by far.
#![allow(clippy::unwrap_used, reason = "a program that prints figures")]

use std::collections::BTreeSet;
use std::sync::Arc;

use aivillage_governance::identity::accounts::{AccountEvent, Accounts, Amr, NewKey, NewSubject, Shown, SubjectId};
use aivillage_governance::identity::bearer::{BEARER_RANDOM, Bearer, BearerKind, TenantTag, TokenId};
use aivillage_governance::identity::jwt::Claims;
use aivillage_governance::identity::password::{Argon2Config, Hasher};
use aivillage_governance::identity::ring::SigningKey;
use aivillage_governance::identity::{IdentityConfig, Pepper, SealKey, Secret, TenantView, VerifierHandle};
use aivillage_governance::keys::Kept;
use aivillage_runtime::{Durable, PrincipalKind};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use uuid::Uuid;

/// The allocator of the binary `village`, which is what the figures are about.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TENANT: &str = "local";
/// Keys and sessions of the tenant, each.
const MANY: u32 = 10_000;
/// Tokens that are verified in turn: more than the cache of the cold bench keeps.
const TOKENS: usize = 1_024;

fn main() {
    divan::main();
}

struct Village {
    accounts: Accounts,
    seal: SealKey,
    key: Secret,
    session: Secret,
    family: TokenId,
}

fn random(n: u32) -> [u8; BEARER_RANDOM] {
    let mut bytes = [7; BEARER_RANDOM];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes
}

impl Village {
    fn new() -> Self {
        let seal = SealKey::new(&[1; 32]).unwrap();
        let mut accounts = Accounts::default();
        let lives = IdentityConfig::default().lives();
        let ring = [1, 2].map(|seed| SigningKey::new(TENANT, &[seed; 32], &seal).unwrap());
        let root = SubjectId(Uuid::from_u128(0));
        // Stands for a name or a label that is sealed.
        let kept = Kept::Clear(vec![7; 64].into());
        take(accounts.found((root, "root", kept.clone()), ring, 0).unwrap(), &mut accounts);
        let (tag, shown) = (TenantTag::of(TENANT), Shown { amr: BTreeSet::from([Amr::Pwd]), auth_ms: 0 });
        let mint = |kind, n| Bearer::mint(kind, tag, &random(n));
        let (mut key, mut session) = (None, None);
        for n in 0..MANY {
            // A hundred of each is what one subject may have.
            let id = SubjectId(Uuid::from_u128(u128::from(n / 100)));
            if n % 100 == 0 && n > 0 {
                let new = NewSubject { kind: PrincipalKind::User, name: n.to_string(), roles: BTreeSet::new() };
                take(accounts.create_subject(id, new, kept.clone(), 0).unwrap(), &mut accounts);
            }
            let minted = mint(BearerKind::ApiKey, n);
            let new = NewKey { subject: id, label: String::new(), scopes: Vec::new(), expires_ms: None };
            take(accounts.create_key(new, kept.clone(), &minted, 0).unwrap(), &mut accounts);
            key = Some(minted.secret);
            let minted = mint(BearerKind::Session, n);
            take(accounts.open_session(id, &minted, shown.clone(), &lives, 0).unwrap(), &mut accounts);
            session = Some(minted.secret);
        }
        let family = mint(BearerKind::Refresh, 0);
        take(accounts.open_family((root, Vec::new()), &family, shown, &lives, 0).unwrap(), &mut accounts);
        Self { accounts, seal, key: key.unwrap(), session: session.unwrap(), family: family.id }
    }

    fn verifier(&self, token_cache: usize) -> VerifierHandle {
        let config = IdentityConfig { token_cache, ..IdentityConfig::default() };
        let view = TenantView::new(TENANT, &self.accounts, config.lives());
        let verifier = VerifierHandle::new(config);
        verifier.show(TENANT, Some(&Arc::new(view)));
        verifier
    }

    fn claims(&self, n: usize) -> Claims {
        let jti = Uuid::from_u128(n as u128);
        self.accounts.claims((TENANT, self.family), jti, &IdentityConfig::default(), 0).unwrap()
    }

    fn tokens(&self) -> Vec<Secret> {
        let signer = self.accounts.ring().current().unwrap().open(TENANT, &self.seal).unwrap();
        (0..TOKENS).map(|n| signer.sign(&self.claims(n)).unwrap()).collect()
    }
}

fn take(events: Vec<AccountEvent>, accounts: &mut Accounts) {
    for event in events {
        accounts.apply(&event);
    }
}

#[divan::bench]
fn api_key(bencher: Bencher) {
    let village = Village::new();
    let verifier = village.verifier(1);
    bencher.counter(ItemsCount::new(1_u32)).bench(|| verifier.bearer(black_box(village.key.expose()), 1).unwrap());
}

#[divan::bench]
fn session(bencher: Bencher) {
    let village = Village::new();
    let verifier = village.verifier(1);
    bencher.counter(ItemsCount::new(1_u32)).bench(|| verifier.secret(black_box(village.session.expose()), 1).unwrap());
}

#[divan::bench]
fn garbage_key(bencher: Bencher) {
    let village = Village::new();
    let verifier = village.verifier(1);
    let text = village.key.expose().replacen('_', "-", 2);
    bencher.counter(ItemsCount::new(1_u32)).bench(|| verifier.bearer(black_box(&text), 1).unwrap_err());
}

#[divan::bench]
fn jwt_cold(bencher: Bencher) {
    let village = Village::new();
    let (verifier, tokens) = (village.verifier(1), village.tokens());
    let mut next = tokens.iter().cycle();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let token = next.next().unwrap();
        verifier.bearer(black_box(token.expose()), 1).unwrap()
    });
}

#[divan::bench]
fn jwt_cached(bencher: Bencher) {
    let village = Village::new();
    let (verifier, tokens) = (village.verifier(10 * TOKENS), village.tokens());
    for token in &tokens {
        verifier.bearer(token.expose(), 1).unwrap();
    }
    let mut next = tokens.iter().cycle();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let token = next.next().unwrap();
        verifier.bearer(black_box(token.expose()), 1).unwrap()
    });
}

#[divan::bench(sample_count = 50)]
fn password(bencher: Bencher) {
    let hasher = Hasher::try_new(Argon2Config::default(), Pepper::new("pepper")).unwrap();
    let password = Secret::new("umbrella-plinth-otter-forge");
    let phc = hasher.hash(&password, &[7; 16]).unwrap();
    bencher.counter(ItemsCount::new(1_u32)).bench(|| assert!(hasher.verify(black_box(&password), Some(&phc))));
}
