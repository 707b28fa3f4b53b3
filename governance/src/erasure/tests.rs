use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use zeroize::Zeroizing;

use super::*;
use crate::keys::{KeysConfig, KeysNode, Personal, SignedCertificate};

/// A store with some items, and another number of them after each removal.
#[derive(Debug)]
struct Shelf {
    items: Arc<AtomicU64>,
    left: u64,
    is_broken: bool,
}

impl DataOwner for Shelf {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn enumerate<'a>(&'a self, _: &'a Village, _: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>> {
        async { Ok(Places::from([("top".to_owned(), self.items.load(Ordering::SeqCst))])) }.boxed()
    }

    fn export<'a>(
        &'a self,
        _: &'a Village,
        _: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<Vec<Value>, CallError>> {
        async move { Ok(places.values().copied().map(Value::from).collect()) }.boxed()
    }

    fn erase<'a>(&'a self, _: &'a Village, _: &'a Subject, _: &'a Places) -> BoxFuture<'a, Result<(), CallError>> {
        async {
            if self.is_broken {
                return Err(CallError::Panicked);
            }
            self.items.store(self.left, Ordering::SeqCst);
            Ok(())
        }
        .boxed()
    }
}

async fn village(left: u64, is_broken: bool) -> (Village, CertificateSigner) {
    let (owners, secret) = (Owners::default(), VillageSecret::default());
    owners.add(Shelf { items: Arc::new(AtomicU64::new(3)), left, is_broken });
    secret.set(Zeroizing::new([7; 32]));
    let builder = crate::keys::install(Village::builder(), &KeysNode::new(KeysConfig::default()));
    (install(builder, &owners, secret.clone()).start().await.unwrap(), CertificateSigner::new(secret))
}

async fn erase(village: &Village) -> Result<Erased, CallError> {
    let ask = |reply| ErasureMsg::Erase { subject: "ada.lovelace".into(), basis: "gdpr-17".into(), reply };
    village.addr::<Erasure>("local").ask(ask).await
}

#[tokio::test]
async fn the_erased_have_no_keys_no_items_and_a_certificate() {
    let (village, signer) = village(0, false).await;
    let personal = Personal::new(&village, "local", "memory").unwrap();
    let kept = personal.seal("ada.lovelace", b"r", &"canary".to_owned()).await.unwrap();
    let export = |reply| ErasureMsg::Export("ada.lovelace".into(), reply);
    let exported = village.addr::<Erasure>("local").ask(export).await.unwrap();
    assert_eq!(exported, [("shelf".to_owned(), serde_bytes::ByteBuf::from("[3]"))]);

    let erased = erase(&village).await.unwrap();
    let signed = erased.certificate().unwrap();
    signed.verify(signer.public_key().unwrap()).unwrap();
    let certificate = &signed.certificate;
    assert_eq!((certificate.stores.len(), certificate.keys.len(), certificate.basis.as_str()), (1, 1, "gdpr-17"));
    let store = &certificate.stores[0];
    assert_eq!((store.owner.as_str(), store.enumerated, store.erased, store.remaining), ("shelf", 3, 3, 0));
    assert_eq!(personal.open::<String>(b"r", &kept).await, Ok(None));
    assert!(personal.seal("ada.lovelace", b"r", &"again".to_owned()).await.is_err());
    let text = String::from_utf8(erased.certificate.to_vec()).unwrap();
    assert!(!text.contains("lovelace"), "{text}");

    // A flipped byte anywhere is seen, unless it is one of those that JSON does not care about.
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let read = SignedCertificate::from_json(&bytes);
        assert!(read.is_err() || read.unwrap().verify(signer.public_key().unwrap()).is_err(), "byte {at}");
    }
    assert_eq!(erase(&village).await.unwrap(), erased, "asked again, the same one comes");
    let found = village.addr::<Erasure>("local").ask(|reply| ErasureMsg::Get(erased.id, reply)).await.unwrap();
    assert_eq!(found, Some(erased));
    let unknown = village.addr::<Erasure>("local").ask(|reply| ErasureMsg::Get(uuid::Uuid::nil(), reply)).await;
    assert_eq!(unknown.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_all_gone_gets_no_certificate() {
    let (left, _) = village(1, false).await;
    let refused = erase(&left).await.unwrap_err();
    assert_eq!(refused.code(), "erasure_incomplete", "{refused}");
    let (broken, _) = village(0, true).await;
    assert!(matches!(erase(&broken).await, Err(CallError::Panicked)));
    // The keys are gone in either case: nothing is half erased that could still be read.
    let personal = Personal::new(&broken, "local", "memory").unwrap();
    assert!(personal.seal("ada.lovelace", b"r", &1_u8).await.is_err());
}

#[tokio::test]
async fn bad_requests_destroy_nothing() {
    let (village, _) = village(0, false).await;
    let addr = village.addr::<Erasure>("local");
    let ask = |subject: &str, basis: &str| {
        let (subject, basis) = (subject.to_owned(), basis.to_owned());
        addr.ask(move |reply| ErasureMsg::Erase { subject, basis, reply })
    };
    assert_eq!(ask("", "gdpr-17").await.unwrap_err().code(), "bad_request");
    assert_eq!(ask("\0names of documents", "gdpr-17").await.unwrap_err().code(), "bad_request");
    assert_eq!(ask("ada.lovelace", &"x".repeat(65)).await.unwrap_err().code(), "bad_request");
    let personal = Personal::new(&village, "local", "memory").unwrap();
    personal.seal("ada.lovelace", b"r", &1_u8).await.unwrap();
    assert!(!format!("{:?}", Subject { tenant: "local".into(), name: "ada.lovelace".into() }).contains("lovelace"));
}
