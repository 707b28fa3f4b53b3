//! The actor with its passwords, in a village of one node.

use aivillage_runtime::testing::{asked, sent};
use aivillage_runtime::{Addr, PrincipalKind, Village};
use std::time::Duration;
use totp_rs::Totp;

use super::*;
use crate::identity::accounts::Wants;
use crate::identity::message::{Delegate, LoggedIn, Login, Page, SecondFactor};
use crate::identity::password::{Argon2Config, WeakPassword};
use crate::identity::secret::Secret;
use crate::identity::verifier::Refusal;

const GOOD: &str = "umbrella-plinth-otter-forge";
const BETTER: &str = "marble-kettle-sparrow-dune";

struct Bench {
    village: Village,
    verifier: VerifierHandle,
    desk: Addr<Identity>,
    first: CreatedKey,
}

impl Bench {
    async fn new() -> Self {
        let argon2 = Argon2Config { m_kib: 8, t: 1, p: 1 };
        let config = IdentityConfig { argon2, ..IdentityConfig::default() };
        let secret = VillageSecret::default();
        secret.set(zeroize::Zeroizing::new([1; 32]));
        let node = IdentityNode::try_new(config, secret).unwrap();
        let (builder, verifier) = install(Village::builder(), &node);
        let village = builder.start().await.unwrap();
        let desk = village.addr::<Identity>("local");
        let first = desk.ask(|reply| IdentityMsg::Bootstrap("root".into(), reply)).await.unwrap().unwrap();
        Self { village, verifier, desk, first }
    }

    async fn user(&self, name: &str) -> SubjectId {
        let new = NewSubject { kind: PrincipalKind::User, name: name.to_owned(), roles: [Role::User].into() };
        let id = self.desk.ask(|reply| IdentityMsg::CreateUser(new, reply)).await.unwrap().unwrap();
        assert_eq!(self.set_password(id, None, GOOD).await, Ok(()));
        id
    }

    async fn set_password(&self, subject: SubjectId, current: Option<&str>, new: &str) -> Result<(), IdentityError> {
        let asked = SetPassword { subject, current: current.map(Secret::new), new: Secret::new(new) };
        self.desk.ask(|reply| IdentityMsg::SetPassword(asked, reply)).await.unwrap()
    }

    async fn login(&self, name: &str, password: &str, wants: Wants) -> Result<LoggedIn, IdentityError> {
        let (name, password, network) = (name.to_owned(), Secret::new(password), "192.0.2.0/24".to_owned());
        let login = Login { name, password, network, wants };
        self.desk.ask(|reply| IdentityMsg::Login(login, reply)).await.unwrap()
    }

    async fn tokens(&self, name: &str) -> (Secret, Secret) {
        let wants = Wants::Tokens { scopes: Vec::new() };
        match self.login(name, GOOD, wants).await {
            Ok(LoggedIn::Tokens { access, refresh, .. }) => (access, refresh),
            other => panic!("{other:?}"),
        }
    }

    async fn session(&self, name: &str) -> Secret {
        match self.login(name, GOOD, Wants::Session).await {
            Ok(LoggedIn::Session { secret, .. }) => secret,
            other => panic!("{other:?}"),
        }
    }

    async fn is_active(&self, secret: &Secret) -> bool {
        let secret = secret.clone();
        self.desk.ask(|reply| IdentityMsg::Introspect(secret, reply)).await.unwrap().verified.is_some()
    }

