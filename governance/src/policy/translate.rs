//! From a [`Request`] to what Cedar is asked: the request and the three entities that one dereference can reach.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};

use super::hierarchy::{Hierarchy, Place};
use super::request::{Facts, Request, Resource, Subject};
use super::slices::Action;

/// Types by their short name.
pub(super) type Types = HashMap<String, EntityTypeName>;

/// What is asked of Cedar.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) request: cedar_policy::Request,
    pub(super) entities: Entities,
}

/// Attributes of an entity.
type Attributes = HashMap<String, RestrictedExpression>;

/// Makes requests out of the names of one bundle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Translator<'a> {
    pub(super) types: &'a Types,
    pub(super) hierarchy: &'a Hierarchy,
}

impl Translator<'_> {
    /// Neither request nor entities are checked against the schema: their shape is made here, and the action was looked up
    /// by the types of both.
    pub(super) fn query(self, request: &Request, action: &Action) -> Result<Query, String> {
        let principal = self.principal(&request.principal)?;
        let resource = self.resource(&request.resource)?;
        let (who, what) = (principal.uid(), resource.uid());
        let mut entities = vec![principal, action.entity.clone()];
        if who == what {
            // Somebody acts on themselves: one entity with the attributes of both.
            entities[0] = self.oneself(request)?;
        } else {
            entities.push(resource);
        }
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let context = context(&request.facts, request.principal.in_scope(&request.action))?;
        let request = cedar_policy::Request::new(who, action.uid.clone(), what, context, None);
        Ok(Query { request: request.map_err(|error| error.to_string())?, entities })
    }

    fn principal(self, who: &Subject) -> Result<Entity, String> {
        let uid = self.uid(who.type_name(), &who.tenant, &who.subject)?;
        let parents = self.principal_parents(&uid, who)?;
        let place = Place::default();
        let mut attributes = self.attributes(who.name(), &who.tenant, &who.labels, &place)?;
        attributes.insert("suspended".to_owned(), RestrictedExpression::new_bool(who.suspended));
        if let Some(other) = &who.acts_for {
            attributes.insert("acts_for".to_owned(), RestrictedExpression::new_string(other.clone()));
        }
        Entity::new(uid, attributes, parents).map_err(|error| error.to_string())
    }

    /// Tenant, groups and roles, and what these are in.
    fn principal_parents(self, uid: &EntityUid, who: &Subject) -> Result<HashSet<EntityUid>, String> {
        let mut parents = HashSet::from([self.uid_of("Tenant", &who.tenant)?]);
        parents.extend(self.hierarchy.above(uid).iter().cloned());
        for group in &who.groups {
            self.put_under(&mut parents, self.uid("Group", &who.tenant, group)?);
        }
        for role in &who.roles {
            self.put_under(&mut parents, self.uid_of("Role", role)?);
        }
        Ok(parents)
    }

    fn resource(self, what: &Resource) -> Result<Entity, String> {
        let uid = self.resource_uid(what)?;
        let (attributes, parents) = self.resource_parts(&uid, what)?;
        Entity::new(uid, attributes, parents).map_err(|error| error.to_string())
    }

    fn resource_parts(self, uid: &EntityUid, what: &Resource) -> Result<(Attributes, HashSet<EntityUid>), String> {
        let namespace = what.namespace.as_ref().map(|name| self.uid("Namespace", &what.tenant, name)).transpose()?;
        let said = self.hierarchy.place(uid).or_else(|| self.hierarchy.place(namespace.as_ref()?));
        let place = Place {
            egress: said.and_then(|said| said.egress.clone()).or_else(|| Some(what.egress.clone())),
            regions: said.and_then(|said| said.regions.clone()).or_else(|| Some(what.regions.clone())),
        };
        let mut attributes = self.attributes(what.name(), &what.tenant, &what.labels, &place)?;
        let shared =
            what.shared_with.iter().map(|tenant| self.uid_of("Tenant", tenant)).collect::<Result<Vec<_>, _>>()?;
        let shared = shared.into_iter().map(RestrictedExpression::new_entity_uid);
        attributes.insert("shared_with".to_owned(), RestrictedExpression::new_set(shared));
        for (name, value) in [("owner", &what.owner), ("proposer", &what.proposer)] {
            if let Some(value) = value {
                attributes.insert(name.to_owned(), RestrictedExpression::new_string(value.clone()));
            }
        }
        let mut parents = HashSet::from([self.uid_of("Tenant", &what.tenant)?]);
        parents.extend(self.hierarchy.above(uid).iter().cloned());
        if let Some(namespace) = namespace {
            self.put_under(&mut parents, namespace);
        }
        // A tenant that keeps itself is not in itself.
        parents.remove(uid);
        Ok((attributes, parents))
    }

    /// The principal that is its own resource.
    fn oneself(self, request: &Request) -> Result<Entity, String> {
        let (who, what) = (&request.principal, &request.resource);
        let uid = self.resource_uid(what)?;
        let (mut attributes, mut parents) = self.resource_parts(&uid, what)?;
        parents.extend(self.principal_parents(&uid, who)?);
        let labels = who.labels.iter().chain(&what.labels);
        attributes.insert("labels".to_owned(), words(labels));
        attributes.insert("suspended".to_owned(), RestrictedExpression::new_bool(who.suspended));
        if let Some(other) = &who.acts_for {
            attributes.insert("acts_for".to_owned(), RestrictedExpression::new_string(other.clone()));
        }
        Entity::new(uid, attributes, parents).map_err(|error| error.to_string())
    }

    /// What the schema wants of any entity.
    fn attributes(self, name: String, tenant: &str, labels: &[String], place: &Place) -> Result<Attributes, String> {
        let tenant = RestrictedExpression::new_entity_uid(self.uid_of("Tenant", tenant)?);
        Ok(HashMap::from([
            ("name".to_owned(), RestrictedExpression::new_string(name)),
            ("tenant".to_owned(), tenant),
            ("labels".to_owned(), words(labels)),
            ("shared_with".to_owned(), words([])),
            ("egress".to_owned(), words(place.egress.iter().flatten())),
            ("regions".to_owned(), words(place.regions.iter().flatten())),
            ("suspended".to_owned(), RestrictedExpression::new_bool(false)),
        ]))
    }

    fn resource_uid(self, what: &Resource) -> Result<EntityUid, String> {
        match what.kind.as_str() {
            // Tenants have no tenant in their ids: they are what ids begin with.
            "Tenant" => self.uid_of("Tenant", &what.id),
            kind => self.uid(kind, &what.tenant, &what.id),
        }
    }

    fn uid(self, kind: &str, tenant: &str, name: &str) -> Result<EntityUid, String> {
        self.uid_of(kind, &format!("{tenant}/{name}"))
    }

    fn uid_of(self, kind: &str, id: &str) -> Result<EntityUid, String> {
        let kind = self.types.get(kind).ok_or_else(|| format!("the schema has no type `{kind}`"))?;
        Ok(EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id)))
    }

    fn put_under(self, parents: &mut HashSet<EntityUid>, uid: EntityUid) {
        parents.extend(self.hierarchy.above(&uid).iter().cloned());
        parents.insert(uid);
    }
}

