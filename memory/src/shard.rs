//! `memory.shard`: the documents of one collection, their journal and their index.
//!
//! Key: `{tenant}:{collection}:0`. Durable: yes, replicated, through a journal of its own in the store of its group; the index
//! is derived, is on the node where the shard is, and follows it. Lost in a crash: answers under way. A write that was answered
//! is there; one that was not may be, documents of one request each for itself.
//!
//! What is stored is sealed for whoever stored it. The index on the disk is not: an erasure makes it anew without their words, in
//! another folder ([`forget`]).
//!
//! The mailbox only hands out work: writes go to one task that keeps their order ([`write`]), reads run beside each
//! other on blocking threads ([`read`]), the index has a thread of its own ([`indexer`]).

mod decide;
pub mod folders;
mod forget;
mod gated;
mod indexer;
mod known;
mod open;
pub mod read;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aivillage_governance::keys::{Personal, SubjectTag};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Durability, Kind, KindOptions, Mail, MsgCx, Reply,
    TaskHandle, Village, clock,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use self::indexer::CommitPolicy;
use self::read::{Found, ReadSide, SearchShard};
use self::write::{Job, WriteSide};
use crate::config::MemoryConfig;
use crate::document::{CollectionStats, Delete, DeleteReport, DocumentView, GetDocument, Put, PutReport};
use crate::error::MemoryError;
use crate::journal::{DocKey, Journal};
use crate::metrics::MemoryMetrics;
use crate::names::ShardName;
use crate::prepare::PrepareLimits;

/// How often, and how long, a starting shard waits for a predecessor to let go of the index.
const LOCK_TRIES: u32 = 50;
const LOCK_WAIT: Duration = Duration::from_millis(200);
/// What documents are kept for, as their keys name it.
pub const PURPOSE: &str = "memory";
/// When a writer that found the queue full may try again: about two commits of the index.
const BUSY_RETRY_MS: u32 = 1000;

/// A version of a document.
pub type VersionAt = (DocKey, u32);

/// What a [`Shard`] understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub enum ShardMsg {
    /// Stores documents: new ones, new versions, or nothing where they are stored already. Each is judged for itself.
    Put(Put, Reply<PutReport>),
    /// Gives a stored document, in its current or an older version.
    Get(GetDocument, Reply<DocumentView>),
    /// Deletes documents with all their versions.
    Delete(Delete, Reply<DeleteReport>),
    /// Counts documents, chunks and bytes.
    Stats(Reply<CollectionStats>),
    /// Finds passages; the retriever's question to each shard.
    #[schemars(skip)]
    Search(SearchShard, Reply<Found>),
    /// The documents of a person who wants to see them, some at a time: those after a place, and the place of the next.
    #[schemars(skip)]
    Of(SubjectTag, Option<VersionAt>, Reply<(Vec<DocumentView>, Option<VersionAt>)>),
    /// Takes out all of a person who is erased, with the index that holds their words; tells the generation of the one that
    /// is searched now.
    #[schemars(skip)]
    Forget(SubjectTag, Reply<u64>),
}

/// The behaviour; its data is [`Store`].
#[derive(Debug)]
pub struct Shard;

