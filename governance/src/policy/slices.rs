//! The policies that can matter for one action on one type of resource.
//!
//! Cedar looks at every policy of the set it is given, so a decision costs as much as the set is large. Which action and which
//! type of resource a policy is about is in its scope, and known when it is loaded. The policies of a tenant are a set of their
//! own, asked about that tenant's resources only: however many tenants there are, each sees its own policies and the common ones.

use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{
    ActionConstraint, Entity, EntityTypeName, EntityUid, PolicySet, PolicySetError, ResourceConstraint, Schema,
};

use super::read::Found;

/// The namespace of all that policies speak about.
pub(super) const NAMESPACE: &str = "AiVillage";

/// The slices of a bundle by action, e.g. `agent.ask`.
pub(super) type Slices = HashMap<String, Action>;

/// One action.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) uid: EntityUid,
    /// With the groups it is in.
    pub(super) entity: Entity,
    above: HashSet<EntityUid>,
    /// Types of principals that it is for.
    pub(super) principals: BTreeSet<String>,
    /// What it may be done to.
    pub(super) resources: HashMap<String, Slice>,
}

/// Policies for one action on one type of resource.
#[derive(Debug, Default)]
pub(super) struct Slice {
    pub(super) common: PolicySet,
    pub(super) tenants: HashMap<String, PolicySet>,
}

/// Cuts the policies up.
pub(super) fn cut(schema: &Schema, found: &[Found]) -> Result<Slices, Box<PolicySetError>> {
    let mut actions = actions(schema);
    for found in found {
        let about = found.policy.action_constraint();
        let kind = resource_kind(&found.policy.resource_constraint());
        for action in actions.values_mut().filter(|action| action.is_in(&about)) {
            let slices = action.resources.iter_mut().filter(|(name, _)| kind.as_ref().is_none_or(|kind| kind == *name));
            for (_, slice) in slices {
                let set = match &found.tenant {
                    Some(tenant) => slice.tenants.entry(tenant.clone()).or_default(),
                    None => &mut slice.common,
                };
                set.add(found.policy.clone())?;
            }
        }
    }
    Ok(actions)
}

/// The name of a type without its namespace; types of other namespaces keep theirs.
pub(super) fn short(kind: &EntityTypeName) -> String {
    if kind.namespace() == NAMESPACE { kind.basename().to_owned() } else { kind.to_string() }
}

impl Action {
    /// Whether it is in the group of actions with this name.
    pub(super) fn is_in_group(&self, group: &str) -> bool {
        self.above.iter().any(|uid| uid.id().unescaped() == group)
    }

    /// Whether a policy's scope covers it.
    fn is_in(&self, about: &ActionConstraint) -> bool {
        let covers = |uid: &EntityUid| *uid == self.uid || self.above.contains(uid);
        match about {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => *uid == self.uid,
            ActionConstraint::In(uids) => uids.iter().any(covers),
        }
    }
}

/// The one type that a policy is about. What is `in` another entity can be of any type.
fn resource_kind(about: &ResourceConstraint) -> Option<String> {
    match about {
        ResourceConstraint::Any | ResourceConstraint::In(_) => None,
        ResourceConstraint::Eq(uid) => Some(short(uid.type_name())),
        ResourceConstraint::Is(kind) | ResourceConstraint::IsIn(kind, _) => Some(short(kind)),
    }
}

/// All actions that can be asked for, with empty slices.
fn actions(schema: &Schema) -> Slices {
    let groups = schema.action_entities().unwrap_or_else(|_| cedar_policy::Entities::empty());
    let mut actions = Slices::new();
    for env in schema.request_envs() {
        let uid = env.action();
        let action = actions.entry(uid.id().unescaped().to_owned()).or_insert_with(|| {
            let above: HashSet<EntityUid> = groups.ancestors(uid).into_iter().flatten().cloned().collect();
            let entity = Entity::new_no_attrs(uid.clone(), above.clone());
            Action { uid: uid.clone(), entity, above, principals: BTreeSet::new(), resources: HashMap::new() }
        });
        action.principals.insert(short(env.principal()));
        action.resources.entry(short(env.resource())).or_default();
    }
    actions
}
