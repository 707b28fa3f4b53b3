//! Cases: what follows a verdict that acts, and how the one whom it concerns can have it looked at again.
//!
//! ```text
//! Open ──> Final                        nobody appealed in time
//!   └─> Appealed ─> Overturned          model B and the guard, who are not told what was decided before
//!          └─> Upheld1 ─> Jury ─> Overturned | Reduced
//!                           └─> Upheld2 ─> Upheld
//!                                  └─> Community ─> Overturned | Upheld        H2 only, if the appellant asks
//! ```
//! Every phase but the ends has a deadline. When it passes, H2 is decided for the appellant, H0 and H1 stay as they were.
//!
//! | file | holds |
//! |---|---|
//! | [`case`], `view` | a case, its phases, its deadlines; what is shown of it |
//! | `event`, `error` | what happens to cases, and why something does not |
//! | [`standing`] | what a sender may not do for a while: strikes, the ladder of H2 |
//! | [`docket`] | cases and standings of one shard, made of events; what may happen next. Pure |
//! | [`jury`], `roll` | the draw that anybody can repeat, who may be drawn |
//! | [`notice`], [`excerpt`] | what the sender is told, and what is shown of the text |
//! | [`report`], `metrics` | counts for the public, and for who watches the village |
//! | [`actor`], `court`, `watch` | `gov.cases`, what its shards share, what other nodes show of it |
//! | `words`, `data` | what is said in a case, sealed for its sender; exporting and erasing it |
//! | `clerk`, [`client`] | entries in the transparency log, the short way to all shards |

pub mod actor;
pub mod case;
mod clerk;
pub mod client;
mod court;
mod data;
pub mod docket;
mod error;
mod event;
pub mod excerpt;
pub mod jury;
mod message;
mod metrics;
pub mod notice;
pub mod report;
mod roll;
pub mod standing;
#[cfg(test)]
pub(crate) mod tests;
mod view;
mod watch;
mod words;

pub use actor::CaseActor;
pub(crate) use case::rfc3339;
pub use case::{Case, CaseId, Choice, Grounds, Phase, Sender, Tier};
pub use clerk::CaseLog;
pub use client::Cases;
pub use court::Court;
pub use data::CaseData;
pub use docket::Docket;
pub use error::CaseError;
pub use event::CaseEvent;
pub use jury::{Juror, JurorPool};
pub use message::{CasesMsg, NewCase};
pub use notice::Notice;
pub use report::{Quarter, Report, Tally};
pub(crate) use roll::Roll;
pub use standing::{Kept, Mark, Restriction, Standings};
pub use view::{CaseView, VoteView};
pub(crate) use watch::Watch;
