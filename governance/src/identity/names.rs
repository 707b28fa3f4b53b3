//! What the subjects of a tenant are called: read of what is sealed, kept in memory only, so that nothing has to be stored to look
//! for a name.

use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization;

use super::accounts::{Accounts, SubjectId};
use crate::keys::{Kept, Personal, VaultError};

/// What names and labels are kept for, as their keys name it.
pub(super) const PURPOSE: &str = "account";

/// Names and whose they are.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_name: BTreeMap<String, SubjectId>,
    by_id: BTreeMap<SubjectId, String>,
}

impl Names {
    /// Reads all names. Who was erased has none any more.
    ///
    /// # Errors
    /// As [`Personal::open`].
    pub(super) async fn read(accounts: &Accounts, personal: &Personal) -> Result<Self, VaultError> {
        let mut names = Self::default();
        for (id, subject) in accounts.subjects() {
            if let Some(name) = personal.open::<String>(id.0.as_bytes(), &subject.name).await? {
                names.add(id, name);
            }
        }
        Ok(names)
    }

    /// Who has this name.
    pub(super) fn id(&self, name: &str) -> Option<SubjectId> {
        self.by_name.get(&folded(name)).copied()
    }

    /// What somebody is called.
    pub(super) fn of(&self, id: SubjectId) -> Option<&str> {
        self.by_id.get(&id).map(String::as_str)
    }

    pub(super) fn add(&mut self, id: SubjectId, name: String) {
        self.by_name.insert(folded(&name), id);
        self.by_id.insert(id, name);
    }

    pub(super) fn remove(&mut self, id: SubjectId) {
        if let Some(name) = self.by_id.remove(&id) {
            self.by_name.remove(&folded(&name));
        }
    }
}

/// Seals what a subject is called.
///
/// # Errors
/// As [`Personal::seal`].
pub(super) async fn seal(personal: &Personal, id: SubjectId, name: &str) -> Result<Kept, VaultError> {
    personal.seal(&id.to_string(), id.0.as_bytes(), &name).await
}

/// What is compared of a name: those that look the same are the same.
pub(super) fn folded(name: &str) -> String {
    name.trim().nfkc().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::accounts::tests::id;

    #[test]
    fn names_that_look_alike_are_one() {
        let mut names = Names::default();
        names.add(id(2), "Ada".to_owned());
        for name in ["ada", " ADA ", "Ａｄａ"] {
            assert_eq!(names.id(name), Some(id(2)), "{name}");
        }
        assert_eq!((names.id("adа"), names.of(id(2))), (None, Some("Ada")), "a Cyrillic letter is another one");
        names.remove(id(2));
        assert_eq!((names.id("ada"), names.of(id(2))), (None, None));
    }
}
