use jsonwebtoken::crypto::{sign, verify};
use serde_json::{Value, json};

use super::*;

/// RFC 8037, appendix A.1.
const SEED: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn signer() -> Signer {
    Signer::try_new(&BASE64.decode(SEED).unwrap()).unwrap()
}

fn key() -> DecodingKey {
    DecodingKey::from_ed_der(&signer().public())
}

fn rules() -> TokenRules {
    TokenRules::new("https://village", "village")
}

fn claims() -> Claims {
    Claims {
        iss: "https://village".to_owned(),
        aud: "village".to_owned(),
        sub: SubjectId(Uuid::from_u128(7)),
        exp: 1_900,
        nbf: 1_000,
        iat: 1_000,
        jti: Uuid::from_u128(8),
        tid: "local".to_owned(),
        kind: PrincipalKind::User,
        sid: serde_json::from_value(json!("abcdefgh23")).unwrap(),
        roles: BTreeSet::from([Role::User]),
        scope: "memory.query agent.ask".to_owned(),
        amr: BTreeSet::from([Amr::Pwd]),
        auth_time: 900,
        act: None,
    }
}

/// A token whose claims were changed before it was signed.
fn signed(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = serde_json::to_value(claims()).unwrap();
    change(&mut claims);
    let header = Header { typ: Some(TYPE.into()), kid: Some(signer().kid), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, &claims, &signer().key).unwrap()
}

fn verdict(token: &str) -> Result<Claims, BadToken> {
    kid_in(token)?;
    rules().verify(token, &key(), 1_000_000)
}

/// RFC 8037, appendix A.4 and A.5.
#[test]
fn the_signature_is_that_of_rfc_8037() {
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(BASE64.encode(signer().public()), PUBLIC);
    assert_eq!(sign(message, &signer().key, Algorithm::EdDSA).unwrap(), signature);
    assert!(verify(signature, message, &key(), Algorithm::EdDSA).unwrap());
}

/// RFC 7638, 3.1, and RFC 8037, appendix A.3, whose thumbprint is of our kind of key.
#[test]
fn thumbprints_are_those_of_the_rfcs() {
    let rsa = json!({
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"
    });
    let rsa: Jwk = serde_json::from_value(rsa).unwrap();
    let thumbprint = rsa.thumbprint(ThumbprintHash::SHA256).unwrap();
    assert_eq!(thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    assert_eq!(kid_of(&signer().public()).unwrap(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[test]
fn what_was_signed_is_read() {
    let token = signer().sign(&claims()).unwrap();
    assert_eq!(kid_in(token.expose()), Ok(signer().kid));
    assert_eq!(verdict(token.expose()), Ok(claims()));
    assert_eq!(claims().scopes(), ["memory.query", "agent.ask"]);
    assert!(token.expose().len() < TOKEN_MAX / 2);
}

#[test]
fn each_claim_is_checked() {
    for claim in ["iss", "aud", "sub", "exp", "nbf"] {
        let without = signed(|claims| drop(claims.as_object_mut().unwrap().remove(claim)));
        assert!(matches!(verdict(&without), Err(BadToken::Claims | BadToken::Malformed)), "{claim}");
    }
    let without = signed(|claims| drop(claims.as_object_mut().unwrap().remove("jti")));
    assert_eq!(verdict(&without), Err(BadToken::Malformed));
    assert_eq!(verdict(&signed(|claims| claims["iss"] = "https://other".into())), Err(BadToken::Claims));
    assert_eq!(verdict(&signed(|claims| claims["aud"] = "other".into())), Err(BadToken::Claims));
    let chain = |depth| (0..depth).fold(Value::Null, |act, _| json!({ "sub": Uuid::nil(), "act": act }));
    assert!(verdict(&signed(|claims| claims["act"] = chain(MAX_ACTORS))).is_ok());
    assert_eq!(verdict(&signed(|claims| claims["act"] = chain(MAX_ACTORS + 1))), Err(BadToken::Claims));
}

#[test]
fn times_have_a_leeway_of_thirty_seconds() {
    let at = |now_s: u64| check_times(&claims(), now_s * 1_000);
    assert_eq!((at(969), at(970)), (Err(BadToken::Early), Ok(())));
    assert_eq!((at(1_929), at(1_930)), (Ok(()), Err(BadToken::Expired)));
    let endless = Claims { exp: u64::MAX, nbf: u64::MAX, ..claims() };
    assert_eq!(check_times(&endless, 0), Err(BadToken::Early));
}

#[test]
fn another_algorithm_or_type_is_refused() {
    let header = |change: &dyn Fn(&mut Header)| {
        let mut header = Header { typ: Some(TYPE.into()), kid: Some(signer().kid), ..Header::new(Algorithm::EdDSA) };
        change(&mut header);
        jsonwebtoken::encode(&header, &claims(), &signer().key).unwrap()
    };
    assert_eq!(verdict(&header(&|header| header.typ = Some("JWT".into()))), Err(BadToken::Header));
    assert_eq!(verdict(&header(&|header| header.kid = None)), Err(BadToken::Header));
    assert_eq!(verdict(&header(&|header| header.crit = Some(vec!["b64".into()]))), Err(BadToken::Header));
    // The public key as HMAC secret, and no signature at all.
    let hmac = EncodingKey::from_secret(&signer().public());
    let hs256 = Header { typ: Some(TYPE.into()), kid: Some(signer().kid), ..Header::new(Algorithm::HS256) };
    assert_eq!(verdict(&jsonwebtoken::encode(&hs256, &claims(), &hmac).unwrap()), Err(BadToken::Header));
    let none = BASE64.encode(r#"{"alg":"none","typ":"at+jwt"}"#);
    let body = BASE64.encode(serde_json::to_vec(&claims()).unwrap());
    assert!(matches!(verdict(&format!("{none}.{body}.")), Err(BadToken::Header | BadToken::Malformed)));
}

#[test]
fn a_changed_token_is_refused() {
    let token = signed(|_| ());
    let other = Signer::try_new(&[1; 32]).unwrap();
    assert_eq!(verdict(other.sign(&claims()).unwrap().expose()), Err(BadToken::Signature));
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(verdict(std::str::from_utf8(&changed).unwrap()).is_err(), "{at}");
        assert!(verdict(&token[..at]).is_err(), "{at}");
    }
    assert_eq!(verdict("a.b"), Err(BadToken::Malformed));
    assert_eq!(verdict(&format!("{token}{}", "A".repeat(TOKEN_MAX))), Err(BadToken::Malformed));
    assert!(matches!(Signer::try_new(&[1; 3]), Err(IdentityError::Sealed)));
}