impl Kind for Shard {
    const NAME: &'static str = "memory.shard";
    type Body = ShardMsg;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

impl Actor for Shard {
    type Msg = Mail<ShardMsg>;
    type State = Store;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Store, ActorProcessingErr> {
        match ShardName::parse(cx.key()) {
            Ok(name) => Ok(Store::Open(Box::new(Serving::open(&cx, name).await?))),
            Err(error) => Ok(Store::Refused(error)),
        }
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        mail: Self::Msg,
        store: &mut Store,
    ) -> Result<(), ActorProcessingErr> {
        let shard = match store {
            Store::Open(shard) => shard,
            Store::Refused(error) => {
                refuse(mail.body, error);
                return Ok(());
            }
        };
        match mail.body {
            ShardMsg::Put(put, reply) => shard.put(put, mail.cx, reply)?,
            ShardMsg::Delete(delete, reply) => shard.write(Job::Delete { delete, reply })?,
            ShardMsg::Get(wanted, reply) => shard.read(reply, move |shard| shard.get(&wanted)),
            ShardMsg::Stats(reply) => shard.read(reply, |shard| Ok(shard.stats())),
            ShardMsg::Search(search, reply) => shard.read(reply, move |shard| Ok(shard.search(&search)?)),
            ShardMsg::Of(subject, after, reply) => shard.read(reply, move |shard| Ok(shard.of(subject, after)?)),
            ShardMsg::Forget(subject, reply) => shard.write(Job::Forget { subject, reply })?,
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, store: &mut Store) -> Result<(), ActorProcessingErr> {
        if let Store::Open(shard) = store {
            shard.close().await;
        }
        Ok(())
    }
}

fn refuse(body: ShardMsg, error: &MemoryError) {
    let error = error.clone();
    match body {
        ShardMsg::Put(_, reply) => reply.fail(error),
        ShardMsg::Get(_, reply) => reply.fail(error),
        ShardMsg::Delete(_, reply) => reply.fail(error),
        ShardMsg::Stats(reply) => reply.fail(error),
        ShardMsg::Search(_, reply) => reply.fail(error),
        ShardMsg::Of(_, _, reply) => reply.fail(error),
        ShardMsg::Forget(_, reply) => reply.fail(error),
    }
}

/// The state of a [`Shard`].
#[derive(Debug)]
pub enum Store {
    /// It serves.
    Open(Box<Serving>),
    /// Its key is not that of a shard; every message is told so.
    Refused(MemoryError),
}

/// An open shard.
#[derive(Debug)]
pub struct Serving {
    village: Village,
    config: MemoryConfig,
    reading: ReadSide,
    searches: Arc<Semaphore>,
    /// One permit for each KiB that is written but not indexed.
    queue: Arc<Semaphore>,
    jobs: Option<mpsc::UnboundedSender<Job>>,
    writer: Option<TaskHandle<()>>,
}

impl Serving {
    async fn open(cx: &ActorCx, name: ShardName) -> Result<Self, ActorProcessingErr> {
        let config: MemoryConfig = cx.config("memory")?;
        config.validate()?;
        let village = cx.village().clone();
        let metrics = village.metrics::<MemoryMetrics>();
        let dir = village.data_dir().map(|data| name.folder(data));
        let personal = Personal::new(&village, &name.tenant, PURPOSE)?;
        let journal = Journal::new(cx.store().clone(), &name.key()).sealed_by(personal);
        learn_names(&village, &journal).await?;
        let policy = CommitPolicy { every: config.commit.get(), chunks: u64::from(config.commit_chunks) };
        let opened = open(&village, &journal, dir.as_ref(), policy, &metrics).await?;
        let limits = PrepareLimits {
            bytes: config.limits.document.bytes(),
            chunks: config.limits.chunks_per_doc as usize,
            size: config.chunk_size(),
        };
        let parts = (name.clone(), cx.clone(), journal.clone());
        let (writing, counts, index) = WriteSide::new(parts, (limits, config.versions), metrics, opened);
        let searchable = writing.searchable();
        let (jobs, inbox) = mpsc::unbounded_channel();
        let writer = village.task("memory.write", writing.run(inbox));
        let reading = ReadSide { name, journal, index, counts, searchable };
        let queue = Semaphore::new(usize::try_from(config.limits.queue.bytes() / 1024).unwrap_or(1 << 20).max(1));
        Ok(Self {
            village,
            config,
            reading,
            searches: Arc::new(Semaphore::new(config.searches())),
            queue: Arc::new(queue),
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }
}

impl Serving {
    fn put(&mut self, put: Put, cx: MsgCx, reply: Reply<PutReport>) -> Result<(), ActorProcessingErr> {
        let limits = &self.config.limits;
        let bytes: u64 = put.documents.iter().map(|document| document.text.len() as u64 + 512).sum();
        let too_many = |count: u64, max: u32, what: &str, key| {
            (count > u64::from(max)).then(|| MemoryError::TooMany {
                what: what.to_owned(),
                count,
                max: max.into(),
                key,
            })
        };
        if let Some(error) =
            too_many(put.documents.len() as u64, limits.batch, "documents in one request", "memory.limits.batch")
        {
            reply.fail(error);
            return Ok(());
        }
        // A single document is judged by its own limit, which has the better message.
        if put.documents.len() > 1 && bytes > limits.batch_size.bytes() {
            let (what, max) = ("the request".to_owned(), limits.batch_size.bytes());
            reply.fail(MemoryError::TooLarge { what, size: bytes, max, key: "memory.limits.batch_size" });
            return Ok(());
        }
        let queue = limits.queue.bytes();
        // What is larger than the whole queue takes all of it.
        let permits = u32::try_from(bytes.min(queue) / 1024).unwrap_or(u32::MAX).max(1);
        if let Ok(permit) = self.queue.clone().try_acquire_many_owned(permits) {
            self.write(Job::Put { documents: put.documents, cx, wait: put.wait, permit, reply })
        } else {
            reply.fail(CallError::Overloaded { retry_after_ms: BUSY_RETRY_MS });
            Ok(())
        }
    }

    /// Hands a write over. When the writing task has ended the shard starts again and replays.
    fn write(&mut self, job: Job) -> Result<(), ActorProcessingErr> {
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err("the writing task has ended".into()) }
    }

    /// Reads on a blocking thread, a bounded number at a time.
    fn read<T: Send + 'static>(
        &self,
        reply: Reply<T>,
        work: impl FnOnce(&ReadSide) -> Result<T, CallError> + Send + 'static,
    ) {
        let (village, reading, searches) = (self.village.clone(), self.reading.clone(), self.searches.clone());
        let task = async move {
            let Ok(_running) = searches.acquire_owned().await else { return };
            if reply.is_closed() {
                return;
            }
            match village.blocking("memory.read", move || work(&reading)).await {
                Ok(result) => reply.complete(result),
                Err(_) => reply.fail(CallError::Panicked),
            }
        };
        self.village.task("memory.read", task).detach();
    }

