//! `[memory]` of `cluster.toml`.

use aivillage_runtime::config::{ConfigError, Period, Size};
use serde::{Deserialize, Serialize};

use crate::chunk::ChunkSize;
use crate::ingest::parse::ParseLimits;

/// `[memory]`: what is stored, how it is cut, how soon it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryConfig {
    /// Longest time between a durable write and its being searchable.
    pub commit: Period,
    /// Chunks after which the index is committed earlier.
    pub commit_chunks: u32,
    /// Versions of a document that are kept, the current one included.
    pub versions: u32,
    /// How documents are cut.
    pub chunk: ChunkConfig,
    /// What is refused.
    pub limits: LimitConfig,
}

/// `[memory.chunk]`: sizes in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkConfig {
    /// A chunk may end at a paragraph's end from here on.
    pub min: u32,
    /// A chunk never has more.
    pub max: u32,
    /// A last sentence of at most this many is repeated in the next chunk.
    pub overlap: u32,
}

/// `[memory.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitConfig {
    /// One document or file.
    pub document: Size,
    /// All documents of one request.
    pub batch_size: Size,
    /// Documents of one request.
    pub batch: u32,
    /// Chunks of one document.
    pub chunks_per_doc: u32,
    /// Documents made of one table or JSON file.
    pub records: u32,
    /// Written, but not yet indexed bytes of a collection, beyond which writes are refused for the moment.
    pub queue: Size,
    /// Characters of a query.
    pub query_chars: u32,
    /// Passages of an answer.
    pub k: u32,
    /// Searches that run at the same time in one collection, the others wait in line; 0: two for each core.
    pub searches: u32,
    /// Files that are parsed at the same time.
    pub parsers: u32,
    /// Longest time for parsing a file.
    pub parse_time: Period,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            commit: Period::from_millis(500),
            commit_chunks: 2000,
            versions: 10,
            chunk: ChunkConfig::default(),
            limits: LimitConfig::default(),
        }
    }
}

impl Default for ChunkConfig {
    fn default() -> Self {
        Self { min: 60, max: 200, overlap: 40 }
    }
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            document: Size::from_mib(32),
            batch_size: Size::from_mib(32),
            batch: 256,
            chunks_per_doc: 20_000,
            records: 100_000,
            queue: Size::from_mib(64),
            query_chars: 8192,
            k: 100,
            searches: 0,
            parsers: 2,
            parse_time: Period::from_secs(30),
        }
    }
}

impl MemoryConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// Naming the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("memory.commit_chunks", self.commit_chunks),
            ("memory.versions", self.versions),
            ("memory.chunk.max", self.chunk.max),
            ("memory.limits.batch", self.limits.batch),
            ("memory.limits.k", self.limits.k),
            ("memory.limits.parsers", self.limits.parsers),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::invalid(*key, "must be at least 1"));
        }
        if self.chunk.min > self.chunk.max || self.chunk.overlap >= self.chunk.max {
            return Err(ConfigError::invalid("memory.chunk", "min and overlap must be below max"));
        }
        if self.limits.document.bytes() >= u64::from(u32::MAX) {
            return Err(ConfigError::invalid("memory.limits.document", "must be below 4 GiB"));
        }
        Ok(())
    }

    /// Searches at the same time. One for each core leaves it idle between two; many take turns, and all are slow.
    pub(crate) fn searches(&self) -> usize {
        match self.limits.searches {
            0 => 2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            searches => searches as usize,
        }
    }

    /// Sizes of chunks.
    #[must_use]
    pub fn chunk_size(&self) -> ChunkSize {
        let size = |tokens: u32| tokens as usize;
        ChunkSize { min: size(self.chunk.min), max: size(self.chunk.max), overlap: size(self.chunk.overlap) }
    }

    /// What one file may hold.
    #[must_use]
    pub fn parse_limits(&self) -> ParseLimits {
        ParseLimits { bytes: self.limits.document.bytes(), records: self.limits.records as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        MemoryConfig::default().validate().expect("valid");
    }

    #[test]
    fn contradictions_are_refused() {
        let mut config = MemoryConfig::default();
        config.chunk.min = config.chunk.max + 1;
        assert!(config.validate().is_err());
        let config = MemoryConfig { versions: 0, ..MemoryConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("memory.versions"));
    }
}
