use std::collections::HashSet;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce as RustCryptoNonce};
use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

/// Key, nonce, plaintext, AAD, ciphertext, tag. NIST CAVS `gcmEncryptExtIV256.rsp` (gcmtestvectors.zip of the CAVP): the first
/// vector of six sections, by lengths of plaintext and AAD in bytes: 0/0, 0/16, 16/0, 16/20, 13/48, 51/0.
const NIST: [[&str; 6]; 6] = [
    [
        "b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4",
        "516c33929df5a3284ff463d7",
        "",
        "",
        "",
        "bdc1ac884d332457a1d2664f168c76f0",
    ],
    [
        "78dc4e0aaf52d935c3c01eea57428f00ca1fd475f5da86a49c8dd73d68c8e223",
        "d79cf22d504cc793c3fb6c8a",
        "",
        "b96baa8c1c75a671bfb2d08d06be5f36",
        "",
        "3e5d486aa2e30b22e040b85723a06e76",
    ],
    [
        "31bdadd96698c204aa9ce1448ea94ae1fb4a9a0b3c9d773b51bb1822666b8f22",
        "0d18e06c7c725ac9e362e1ce",
        "2db5168e932556f8089a0622981d017d",
        "",
        "fa4362189661d163fcd6a56d8bf0405a",
        "d636ac1bbedd5cc3ee727dc2ab4a9489",
    ],
    [
        "83688deb4af8007f9b713b47cfa6c73e35ea7a3aa4ecdb414dded03bf7a0fd3a",
        "0b459724904e010a46901cf3",
        "33d893a2114ce06fc15d55e454cf90c3",
        "794a14ccd178c8ebfd1379dc704c5e208f9d8424",
        "cc66bee423e3fcd4c0865715e9586696",
        "0fb291bd3dba94a1dfd8b286cfb97ac5",
    ],
    [
        "5f671466378f470ba5f5160e2209f3d95a48b7e560625d5a08654414de23aee2",
        "6b3c08a663d04132243dd96c",
        "c428592d9f8a7f107ec4d0df05",
        "12965559c31d538f937bda6eee9c93b0387318dc5d9496fb1c3a0b9b978dbfebff2a5823974ee9d679834dbe59f7ec51",
        "1d8d7fe4357080c817303ce19c",
        "e88d6b566fdc7b4fd62106bd2eb806ec",
    ],
    [
        "1fded32d5999de4a76e0f8082108823aef60417e1896cf4218a2fa90f632ec8a",
        "1f3afa4711e9474f32e70462",
        "06b2c75853df9aeb17befd33cea81c630b0fc53667ff45199c629c8e15dce41e530aa792f796b8138eeab2e86c7b7bee1d40b0",
        "",
        "91fbd061ddc5a7fcc9513fcdfdc9c3a7c5d4d64cedf6a9c24ab8a77c36eefbf1c5dc00bc50121b96456c8cd8b6ff1f8b3e480f",
        "30096d340f3d5c42d82a6f475def23eb",
    ],
];

fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn secret(bytes: &[u8]) -> Secret {
    Secret::take(&mut bytes.try_into().unwrap())
}

fn dek(bytes: &[u8; 32]) -> Dek {
    Dek::new(DekId(Uuid::from_u128(7)), &secret(bytes), 0)
}

fn tenant() -> TenantId {
    TenantId::of("local")
}