    async fn close(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            // A failed writing task has been logged; there is nothing left to close.
            drop(writer.await);
        }
    }
}

/// Reads the key for the names of documents on a blocking thread, or makes it.
async fn learn_names(village: &Village, journal: &Journal) -> Result<(), ActorProcessingErr> {
    let reading = journal.clone();
    let Some(batch) = village.blocking("memory.names", move || reading.learn_names()).await?? else { return Ok(()) };
    journal.commit(vec![batch]).await?;
    let reading = journal.clone();
    village.blocking("memory.names", move || reading.learn_names()).await??;
    Ok(())
}

/// Opens journal and index on a blocking thread; a predecessor that still ends is waited for.
async fn open(
    village: &Village,
    journal: &Journal,
    folder: Option<&PathBuf>,
    policy: CommitPolicy,
    metrics: &Arc<MemoryMetrics>,
) -> Result<open::Opened, ActorProcessingErr> {
    for _ in 1..LOCK_TRIES {
        let (journal, folder, metrics) = (journal.clone(), folder.cloned(), metrics.clone());
        let work = move || open::open(&journal, folder.as_deref(), clock::unix_ms(), policy, &metrics);
        match village.blocking("memory.open", work).await? {
            Err(MemoryError::Index { reason }) if reason.contains("Lock") => tokio::time::sleep(LOCK_WAIT).await,
            done => return Ok(done?),
        }
    }
    Err("another process holds the index".into())
}
