//! What is said in a case: sealed for its sender, so that it goes with them.
//!
//! So are the reasons of jurors, which speak of the sender's text. In the clear are what was found and by which rule, the phases
//! and their times, and who sits on the jury; senders and jurors by the subject of their account, which is no name.

use std::collections::BTreeMap;

use aivillage_runtime::{Durable, StoreError, Village};
use serde::de::DeserializeOwned;

use super::case::{Appeal, Case, CaseId, Sender, Vote};
use super::docket::Docket;
use super::event::CaseEvent;
use crate::keys::{CryptError, Kept, Personal, VaultError};

/// What texts of cases are kept for, as their keys name it.
const PURPOSE: &str = "case";

/// Seals and opens the words of one case.
#[derive(Debug)]
pub(super) struct Words {
    personal: Personal,
    subject: String,
    id: CaseId,
}

/// Which words: they do not open as others of the same case.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Excerpt,
    Content,
    Appeal,
    Reason,
}

impl Words {
    pub(super) fn of(village: &Village, id: CaseId, sender: &Sender) -> Result<Self, CryptError> {
        let personal = Personal::new(village, &sender.tenant, PURPOSE)?;
        Ok(Self { personal, subject: sender.subject.clone(), id })
    }

    fn record(&self, part: Part) -> Vec<u8> {
        [self.id.as_bytes(), &[part as u8][..]].concat()
    }

    pub(super) async fn seal(&self, part: Part, text: &str) -> Result<Kept, VaultError> {
        self.personal.seal(&self.subject, &self.record(part), &text).await
    }

    /// The words; none of a sender who was erased.
    pub(super) async fn open(&self, part: Part, kept: &Kept) -> Result<Option<String>, VaultError> {
        self.personal.open(&self.record(part), kept).await
    }

    /// A case that nothing was said in yet, as it is stored.
    pub(super) async fn seal_case(&self, case: Case<String>) -> Result<Case, VaultError> {
        let excerpt = self.seal(Part::Excerpt, &case.excerpt).await?;
        let content = match &case.content {
            Some(content) => Some(self.seal(Part::Content, content).await?),
            None => None,
        };
        Ok(case.with((excerpt, content), None, Vec::new()))
    }

    /// A case with its words.
    pub(super) async fn open_case(&self, case: &Case) -> Result<Case<String>, VaultError> {
        let excerpt = self.open(Part::Excerpt, &case.excerpt).await?.unwrap_or_default();
        let content = match &case.content {
            Some(content) => self.open(Part::Content, content).await?,
            None => None,
        };
        let appeal = match &case.appeal {
            Some(Appeal { grounds, text, at_ms }) => {
                let text = self.open(Part::Appeal, text).await?.unwrap_or_default();
                Some(Appeal { grounds: *grounds, text, at_ms: *at_ms })
            }
            None => None,
        };
        let mut votes = Vec::with_capacity(case.votes.len());
        for Vote { juror, choice, reason, at_ms } in &case.votes {
            let reason = self.open(Part::Reason, reason).await?.unwrap_or_default();
            votes.push(Vote { juror: juror.clone(), choice: *choice, reason, at_ms: *at_ms });
        }
        Ok(case.clone().with((excerpt, content), appeal, votes))
    }
}

// Cases as they were stored before their words were sealed: schema 1.

/// Place of [`CaseEvent::Opened`] among the events; the first of its bytes.
const OPENED: u8 = 0;
/// That of [`CaseEvent::Appealed`].
const APPEALED: u8 = 2;
/// That of [`CaseEvent::Voted`].
const VOTED: u8 = 5;

/// An event: but for those three they are what they were.
pub(super) fn event_before(from: u16, bytes: &[u8]) -> Result<CaseEvent, StoreError> {
    Ok(match bytes.split_first() {
        Some((&OPENED, bytes)) => {
            let (id, case): (CaseId, Case<String>) = read(from, bytes)?;
            CaseEvent::Opened(id, Box::new(unsealed(case)?))
        }
        Some((&APPEALED, bytes)) => {
            let (case, appeal, deadline_ms): (CaseId, Appeal<String>, u64) = read(from, bytes)?;
            CaseEvent::Appealed { case, appeal: unsealed_appeal(appeal)?, deadline_ms }
        }
        Some((&VOTED, bytes)) => {
            let (id, vote): (CaseId, Vote<String>) = read(from, bytes)?;
            CaseEvent::Voted(id, unsealed_vote(vote)?)
        }
        _ => read(from, bytes)?,
    })
}

