//! What is in what: roles in roles, users in groups, namespaces in tenants, as `entities.json` says.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};
use serde::Deserialize;

use super::bundle::Issue;

/// Cedar's own form of entities, with the attributes that a bundle may set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    uid: Uid,
    #[serde(default)]
    parents: Vec<Uid>,
    #[serde(default)]
    attrs: Place,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Uid {
    r#type: String,
    id: String,
}

/// What a bundle says of a thing or of the namespace it is in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) egress: Option<Vec<String>>,
    pub(super) regions: Option<Vec<String>>,
}

/// For each entity of the file all that it is in.
#[derive(Debug, Default)]
pub(super) struct Hierarchy {
    above: HashMap<EntityUid, Arc<[EntityUid]>>,
    places: HashMap<EntityUid, Place>,
}

impl Hierarchy {
    pub(super) fn read(file: &str, text: &str, schema: &Schema) -> Result<Self, Vec<Issue>> {
        let rows: Vec<Row> = serde_json::from_str(text).map_err(|error| vec![Issue::json(file, &error)])?;
        let mut parents: HashMap<EntityUid, Vec<EntityUid>> = HashMap::new();
        let mut places = HashMap::new();
        let mut issues = Vec::new();
        for row in rows {
            let at = text.find(&format!("\"{}\"", row.uid.id)).unwrap_or(0);
            match uids(&row, schema) {
                Ok((uid, _)) if parents.contains_key(&uid) => {
                    issues.push(Issue::new(file, text, at, format!("`{uid}` is there twice")));
                }
                Ok((uid, up)) => {
                    places.insert(uid.clone(), row.attrs);
                    parents.insert(uid, up);
                }
                Err(message) => issues.push(Issue::new(file, text, at, message)),
            }
        }
        let mut above = HashMap::new();
        for uid in parents.keys() {
            if let Some(all) = closure(uid, &parents) {
                above.insert(uid.clone(), all.into());
            } else {
                let at = text.find(&format!("\"{}\"", uid.id().unescaped())).unwrap_or(0);
                issues.push(Issue::new(file, text, at, format!("`{uid}` is in itself")));
            }
        }
        if issues.is_empty() { Ok(Self { above, places }) } else { Err(issues) }
    }

    /// All that an entity is in, besides itself.
    pub(super) fn above(&self, uid: &EntityUid) -> &[EntityUid] {
        self.above.get(uid).map_or(&[], |above| above)
    }

    /// All that the file names.
    pub(super) fn uids(&self) -> impl Iterator<Item = &EntityUid> {
        self.above.iter().flat_map(|(uid, above)| std::iter::once(uid).chain(above.iter()))
    }

    /// What the bundle says of it.
    pub(super) fn place(&self, uid: &EntityUid) -> Option<&Place> {
        self.places.get(uid)
    }
}

/// The ids of a row, if the schema knows such entities and lets one be in the other.
fn uids(row: &Row, schema: &Schema) -> Result<(EntityUid, Vec<EntityUid>), String> {
    let uid = uid(&row.uid)?;
    if !schema.entity_types().any(|known| known == uid.type_name()) {
        return Err(format!("the schema has no type `{}`", uid.type_name()));
    }
    let allowed: Vec<_> = schema.ancestors(uid.type_name()).map(Iterator::collect).unwrap_or_default();
    let mut parents = Vec::with_capacity(row.parents.len());
    for parent in &row.parents {
        let parent = self::uid(parent)?;
        if !allowed.contains(&parent.type_name()) {
            return Err(format!("by the schema `{uid}` cannot be in `{parent}`"));
        }
        parents.push(parent);
    }
    Ok((uid, parents))
}

fn uid(uid: &Uid) -> Result<EntityUid, String> {
    let kind = EntityTypeName::from_str(&uid.r#type).map_err(|error| format!("type `{}`: {error}", uid.r#type))?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(&uid.id)))
}

/// All that `uid` is in; nothing when that is `uid` itself.
fn closure(uid: &EntityUid, parents: &HashMap<EntityUid, Vec<EntityUid>>) -> Option<Vec<EntityUid>> {
    let mut all: Vec<EntityUid> = Vec::new();
    let mut next: Vec<&EntityUid> = parents.get(uid).into_iter().flatten().collect();
    while let Some(one) = next.pop() {
        if one == uid {
            return None;
        }
        if !all.contains(one) {
            all.push(one.clone());
            next.extend(parents.get(one).into_iter().flatten());
        }
    }
    Some(all)
}
