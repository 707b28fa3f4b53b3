//! `gov.secret`: hands the village's secret to nodes that join.
//!
//! Key: always [`KEY`]. Placement: the member that has been there for longest. Durable: the secret is a file of each node. Lost in a
//! crash: the mail in hand; whoever asked asks again.
//!
//! The cluster agrees on the fingerprint of one secret, by compare-and-set in its control state. So of nodes that begin at once one
//! is first, and the others take its secret over the links between members. A secret that is not the agreed one is never used;
//! nor is one that was in use, as its file says, put away for another: what it sealed and signed would be worth nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, CallError, Cluster, Durability, Kind, KindOptions, Mail, Placement,
    Reply, Village, secret_file,
};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::vault::Plain;
use super::village::VillageSecret;

/// The key of the one actor.
pub const KEY: &str = "main";
/// In the folder of a node's governance.
pub const FILE: &str = "village.key";
/// Where the fingerprint is in the control state.
const AGREED: &str = "governance.secret";
/// Second line of the file of a secret that keys were derived of, or may have been.
const IN_USE: &str = "in use";
/// Pause before the others are asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// What a [`SecretKeeper`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum SecretMsg {
    /// The secret, for a member. A caller from outside gets no answer.
    Fetch(Reply<Plain>),
}

/// The behaviour, and what it hands on.
#[derive(Debug, Clone)]
pub struct SecretKeeper(VillageSecret);

impl SecretKeeper {
    /// Hands on this secret.
    #[must_use]
    pub fn new(secret: VillageSecret) -> Self {
        Self(secret)
    }
}

impl Kind for SecretKeeper {
    const NAME: &'static str = "gov.secret";
    type Body = SecretMsg;

    fn options() -> KindOptions {
        // Where local state is kept, a node that just joined is not asked.
        KindOptions::default().placement(Placement::Singleton).durable(Durability::Local)
    }
}

impl Actor for SecretKeeper {
    type Msg = Mail<SecretMsg>;
    type State = ();
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        if mail.cx.principal().is_some() {
            // The port is dropped with the body.
            tracing::warn!("somebody from outside asked for the village's secret");
            return Ok(());
        }
        let SecretMsg::Fetch(reply) = mail.body;
        match self.0.bytes() {
            Some(bytes) => reply.send(Plain::new(*bytes)),
            None => reply.fail(CallError::Overloaded { retry_after_ms: 200 }),
        }
        Ok(())
    }
}

/// Why a node has no secret.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}: no key of a village; restore the file, or remove it on a node whose cluster has it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The node brought a secret in use, and its cluster has another.
    #[error(
        "{}: this secret was in use and is not that of the cluster; passwords, second factors and certificates of this node \
         would be worth nothing there",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gives no random bytes.
    #[error("no random bytes for a key")]
    NoRandom,
    /// The cluster did not agree, or did not hand the secret on, this time.
    #[error("the cluster's secret: {0}")]
    Later(String),
}

impl ShareError {
    /// Whether it may be otherwise in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Later(_))
    }
}

/// Puts the secret of the village in place: the one of its file, of its cluster, or a new one.
///
/// # Errors
/// See [`ShareError`]; only for what does not pass by itself.
pub async fn settle(village: &Village, secret: &VillageSecret, dir: Option<&Path>) -> Result<(), ShareError> {
    let path = dir.map(|dir| dir.join(FILE));
    let mut own = path.as_deref().map(read).transpose()?.flatten();
    while !village.is_draining() && !secret.is_there() {
        match step(village, secret, path.as_deref(), &mut own).await {
            Ok(()) => {}
            Err(error) if error.is_passing() => {
                tracing::debug!(%error, "no secret yet");
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

type Bytes = Zeroizing<[u8; 32]>;

/// What the node's file holds.
struct Own {
    bytes: Bytes,
    is_used: bool,
}

async fn step(
    village: &Village,
    secret: &VillageSecret,
    path: Option<&Path>,
    own: &mut Option<Own>,
) -> Result<(), ShareError> {
    let Some(cluster) = village.cluster() else {
        return put_to_use(secret, path, candidate(path, own)?);
    };
    let Some(agreed) = cluster.get(AGREED) else {
        return propose(cluster, &candidate(path, own)?).await;
    };
    let is_agreed = |bytes: &Bytes| bool::from(fingerprint(bytes).ct_eq(&agreed.value));
    match own.take() {
        Some(own) if is_agreed(&own.bytes) => return put_to_use(secret, path, own.bytes),
        Some(Own { is_used: true, .. }) => {
            return Err(ShareError::Foreign { path: path.map(Path::to_owned).unwrap_or_default() });
        }
        _ => {}
    }
    let fetched = village.addr::<SecretKeeper>(KEY).ask(SecretMsg::Fetch).await;
    let fetched = Zeroizing::new(fetched.map_err(|error| ShareError::Later(error.to_string()))?.into_vec());
    let bytes: Bytes = match fetched.as_slice().try_into() {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(_) => return Err(ShareError::Later("what came is none".to_owned())),
    };
    if !is_agreed(&bytes) {
        return Err(ShareError::Later("another one came than was agreed on".to_owned()));
    }
    put_to_use(secret, path, bytes)
}

/// From now on keys are derived of it. That is on the disk before.
fn put_to_use(secret: &VillageSecret, path: Option<&Path>, bytes: Bytes) -> Result<(), ShareError> {
    write(path, &bytes, true)?;
    secret.set(bytes);
    Ok(())
}

/// What this node brings along. It is on the disk before others can rely on it.
fn candidate(path: Option<&Path>, own: &mut Option<Own>) -> Result<Bytes, ShareError> {
    if let Some(own) = own {
        return Ok(own.bytes.clone());
    }
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes).map_err(|_| ShareError::NoRandom)?;
    write(path, &bytes, false)?;
    Ok(own.insert(Own { bytes, is_used: false }).bytes.clone())
}

/// The next look tells who was first.
async fn propose(cluster: &Cluster, bytes: &Bytes) -> Result<(), ShareError> {
    match cluster.put(AGREED, fingerprint(bytes).to_vec(), Some(0)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(ShareError::Later(error.to_string())),
    }
}

/// Tells nothing of the secret.
fn fingerprint(bytes: &Bytes) -> [u8; 32] {
    let secret = VillageSecret::default();
    secret.set(bytes.clone());
    secret.derive("its fingerprint").map_or([0; 32], |derived| *derived)
}

fn read(path: &Path) -> Result<Option<Own>, ShareError> {
    let text = match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ShareError::Io { path: path.to_owned(), source }),
    };
    let mut lines = text.lines();
    let bytes = lines.next().and_then(|line| STANDARD.decode(line).map(Zeroizing::new).ok());
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
    let is_used = match (lines.next(), lines.next()) {
        (None, None) => Some(false),
        (Some(IN_USE), None) => Some(true),
        _ => None,
    };
    let own = bytes.zip(is_used).map(|(bytes, is_used)| Own { bytes: Zeroizing::new(bytes), is_used });
    own.map(Some).ok_or_else(|| ShareError::Damaged { path: path.to_owned() })
}

fn write(path: Option<&Path>, bytes: &Bytes, is_used: bool) -> Result<(), ShareError> {
    let Some(path) = path else { return Ok(()) };
    let mark = if is_used { format!("{IN_USE}\n") } else { String::new() };
    let line = Zeroizing::new(format!("{}\n{mark}", STANDARD.encode(**bytes)));
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        secret_file::write(path, line.as_bytes())
    };
    write().map_err(|source| ShareError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
