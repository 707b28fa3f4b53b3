//! The check without a listener.

use aivillage_governance::identity::Secret;
use aivillage_governance::identity::bearer::BEARER_LEN;
use aivillage_runtime::Village;
use axum::http::{Request, header};
use proptest::prelude::*;

use super::*;

/// A verifier that knows one key and no accounts.
async fn verifier() -> (Village, Secret, Verifier) {
    let (builder, governance) = aivillage_governance::install(Village::builder()).unwrap();
    let (village, key) = (builder.start().await.unwrap(), admin::generate());
    let credentials = Credentials::new(&village, governance.verifier, governance.freshness);
    let verifier = Verifier::new(AdminKey::of(&key), credentials);
    (village, key, verifier)
}

async fn check(verifier: &Verifier, request: &Request<()>) -> Result<Known, ApiError> {
    verifier.check((request.method(), request.uri(), request.headers()), None).await
}

fn bearer(key: &str) -> Request<()> {
    Request::builder().header(header::AUTHORIZATION, format!("Bearer {key}")).body(()).unwrap()
}

#[tokio::test]
async fn right_key_passes_in_both_headers() {
    let (_village, key, verifier) = verifier().await;
    let known = check(&verifier, &bearer(key.expose())).await.unwrap();
    assert_eq!((&*known.principal.subject, known.mfa), ("admin", true));
    let request = Request::builder().header("x-api-key", key.expose()).body(()).unwrap();
    assert!(check(&verifier, &request).await.is_ok());
}

#[tokio::test]
async fn all_wrong_credentials_get_the_same_words() {
    let (_village, _, verifier) = verifier().await;
    let other = admin::generate();
    let mut texts = Vec::new();
    for request in [Request::new(()), bearer("x"), bearer(other.expose()), bearer("eyJh.eyJh.x")] {
        texts.push(check(&verifier, &request).await.unwrap_err().to_string());
    }
    assert!(texts.iter().all(|text| text == &texts[0]), "{texts:?}");
}

#[tokio::test]
async fn wrong_keys_are_throttled_and_the_right_one_is_not() {
    let (_village, key, verifier) = verifier().await;
    let other = admin::generate();
    let mut codes = Vec::new();
    for _ in 0..7 {
        codes.push(check(&verifier, &bearer(other.expose())).await.unwrap_err().code().to_owned());
    }
    assert_eq!(codes.iter().filter(|code| *code == "unauthenticated").count(), 5, "{codes:?}");
    assert_eq!(codes.last().unwrap(), "rate_limited");
    assert!(check(&verifier, &bearer(key.expose())).await.is_ok());
}

#[test]
fn a_second_factor_counts_for_ten_minutes() {
    use aivillage_governance::identity::Credential;
    use uuid::Uuid;
    let id = String::from("aaaaaaaaaa").try_into().unwrap();
    let verified = |amr: &[Amr]| {
        Arc::new(Verified {
            principal: Arc::new(nobody("local", Uuid::nil().to_string())),
            waiting: Vec::new(),
            credential: Credential::Session(id),
            amr: amr.iter().copied().collect(),
            auth_ms: Some(1_000),
            actors: Vec::new(),
        })
    };
    let mfa = |amr: &[Amr], now_ms| Known::new(verified(amr), now_ms).mfa;
    assert!(mfa(&[Amr::Pwd, Amr::Otp, Amr::Mfa], 1_000 + 599_999));
    assert!(!mfa(&[Amr::Pwd, Amr::Otp, Amr::Mfa], 1_000 + 600_000));
    assert!(!mfa(&[Amr::Pwd], 1_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_change_of_one_character_is_refused(at in 0..BEARER_LEN, with in "[ -~]") {
        let key = admin::generate();
        let mut changed = key.expose().to_owned();
        changed.replace_range(at..=at, &with);
        prop_assume!(changed != key.expose());
        let admin = AdminKey::of(&key);
        prop_assert!(!Bearer::parse(changed.trim()).is_ok_and(|shown| admin.is(&shown)));
    }
}
