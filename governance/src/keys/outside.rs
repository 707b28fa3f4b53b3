//! For tests: a message that comes from outside, of whoever may most.

use std::sync::Arc;

use aivillage_runtime::{CallError, MsgCx, Principal, PrincipalKind};

/// What somebody from outside is told who asks for a key: nothing.
pub(super) async fn is_told_nothing<T: std::fmt::Debug>(ask: impl Future<Output = Result<T, CallError>>) {
    let principal = Principal {
        tenant: "local".into(),
        subject: "admin".into(),
        kind: PrincipalKind::User,
        roles: vec!["super_admin".into()],
        scopes: vec!["*".into()],
    };
    let refused = MsgCx::request(None, None, Some(Arc::new(principal))).scope(ask).await.unwrap_err();
    assert!(matches!(refused, CallError::NoReply), "{refused}");
}