fn open(dek: &Dek, tenant: TenantId, record: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptError> {
    dek.open(tenant, record, &Envelope::parse(sealed)?)
}

/// What an envelope authenticates, put together from the table and not by the code.
fn documented_aad(sealed: &[u8], tenant: TenantId, record: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    [&sealed[..22], tenant.0.as_bytes(), &Sha256::digest(record)].concat()
}

#[test]
fn nist_vectors() {
    for [key, nonce, plain, aad, cipher, tag] in NIST {
        let mut body = unhex(plain);
        let nonce = Nonce::try_assume_unique_for_key(&unhex(nonce)).unwrap();
        let made = secret(&unhex(key)).cipher().seal_in_place_separate_tag(nonce, Aad::from(unhex(aad)), &mut body);
        assert_eq!((body, made.unwrap().as_ref().to_vec()), (unhex(cipher), unhex(tag)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_opens_in_its_place_only(key: [u8; 32], record: Vec<u8>, other: Vec<u8>, plain: Vec<u8>) {
        let dek = dek(&key);
        let sealed = dek.seal(tenant(), &record, &plain).unwrap();
        prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
        prop_assert_eq!(Envelope::parse(&sealed).unwrap().dek(), dek.id);
        prop_assert_eq!(open(&dek, tenant(), &record, &sealed), Ok(plain));
        prop_assert_eq!(open(&dek, TenantId::of("other"), &record, &sealed), Err(CryptError::Authenticate));
        if other != record {
            prop_assert_eq!(open(&dek, tenant(), &other, &sealed), Err(CryptError::Authenticate));
        }
    }

    #[test]
    fn the_other_implementation_opens_what_this_one_seals(key: [u8; 32], record: Vec<u8>, plain: Vec<u8>) {
        let sealed = dek(&key).seal(tenant(), &record, &plain).unwrap();
        let nonce = RustCryptoNonce::try_from(&sealed[22..34]).unwrap();
        let aad = documented_aad(&sealed, tenant(), &record);
        let opened = Aes256Gcm::new(&key.into()).decrypt(&nonce, Payload { msg: &sealed[34..], aad: &aad });
        prop_assert_eq!(opened.unwrap(), plain);
    }

    #[test]
    fn this_implementation_opens_what_the_other_one_seals(key: [u8; 32], nonce: [u8; 12], record: Vec<u8>, plain: Vec<u8>) {
        let dek = dek(&key);
        let mut sealed = header(dek.id).to_vec();
        let aad = documented_aad(&sealed, tenant(), &record);
        let body = Aes256Gcm::new(&key.into()).encrypt(&nonce.into(), Payload { msg: &plain, aad: &aad }).unwrap();
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        prop_assert_eq!(open(&dek, tenant(), &record, &sealed), Ok(plain));
    }

    #[test]
    fn foreign_bytes_are_an_error(bytes: Vec<u8>) {
        prop_assert!(open(&dek(&[1; 32]), tenant(), b"", &bytes).is_err());
        prop_assert!(open(&dek(&[1; 32]), tenant(), b"", &[b"AVE1\x01\0", &bytes[..]].concat()).is_err());
    }
}

#[test]
fn every_changed_byte_is_refused() {
    let dek = dek(&[3; 32]);
    let sealed = dek.seal(tenant(), b"record", b"content").unwrap();
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut bad = sealed.clone();
            bad[at] ^= 1 << bit;
            let expected = match at {
                0..4 => CryptError::NotAnEnvelope,
                4..6 => CryptError::Unsupported { alg: bad[4], flags: bad[5] },
                _ => CryptError::Authenticate,
            };
            assert_eq!(open(&dek, tenant(), b"record", &bad), Err(expected), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn every_cut_is_refused() {
    let dek = dek(&[3; 32]);
    let sealed = dek.seal(tenant(), b"record", b"content").unwrap();
    for bytes in 0..sealed.len() {
        let expected = match bytes {
            0 => CryptError::NotAnEnvelope,
            1..OVERHEAD => CryptError::Truncated { bytes: bytes as u64, least: OVERHEAD as u64 },
            _ => CryptError::Authenticate,
        };
        assert_eq!(open(&dek, tenant(), b"record", &sealed[..bytes]), Err(expected), "{bytes} bytes");
    }
}

#[test]
fn a_million_messages_have_a_million_nonces() {
    let dek = dek(&[5; 32]);
    let mut seen = HashSet::with_capacity(1_000_000);
    for _ in 0..1_000_000 {
        let sealed = dek.seal(tenant(), b"", b"").unwrap();
        assert!(seen.insert(*sealed[22..].first_chunk::<12>().unwrap()), "a nonce came twice");
    }
    assert_eq!(dek.sealed(), 1_000_000);
}

#[test]
fn exhausted_key_seals_no_more_and_still_opens() {
    let dek = Dek::new(DekId(Uuid::nil()), &secret(&[9; 32]), MAX_MESSAGES - 1);
    let last = dek.seal(tenant(), b"", b"last").unwrap();
    assert_eq!(dek.seal(tenant(), b"", b"more"), Err(CryptError::Exhausted { dek: dek.id }));
    assert_eq!(open(&dek, tenant(), b"", &last).unwrap(), b"last");
}

#[test]
fn too_large_plaintext_is_refused() {
    let refused = dek(&[1; 32]).seal(tenant(), b"", &vec![0; MAX_PLAINTEXT + 1]);
    assert_eq!(refused, Err(CryptError::TooLarge { bytes: MAX_PLAINTEXT as u64 + 1, max: MAX_PLAINTEXT as u64 }));
}
