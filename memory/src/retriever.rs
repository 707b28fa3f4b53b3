//! `memory.retriever`: asks the shards of a tenant's collections, and makes one context of what they find.
//!
//! Key: tenant, one per node: a question is in nobody's hands but those of the node that was asked and of the shards.
//! Durable: no. Lost in a crash: questions under way; their callers hear so.

mod merge;

use std::sync::Arc;
use std::time::Instant;

use aivillage_governance::gate::{Ctx, Gate};
use aivillage_governance::moderation::Stage;
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Kind, KindOptions, Mail, MsgCx, Placement, Reply, Village,
};
use futures::future::join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::merge::{Answered, merge};
use crate::config::{LimitConfig, MemoryConfig};
use crate::context::{Context, Coverage, Query};
use crate::error::MemoryError;
use crate::metrics::MemoryMetrics;
use crate::names::ShardName;
use crate::question::Question;
use crate::registry::{Registry, RegistryMsg};
use crate::shard::read::SearchShard;
use crate::shard::{Shard, ShardMsg};

/// Passages asked of each shard beyond those wanted: copies are folded, and the rest completes the picture.
const SURPLUS: usize = 8;

/// What a [`Retriever`] understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub enum RetrieverMsg {
    /// Finds passages for a question, and judges whether they answer it.
    Query(Query, Reply<Context>),
}

/// The behaviour; its data is [`Searching`].
#[derive(Debug)]
pub struct Retriever;

impl Kind for Retriever {
    const NAME: &'static str = "memory.retriever";
    type Body = RetrieverMsg;

    fn options() -> KindOptions {
        KindOptions::default().placement(Placement::PerNode)
    }
}

impl Actor for Retriever {
    type Msg = Mail<RetrieverMsg>;
    type State = Searching;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Searching, ActorProcessingErr> {
        let config: MemoryConfig = cx.config("memory")?;
        config.validate()?;
        let metrics = cx.village().metrics::<MemoryMetrics>();
        Ok(Searching { village: cx.village().clone(), tenant: cx.key().to_owned(), limits: config.limits, metrics })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        searching: &mut Searching,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            RetrieverMsg::Query(query, reply) => searching.start(query, reply),
        }
        Ok(())
    }
}

/// What a question needs to be answered.
#[derive(Debug, Clone)]
pub struct Searching {
    village: Village,
    tenant: String,
    limits: LimitConfig,
    metrics: Arc<MemoryMetrics>,
}

impl Searching {
    fn start(&self, query: Query, reply: Reply<Context>) {
        let searching = self.clone();
        let started = Instant::now();
        let work = async move {
            let answer = searching.answer(query).await;
            searching.metrics.query.observe(started.elapsed().as_secs_f64());
            reply.complete(answer);
        };
        self.village.task("memory.query", work).detach();
    }

    async fn answer(&self, query: Query) -> Result<Context, CallError> {
        self.check(&query)?;
        let query = self.admitted(query).await?;
        let question = Question::parse(&query.text);
        if question.is_empty() {
            return Err(MemoryError::Empty { name: "the question".to_owned() }.into());
        }
        let registry = self.village.addr::<Registry>(&self.tenant);
        let collections = registry.query(|reply| RegistryMsg::Resolve(query.collections.clone(), reply)).await?;
        let search = SearchShard { question, limit: query.k + SURPLUS };
        let answers = join_all(collections.iter().map(|collection| self.search(collection, search.clone()))).await;
        let mut coverage = Coverage { asked: u32::try_from(answers.len()).unwrap_or(u32::MAX), ..Coverage::default() };
        let mut found = Vec::new();
        let mut first_error = None;
        for (collection, answer) in collections.into_iter().zip(answers) {
            match answer {
                Ok(answer) => found.push(Answered { collection, found: answer }),
                Err(error) => {
                    tracing::warn!(%error, "a shard did not answer a query");
                    coverage.missing_shards.push(collection);
                    first_error.get_or_insert(error);
                }
            }
        }
        // Nothing found because nobody answered is no answer.
        if let Some(error) = first_error.filter(|_| found.is_empty()) {
            return Err(error);
        }
        coverage.answered = u32::try_from(found.len()).unwrap_or(u32::MAX);
        let trace = MsgCx::current().trace().map(aivillage_runtime::TraceCx::trace_hex);
        Ok(merge(found, query.k, coverage, trace))
    }

    /// The question, if it passes the gate. What is found has passed when it was written.
    async fn admitted(&self, query: Query) -> Result<Query, CallError> {
        let Some(gate) = Gate::of(&self.village) else { return Ok(query) };
        let admitted = gate.admit(Stage::MemoryRead, &Ctx::current(&self.tenant), query.text).await;
        let text = admitted.map_err(|denied| CallError::from(*denied))?.content;
        Ok(Query { text, ..query })
    }

    async fn search(&self, collection: &str, search: SearchShard) -> Result<crate::shard::read::Found, CallError> {
        let name = ShardName::new(&self.tenant, collection)?;
        self.village.addr::<Shard>(name.key()).query(|reply| ShardMsg::Search(search, reply)).await
    }

    fn check(&self, query: &Query) -> Result<(), MemoryError> {
        let too_many = |what: &str, count: usize, max: u32, key| {
            let over = count > max as usize;
            let error = MemoryError::TooMany { what: what.to_owned(), count: count as u64, max: u64::from(max), key };
            if over { Err(error) } else { Ok(()) }
        };
        too_many(
            "characters of the question",
            query.text.chars().count(),
            self.limits.query_chars,
            "memory.limits.query_chars",
        )?;
        too_many("passages wanted", query.k, self.limits.k, "memory.limits.k")
    }
}
