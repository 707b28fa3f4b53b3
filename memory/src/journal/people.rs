//! Whose documents a shard holds, and taking out all of one person's. Without keys: theirs are destroyed by then.

use std::collections::HashSet;

use aivillage_governance::keys::SubjectTag;

use super::record::{self, StoredHead, StoredVersion};
use super::{DocKey, HEADS, Journal, JournalBatch, PEOPLE, Unit, VERSIONS, failed};
use crate::error::MemoryError;

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
    pub(crate) fn forget(&self, subject: SubjectTag) -> Result<JournalBatch<'_>, MemoryError> {
        let Belongings { heads, versions, .. } = self.belongings(subject)?;
        let mut batch = self.batch();
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
        Ok(batch)
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
        let mut from = after.map_or_else(|| self.prefix.to_vec(), |(doc, n)| self.key(&[&doc.0, &(n + 1).to_be_bytes()]));
        loop {
            // Small pages: the next one is usually near.
            let page = self.store.scan(VERSIONS, &from, 32).map_err(|error| failed(&error))?;
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
                Some((last, _)) if page.len() == 32 => from = [last, &[0][..]].concat(),
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
