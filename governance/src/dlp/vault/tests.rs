use aivillage_runtime::{Principal, PrincipalKind, Village, clock};
use zeroize::Zeroizing;

use super::*;
use crate::dlp::Profile;
use crate::erasure::{self, ErasureMsg, Owners};
use crate::keys::{KeysConfig, KeysNode};
use crate::tlog::TlogConfig;

const CARD: &str = "card 4111 1111 1111 1111, again 4111-1111-1111-1111";

struct Bench {
    village: Village,
    tokens: Tokens,
    home: Home,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn open() -> Self {
        let (secret, owners, held) = (VillageSecret::default(), Owners::default(), Held::default());
        secret.set(Zeroizing::new([7; 32]));
        owners.add(TokenData);
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path(), "node", TlogConfig::default(), clock::unix_ms).unwrap();
        let builder = crate::keys::install(home.install(Village::builder()), &KeysNode::new(KeysConfig::default()));
        let shown = held.clone();
        let builder = erasure::install(builder, &owners, secret.clone()).provide(held);
        let builder =
            builder.host(|_: &ActorCx| TokenVault).replica_view::<TokenVault, HeldView>(move |n| shown.view(n));
        Self { village: builder.start().await.unwrap(), tokens: Tokens::new(secret), home, _dir: dir }
    }

    async fn redact(&self, tenant: &str, subject: &str, text: &str) -> Result<Redacted, CallError> {
        let config = DlpConfig { profiles: vec![Profile::Pan], ..DlpConfig::default() };
        self.tokens.redact(&self.village, (tenant, subject), text.to_owned(), config).await
    }

    async fn token(&self, tenant: &str, subject: &str) -> Token {
        let redacted = self.redact(tenant, subject, CARD).await.unwrap();
        redacted.vault[0].token.clone()
    }

    async fn reveal(&self, tenant: &str, token: &Token, purpose: &str) -> Result<Option<Revealed>, CallError> {
        let principal = Principal {
            tenant: tenant.to_owned(),
            subject: "dora".to_owned(),
            kind: PrincipalKind::User,
            roles: vec!["admin".to_owned()],
            scopes: Vec::new(),
        };
        let (token, purpose) = (token.clone(), purpose.to_owned());
        let cx = MsgCx::request(None, None, Some(principal.into()));
        let vault = self.village.addr::<TokenVault>(tenant);
        cx.scope(async move { vault.ask(|reply| TokenMsg::Reveal(token, purpose, reply)).await }).await
    }

    async fn logged(&self) -> Vec<serde_json::Value> {
        let read = self.home.log().entries(Some(0), 1_000).await.map(|read| read.entries).unwrap_or_default();
        let entries = read.iter().map(|entry| serde_json::from_slice::<serde_json::Value>(entry).unwrap());
        entries.filter(|entry| entry["kind"] == "dlp.detokenise").collect()
    }
}

#[tokio::test]
async fn a_token_is_taken_back_for_a_purpose_and_the_log_has_it() {
    let bench = Bench::open().await;
    let redacted = bench.redact("acme", "ada", CARD).await.unwrap();
    let [entry] = &redacted.vault[..] else { panic!("{redacted:?}") };
    assert_eq!(redacted.text, format!("card {0}, again {0}", entry.token));
    let found = bench.reveal("acme", &entry.token, "chargeback").await.unwrap().unwrap();
    assert_eq!((found.kind, found.value.as_str()), (DataKind::Pan, "4111 1111 1111 1111"));
    assert!(!format!("{found:?}").contains("4111"));
    let [logged] = &bench.logged().await[..] else { panic!("one entry for one answer") };
    assert_eq!(logged["payload"]["clear"]["purpose"], "chargeback");
    let key = bench.home.log_key("acme");
    assert_eq!(logged["actor"], key.pseudonym("dora").as_str());
    assert_eq!(logged["object"], key.pseudonym(entry.token.as_str()).as_str());
    assert!(!logged.to_string().contains("4111"));
}

