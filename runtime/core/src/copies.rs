//! What this node's own copies of the replicated groups have, wherever the actors live that wrote it.
//!
//! Such reads need no message, and tell of this node: how far its copies are, and what lies in them. Who reads much of it all the
//! time has a [`ReplicaView`](crate::ReplicaView).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::durable::{self, Durable};
use crate::kind::Kind;
use crate::placement;
use crate::replica_view;
use crate::store::{Store, StoreError};
use crate::village::Village;

impl Village {
    /// Index of the last entry that this node's copy of each replicated group has applied, from group 1 on; 0 without a copy or a
    /// log. The most of all nodes is all that was acknowledged by then.
    #[must_use]
    pub fn applied(&self) -> Vec<u64> {
        self.shards().iter().map(|shard| shard.applied()).collect()
    }

    /// Waits until this node's copies have applied these entries, as [`Village::applied`] of some node told them, and its
    /// [`ReplicaView`](crate::ReplicaView)s show all that is applied. What this node has no copy of is not waited for.
    pub async fn shows(&self, applied: &[u64]) {
        let me = self.node_id();
        for (shard, until) in self.shards().iter().zip(applied) {
            shard.shows(me, *until).await;
        }
    }

    /// What an actor of a replicated kind keeps, in this node's copy of its group, to be read only. None where this node has none.
    #[must_use]
    pub fn copy_of<K: Kind>(&self, key: &str) -> Option<Arc<dyn Store>> {
        let groups = u8::try_from(self.shards().len()).unwrap_or(u8::MAX);
        let group = placement::group_of(placement::slot(K::NAME, key), groups);
        let shard = self.shards().get(usize::from(group).checked_sub(1)?)?;
        Some(Arc::new(shard.copy(self.node_id())?))
    }

    /// The state of a replicated actor in this node's copy; that before its first event where there is none.
    ///
    /// # Errors
    /// As [`Entity::recover`](crate::Entity::recover). A copy that is being renewed may not be readable for a moment.
    pub async fn copied<K: Kind, D: Durable>(&self, key: &str) -> Result<D, StoreError> {
        let Some(copy) = self.copy_of::<K>(key) else { return Ok(D::default()) };
        durable::read_only(&copy, K::NAME, key).await.map(|(state, _)| state)
    }

    /// The keys of all actors of a replicated kind whose state is made of events and that this node has a copy of.
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub async fn copied_keys<K: Kind>(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut all = BTreeSet::new();
        for copy in self.shards().iter().filter_map(|shard| shard.copy(self.node_id())) {
            all.append(&mut replica_view::keys(&copy, K::NAME).await?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr, ActorRef};
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{ActorCx, Durability, Entity, KindOptions, Mail, Reply};

    #[derive(Debug, Serialize, Deserialize)]
    enum SumMsg {
        Add(u64, Reply<()>),
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Sum(u64);

    impl Durable for Sum {
        type Event = u64;
        fn apply(&mut self, added: &u64) {
            self.0 += added;
        }
    }

    struct SumActor;

    impl Kind for SumActor {
        const NAME: &'static str = "test.sum";
        type Body = SumMsg;
        fn options() -> KindOptions {
            KindOptions::default().durable(Durability::Replicated)
        }
    }

    impl Actor for SumActor {
        type Msg = Mail<SumMsg>;
        type State = Entity<Sum>;
        type Arguments = ActorCx;
        async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Entity<Sum>, ActorProcessingErr> {
            Ok(cx.recover().await?)
        }
        async fn handle(
            &self,
            _: ActorRef<Self::Msg>,
            mail: Self::Msg,
            sum: &mut Entity<Sum>,
        ) -> Result<(), ActorProcessingErr> {
            let SumMsg::Add(added, reply) = mail.body;
            reply.complete(sum.commit(added).await);
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_actors_wrote_is_read_without_them_and_not_written() {
        let village = Village::builder().host(|_: &ActorCx| SumActor).start().await.unwrap();
        for (key, added) in [("a", 2), ("b", 3), ("a", 5)] {
            village.addr::<SumActor>(key).ask(|reply| SumMsg::Add(added, reply)).await.unwrap();
        }
        assert_eq!(village.copied_keys::<SumActor>().await.unwrap(), ["a".to_owned(), "b".to_owned()].into());
        assert_eq!(village.copied::<SumActor, Sum>("a").await.unwrap().0, 7);
        assert_eq!(village.copied::<SumActor, Sum>("c").await.unwrap().0, 0);
        let copy = village.copy_of::<SumActor>("a").unwrap();
        let batch = crate::Batch::new().put(crate::TreeId(60_000), "x", "y");
        assert!(matches!(copy.commit(batch, crate::Level::Async).await, Err(StoreError::Fenced)));
    }
}
