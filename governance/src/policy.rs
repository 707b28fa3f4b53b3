//! Who may do what: Cedar policies, decided on this node without a message.
//!
//! [`Sources`] are the files of a bundle. [`Bundle::load`] checks them and cuts them into slices by action and resource type,
//! so that a decision looks only at what can matter for it. [`PdpHandle`] decides with the newest bundle. [`Pdp`], one actor
//! per node, takes new bundles from [`PolicyMachine`], which all nodes of the cluster agree on.
//!
//! Nothing is allowed without a permit; any forbid, also one that cannot be evaluated, outweighs all permits; without a bundle
//! there is no decision at all. The files in `always.cedar` and `invariants.json` are part of every bundle.

mod bundle;
mod cases;
mod config;
mod decide;
mod explain;
mod handle;
mod hierarchy;
mod machine;
mod names;
mod pdp;
mod read;
mod request;
mod slices;
mod sources;
mod translate;

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;

pub use bundle::{Bundle, BundleError, Issue, PolicyText};
pub use cases::{Case, CaseError, Expect, Failure, Report};
pub use config::PolicyConfig;
pub use decide::{Decision, Snapshot};
pub use explain::{Explanation, Near};
pub use handle::{PdpHandle, Unavailable};
pub use machine::{NS, PolicyMachine, PolicyRefused};
pub use pdp::{Applied, Pdp, PdpMsg, PdpStatus};
pub use request::{Facts, Request, Resource, Subject};
pub use sources::{Sources, SourcesError};