#[tokio::test]
async fn tokens_of_others_unknown_ones_and_those_without_a_purpose_tell_nothing() {
    let bench = Bench::open().await;
    let token = bench.token("acme", "ada").await;
    assert_eq!(bench.reveal("other", &token, "chargeback").await.unwrap(), None);
    assert_ne!(bench.token("other", "ada").await, token, "each tenant has its own");
    let unknown = Token::derive(&PseudonymKey::new(&[1; 32]), DataKind::Pan, "4111");
    assert_eq!(bench.reveal("acme", &unknown, "chargeback").await.unwrap(), None);
    for purpose in ["", "ab", "Ann Lee", "a b c", "ünd", &"x".repeat(MAX_PURPOSE + 1)] {
        let refused = bench.reveal("acme", &token, purpose).await.unwrap_err();
        assert_eq!(refused.code(), "payload_invalid", "{purpose}");
    }
    assert_eq!(bench.logged().await, Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn what_is_kept_is_sealed_and_goes_with_its_person() {
    let bench = Bench::open().await;
    let (ada, bob) = (bench.token("acme", "ada").await, bench.redact("acme", "bob", "5555555555554444").await.unwrap());
    let export = |reply| ErasureMsg::Export("ada".into(), reply);
    let exported = bench.village.addr::<erasure::Erasure>("acme").ask(export).await.unwrap();
    assert!(
        String::from_utf8_lossy(&exported[0].1).contains(ada.as_str()) && !format!("{exported:?}").contains("4111")
    );
    let erase = |reply| ErasureMsg::Erase { subject: "ada".into(), basis: "gdpr-17".into(), reply };
    let erased = bench.village.addr::<erasure::Erasure>("acme").ask(erase).await.unwrap();
    let signed = erased.certificate().unwrap();
    let store = &signed.certificate.stores[0];
    assert_eq!((store.owner.as_str(), store.enumerated, store.remaining), ("tokens", 1, 0));
    assert_eq!(bench.reveal("acme", &ada, "chargeback").await.unwrap(), None);
    assert!(bench.reveal("acme", &bob.vault[0].token, "chargeback").await.unwrap().is_some());
    let refused = bench.redact("acme", "ada", CARD).await.unwrap_err();
    assert_eq!(refused.code(), "crypt_shredded", "nothing more is kept of who was erased");
    // Of somebody else the same card is kept again.
    assert_eq!(bench.token("acme", "eve").await, ada);
    assert!(bench.reveal("acme", &ada, "chargeback").await.unwrap().is_some());
}

#[test]
fn a_full_vault_takes_nothing_new_and_what_it_has_again() {
    let key = PseudonymKey::new(&[1; 32]);
    let stored = |n: usize| Stored {
        token: Token::derive(&key, DataKind::Ssn, &n.to_string()),
        kind: DataKind::Ssn,
        value: Kept::Clear(serde_bytes::ByteBuf::new()),
    };
    let mut drawer = Drawer::default();
    drawer.apply(&DrawerEvent::Kept((0..MAX_TOKENS).map(stored).collect()));
    assert_eq!(drawer.new_of(vec![stored(7)]).unwrap(), []);
    assert_eq!(drawer.new_of(vec![stored(MAX_TOKENS)]).unwrap_err().code, "token_vault_full");
}

#[tokio::test]
async fn more_tokens_than_one_commit_takes_are_refused_before_any_is_stored() {
    let bench = Bench::open().await;
    let config =
        DlpConfig { actions: [(DataKind::Email, super::super::Action::Tokenise)].into(), ..DlpConfig::default() };
    let text: String = (0..=MAX_AT_ONCE).map(|n| format!("a{n}@example.org ")).collect();
    let refused = bench.tokens.redact(&bench.village, ("acme", "ada"), text, config).await.unwrap_err();
    assert_eq!(refused.code(), "payload_too_large");
}
