//! `memory.registry`: which collections a tenant has.
//!
//! Key: tenant. Durable: yes, replicated, event-sourced. Lost in a crash: answers under way.

use std::collections::BTreeMap;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Durable, Entity, Kind, KindOptions,
    Mail, Reply, clock,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::MemoryError;
use crate::names::check_collection;

/// Collections of one tenant.
const COLLECTIONS_MAX: usize = 10_000;
/// Names this unlike each other are no suggestion.
const NEAR: f64 = 0.7;

/// What a [`Registry`] understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub enum RegistryMsg {
    /// Makes sure that a collection exists.
    Ensure(String, Reply<()>),
    /// Lists the collections by name.
    List(Reply<Vec<String>>),
    /// Checks that collections exist; an empty list stands for all of them.
    Resolve(Vec<String>, Reply<Vec<String>>),
}

/// The behaviour; its data is [`Collections`].
#[derive(Debug)]
pub struct Registry;

impl Kind for Registry {
    const NAME: &'static str = "memory.registry";
    type Body = RegistryMsg;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

impl Actor for Registry {
    type Msg = Mail<RegistryMsg>;
    type State = Entity<Collections>;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Self::State, ActorProcessingErr> {
        Ok(cx.recover().await?)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            RegistryMsg::Ensure(name, reply) => match state.creation(name, clock::unix_ms()) {
                Ok(None) => reply.send(()),
                Ok(Some(event)) => reply.complete(state.commit(event).await.map_err(CallError::from)),
                Err(error) => reply.fail(error),
            },
            RegistryMsg::List(reply) => reply.send(state.names()),
            RegistryMsg::Resolve(names, reply) => reply.complete(state.resolve(names).map_err(AppError::from)),
        }
        Ok(())
    }
}

/// What happened to the collections of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionEvent {
    /// A collection was made.
    Created {
        /// Its name.
        name: String,
        /// When, in Unix milliseconds.
        at_ms: u64,
    },
}

/// The collections of a tenant with the time of their creation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collections {
    created: BTreeMap<String, u64>,
}

impl Durable for Collections {
    type Event = CollectionEvent;

    fn apply(&mut self, event: &CollectionEvent) {
        match event {
            CollectionEvent::Created { name, at_ms } => {
                self.created.entry(name.clone()).or_insert(*at_ms);
            }
        }
    }
}

impl Collections {
    /// The event that makes a collection, unless it exists.
    fn creation(&self, name: String, at_ms: u64) -> Result<Option<CollectionEvent>, MemoryError> {
        check_collection(&name)?;
        if self.created.contains_key(&name) {
            return Ok(None);
        }
        if self.created.len() >= COLLECTIONS_MAX {
            return Err(MemoryError::TooMany {
                what: "collections".to_owned(),
                count: self.created.len() as u64 + 1,
                max: COLLECTIONS_MAX as u64,
                key: "none: use another tenant",
            });
        }
        Ok(Some(CollectionEvent::Created { name, at_ms }))
    }

    fn names(&self) -> Vec<String> {
        self.created.keys().cloned().collect()
    }

    fn resolve(&self, names: Vec<String>) -> Result<Vec<String>, MemoryError> {
        if names.is_empty() {
            return Ok(self.names());
        }
        match names.iter().find(|name| !self.created.contains_key(*name)) {
            Some(unknown) => Err(MemoryError::NoCollection { name: unknown.clone(), nearest: self.nearest(unknown) }),
            None => Ok(names),
        }
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let likeness = |known: &&String| strsim::jaro_winkler(known, name);
        let best = self.created.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        (likeness(&best) >= NEAR).then(|| best.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(names: &[&str]) -> Collections {
        let mut collections = Collections::default();
        for name in names {
            collections.apply(&CollectionEvent::Created { name: (*name).to_owned(), at_ms: 1 });
        }
        collections
    }

    #[test]
    fn creation_happens_once() {
        let collections = with(&["main"]);
        assert_eq!(collections.creation("main".to_owned(), 2), Ok(None));
        assert!(matches!(collections.creation("notes".to_owned(), 2), Ok(Some(_))));
        assert!(collections.creation("../x".to_owned(), 2).is_err());
    }

    #[test]
    fn unknown_names_are_told_with_the_nearest() {
        let collections = with(&["main", "notes"]);
        let error = collections.resolve(vec!["note".to_owned()]).expect_err("unknown");
        assert!(error.to_string().contains("did you mean `notes`"), "{error}");
        let error = collections.resolve(vec!["zzzz".to_owned()]).expect_err("unknown");
        assert!(!error.to_string().contains("did you mean"), "{error}");
        assert_eq!(collections.resolve(Vec::new()), Ok(vec!["main".to_owned(), "notes".to_owned()]));
    }
}
