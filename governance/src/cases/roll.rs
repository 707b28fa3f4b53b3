//! Who has the role `juror`, from the accounts of all tenants that have a copy on this node.

use std::collections::HashMap;

use aivillage_runtime::ReplicaView;

use super::jury::JurorPool;
use crate::identity::accounts::{AccountEvent, Accounts, SubjectId};
use crate::identity::role::Role;

/// Follows the accounts of the tenants of one group, and keeps nothing of them but this.
#[derive(Debug)]
pub(crate) struct Roll {
    pool: JurorPool,
    tenants: HashMap<String, HashMap<SubjectId, Standing>>,
}

/// Whether somebody may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    is_juror: bool,
    is_suspended: bool,
}

impl Roll {
    pub(crate) fn new(pool: JurorPool) -> Self {
        Self { pool, tenants: HashMap::new() }
    }

    fn show(&self, tenant: &str) {
        let known = self.tenants.get(tenant).into_iter().flatten();
        let jurors = known.filter(|(_, standing)| standing.is_juror && !standing.is_suspended);
        self.pool.show(tenant, jurors.map(|(id, _)| id.to_string()));
    }
}

impl ReplicaView for Roll {
    type State = Accounts;

    /// What was shown stays until it is read again: a jury that is drawn meanwhile is drawn from who had the role before.
    async fn clear(&mut self) {
        self.tenants.clear();
    }

    async fn restored(&mut self, tenant: &str, _seq: u64, accounts: &Accounts) {
        let standing = |subject: &crate::identity::accounts::Subject| Standing {
            is_juror: subject.roles.contains(&Role::Juror),
            is_suspended: subject.is_suspended,
        };
        let all = accounts.subjects().map(|(id, subject)| (id, standing(subject))).collect();
        self.tenants.insert(tenant.to_owned(), all);
        self.show(tenant);
    }

    async fn applied(&mut self, tenant: &str, _seq: u64, event: AccountEvent) {
        let known = self.tenants.entry(tenant.to_owned()).or_default();
        match event {
            AccountEvent::SubjectCreated(id, subject) => {
                let (is_juror, is_suspended) = (subject.roles.contains(&Role::Juror), subject.is_suspended);
                known.insert(id, Standing { is_juror, is_suspended });
            }
            AccountEvent::RolesSet(id, roles) => {
                let of = known.entry(id).or_insert(Standing { is_juror: false, is_suspended: false });
                of.is_juror = roles.contains(&Role::Juror);
            }
            AccountEvent::Suspended(id, is_suspended) => {
                let of = known.entry(id).or_insert(Standing { is_juror: false, is_suspended });
                of.is_suspended = is_suspended;
            }
            AccountEvent::SubjectErased(id) => drop(known.remove(&id)),
            _ => return,
        }
        self.show(tenant);
    }
}

#[cfg(test)]
mod unit {
    use std::collections::BTreeSet;

    use aivillage_runtime::{Durable, PrincipalKind};
    use uuid::Uuid;

    use super::*;
    use crate::cases::Juror;
    use crate::identity::accounts::Subject;

    fn created(n: u128, roles: &[Role]) -> AccountEvent {
        let subject = Subject {
            kind: PrincipalKind::Agent,
            name: crate::keys::Kept::clear(&n.to_string()).unwrap(),
            roles: roles.iter().copied().collect(),
            is_suspended: false,
            made_ms: 0,
            passwords: Vec::new(),
            password_sets: 0,
            totp: None,
            recovery: Vec::new(),
        };
        AccountEvent::SubjectCreated(id(n), Box::new(subject))
    }

    fn id(n: u128) -> SubjectId {
        SubjectId(Uuid::from_u128(n))
    }

    fn eligible(pool: &JurorPool) -> Vec<String> {
        pool.eligible("acme").into_iter().map(|Juror { tenant, subject }| format!("{tenant}/{subject}")).collect()
    }

    #[tokio::test]
    async fn who_has_the_role_may_be_drawn_until_it_is_taken_or_they_are_suspended() {
        let pool = JurorPool::default();
        let mut roll = Roll::new(pool.clone());
        let juror = format!("bench/{}", id(2));
        for event in [created(1, &[Role::User]), created(2, &[Role::Juror])] {
            roll.applied("bench", 1, event).await;
        }
        assert_eq!(eligible(&pool), std::slice::from_ref(&juror));
        for (event, is) in [
            (AccountEvent::Suspended(id(2), true), false),
            (AccountEvent::Suspended(id(2), false), true),
            (AccountEvent::RolesSet(id(2), [Role::User].into()), false),
            (AccountEvent::RolesSet(id(2), BTreeSet::from([Role::Juror, Role::User])), true),
        ] {
            roll.applied("bench", 2, event.clone()).await;
            assert_eq!(eligible(&pool).contains(&juror), is, "{event:?}");
        }
        roll.applied("acme", 1, created(3, &[Role::Juror])).await;
        assert_eq!(eligible(&pool), [juror], "not of the sender's tenant");
    }

    #[tokio::test]
    async fn a_view_that_is_filled_anew_shows_the_same() {
        let pool = JurorPool::default();
        let mut roll = Roll::new(pool.clone());
        let mut accounts = Accounts::default();
        accounts.apply(&created(2, &[Role::Juror]));
        accounts.apply(&created(3, &[Role::Juror]));
        accounts.apply(&AccountEvent::Suspended(id(3), true));
        roll.restored("bench", 3, &accounts).await;
        assert_eq!(eligible(&pool), [format!("bench/{}", id(2))]);
        roll.clear().await;
        assert_eq!(eligible(&pool).len(), 1);
    }
}
