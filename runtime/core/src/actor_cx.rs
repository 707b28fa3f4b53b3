//! What an actor is given when it starts: who it is, and the village around it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use serde::de::DeserializeOwned;

use crate::config::ConfigError;
use crate::durable::{Durable, Entity};
use crate::mail::{Mail, MsgCx, Way, Wire};
use crate::mailbox::Gauge;
use crate::store::{Store, StoreError};
use crate::task::TaskHandle;
use crate::village::Village;

/// The arguments of every hosted actor. Cheap to clone; keep it in the state if it is needed later.
#[derive(Clone)]
pub struct ActorCx {
    pub(crate) kind: &'static str,
    pub(crate) key: Arc<str>,
    pub(crate) village: Village,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) passivate: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for ActorCx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorCx({}/{})", self.kind, self.key)
    }
}

impl ActorCx {
    /// The kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The key of this activation.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The village this actor lives in.
    #[must_use]
    pub fn village(&self) -> &Village {
        &self.village
    }

    /// Reads a section of the configuration; an absent section gives `T`'s defaults.
    ///
    /// # Errors
    /// When the section does not have the shape of `T`.
    pub fn config<T: DeserializeOwned>(&self, section: &str) -> Result<T, ConfigError> {
        self.village.config(section)
    }

    /// Loads this key's durable state: the newest snapshot and the events after it.
    ///
    /// # Errors
    /// When the store cannot be read or an event cannot be decoded.
    pub async fn recover<D: Durable>(&self) -> Result<Entity<D>, StoreError> {
        Entity::recover(self.store.clone(), self.kind, &self.key).await
    }

    /// The store of this key's state: that of its group for a replicated kind, else the node's.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Asks to be stopped once the mailbox is empty; the next mail starts a new activation.
    ///
    /// ractor's own `stop` loses what is queued, and up to 31 messages may still be handled before it takes effect.
    pub fn passivate(&self) {
        (self.passivate)();
    }

    /// Sends `body` to this actor itself, beyond the mailbox bound: for results of its own work, which must not be
    /// refused. False when the actor has ended.
    pub fn tell_self<B: Wire>(&self, myself: &ActorRef<Mail<B>>, body: B) -> bool {
        self.gauge.admit_own();
        let mail = Mail { body, cx: MsgCx::default(), way: Way::Own };
        let sent = myself.send_message(mail).is_ok();
        if !sent {
            self.gauge.retract();
        }
        sent
    }

    /// Sends `body` to this actor itself after `delay`. Dropped if the actor ends before.
    pub fn timer<B: Wire>(&self, myself: &ActorRef<Mail<B>>, delay: Duration, body: B) -> TaskHandle<()> {
        let (cx, myself) = (self.clone(), myself.clone());
        self.village.task("timer", async move {
            tokio::time::sleep(delay).await;
            cx.tell_self(&myself, body);
        })
    }
}