    /// Waits until the node's verifier says so.
    async fn until(&self, secret: &Secret, is_let_in: bool) {
        let mut changes = self.verifier.changes();
        let told = async {
            while self.verifier.bearer(secret.expose(), clock::unix_ms()).is_ok() != is_let_in {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
    }
}

fn refused<T>(result: Result<T, IdentityError>) -> bool {
    result.err() == Some(IdentityError::Refused)
}

#[tokio::test]
async fn a_village_is_founded_and_its_first_key_is_let_in() {
    let bench = Bench::new().await;
    bench.until(&bench.first.secret, true).await;
    let admitted = bench.verifier.bearer(bench.first.secret.expose(), clock::unix_ms()).unwrap();
    assert_eq!(admitted.verified.principal.roles, ["super_admin"]);
    let again = bench.desk.ask(|reply| IdentityMsg::Bootstrap("eve".into(), reply)).await.unwrap();
    assert_eq!(again, Err(IdentityError::Founded));
    let id = bench.first.id;
    assert_eq!(bench.desk.ask(|reply| IdentityMsg::Revoke(id, reply)).await.unwrap(), Ok(()));
    bench.until(&bench.first.secret, false).await;
    let jwks = bench.desk.ask(IdentityMsg::Jwks).await.unwrap();
    assert_eq!(jwks.keys.len(), 2);
    bench.desk.ask(IdentityMsg::RotateKeys).await.unwrap().unwrap();
    let rotated = bench.desk.ask(IdentityMsg::Jwks).await.unwrap();
    assert_eq!((rotated.keys.len(), &rotated.keys[0]), (3, &jwks.keys[1]));
}

#[tokio::test]
async fn a_login_gives_a_session_until_the_logout() {
    let bench = Bench::new().await;
    bench.user("ada").await;
    let session = bench.session("ada").await;
    bench.until(&session, true).await;
    assert!(bench.is_active(&session).await);
    let shown = session.clone();
    bench.desk.ask(|reply| IdentityMsg::Logout(shown, reply)).await.unwrap();
    assert!(!bench.is_active(&session).await);
    bench.until(&session, false).await;
}

#[tokio::test]
async fn a_wrong_name_and_a_wrong_password_are_one() {
    let bench = Bench::new().await;
    let id = bench.user("ada").await;
    let wrong = bench.login("ada", BETTER, Wants::Session).await;
    assert_eq!(wrong, bench.login("nobody", BETTER, Wants::Session).await);
    assert!(refused(wrong));
    bench.desk.ask(|reply| IdentityMsg::Suspend(id, true, reply)).await.unwrap().unwrap();
    assert!(refused(bench.login("ada", GOOD, Wants::Session).await));
    assert!(refused(bench.login(&"x".repeat(300), GOOD, Wants::Session).await));
    // Neither hashed nor counted.
    for _ in 0..9 {
        assert!(refused(bench.login("joe", &"x".repeat(600), Wants::Session).await));
    }
}

#[tokio::test]
async fn a_burst_of_guesses_is_locked_after_five() {
    let bench = Bench::new().await;
    bench.user("ada").await;
    for name in ["ada", "nobody"] {
        let guesses = (0..12).map(|_| bench.login(name, BETTER, Wants::Session));
        let answers = futures::future::join_all(guesses).await;
        let looked_at = answers.iter().filter(|answer| matches!(answer, Err(IdentityError::Refused))).count();
        assert_eq!(looked_at, 5, "{name}: {answers:?}");
        let locked = bench.login(name, GOOD, Wants::Session).await;
        assert!(matches!(locked, Err(IdentityError::Locked { .. })), "{name}: {locked:?}");
    }
}

#[tokio::test]
async fn passwords_keep_the_policy() {
    let bench = Bench::new().await;
    let id = bench.user("ada").await;
    let weak = |why| Err(IdentityError::WeakPassword(why));
    assert_eq!(bench.set_password(id, None, "short").await, weak(WeakPassword::TooShort));
    assert_eq!(bench.set_password(id, None, GOOD).await, weak(WeakPassword::Reused));
    assert!(refused(bench.set_password(id, Some(BETTER), BETTER).await));
    let session = bench.session("ada").await;
    assert_eq!(bench.set_password(id, Some(GOOD), BETTER).await, Ok(()));
    assert!(!bench.is_active(&session).await, "a changed password ends what the old one opened");
    assert!(bench.login("ada", BETTER, Wants::Session).await.is_ok());
    let nobody = bench.set_password(SubjectId(Uuid::nil()), None, BETTER).await;
    assert!(matches!(nobody, Err(IdentityError::NotFound { .. })));
}

#[tokio::test]
async fn refresh_tokens_rotate_and_a_stolen_one_ends_all() {
    let bench = Bench::new().await;
    bench.user("ada").await;
    let (access, refresh) = bench.tokens("ada").await;
    bench.until(&access, true).await;
    let shown = refresh.clone();
    let next = bench.desk.ask(|reply| IdentityMsg::Refresh(shown, reply)).await.unwrap().unwrap();
    let LoggedIn::Tokens { access: newer, refresh: newest, .. } = next else { panic!("{next:?}") };
    assert!(bench.is_active(&newer).await && bench.is_active(&access).await);
    assert!(refused(bench.desk.ask(|reply| IdentityMsg::Refresh(refresh, reply)).await.unwrap()));
    assert!(!bench.is_active(&newer).await && !bench.is_active(&access).await);
    bench.until(&access, false).await;
    assert!(refused(bench.desk.ask(|reply| IdentityMsg::Refresh(newest, reply)).await.unwrap()));
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_counts_once() {
    let bench = Bench::new().await;
    let id = bench.user("ada").await;
    let session = bench.session("ada").await;
    let url = bench.desk.ask(|reply| IdentityMsg::OfferTotp(id, reply)).await.unwrap().unwrap().url;
    let device = Totp::from_url(url.expose()).unwrap();
    let code = Secret::new(device.generate(clock::unix_ms() / 1_000).to_string());
    let first = code.clone();
    let codes = bench.desk.ask(|reply| IdentityMsg::ConfirmTotp(id, first, reply)).await.unwrap().unwrap();
    assert_eq!(codes.len(), 10);
    let Ok(LoggedIn::Mfa { challenge, .. }) = bench.login("ada", GOOD, Wants::Session).await else {
        panic!("no second factor")
    };
    assert_eq!(bench.verifier.secret(challenge.expose(), 0).unwrap_err(), Refusal::Kind);
    let show = |credential: &Secret, code: &Secret| SecondFactor { credential: credential.clone(), code: code.clone() };
    // The step of the first code is used.
    let again = show(&challenge, &code);
    assert!(refused(bench.desk.ask(|reply| IdentityMsg::Mfa(again, reply)).await.unwrap()));
    let recovery = show(&challenge, &codes[0]);
    let opened = bench.desk.ask(|reply| IdentityMsg::Mfa(recovery.clone(), reply)).await.unwrap().unwrap();
    let LoggedIn::Session { secret, .. } = opened else { panic!("{opened:?}") };
    bench.until(&secret, true).await;
    assert!(refused(bench.desk.ask(|reply| IdentityMsg::Mfa(recovery, reply)).await.unwrap()), "it is closed");
    // The session from before is raised, and its credential replaced.
    let wrong = show(&session, &codes[0]);
    assert!(refused(bench.desk.ask(|reply| IdentityMsg::StepUp(wrong, reply)).await.unwrap()));
    let right = show(&session, &codes[1]);
    let raised = bench.desk.ask(|reply| IdentityMsg::StepUp(right, reply)).await.unwrap().unwrap();
    let LoggedIn::Session { secret, .. } = raised else { panic!("{raised:?}") };
    assert!(bench.is_active(&secret).await && !bench.is_active(&session).await);
    for attempt in 0..6 {
        let wrong = show(&secret, &codes[0]);
        let answer = bench.desk.ask(|reply| IdentityMsg::StepUp(wrong, reply)).await.unwrap();
        let is_locked = matches!(answer, Err(IdentityError::Locked { .. }));
        assert!(refused(answer) != is_locked && is_locked == (attempt == 5), "{attempt}");
    }
}

#[tokio::test]
async fn before_the_secret_of_the_village_is_there_nothing_is_sealed_or_hashed() {
    let secret = VillageSecret::default();
    let argon2 = Argon2Config { m_kib: 8, t: 1, p: 1 };
    let node = IdentityNode::try_new(IdentityConfig { argon2, ..IdentityConfig::default() }, secret.clone()).unwrap();
    let village = install(Village::builder(), &node).0.start().await.unwrap();
    let desk = village.addr::<Identity>("local");
    let first = async || desk.ask(|reply| IdentityMsg::Bootstrap("root".into(), reply)).await.unwrap();
    assert_eq!(first().await, Err(IdentityError::NotReady));
    let (name, password, network) = ("root".to_owned(), Secret::new(GOOD), String::new());
    let login = Login { name, password, network, wants: Wants::Session };
    let login = desk.ask(|reply| IdentityMsg::Login(login, reply)).await.unwrap();
    assert_eq!(login, Err(IdentityError::NotReady));
    secret.set(zeroize::Zeroizing::new([1; 32]));
    assert!(first().await.is_ok());
}

#[tokio::test]
async fn the_first_account_founds_its_tenant() {
    let bench = Bench::new().await;
    let desk = bench.village.addr::<Identity>("fresh");
    let new = NewSubject { kind: PrincipalKind::User, name: "Ada".to_owned(), roles: [Role::User].into() };
    let id = desk.ask(|reply| IdentityMsg::CreateUser(new, reply)).await.unwrap().unwrap();
    assert_eq!(desk.ask(IdentityMsg::Jwks).await.unwrap().keys.len(), 2);
    for whom in ["ada".to_owned(), id.to_string()] {
        let found = desk.ask(|reply| IdentityMsg::Find(whom, reply)).await.unwrap().unwrap();
        assert_eq!((found.id, &*found.name), (id, "Ada"));
    }
    assert_eq!(desk.ask(|reply| IdentityMsg::Find("eve".into(), reply)).await.unwrap(), None);
    let again = desk.ask(|reply| IdentityMsg::Bootstrap("eve".into(), reply)).await.unwrap();
    assert_eq!(again, Err(IdentityError::Founded));
}

#[tokio::test]
async fn an_agent_acts_for_a_user() {
    let bench = Bench::new().await;
    bench.user("ada").await;
    let (access, _) = bench.tokens("ada").await;
    let agent = NewSubject { kind: PrincipalKind::Agent, name: "sage".into(), roles: [Role::User].into() };
    let actor = bench.desk.ask(|reply| IdentityMsg::CreateUser(agent, reply)).await.unwrap().unwrap();
    let asked = Delegate { token: access, actor, scopes: vec!["memory.query".into()] };
    let token = bench.desk.ask(|reply| IdentityMsg::Delegate(asked, reply)).await.unwrap().unwrap();
    let worth = bench.desk.ask(|reply| IdentityMsg::Introspect(token, reply)).await.unwrap();
    let worth = worth.verified.unwrap();
    assert_eq!((worth.actors, &worth.principal.scopes[..]), (vec![actor], &["memory.query".to_owned()][..]));
}

#[tokio::test]
async fn a_caller_gives_no_more_than_it_may() {
    let bench = Bench::new().await;
    let id = bench.user("ada").await;
    let by = |tenant: &str, subject: &str, role: &str| {
        let (tenant, subject) = (tenant.to_owned(), subject.to_owned());
        let kind = PrincipalKind::User;
        Principal { tenant, subject, kind, roles: vec![role.to_owned()], scopes: Vec::new() }
    };
    let ask = async |by: Principal, roles: BTreeSet<Role>| {
        let cx = aivillage_runtime::MsgCx::request(None, None, Some(Arc::new(by)));
        cx.scope(async { bench.desk.ask(|reply| IdentityMsg::SetRoles(id, roles, reply)).await }).await
    };
    assert_eq!(ask(by("local", "x", "user"), [Role::Guest].into()).await, Ok(Err(IdentityError::Forbidden)));
    assert_eq!(ask(by("local", "x", "admin"), [Role::Admin].into()).await, Ok(Err(IdentityError::Forbidden)));
    assert_eq!(ask(by("local", "x", "admin"), [Role::Developer].into()).await, Ok(Ok(())));
    assert_eq!(ask(by("other", "x", "super_admin"), [Role::Guest].into()).await, Err(CallError::NoReply));
    assert_eq!(ask(by("local", "x", "super_admin"), [Role::Admin].into()).await, Ok(Ok(())));
    assert_eq!(ask(by("local", "x", "admin"), [Role::User].into()).await, Ok(Err(IdentityError::Forbidden)));
    let key = async |by: Principal, subject: SubjectId, scopes: &[&str]| {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let new = NewKey { subject, label: String::new(), scopes, expires_ms: None };
        let cx = aivillage_runtime::MsgCx::request(None, None, Some(Arc::new(by)));
        cx.scope(async { bench.desk.ask(|reply| IdentityMsg::CreateKey(new, reply)).await }).await.unwrap()
    };
    let own_id = id.to_string();
    let unraised = Principal { roles: Vec::new(), ..by("local", &own_id, "") };
    assert_eq!(key(unraised, id, &[]).await, Err(IdentityError::Forbidden), "roles that wait for a second factor");
    let narrow = Principal { scopes: vec!["a".into()], ..by("local", &own_id, "admin") };
    assert_eq!(key(narrow.clone(), id, &[]).await, Err(IdentityError::Forbidden), "no scopes are all scopes");
    assert_eq!(key(narrow.clone(), id, &["b"]).await, Err(IdentityError::Forbidden));
    let made = key(narrow, id, &["a"]).await.unwrap();
    assert_eq!(key(by("local", "x", "user"), id, &[]).await, Err(IdentityError::Forbidden));
    let revoke = async |by: Principal| {
        let cx = aivillage_runtime::MsgCx::request(None, None, Some(Arc::new(by)));
        cx.scope(async { bench.desk.ask(|reply| IdentityMsg::Revoke(made.id, reply)).await }).await.unwrap()
    };
    assert!(matches!(revoke(by("local", "x", "user")).await, Err(IdentityError::NotFound { .. })));
    assert_eq!(revoke(by("local", &own_id, "user")).await, Ok(()));
    let own = SetPassword { subject: id, current: None, new: Secret::new(BETTER) };
    let cx = aivillage_runtime::MsgCx::request(None, None, Some(Arc::new(by("local", &id.to_string(), "user"))));
    let own = cx.scope(async { bench.desk.ask(|reply| IdentityMsg::SetPassword(own, reply)).await }).await;
    assert_eq!(own, Ok(Err(IdentityError::Forbidden)), "without the present password");
}

#[tokio::test]
async fn the_erased_are_unknown_and_their_name_comes_without_their_rights() {
    let bench = Bench::new().await;
    let id = bench.user("ada").await;
    let (session, (access, refresh)) = (bench.session("ada").await, bench.tokens("ada").await);
    let new = NewKey { subject: id, label: "laptop".into(), scopes: Vec::new(), expires_ms: None };
    let key = bench.desk.ask(|reply| IdentityMsg::CreateKey(new, reply)).await.unwrap().unwrap().secret;
    let erase = async || bench.desk.ask(|reply| IdentityMsg::Erase(id, reply)).await.unwrap();
    let (tenant, roles) = ("local".to_owned(), vec!["super_admin".to_owned()]);
    let root = Principal { tenant, subject: "x".into(), kind: PrincipalKind::User, roles, scopes: Vec::new() };
    let by_root = aivillage_runtime::MsgCx::request(None, None, Some(Arc::new(root)));
    assert_eq!(by_root.scope(erase()).await, Err(IdentityError::Forbidden), "only the village itself erases");
    assert_eq!((erase().await, erase().await), (Ok(true), Ok(false)));

    let check = async || {
        for gone in [&session, &access, &key] {
            assert!(!bench.is_active(gone).await);
            bench.until(gone, false).await;
        }
        let refresh = refresh.clone();
        assert!(refused(bench.desk.ask(|reply| IdentityMsg::Refresh(refresh, reply)).await.unwrap()));
        let found = bench.desk.ask(|reply| IdentityMsg::Find(id.to_string(), reply)).await.unwrap();
        assert_eq!(found, None);
    };
    check().await;
    let unknown = bench.login("nobody", GOOD, Wants::Session).await;
    assert_eq!(bench.login("ada", GOOD, Wants::Session).await, unknown);
    assert!(refused(unknown));
    let other = bench.user("Ada").await;
    assert_ne!(other, id);
    let session = bench.session("ada").await;
    let worth = bench.desk.ask(|reply| IdentityMsg::Introspect(session, reply)).await.unwrap();
    assert_eq!(worth.verified.unwrap().principal.subject, other.to_string());
    check().await;
}

#[tokio::test]
async fn lists_come_in_pages_and_show_no_secret() {
    let bench = Bench::new().await;
    for name in ["ada", "eve", "joe"] {
        bench.user(name).await;
    }
    let list =
        async |after| bench.desk.ask(|reply| IdentityMsg::ListUsers(Page { after, limit: 2 }, reply)).await.unwrap();
    let first = list(None).await;
    let second = list(Some(first[1].id)).await;
    let names: Vec<_> = first.iter().chain(&second).map(|user| &*user.name).collect();
    assert_eq!(names, ["root", "ada", "eve", "joe"]);
    let page = Page { after: None, limit: u16::MAX };
    let keys = bench.desk.ask(|reply| IdentityMsg::ListKeys(Some(bench.first.subject), page, reply)).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id).collect::<Vec<_>>(), [bench.first.id]);
    bench.village.shutdown().await.unwrap();
}

#[test]
fn messages_survive_the_way_to_another_node() {
    let login = Login {
        name: "ada".into(),
        password: Secret::new(GOOD),
        network: "n".into(),
        wants: Wants::Tokens { scopes: vec!["s".into()] },
    };
    assert!(!format!("{login:?}").contains(GOOD));
    let copy = login.clone();
    let open = move |body| match body {
        IdentityMsg::Login(arrived, reply) if arrived == copy => reply,
        other => panic!("{other:?}"),
    };
    let until_ms = 9;
    let answer = Ok(LoggedIn::Tokens { access: Secret::new("a"), refresh: Secret::new("r"), until_ms });
    assert_eq!(asked::<Identity, _>(|reply| IdentityMsg::Login(login, reply), open, answer.clone()), Ok(answer));
    let locked: Result<LoggedIn, _> = Err(IdentityError::Locked { retry_after_ms: 5 });
    let open = |body| match body {
        IdentityMsg::Refresh(_, reply) => reply,
        other => panic!("{other:?}"),
    };
    let refresh = |reply| IdentityMsg::Refresh(Secret::new("x"), reply);
    assert_eq!(asked::<Identity, _>(refresh, open, locked.clone()), Ok(locked));
    assert!(matches!(sent::<Identity>(&IdentityMsg::Hashed), Ok(IdentityMsg::Hashed)));
}
