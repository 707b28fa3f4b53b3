//! What a shard knows of its documents without asking the store: which texts are there, and how many.

use std::collections::{BTreeMap, HashMap, HashSet};

use aivillage_governance::keys::SubjectTag;

use crate::dedup::{Lsh, NEAR, Signature};
use crate::error::MemoryError;
use crate::journal::{DocKey, Head, Journal};

/// Texts by digest and by similarity, and counts. Rebuilt from the journal at start.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Documents by number, the name that [`Lsh`] knows them by.
    documents: Vec<DocKey>,
    numbers: HashMap<[u8; 16], u32>,
    lsh: Lsh,
    pub(crate) live: u64,
    pub(crate) duplicates: u64,
    pub(crate) languages: BTreeMap<String, u64>,
    /// Of whom the journal knows that they have stored something, as far as this activation does.
    pub(crate) people: HashSet<SubjectTag>,
}

impl Known {
    /// Reads all documents of the journal.
    pub(crate) fn load(journal: &Journal) -> Result<Self, MemoryError> {
        let mut known = Self::default();
        journal.for_each_head(|key, head| {
            known.add(key, &head);
            Ok(())
        })?;
        Ok(known)
    }

    /// Takes note of a document's current version.
    pub(crate) fn add(&mut self, key: DocKey, head: &Head) {
        if head.deleted {
            return;
        }
        self.live += 1;
        self.duplicates += u64::from(head.duplicate_of.is_some());
        *self.languages.entry(head.language.clone()).or_default() += 1;
        // A copy is compared by its original: one witness for each text.
        if head.duplicate_of.is_none() {
            let number = u32::try_from(self.documents.len()).unwrap_or(u32::MAX);
            self.documents.push(key);
            self.numbers.insert(head.text, number);
            if let Some(signature) = Signature::from_bytes(&head.signature) {
                self.lsh.insert(number, &signature);
            }
        }
    }

    /// Takes note that this version is no longer current. Its text stays known until someone looks at it and finds
    /// that its document says something else.
    pub(crate) fn remove(&mut self, head: &Head) {
        self.live = self.live.saturating_sub(1);
        self.duplicates = self.duplicates.saturating_sub(u64::from(head.duplicate_of.is_some()));
        if let Some(count) = self.languages.get_mut(&head.language) {
            *count = count.saturating_sub(1);
        }
    }

    /// The document that a text repeats. `head` gives what is current of a document.
    pub(crate) fn original(
        &self,
        of: DocKey,
        text: &[u8; 16],
        signature: Option<&Signature>,
        head: impl Fn(DocKey) -> Result<Option<Head>, MemoryError>,
    ) -> Result<Option<(DocKey, String)>, MemoryError> {
        let current = |number: u32| -> Result<Option<(DocKey, Head)>, MemoryError> {
            let Some(&key) = self.documents.get(number as usize).filter(|key| **key != of) else { return Ok(None) };
            Ok(head(key)?.filter(|head| !head.deleted && head.duplicate_of.is_none()).map(|head| (key, head)))
        };
        if let Some(&number) = self.numbers.get(text)
            && let Some((key, head)) = current(number)?
            && head.text == *text
        {
            return Ok(Some((key, head.id)));
        }
        let Some(signature) = signature else { return Ok(None) };
        for number in self.lsh.candidates(signature) {
            if let Some((key, head)) = current(number)?
                && Signature::from_bytes(&head.signature).is_some_and(|other| other.similarity(signature) >= NEAR)
            {
                return Ok(Some((key, head.id)));
            }
        }
        Ok(None)
    }
}