/// All cases of a shard.
pub(super) fn cases_before<T: DeserializeOwned>(
    from: u16,
    bytes: &[u8],
) -> Result<(BTreeMap<CaseId, Case>, T), StoreError> {
    let (cases, rest): (BTreeMap<CaseId, Case<String>>, T) = read(from, bytes)?;
    let cases = cases.into_iter().map(|(id, case)| Ok((id, unsealed(case)?)));
    Ok((cases.collect::<Result<_, StoreError>>()?, rest))
}

fn read<T: DeserializeOwned>(from: u16, bytes: &[u8]) -> Result<T, StoreError> {
    if from != 1 {
        return Err(StoreError::Schema { found: from, known: Docket::SCHEMA });
    }
    postcard::from_bytes(bytes).map_err(|error| StoreError::Decode { what: "cases", detail: error.to_string() })
}

fn unsealed(mut case: Case<String>) -> Result<Case, StoreError> {
    let texts = (Kept::clear(&case.excerpt)?, case.content.as_ref().map(Kept::clear).transpose()?);
    let appeal = case.appeal.take().map(unsealed_appeal).transpose()?;
    let votes = std::mem::take(&mut case.votes).into_iter().map(unsealed_vote).collect::<Result<_, _>>()?;
    Ok(case.with(texts, appeal, votes))
}

fn unsealed_appeal(Appeal { grounds, text, at_ms }: Appeal<String>) -> Result<Appeal, StoreError> {
    Ok(Appeal { grounds, text: Kept::clear(&text)?, at_ms })
}

fn unsealed_vote(Vote { juror, choice, reason, at_ms }: Vote<String>) -> Result<Vote, StoreError> {
    Ok(Vote { juror, choice, reason: Kept::clear(&reason)?, at_ms })
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::cases::tests::{case, clear};
    use crate::cases::{Choice, Grounds, Juror};
    use crate::moderation::Category;

    #[test]
    fn cases_and_events_of_before_words_were_sealed_are_read() {
        let (id, case) = case(Category::Spam, 7);
        let appeal = Appeal { grounds: Grounds::Art, text: "a poem".to_owned(), at_ms: 8 };
        let juror = Juror { tenant: "bench".into(), subject: "j".into() };
        let vote = Vote { juror, choice: Choice::Reduce, reason: "I read it so".to_owned(), at_ms: 9 };
        let old = clear(case).with(
            ("an excerpt".to_owned(), Some("the text".to_owned())),
            Some(appeal.clone()),
            vec![vote.clone()],
        );
        let stored = |place: u8, fields: Vec<u8>| [vec![place], fields].concat();
        let now = unsealed(old.clone()).unwrap();
        let events = [
            (OPENED, postcard::to_allocvec(&(id, &old)), CaseEvent::Opened(id, Box::new(now.clone()))),
            (
                APPEALED,
                postcard::to_allocvec(&(id, &appeal, 5_u64)),
                CaseEvent::Appealed { case: id, appeal: now.appeal.clone().unwrap(), deadline_ms: 5 },
            ),
            (VOTED, postcard::to_allocvec(&(id, &vote)), CaseEvent::Voted(id, now.votes[0].clone())),
        ];
        for (place, fields, event) in events {
            assert_eq!(event_before(1, &stored(place, fields.unwrap())).unwrap(), event);
            assert_eq!(postcard::to_allocvec(&event).unwrap()[0], place);
        }
        let same = CaseEvent::JuryUpheld(id, 4);
        assert_eq!(event_before(1, &postcard::to_allocvec(&same).unwrap()).unwrap(), same);
        let snapshot = postcard::to_allocvec(&(BTreeMap::from([(id, &old)]), 9_u8)).unwrap();
        assert_eq!(cases_before::<u8>(1, &snapshot).unwrap(), ([(id, now)].into(), 9));
        assert!(matches!(cases_before::<u8>(3, &snapshot), Err(StoreError::Schema { found: 3, known: 2 })));
    }

    #[tokio::test]
    async fn words_open_in_their_place_only() {
        use crate::keys::{KeysConfig, KeysNode, install};
        let village = install(Village::builder(), &KeysNode::new(KeysConfig::default())).start().await.unwrap();
        let (id, case) = case(Category::Spam, 7);
        let words = Words::of(&village, id, &case.sender).unwrap();
        let old = clear(case).with(("an excerpt".to_owned(), Some("the text".to_owned())), None, Vec::new());
        let sealed = words.seal_case(old.clone()).await.unwrap();
        assert_eq!(sealed.excerpt.subject(), Some(old.sender.tag().unwrap()));
        assert_eq!(words.open_case(&sealed).await.unwrap(), old);
        assert!(words.open(Part::Content, &sealed.excerpt).await.is_err());
        let (other, _) = crate::cases::tests::case(Category::Gore, 7);
        assert!(Words::of(&village, other, &old.sender).unwrap().open_case(&sealed).await.is_err());
    }
}
