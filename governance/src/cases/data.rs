//! The cases of a person, for exporting and erasing.

use aivillage_runtime::{CallError, Village};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::actor::CaseActor;
use super::case::Sender;
use super::docket::Docket;
use super::message::CasesMsg;
use crate::erasure::{DataOwner, Places, Subject, as_village};

/// The cases of senders and their standing, as a store that keeps data about people. Evidence of H0 holds an erasure up.
#[derive(Debug, Clone, Copy)]
pub struct CaseData;

fn sender(subject: &Subject) -> Sender {
    Sender::new(&*subject.tenant, &*subject.name)
}

impl DataOwner for CaseData {
    fn name(&self) -> &'static str {
        "cases"
    }

    fn enumerate<'a>(&'a self, village: &'a Village, subject: &'a Subject) -> BoxFuture<'a, Result<Places, CallError>> {
        async move {
            let shard = sender(subject).shard().to_string();
            let items = village.copied::<CaseActor, Docket>(&shard).await?.items(subject.tag()?);
            Ok((items > 0).then_some((shard, items)).into_iter().collect())
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
            let mut all = Vec::new();
            for shard in places.keys() {
                let addr = village.addr::<CaseActor>(shard);
                let views = as_village(addr.ask(|reply| CasesMsg::Of(sender(subject), reply))).await?;
                all.extend(views.into_iter().map(|view| json!(view)));
            }
            Ok(all)
        }
        .boxed()
    }

    fn hold<'a>(
        &'a self,
        village: &'a Village,
        subject: &'a Subject,
        places: &'a Places,
    ) -> BoxFuture<'a, Result<Option<String>, CallError>> {
        async move {
            for shard in places.keys() {
                let addr = village.addr::<CaseActor>(shard);
                let why = as_village(addr.ask(|reply| CasesMsg::Held(sender(subject), reply))).await?;
                if why.is_some() {
                    return Ok(why);
                }
            }
            Ok(None)
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
            for shard in places.keys() {
                let addr = village.addr::<CaseActor>(shard);
                as_village(addr.ask(|reply| CasesMsg::Erase(sender(subject), reply))).await?;
            }
            Ok(())
        }
        .boxed()
    }
}
