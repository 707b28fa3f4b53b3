//! Accounts as they were stored before names and labels were sealed: schema 1.

use std::collections::BTreeMap;

use aivillage_runtime::{Durable, StoreError};
use serde::de::DeserializeOwned;

use super::{AccountEvent, Accounts, ApiKey, Challenge, Family, KeyRing, Lockouts, Session, Subject, SubjectId};
use crate::identity::bearer::TokenId;
use crate::keys::Kept;

/// Place of [`AccountEvent::SubjectCreated`] among the events; the first of its bytes.
const SUBJECT_CREATED: u8 = 0;
/// That of [`AccountEvent::KeyCreated`].
const KEY_CREATED: u8 = 19;

/// An event: but for those two they are what they were.
pub(super) fn event(from: u16, bytes: &[u8]) -> Result<AccountEvent, StoreError> {
    match bytes.split_first() {
        Some((&SUBJECT_CREATED, bytes)) => {
            let (id, subject): (SubjectId, Subject<String>) = read(from, bytes)?;
            Ok(AccountEvent::SubjectCreated(id, Box::new(unsealed(subject)?)))
        }
        Some((&KEY_CREATED, bytes)) => {
            let (id, key): (TokenId, ApiKey<String>) = read(from, bytes)?;
            Ok(AccountEvent::KeyCreated(id, Box::new(unsealed_key(key)?)))
        }
        _ => read(from, bytes),
    }
}

/// The fields of [`Accounts`]: names were kept a second time, to look for them.
type Fields = (
    BTreeMap<SubjectId, Subject<String>>,
    BTreeMap<String, SubjectId>,
    BTreeMap<TokenId, ApiKey<String>>,
    BTreeMap<TokenId, Session>,
    BTreeMap<TokenId, Family>,
    BTreeMap<TokenId, Challenge>,
    Lockouts,
    KeyRing,
);

pub(super) fn accounts(from: u16, bytes: &[u8]) -> Result<Accounts, StoreError> {
    let (subjects, _, keys, sessions, families, challenges, lockouts, ring): Fields = read(from, bytes)?;
    let subjects = subjects.into_iter().map(|(id, subject)| Ok((id, unsealed(subject)?)));
    let keys = keys.into_iter().map(|(id, key)| Ok((id, unsealed_key(key)?)));
    Ok(Accounts {
        subjects: subjects.collect::<Result<_, StoreError>>()?,
        keys: keys.collect::<Result<_, StoreError>>()?,
        sessions,
        families,
        challenges,
        lockouts,
        ring,
    })
}

fn read<T: DeserializeOwned>(from: u16, bytes: &[u8]) -> Result<T, StoreError> {
    if from != 1 {
        return Err(StoreError::Schema { found: from, known: Accounts::SCHEMA });
    }
    postcard::from_bytes(bytes).map_err(|error| StoreError::Decode { what: "accounts", detail: error.to_string() })
}

fn unsealed(subject: Subject<String>) -> Result<Subject, StoreError> {
    let Subject { kind, name, roles, is_suspended, made_ms, passwords, password_sets, totp, recovery } = subject;
    let name = Kept::clear(&name)?;
    Ok(Subject { kind, name, roles, is_suspended, made_ms, passwords, password_sets, totp, recovery })
}

fn unsealed_key(key: ApiKey<String>) -> Result<ApiKey, StoreError> {
    let ApiKey { hash, subject, label, scopes, made_ms, expires_ms } = key;
    Ok(ApiKey { hash, subject, label: Kept::clear(&label)?, scopes, made_ms, expires_ms })
}

#[cfg(test)]
mod tests {
    use aivillage_runtime::PrincipalKind;

    use super::*;
    use crate::identity::accounts::NewKey;
    use crate::identity::accounts::tests::{founded, id, kept, mint};
    use crate::identity::bearer::BearerKind;

    fn ada() -> Subject<String> {
        Subject {
            kind: PrincipalKind::User,
            name: "Ada".to_owned(),
            roles: [crate::identity::role::Role::User].into(),
            is_suspended: false,
            made_ms: 0,
            passwords: Vec::new(),
            password_sets: 0,
            totp: None,
            recovery: Vec::new(),
        }
    }

    #[test]
    fn accounts_and_events_of_before_names_were_sealed_are_read() {
        let mut accounts = founded();
        let key = NewKey { subject: id(2), label: "laptop".into(), scopes: vec![], expires_ms: None };
        let minted = mint(BearerKind::ApiKey, 1);
        let events = accounts.create_key(key, kept("laptop"), &minted, 0).unwrap();
        let made = accounts.subject(id(2)).unwrap().clone();
        let created = AccountEvent::SubjectCreated(id(2), Box::new(made));
        // The very bytes that the program of before wrote.
        let old = |place: u8, fields: Vec<u8>| [vec![place], fields].concat();
        let subject = old(SUBJECT_CREATED, postcard::to_allocvec(&(id(2), ada())).unwrap());
        assert_eq!(event(1, &subject).unwrap(), created);
        let key = ApiKey {
            hash: minted.hash,
            subject: id(2),
            label: "laptop",
            scopes: Vec::<String>::new(),
            made_ms: 0,
            expires_ms: None,
        };
        let key = old(KEY_CREATED, postcard::to_allocvec(&(minted.id, key)).unwrap());
        assert_eq!(event(1, &key).unwrap(), events[0]);
        for (place, event) in [(SUBJECT_CREATED, &created), (KEY_CREATED, &events[0])] {
            assert_eq!(postcard::to_allocvec(event).unwrap()[0], place);
        }
        let revoked = AccountEvent::KeyRevoked(minted.id);
        assert_eq!(event(1, &postcard::to_allocvec(&revoked).unwrap()).unwrap(), revoked);
        assert!(matches!(event(3, &subject), Err(StoreError::Schema { found: 3, known: 2 })));

        accounts.take(events);
        let root =
            Subject { name: "root".to_owned(), roles: [crate::identity::role::Role::SuperAdmin].into(), ..ada() };
        let subjects = BTreeMap::from([(id(1), root), (id(2), ada())]);
        let key = ApiKey {
            hash: minted.hash,
            subject: id(2),
            label: "laptop".to_owned(),
            scopes: vec![],
            made_ms: 0,
            expires_ms: None,
        };
        let names = BTreeMap::from([("root".to_owned(), id(1)), ("ada".to_owned(), id(2))]);
        let keys = BTreeMap::from([(minted.id, key)]);
        let rest = (&accounts.sessions, &accounts.families, &accounts.challenges, &accounts.lockouts, &accounts.ring);
        let snapshot = [postcard::to_allocvec(&(subjects, names, keys)), postcard::to_allocvec(&rest)];
        let snapshot = snapshot.map(Result::unwrap).concat();
        assert_eq!(super::accounts(1, &snapshot).unwrap(), accounts);
    }
}
