//! What a node hosts of the transparency log.

use std::sync::Arc;

use aivillage_runtime::{ActorCx, CallError, Village, VillageBuilder};
use parking_lot::Mutex;

use super::audit_log::{AuditLog, AuditLogMsg};
use super::board::Board;
use super::files::Files;
use super::handle::LogHandle;
use super::witness::{Book, Witness, WitnessMsg};

/// Hosts the log, the board and a witness; `clock` gives Unix milliseconds. [`begin`] makes them work.
pub fn install<F: Files>(
    village: VillageBuilder,
    log: LogHandle,
    book: Arc<Mutex<Book<F>>>,
    clock: fn() -> u64,
) -> VillageBuilder {
    let witness = move |_: &ActorCx| Witness::new(Arc::clone(&book), clock);
    village.host(move |_: &ActorCx| AuditLog::new(log.clone())).host(|_: &ActorCx| Board).host(witness)
}

/// Wakes the node's log and witness, which then look for each other's by themselves.
///
/// # Errors
/// What their first message met: a log that cannot be signed, a book that cannot be read.
pub async fn begin<F: Files>(village: &Village) -> Result<(), CallError> {
    village.addr::<Witness<F>>("here").ask(WitnessMsg::Evidence).await?;
    village.addr::<AuditLog>("here").ask(AuditLogMsg::Checkpoint).await?;
    Ok(())
}
