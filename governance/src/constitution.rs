//! `gov.constitution`: the rules that all others come from, in all their versions.
//!
//! Key: `main`. Placement: one on each node. Durable: no; what it answers from was verified before the node started, and is
//! shared by every activation. Nothing is lost in a crash but the mail in hand.
//!
//! | file | holds |
//! |---|---|
//! | [`document`] | articles, rules, bounds |
//! | [`taxonomy`] | what rules are for |
//! | [`note`] | signed notes |
//! | [`chain`] | signatures and order of versions |
//! | [`check`] | what stands against a proposal |
//! | [`folder`] | its files |
//! | [`signer`] | the key that signs |

pub mod chain;
pub mod check;
pub mod document;
pub mod folder;
pub mod note;
pub mod signer;
pub mod taxonomy;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, Codec, Kind, KindOptions, Mail, Placement, Reply,
};
use serde::{Deserialize, Serialize};

use chain::{Chain, Signed};
use check::{Finding, Proposal};
use note::NoteKey;
use signer::RootSigner;

use crate::keys::VillageSecret;

/// The key of the one constitution.
pub const KEY: &str = "main";
/// The constitution that a village starts with; its root key signs it.
pub const DEFAULT_TOML: &str = include_str!("../data/constitution/constitution.toml");
/// The same as prose.
pub const DEFAULT_PROSE: &str = include_str!("../data/constitution/constitution.md");

/// What a [`Constitution`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum ConstitutionMsg {
    /// A version as it was signed, from 1; without a number the one in force. None if there is no such version.
    Get {
        /// Which.
        version: Option<u32>,
        /// The version.
        reply: Reply<Option<Version>>,
    },
    /// What stands against a proposal, by the version in force.
    Check {
        /// What is proposed.
        proposal: Proposal,
        /// Nothing, if it may be voted on.
        reply: Reply<Vec<Finding>>,
    },
}

/// A version of the constitution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Which, from 1.
    pub version: u32,
    /// SHA-256 of its canonical bytes.
    pub hash: [u8; 32],
    /// Its files, for whoever wants to verify them.
    pub signed: Signed,
    /// Who signs: the configured root keys, or the village's own for the constitution of the program.
    pub root_keys: Vec<NoteKey>,
}

/// The behaviour, and what it answers from.
#[derive(Debug, Clone)]
pub struct Constitution {
    chain: Arc<Chain>,
    root_keys: Arc<[NoteKey]>,
    secret: VillageSecret,
}

impl Constitution {
    /// Answers from versions that these keys signed. Without keys it is the program's own, which the village signs by a key
    /// that all its nodes derive from their secret.
    #[must_use]
    pub fn new(chain: Arc<Chain>, root_keys: &[NoteKey], secret: VillageSecret) -> Self {
        Self { chain, root_keys: root_keys.into(), secret }
    }

    fn get(&self, version: Option<u32>) -> Option<Version> {
        let (document, signed) = self.chain.version(version.unwrap_or(self.chain.current().version()))?;
        let (mut signed, mut root_keys) = (signed.clone(), self.root_keys.to_vec());
        if root_keys.is_empty()
            && let Some(signer) = self.own_root()
            && let Ok(note) = signer.sign(&signed, None)
        {
            signed.note = note;
            root_keys = vec![signer.public().clone()];
        }
        Some(Version { version: document.version(), hash: document.hash(), signed, root_keys })
    }

    /// None before the node has the secret.
    fn own_root(&self) -> Option<RootSigner> {
        RootSigner::new("village", &*self.secret.derive("the root key of its constitution")?).ok()
    }
}

impl Kind for Constitution {
    const NAME: &'static str = "gov.constitution";
    type Body = ConstitutionMsg;
    const CODEC: Codec = Codec::Compact;

    fn options() -> KindOptions {
        KindOptions::default().placement(Placement::PerNode)
    }
}

impl Actor for Constitution {
    type Msg = Mail<ConstitutionMsg>;
    type State = ();
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match mail.body {
            ConstitutionMsg::Get { version, reply } => reply.send(self.get(version)),
            ConstitutionMsg::Check { proposal, reply } => reply.send(self.chain.current().check(&proposal)),
        }
        Ok(())
    }
}
