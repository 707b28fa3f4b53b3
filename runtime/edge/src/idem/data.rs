//! The stored answers of a person, for exporting and erasing.

use aivillage_governance::erasure::{DataOwner, Places, Subject};
use aivillage_governance::keys::Personal;
use aivillage_runtime::{CallError, Village};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::kept::Kept;
use super::{Idem, IdemMsg, PURPOSE, SHARDS, StoredResponse, shard_key};

/// What requests with an idempotency key were answered within the last day, as a store that keeps data about people.
#[derive(Debug, Clone, Copy)]
pub struct AnswerData;

impl DataOwner for AnswerData {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn enumerate<'a>(&'a self, village: &'a Village, subject: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>> {
        async move {
            let (tag, mut places) = (subject.tag()?, Places::new());
            for shard in 0..SHARDS {
                let key = shard_key(&subject.tenant, shard);
                let Some(copy) = village.copy_of::<Idem>(&key) else { continue };
                let answers = Kept::open(copy, &key).await?.keys_of(tag)?.len() as u64;
                if answers > 0 {
                    places.insert(key, answers);
                }
            }
            Ok(places)
        }
        .boxed()
    }

    fn export<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<Vec<Value>, CallError>> {
        async move {
            let (tag, mut all) = (subject.tag()?, Vec::new());
            let personal = Personal::new(village, &subject.tenant, PURPOSE)?;
            for place in places.keys() {
                for (key, answer) in village.addr::<Idem>(place).ask(|reply| IdemMsg::Of(tag, reply)).await? {
                    let opened = personal.open::<StoredResponse>(&key, &answer.response).await?;
                    all.extend(opened.map(|answered| {
                        let body = String::from_utf8_lossy(&answered.body);
                        json!({ "status": answered.status, "body": body })
                    }));
                }
            }
            Ok(all)
        }
        .boxed()
    }

    fn erase<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        async move {
            let tag = subject.tag()?;
            for place in places.keys() {
                village.addr::<Idem>(place).ask(|reply| IdemMsg::Forget(tag, reply)).await?;
            }
            Ok(())
        }
        .boxed()
    }
}
