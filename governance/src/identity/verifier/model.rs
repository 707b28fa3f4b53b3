//! What is let in, against a reference that only remembers what was issued and what was taken back.

use std::collections::BTreeSet;

use aivillage_runtime::PrincipalKind;
use proptest::prelude::*;

use super::tests::{Bench, MINUTE};
use super::*;
use crate::identity::accounts::tests::{TENANT, id, kept, lives, signing_key};
use crate::identity::accounts::{AccountEvent, NewSubject, Refreshed};
use crate::identity::bearer::{BEARER_RANDOM, BearerKind};
use crate::identity::role::Role;
use crate::identity::secret::Secret;

const PEOPLE: u128 = 3;

/// What the reference remembers of a credential.
#[derive(Debug, Clone)]
enum Issued {
    Key { whose: u128, expires: u64 },
    Session { whose: u128, made: u64, seen: u64 },
    Token { whose: u128, family: usize, exp_s: u64, signed_by: usize },
}

#[derive(Debug, Clone)]
enum Step {
    Key(u128, u64),
    Session(u128),
    Family(u128),
    Refresh(usize, usize),
    Use(usize),
    Revoke(usize),
    Suspend(u128, bool),
    Roles(u128, bool),
    Password(u128),
    Rotate,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 2..2 + PEOPLE;
    let step = prop_oneof![
        (who.clone(), 1..200_u64).prop_map(|(who, minutes)| Step::Key(who, minutes * MINUTE)),
        who.clone().prop_map(Step::Session),
        who.clone().prop_map(Step::Family),
        (0..9_usize, 0..3_usize).prop_map(|(family, back)| Step::Refresh(family, back)),
        (0..20_usize).prop_map(Step::Use),
        (0..20_usize).prop_map(Step::Revoke),
        (who.clone(), any::<bool>()).prop_map(|(who, is)| Step::Suspend(who, is)),
        (who.clone(), any::<bool>()).prop_map(|(who, is)| Step::Roles(who, is)),
        who.prop_map(Step::Password),
        Just(Step::Rotate),
        (1..40 * MINUTE).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

/// A family of tokens, as the reference sees it.
#[derive(Debug)]
struct Line {
    id: TokenId,
    whose: u128,
    refresh: Vec<Secret>,
    is_over: bool,
}

#[derive(Default)]
struct Reference {
    now: u64,
    issued: Vec<(Secret, Issued, bool)>,
    ids: Vec<TokenId>,
    lines: Vec<Line>,
    suspended: BTreeSet<u128>,
    strong: BTreeSet<u128>,
    /// When each signing key took over.
    rotated: Vec<u64>,
}

impl Reference {
    fn lets_in(&self, credential: &Issued, is_revoked: bool) -> bool {
        if is_revoked {
            return false;
        }
        match *credential {
            Issued::Key { whose, expires } => self.now < expires && !self.suspended.contains(&whose),
            Issued::Session { whose, made, seen } => {
                let ends = (seen + 30 * MINUTE).min(made + 12 * 60 * MINUTE);
                self.now < ends && !self.suspended.contains(&whose)
            }
            Issued::Token { whose, family, exp_s, signed_by } => {
                let newer = self.rotated.len() - signed_by;
                let is_signed = newer == 0 || (newer == 1 && self.now < self.rotated[signed_by] + 30 * MINUTE);
                let is_live = !self.lines[family].is_over && !self.suspended.contains(&whose);
                is_live && is_signed && self.now / 1_000 < exp_s + 30
            }
        }
    }

    /// All logins of a subject end.
    fn log_out(&mut self, who: u128) {
        for (_, credential, is_revoked) in &mut self.issued {
            *is_revoked |= matches!(credential, Issued::Session { whose, .. } if *whose == who);
        }
        self.lines.iter_mut().filter(|line| line.whose == who).for_each(|line| line.is_over = true);
    }

    fn issue(&mut self, id: TokenId, secret: Secret, credential: Issued) {
        self.ids.push(id);
        self.issued.push((secret, credential, false));
    }
}

fn issue_token(bench: &mut Bench, model: &mut Reference, family: usize) {
    let Line { id, whose, .. } = model.lines[family];
    let token = bench.access(id, model.now);
    let exp_s = model.now / 1_000 + 15 * 60;
    let signed_by = model.rotated.len();
    model.issue(id, token, Issued::Token { whose, family, exp_s, signed_by });
}

async fn grant(bench: &mut Bench, model: &mut Reference, step: &Step) {
    let now = model.now;
    match *step {
        Step::Key(whose, life) if !model.suspended.contains(&whose) => {
            let key = bench.key(whose, Some(now + life), now).await;
            model.issue(key.id, key.secret, Issued::Key { whose, expires: now + life });
        }
        Step::Session(whose) if !model.suspended.contains(&whose) => {
            let session = bench.session(whose, now).await;
            model.issue(session.id, session.secret, Issued::Session { whose, made: now, seen: now });
        }
        Step::Family(whose) if !model.suspended.contains(&whose) => {
            let family = bench.family(whose, now).await;
            model.lines.push(Line { id: family.id, whose, refresh: vec![family.secret], is_over: false });
            issue_token(bench, model, model.lines.len() - 1);
        }
        Step::Refresh(family, back) if family < model.lines.len() => refresh(bench, model, family, back).await,
        _ => {}
    }
}

async fn refresh(bench: &mut Bench, model: &mut Reference, family: usize, back: usize) {
    let line = &model.lines[family];
    let at = (line.refresh.len() - 1).saturating_sub(back);
    let (is_newest, shown) = (at + 1 == line.refresh.len(), line.refresh[at].clone());
    bench.made += 1;
    let mut random = [0; BEARER_RANDOM];
    random[20..28].copy_from_slice(&bench.made.to_be_bytes());
    let mut next = None;
    let again = |id| {
        let minted = Bearer::mint_again(BearerKind::Refresh, TenantTag::of(TENANT), id, &random);
        next.insert(minted).clone()
    };
    match bench.accounts.refresh(TenantTag::of(TENANT), &shown, again, &lives(), model.now) {
        Ok(Refreshed::Rotated(event, _)) => {
            assert!(is_newest && !line.is_over);
            bench.take(vec![event]).await;
            model.lines[family].refresh.push(next.unwrap().secret);
            issue_token(bench, model, family);
        }
        Ok(Refreshed::Reused(event)) => {
            assert!(!is_newest && !line.is_over);
            bench.take(vec![event]).await;
            model.lines[family].is_over = true;
        }
        Err(_) => assert!(line.is_over || is_newest),
    }
}

async fn take_back(bench: &mut Bench, model: &mut Reference, step: &Step) {
    match *step {
        Step::Revoke(at) if at < model.issued.len() => {
            let Ok(events) = bench.accounts.revoke(model.ids[at]) else { return };
            bench.take(events).await;
            let (_, credential, is_revoked) = &mut model.issued[at];
            match *credential {
                Issued::Token { family, .. } => model.lines[family].is_over = true,
                _ => *is_revoked = true,
            }
        }
        Step::Suspend(who, is) => {
            let events = bench.accounts.suspend(id(who), is).unwrap();
            bench.take(events).await;
            let changed = if is { model.suspended.insert(who) } else { model.suspended.remove(&who) };
            if changed {
                model.log_out(who);
            }
        }
        Step::Roles(who, is) => {
            let roles = if is { [Role::Developer].into() } else { [Role::User].into() };
            bench.take(bench.accounts.set_roles(id(who), roles).unwrap()).await;
            let changed = if is { model.strong.insert(who) } else { model.strong.remove(&who) };
            if changed {
                model.log_out(who);
            }
        }
        Step::Password(who) => {
            bench.take(bench.accounts.set_password(id(who), "phc".into()).unwrap()).await;
            model.log_out(who);
        }
        _ => {}
    }
}

async fn go_on(bench: &mut Bench, model: &mut Reference, step: &Step) {
    match *step {
        Step::Use(at) if at < model.issued.len() => {
            let is_in = model.lets_in(&model.issued[at].1, model.issued[at].2);
            if let Some(event) = bench.accounts.see_session(model.ids[at], &lives(), model.now) {
                assert!(is_in);
                bench.take(vec![event]).await;
                let Issued::Session { seen, .. } = &mut model.issued[at].1 else { panic!("not a session") };
                *seen = model.now;
            }
        }
        Step::Rotate => {
            let next = signing_key(u8::try_from(model.rotated.len() + 3).unwrap());
            let rotated = AccountEvent::RingRotated { next, at_ms: model.now, overlap_ms: lives().overlap_ms() };
            bench.take(vec![rotated]).await;
            model.rotated.push(model.now);
        }
        Step::Wait(ms) => model.now += ms,
        _ => {}
    }
}

async fn run(steps: Vec<Step>) {
    let (mut bench, mut model) = (Bench::new().await, Reference::default());
    for who in 3..2 + PEOPLE {
        let new = NewSubject { kind: PrincipalKind::User, name: who.to_string(), roles: [Role::User].into() };
        bench.take(bench.accounts.create_subject(id(who), new, kept("x"), 0).unwrap()).await;
    }
    for step in steps {
        grant(&mut bench, &mut model, &step).await;
        take_back(&mut bench, &mut model, &step).await;
        go_on(&mut bench, &mut model, &step).await;
        let fresh = VerifierHandle::new(IdentityConfig::default());
        let view = TenantView::new(TENANT, &bench.accounts, lives());
        fresh.show(TENANT, Some(&Arc::new(view)));
        for (secret, credential, is_revoked) in &model.issued {
            let expected = model.lets_in(credential, *is_revoked);
            let got = bench.check(secret, model.now);
            assert_eq!(got.is_ok(), expected, "{credential:?} at {}: {got:?} after {step:?}", model.now);
            let got = fresh.bearer(secret.expose(), model.now);
            assert_eq!(got.is_ok(), expected, "{credential:?} for a verifier that starts: {got:?}");
        }
        for secret in model.lines.iter().flat_map(|line| &line.refresh) {
            assert_eq!(bench.refusal(secret, model.now), Refusal::Kind);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No sequence of commands lets a credential in that was revoked, has expired, or was used up; nor keeps a valid one out.
    #[test]
    fn what_is_let_in_is_what_the_reference_lets_in(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}
