//! Moderation: what content may pass, in which harm category it falls, and why.
//!
//! | step | in |
//! |---|---|
//! | levels, categories, default actions | [`taxonomy`] |
//! | folds a text to what it says, with a way back to the original bytes | [`norm`], [`words`] |
//! | terms and patterns that weigh or decide | [`rules`], [`guarded`] |
//! | viewpoint words become placeholders before any model sees them | [`mask`] |
//! | classes of words that mean alike | [`lexicon`] |
//! | hashed n-grams; linear model A; model B, a second view | [`features`], [`linear`], [`bag`] |
//! | the model file and what it was trained on | [`model`], [`manifest`] |
//! | scores to action; viewpoint scores cannot get there | [`decide`] |
//! | all of it in one pass | [`engine`] |
//! | an outside opinion on what is uncertain | [`guard`] |
//! | a stream of which only scanned text is released | [`stream`] |
//! | `[governance.moderation]`, the snapshot in process, the actor that publishes it | [`config`], [`handle`], [`moderator`] |
//! | how the committed model was made, how good it is | [`train`], [`suites`] |
//! | the texts of a release that all this rests on | [`texts`] |

pub mod bag;
pub mod config;
pub mod decide;
pub mod engine;
pub mod features;
pub mod guard;
pub mod guarded;
pub mod handle;
pub mod hashes;
pub mod lexicon;
pub mod linear;
pub mod manifest;
pub mod mask;
pub mod model;
pub mod moderator;
pub mod norm;
pub mod rules;
pub mod stream;
pub mod suites;
pub mod taxonomy;
pub mod texts;
pub mod train;
pub mod verdict;
pub mod words;

pub use config::{ModelError, ModeratorConfig};
pub use decide::{Actionable, Decision, H2Action, Policy};
pub use engine::{Engine, EngineError};
pub use handle::ModeratorHandle;
pub use moderator::{Moderator, ModeratorMsg};
pub use stream::StreamScanner;
pub use taxonomy::{Action, Category, DataClass, Level};
pub use texts::Texts;
pub use verdict::{CheckError, CheckRequest, Evidence, Stage, Verdict};