fn words<'a>(words: impl IntoIterator<Item = &'a String>) -> RestrictedExpression {
    RestrictedExpression::new_set(words.into_iter().map(|word| RestrictedExpression::new_string(word.clone())))
}

fn context(facts: &Facts, in_scope: bool) -> Result<Context, String> {
    let mut pairs = vec![
        ("mfa".to_owned(), RestrictedExpression::new_bool(facts.mfa)),
        ("taint".to_owned(), RestrictedExpression::new_bool(facts.taint)),
        ("in_scope".to_owned(), RestrictedExpression::new_bool(in_scope)),
    ];
    if let Some(host) = &facts.egress {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        pairs.push(("hosts".to_owned(), words(&with_wildcards(&host))));
        pairs.push(("host".to_owned(), RestrictedExpression::new_string(host)));
    }
    if let Some(region) = &facts.region {
        pairs.push(("region".to_owned(), RestrictedExpression::new_string(region.clone())));
    }
    if let Some(ip) = facts.ip {
        pairs.push(("ip".to_owned(), RestrictedExpression::new_ip(ip.to_string())));
    }
    Context::from_pairs(pairs).map_err(|error| error.to_string())
}

/// The host, and for a name each `*.parent` that covers it.
fn with_wildcards(host: &str) -> Vec<String> {
    let mut hosts = vec![host.to_owned()];
    if host.parse::<IpAddr>().is_err() {
        hosts.extend(host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..])));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_covered_by_its_parents_and_an_address_by_itself() {
        assert_eq!(with_wildcards("a.b.example"), ["a.b.example", "*.b.example", "*.example"]);
        assert_eq!(with_wildcards("localhost"), ["localhost"]);
        assert_eq!(with_wildcards("10.0.0.1"), ["10.0.0.1"]);
    }
}
