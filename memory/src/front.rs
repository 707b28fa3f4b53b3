//! The typed way in: what a Rust caller holds instead of addresses.

use aivillage_runtime::{Addr, CallError, Expose, Village, VillageBuilder};
use futures::future::try_join_all;

use crate::context::{Context, Query};
use crate::document::{
    CollectionStats, DEFAULT_COLLECTION, Delete, DeleteReport, Document, DocumentView, GetDocument, Put, PutReport,
    RawDocument, WaitFor,
};
use crate::ingest::{Ingest, IngestMsg};
use crate::names::ShardName;
use crate::registry::{Registry, RegistryMsg};
use crate::retriever::{Retriever, RetrieverMsg};
use crate::shard::folders::Folders;
use crate::shard::{Shard, ShardMsg};

/// Hosts the kinds of this crate and exposes their messages.
pub fn install(builder: VillageBuilder) -> VillageBuilder {
    builder
        .host(|_| Registry)
        .host(|_| Shard)
        .host(|_| Folders)
        .host(|_| Ingest)
        .host(|_| Retriever)
        .expose::<Registry>([
            Expose::new("List", "memory.query").idempotent(),
            Expose::new("Ensure", "memory.write").idempotent(),
        ])
        .expose::<Shard>([
            Expose::new("Put", "memory.write").idempotent(),
            Expose::new("Get", "memory.query").idempotent(),
            Expose::new("Delete", "memory.erase").idempotent(),
            Expose::new("Stats", "memory.query").idempotent(),
        ])
        .expose::<Ingest>([Expose::new("Parse", "memory.write").idempotent()])
        .expose::<Retriever>([Expose::new("Query", "memory.query").idempotent()])
}

/// The memory of one tenant. Cheap to clone; every call is one message, with its deadline and its errors.
#[derive(Debug, Clone)]
pub struct Memory {
    village: Village,
    tenant: String,
}

impl Memory {
    /// The memory of a tenant; it need not exist yet.
    pub fn new(village: &Village, tenant: impl Into<String>) -> Self {
        Self { village: village.clone(), tenant: tenant.into() }
    }

    /// Stores documents; the collection comes to be with the first one.
    ///
    /// # Errors
    /// `payload_too_large` for the request as a whole; what is wrong with one document is in its result.
    pub async fn put(&self, put: Put) -> Result<PutReport, CallError> {
        let shard = self.shard(put.collection.as_deref().unwrap_or(DEFAULT_COLLECTION))?;
        shard.ask(|reply| ShardMsg::Put(put, reply)).await
    }

    /// Makes documents of a file, ready to be put.
    ///
    /// # Errors
    /// `unsupported_media_type`, `bad_pdf`, `bad_encoding`, `bad_syntax`, `payload_too_large` and the like.
    pub async fn parse(&self, raw: RawDocument) -> Result<Vec<Document>, CallError> {
        self.village.addr::<Ingest>("").query(|reply| IngestMsg::Parse(raw, reply)).await
    }

    /// Gives a stored document, in its current or an older version.
    ///
    /// # Errors
    /// `not_found`, `collection_not_found`.
    pub async fn get(&self, collection: &str, id: &str, version: Option<u32>) -> Result<DocumentView, CallError> {
        self.existing(collection).await?;
        let wanted = GetDocument { id: id.to_owned(), version };
        self.shard(collection)?.query(|reply| ShardMsg::Get(wanted, reply)).await
    }

    /// Deletes documents with all their versions; no query finds them from then on.
    ///
    /// # Errors
    /// `collection_not_found`; ids that are not there are in the report.
    pub async fn delete(&self, collection: &str, ids: Vec<String>) -> Result<DeleteReport, CallError> {
        self.existing(collection).await?;
        let delete = Delete { ids, wait: WaitFor::Durable };
        self.shard(collection)?.ask(|reply| ShardMsg::Delete(delete, reply)).await
    }

    /// Counts what one collection, or each, holds.
    ///
    /// # Errors
    /// `collection_not_found`.
    pub async fn stats(&self, collection: Option<&str>) -> Result<Vec<CollectionStats>, CallError> {
        let names = self.resolve(collection.map(str::to_owned).into_iter().collect()).await?;
        let shards: Vec<Addr<Shard>> = names.iter().map(|name| self.shard(name)).collect::<Result<_, _>>()?;
        try_join_all(shards.iter().map(|shard| shard.query(ShardMsg::Stats))).await
    }

    /// Finds passages for a question, and judges whether they answer it.
    ///
    /// # Errors
    /// `collection_not_found`, `memory_empty` for a question without words, `payload_too_large`.
    pub async fn query(&self, query: Query) -> Result<Context, CallError> {
        self.village.addr::<Retriever>(&self.tenant).query(|reply| RetrieverMsg::Query(query, reply)).await
    }

    /// Names of the collections.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub async fn collections(&self) -> Result<Vec<String>, CallError> {
        self.village.addr::<Registry>(&self.tenant).query(RegistryMsg::List).await
    }

    async fn existing(&self, collection: &str) -> Result<(), CallError> {
        self.resolve(vec![collection.to_owned()]).await.map(drop)
    }

    async fn resolve(&self, names: Vec<String>) -> Result<Vec<String>, CallError> {
        self.village.addr::<Registry>(&self.tenant).query(|reply| RegistryMsg::Resolve(names, reply)).await
    }

    fn shard(&self, collection: &str) -> Result<Addr<Shard>, CallError> {
        Ok(self.village.addr(ShardName::new(&self.tenant, collection)?.key()))
    }
}
