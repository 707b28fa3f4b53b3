//! `memory.ingest`: turns files into documents.
//!
//! Key: empty, one per node: files are parsed on the node that takes them. Durable: no. Lost in a crash: files being parsed; their callers hear so.
//!
//! Parsers read foreign bytes and are not trusted: each runs on a blocking thread behind a panic wall and a time limit,
//! a bounded number at a time. A parser that does not end keeps its thread and its place until it does.

use std::sync::Arc;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Kind, KindOptions, Mail, Placement, Reply, TaskError,
    Village,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::parse::{check_size, parse};
use crate::config::MemoryConfig;
use crate::document::{Document, RawDocument};
use crate::error::MemoryError;
use crate::metrics::MemoryMetrics;

/// What an [`Ingest`] understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub enum IngestMsg {
    /// Makes documents of a file, ready to be put. Nothing is stored.
    Parse(RawDocument, Reply<Vec<Document>>),
}

/// The behaviour; its data is [`Parsers`].
#[derive(Debug)]
pub struct Ingest;

impl Kind for Ingest {
    const NAME: &'static str = "memory.ingest";
    type Body = IngestMsg;

    fn options() -> KindOptions {
        KindOptions::default().placement(Placement::PerNode)
    }
}

impl Actor for Ingest {
    type Msg = Mail<IngestMsg>;
    type State = Parsers;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Parsers, ActorProcessingErr> {
        let config: MemoryConfig = cx.config("memory")?;
        config.validate()?;
        let running = Arc::new(Semaphore::new(config.limits.parsers as usize));
        let metrics = cx.village().metrics::<MemoryMetrics>();
        Ok(Parsers { village: cx.village().clone(), config, running, metrics })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        parsers: &mut Parsers,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            IngestMsg::Parse(raw, reply) => parsers.parse(raw, reply),
        }
        Ok(())
    }
}

/// Places for running parsers.
#[derive(Debug)]
pub struct Parsers {
    village: Village,
    config: MemoryConfig,
    running: Arc<Semaphore>,
    metrics: Arc<MemoryMetrics>,
}

impl Parsers {
    fn parse(&self, raw: RawDocument, reply: Reply<Vec<Document>>) {
        if let Err(error) = check_size(&raw.name, raw.bytes.len() as u64, self.config.limits.document.bytes()) {
            reply.fail(error);
            return;
        }
        let (village, running, metrics) = (self.village.clone(), self.running.clone(), self.metrics.clone());
        let (limits, longest) = (self.config.parse_limits(), self.config.limits.parse_time.get());
        let work = async move {
            let Ok(place) = running.acquire_owned().await else { return };
            let name = raw.name.clone();
            let parsing = village.blocking("memory.parse", move || {
                let _held = place;
                parse(&raw, limits)
            });
            let error = match tokio::time::timeout(longest, parsing).await {
                Ok(Ok(Ok(documents))) => return reply.send(documents),
                Ok(Ok(Err(refused))) => return reply.fail(refused),
                Ok(Err(TaskError::Panicked { message, .. })) => MemoryError::ParserFailed { name, reason: message },
                Ok(Err(TaskError::Stopped { .. })) => return reply.fail(CallError::Draining),
                Err(_) => MemoryError::Slow { name, seconds: longest.as_secs() },
            };
            metrics.parser_failures.inc();
            reply.fail(error);
        };
        self.village.task("memory.parse", work).detach();
    }
}
