//! The names that a bundle knows: for tools, and for whoever mistypes one.

use std::collections::BTreeSet;

use cedar_policy::{EntityUid, PrincipalConstraint};

use super::bundle::Bundle;
use super::hierarchy::Hierarchy;
use super::read::Found;
use super::slices;

/// The group of actions that the schema names so.
const PRIVILEGED: &str = "privileged";
/// What is less alike is no help: a guess at a word that was not meant.
const ALIKE: f64 = 0.6;

impl Bundle {
    /// The actions that can be asked for, in order.
    #[must_use]
    pub fn actions(&self) -> Vec<&str> {
        let mut actions: Vec<_> = self.slices().keys().map(String::as_str).collect();
        actions.sort_unstable();
        actions
    }

    /// The types of resources that an action may be done to, in order; none of an action that the schema does not know.
    #[must_use]
    pub fn resource_kinds(&self, action: &str) -> Vec<&str> {
        let action = self.slices().get(action);
        let mut kinds: Vec<_> = action.iter().flat_map(|action| action.resources.keys()).map(String::as_str).collect();
        kinds.sort_unstable();
        kinds
    }

    /// Whether an action needs a second factor and an untainted turn, and an entry in the log before it is done.
    #[must_use]
    pub fn is_privileged(&self, action: &str) -> bool {
        self.slices().get(action).is_some_and(|action| action.is_in_group(PRIVILEGED))
    }

    /// The action most like this word, if any is like it.
    #[must_use]
    pub fn nearest_action(&self, written: &str) -> Option<&str> {
        nearest(written, self.slices().keys().map(String::as_str))
    }

    /// The role most like this word, if any is like it.
    #[must_use]
    pub fn nearest_role(&self, written: &str) -> Option<&str> {
        nearest(written, self.roles())
    }

    /// The id of a policy most like this word, if any is like it.
    #[must_use]
    pub fn nearest_policy(&self, written: &str) -> Option<&str> {
        nearest(written, self.policies().into_iter().map(|policy| policy.id.as_str()))
    }
}

/// The roles in entities and in the scopes of policies.
pub(super) fn roles(found: &[Found], hierarchy: &Hierarchy) -> BTreeSet<String> {
    let scopes: Vec<_> = found.iter().map(|found| found.policy.principal_constraint()).collect();
    let named = scopes.iter().filter_map(|about| match about {
        PrincipalConstraint::In(uid) | PrincipalConstraint::Eq(uid) | PrincipalConstraint::IsIn(_, uid) => Some(uid),
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
    });
    let is_role = |uid: &&EntityUid| slices::short(uid.type_name()) == "Role";
    named.chain(hierarchy.uids()).filter(is_role).map(|uid| uid.id().unescaped().to_owned()).collect()
}

fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|name| (strsim::normalized_damerau_levenshtein(written, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1)));
    best.filter(|(score, _)| *score >= ALIKE).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Sources;

    #[test]
    fn a_mistyped_name_finds_the_one_that_was_meant() {
        let bundle = Bundle::load(&Sources::embedded()).unwrap();
        assert_eq!(bundle.nearest_action("agent.aks"), Some("agent.ask"));
        assert_eq!(bundle.nearest_role("gest"), Some("guest"));
        assert_eq!(bundle.nearest_action("xyzzy"), None);
    }

    #[test]
    fn roles_of_entities_and_of_policies_are_known() {
        let bundle = Bundle::load(&Sources::embedded()).unwrap();
        let roles: Vec<_> = bundle.roles().collect();
        for role in ["super_admin", "operator", "guest", "juror"] {
            assert!(roles.contains(&role), "{role}: {roles:?}");
        }
    }

    #[test]
    fn privileged_actions_are_those_of_the_group() {
        let bundle = Bundle::load(&Sources::embedded()).unwrap();
        assert!(bundle.is_privileged("cluster.admin") && bundle.is_privileged("key.shred"));
        assert!(!bundle.is_privileged("agent.ask") && !bundle.is_privileged("no.such"));
    }

    #[test]
    fn an_action_knows_what_it_may_be_done_to() {
        let bundle = Bundle::load(&Sources::embedded()).unwrap();
        assert_eq!(bundle.resource_kinds("memory.query"), ["Collection", "Document"]);
        assert!(bundle.resource_kinds("memory.qery").is_empty());
        assert!(bundle.actions().windows(2).all(|pair| pair[0] < pair[1]));
    }
}
