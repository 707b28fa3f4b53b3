//! Whose documents a shard holds, and taking out all of one person's. Without keys: theirs are destroyed by then.

use std::collections::HashSet;

use aivillage_governance::keys::SubjectTag;
use aivillage_runtime::Batch;

use super::record::{self, StoredHead, StoredVersion};
use super::{DocKey, HEADS, Journal, JournalBatch, PEOPLE, Unit, VERSIONS, failed};
use crate::error::MemoryError;

/// Versions looked at together for the next one of a person: it is usually near, and they have the text with them.
const NEAR: usize = 32;

/// What a shard has of a person.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Belongings {
    /// Documents whose current version is theirs, those they deleted too.
    heads: HashSet<DocKey>,
    /// Versions that are theirs, and all others of those documents.
    versions: Vec<(DocKey, u32)>,
    /// Records of theirs.
    records: u64,
}

impl Journal {
    pub(super) fn person(&self, subject: SubjectTag) -> Vec<u8> {
        self.key(&[subject.as_bytes()])
    }

    /// Whether somebody has stored something here and was not erased since: the index may hold their words.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn knows(&self, subject: SubjectTag) -> Result<bool, MemoryError> {
        Ok(self.value(PEOPLE, &self.person(subject))?.is_some())
    }

    /// How much there is of a person: documents and versions, at least 1 as long as the index may hold their words.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn count_of(&self, subject: SubjectTag) -> Result<u64, MemoryError> {
        if !self.knows(subject)? {
            return Ok(0);
        }
        Ok(self.belongings(subject)?.records.max(1))
    }

    /// What there is of a person; reads the whole shard.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn belongings(&self, subject: SubjectTag) -> Result<Belongings, MemoryError> {
        let mut found = Belongings::default();
        self.walk(HEADS, self.prefix.to_vec(), |key, value| {
            let whose = record::subject(value, |head: &StoredHead| &head.kept)?;
            if let (Some((of, head)), Some(doc)) = (whose, document(key))
                && of == subject
            {
                // One that is not deleted is counted by its versions.
                found.records += u64::from(head.deleted);
                found.heads.insert(doc);
            }
            Ok(())
        })?;
        self.walk(VERSIONS, self.prefix.to_vec(), |key, value| {
            let Some((doc, number)) = version(key) else { return Ok(()) };
            let whose = record::subject(value, |version: &StoredVersion| &version.kept)?;
            let is_theirs = whose.is_some_and(|(of, _)| of == subject);
            found.records += u64::from(is_theirs);
            if is_theirs || found.heads.contains(&doc) {
                found.versions.push((doc, number));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The batches that take all of a person out, and begin the next generation of the index. That comes first: whatever
    /// interrupts this, no index of before is used again. That the person was here is forgotten last, so what is left is found
    /// again.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub(crate) fn forget(&self, subject: SubjectTag) -> Result<Vec<Batch>, MemoryError> {
        self.forget_in(self.batch(), subject)
    }

    fn forget_in(&self, mut batch: JournalBatch<'_>, subject: SubjectTag) -> Result<Vec<Batch>, MemoryError> {
        let Belongings { heads, versions, .. } = self.belongings(subject)?;
        let mut first = Unit::new(self);
        first.next_generation()?;
        batch.add(first)?;
        for doc in heads {
            let mut unit = Unit::new(self);
            unit.remove(HEADS, self.key(&[&doc.0]));
            batch.add(unit)?;
        }
        for (doc, number) in versions {
            let mut unit = Unit::new(self);
            unit.remove_versions(doc, number..number + 1)?;
            batch.add(unit)?;
        }
        let mut last = Unit::new(self);
        last.remove(PEOPLE, self.person(subject));
        batch.add(last)?;
        Ok(batch.finish())
    }

    /// The first version of a person's after a place, in the order of keys.
    ///
    /// # Errors
    /// `Journal` when the store fails.
    pub fn version_of(
        &self,
        subject: SubjectTag,
        after: Option<(DocKey, u32)>,
    ) -> Result<Option<(DocKey, u32)>, MemoryError> {
        let mut from =
            after.map_or_else(|| self.prefix.to_vec(), |(doc, n)| self.key(&[&doc.0, &(n + 1).to_be_bytes()]));
        loop {
            let page = self.store.scan(VERSIONS, &from, NEAR).map_err(|error| failed(&error))?;
            for (key, value) in &page {
                if !key.starts_with(&self.prefix) {
                    return Ok(None);
                }
                let whose = record::subject(value, |version: &StoredVersion| &version.kept)?;
                if whose.is_some_and(|(of, _)| of == subject) {
                    return Ok(version(key));
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == NEAR => from = [last, &[0][..]].concat(),
                _ => return Ok(None),
            }
        }
    }
}

fn document(key: &[u8]) -> Option<DocKey> {
    key.get(8..)?.try_into().ok().map(DocKey)
}

fn version(key: &[u8]) -> Option<(DocKey, u32)> {
    let (doc, number) = key.get(8..)?.split_first_chunk()?;
    Some((DocKey(*doc), u32::from_be_bytes(number.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aivillage_governance::keys::{KeysConfig, KeysNode, Personal, TenantId, Vault, install};
    use aivillage_runtime::store::MemoryStore;
    use aivillage_runtime::{Store, TreeId, Village};

    use super::*;
    use crate::chunk::{ChunkSize, chunks};
    use crate::document::Format;
    use crate::journal::write::tests::{head, version};
    use crate::journal::{CHUNKS, Head, TEXTS, Version};
    use crate::names::ShardName;

    struct Sealed {
        village: Village,
        store: Arc<dyn Store>,
        journal: Journal,
    }

    impl Sealed {
        async fn new() -> Self {
            let village = install(Village::builder(), &KeysNode::new(KeysConfig::default())).start().await.unwrap();
            let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
            let personal = Personal::new(&village, "local", "memory").unwrap();
            let journal = Journal::new(store.clone(), "local:main:0").sealed_by(personal);
            Self { village, store, journal }
        }

        fn tag(name: &str) -> SubjectTag {
            SubjectTag::of(TenantId::of("local"), name).unwrap()
        }

        /// On a thread that may block.
        async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Journal) -> T + Send + 'static) -> T {
            let journal = self.journal.clone();
            self.village.blocking("test", move || work(&journal)).await.unwrap()
        }

        async fn commit(&self, work: impl FnOnce(&Journal) -> Vec<Batch> + Send + 'static) {
            let batches = self.with(work).await;
            self.journal.commit(batches).await.unwrap();
        }

        /// Stores a version as somebody's.
        async fn put(&self, doc: u8, number: u32, name: &'static str, text: String) {
            let work = move |journal: &Journal| {
                let (subject, mut unit) = (Self::tag(name), Unit::new(journal));
                unit.person(subject);
                let head = Head { subject: Some(subject), oldest: 1, id: format!("{name}/{doc}"), ..head(number) };
                unit.head(DocKey([doc; 16]), &head).unwrap();
                let version = Version { subject: Some(subject), title: Some(name.to_owned()), ..version() };
                let chunks = chunks(&text, Format::Text, ChunkSize::default());
                unit.version(DocKey([doc; 16]), number, version, text, chunks).unwrap();
                let mut batch = journal.batch();
                batch.add(unit).unwrap();
                batch.finish()
            };
            self.commit(work).await;
        }

        async fn sweep(&self) {
            while let Some(batch) = self.with(|journal| journal.sweep().unwrap()).await {
                self.journal.commit(vec![batch]).await.unwrap();
            }
        }

        fn records(&self, tree: TreeId) -> usize {
            self.store.scan(tree, &[], 10_000).unwrap().len()
        }
    }

    fn words(word: &str) -> String {
        (0..2_600).map(|n| format!("The {word} has number {n}. ")).collect()
    }

    /// Hers: a long one, a short one and a version of one that is his now.
    async fn both() -> Sealed {
        let sealed = Sealed::new().await;
        sealed.put(1, 1, "ada", words("canary")).await;
        sealed.put(2, 1, "ada", "A canary in short.".to_owned()).await;
        sealed.put(3, 1, "ada", "A canary at first.".to_owned()).await;
        sealed.put(3, 2, "bob", "A goat since then.".to_owned()).await;
        sealed.put(4, 1, "bob", words("goat")).await;
        sealed
    }

    #[tokio::test]
    async fn no_record_has_a_word_in_the_clear_and_none_opens_elsewhere() {
        let sealed = both().await;
        for tree in [HEADS, VERSIONS, TEXTS, CHUNKS, PEOPLE] {
            assert!(sealed.records(tree) > 1);
            for (_, value) in sealed.store.scan(tree, &[], 10_000).unwrap() {
                for word in ["canary", "goat"] {
                    assert!(!value.windows(word.len()).any(|part| part == word.as_bytes()), "{word} in {tree:?}");
                }
            }
        }
        let text = sealed.with(|journal| {
            let version = journal.version(DocKey([1; 16]), 1).unwrap().unwrap();
            assert_eq!((version.title.as_deref(), version.subject), (Some("ada"), Some(Sealed::tag("ada"))));
            assert_eq!(journal.chunks(DocKey([1; 16]), 1, &version).unwrap().len(), version.chunks as usize);
            let (_, last) = journal.chunk(DocKey([1; 16]), 1, &version, version.chunks - 1).unwrap();
            assert!(last.contains("2599"));
            journal.text(DocKey([1; 16]), 1, &version).unwrap()
        });
        assert_eq!(text.await, words("canary"));
        let key = sealed.journal.key(&[&[2; 16]]);
        let moved = sealed.store.get(HEADS, &sealed.journal.key(&[&[1; 16]])).unwrap().unwrap();
        sealed.journal.commit(vec![Batch::new().put(HEADS, key, moved.to_vec())]).await.unwrap();
        let refused = sealed.with(|journal| journal.head(DocKey([2; 16]))).await;
        assert_eq!(refused.unwrap_err().code(), "crypt_auth");
    }

    #[tokio::test]
    async fn an_erasure_that_is_cut_off_anywhere_is_completed_by_the_next() {
        let small = |journal: &Journal| journal.forget_in(JournalBatch::new(journal, 340), Sealed::tag("ada")).unwrap();
        let steps = both().await.with(move |journal| small(journal).len()).await;
        assert!(steps > 2, "{steps}");
        for done in 0..=steps {
            let sealed = both().await;
            assert_eq!(sealed.with(|journal| journal.count_of(Sealed::tag("ada"))).await, Ok(3));
            let vault = Vault::of(&sealed.village).unwrap();
            vault.shred(TenantId::of("local"), Sealed::tag("ada")).await.unwrap();
            let closed = sealed.with(|journal| journal.head(DocKey([1; 16])).unwrap().unwrap()).await;
            assert!(closed.deleted && closed.id.is_empty(), "what does not open is as if it were deleted");
            sealed.commit(move |journal| small(journal).into_iter().take(done).collect()).await;
            let generation = sealed.with(|journal| journal.whole().unwrap().generation).await;
            assert_eq!(generation, u64::from(done > 0), "no index of before is used from the first step on");
            let left = sealed.with(|journal| journal.count_of(Sealed::tag("ada")).unwrap()).await;
            assert_eq!(left == 0, done == steps, "{left} after {done} of {steps}");
            sealed.commit(|journal| journal.forget(Sealed::tag("ada")).unwrap()).await;
            sealed.sweep().await;
            assert_eq!(sealed.with(|journal| journal.count_of(Sealed::tag("ada"))).await, Ok(0));
            let kept = [HEADS, VERSIONS, PEOPLE].map(|tree| sealed.records(tree));
            assert_eq!(kept, [2, 2, 1], "what is his stays, and nothing else");
            let text = sealed.with(|journal| {
                assert!(!journal.has_version(DocKey([3; 16]), 1).unwrap());
                let version = journal.version(DocKey([4; 16]), 1).unwrap().unwrap();
                journal.text(DocKey([4; 16]), 1, &version).unwrap()
            });
            assert_eq!(text.await, words("goat"));
            let parts = [TEXTS, CHUNKS].map(|tree| sealed.records(tree));
            let alone = Sealed::new().await;
            alone.put(4, 1, "bob", words("goat")).await;
            assert_eq!(parts, [TEXTS, CHUNKS].map(|tree| alone.records(tree)), "no part is left over");
        }
    }

    #[tokio::test]
    async fn a_persons_versions_are_found_one_after_the_other() {
        let sealed = both().await;
        let found = sealed.with(|journal| {
            let (mut found, mut after) = (Vec::new(), None);
            while let Some((doc, number)) = journal.version_of(Sealed::tag("ada"), after).unwrap() {
                found.push((doc.0[0], number));
                after = Some((doc, number));
            }
            found
        });
        assert_eq!(found.await, [(1, 1), (2, 1), (3, 1)]);
    }

    #[tokio::test]
    async fn names_of_documents_are_keyed_and_those_of_before_are_still_found() {
        let sealed = Sealed::new().await;
        let name = ShardName::new("local", "main").unwrap();
        let clear = DocKey::of(None, &name, "old");
        let mut unit = Unit::new(&sealed.journal);
        unit.head(clear, &Head { id: "old".to_owned(), ..head(1) }).unwrap();
        let mut batch = sealed.journal.batch();
        batch.add(unit).unwrap();
        sealed.journal.commit(batch.finish()).await.unwrap();
        sealed.commit(|journal| journal.learn_names().unwrap().into_iter().collect()).await;
        assert_eq!(sealed.with(Journal::learn_names).await.unwrap().map(|batch| batch.len()), None);
        assert_eq!(sealed.journal.find(&name, "old"), Ok(clear));
        let new = sealed.journal.find(&name, "new").unwrap();
        assert_ne!(new, DocKey::of(None, &name, "new"));
        // Another activation finds it again.
        let personal = Personal::new(&sealed.village, "local", "memory").unwrap();
        let again = Journal::new(sealed.store.clone(), "local:main:0").sealed_by(personal);
        let found =
            sealed.village.blocking("test", move || (again.learn_names().unwrap().is_none(), again.find(&name, "new")));
        assert_eq!(found.await.unwrap(), (true, Ok(new)));
    }
}
