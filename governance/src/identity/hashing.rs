//! Password hashes beside the mailbox: on blocking threads, as many at once as there are cores.

use std::collections::HashMap;
use std::sync::Arc;

use aivillage_runtime::{ActorCx, ActorRef, Mail};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::accounts::SubjectId;
use super::error::IdentityError;
use super::lockout::LockKey;
use super::message::{Answer, IdentityMsg, LoggedIn, Login, SetPassword};
use super::password::{Hasher, WeakPassword, check_strength};
use super::secret::Secret;

/// Hashes that wait or run for one tenant; each is tens of milliseconds and 19 MiB.
const MAX_PENDING: u32 = 256;

/// Hashes for all tenants of this node.
#[derive(Debug, Clone)]
pub(super) struct Hashing {
    pub(super) hasher: Arc<Hasher>,
    cores: Arc<Semaphore>,
}

impl Hashing {
    pub(super) fn new(hasher: Hasher) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { hasher: Arc::new(hasher), cores: Arc::new(Semaphore::new(cores)) }
    }
}

/// What was asked, and what came of its hash.
#[derive(Debug)]
pub(super) enum Done {
    /// A password was checked.
    Login {
        login: Login,
        lock: LockKey,
        /// Whose account, and which of its passwords was checked.
        checked: Option<(SubjectId, u64)>,
        is_right: bool,
        /// Its hash at the present cost, if that was another.
        rehashed: Option<String>,
        reply: Answer<LoggedIn>,
    },
    /// A new password was hashed.
    Password {
        subject: SubjectId,
        /// Where a wrong present password is counted.
        lock: LockKey,
        /// The newest hash before; none if there was none.
        before: Option<String>,
        hashed: Result<String, IdentityError>,
        reply: Answer<()>,
    },
}

/// The hashes of one activation.
#[derive(Debug, Default)]
pub(super) struct Pending {
    ended: Arc<Mutex<Vec<Ended>>>,
    running: HashMap<LockKey, u32>,
}

/// A hash that is done, or was not worth doing.
#[derive(Debug)]
struct Ended {
    lock: LockKey,
    done: Option<Done>,
}

impl Pending {
    /// Attempts under way for an account and network; they may all turn out to be failures.
    pub(super) fn running(&self, lock: LockKey) -> u32 {
        self.running.get(&lock).copied().unwrap_or(0)
    }

    pub(super) fn is_full(&self) -> bool {
        self.running.values().sum::<u32>() >= MAX_PENDING
    }

    /// Does `work` when a core is free, and wakes the actor.
    pub(super) fn start(
        &mut self,
        (cx, me): (&ActorCx, &ActorRef<Mail<IdentityMsg>>),
        hashing: &Hashing,
        lock: LockKey,
        work: impl FnOnce(&Hasher) -> Option<Done> + Send + 'static,
    ) {
        *self.running.entry(lock).or_default() += 1;
        let ended = self.ended.clone();
        let ending = Ending { cx: cx.clone(), me: me.clone(), ended, lock, done: None };
        let (hasher, cores, village) = (hashing.hasher.clone(), hashing.cores.clone(), cx.village().clone());
        let hash = async move {
            let Ok(_core) = cores.acquire_owned().await else { return };
            let hash = move || ending.with(work(&hasher));
            // A panic is logged there; the caller hears `NoReply`.
            drop(village.blocking("identity.hash", hash).await);
        };
        cx.village().task("identity.hash", hash).detach();
    }

    /// What is done since the last time.
    pub(super) fn take(&mut self) -> Vec<Done> {
        let ended = std::mem::take(&mut *self.ended.lock());
        for Ended { lock, .. } in &ended {
            if let Some(running) = self.running.get_mut(lock) {
                *running -= 1;
                if *running == 0 {
                    self.running.remove(lock);
                }
            }
        }
        ended.into_iter().filter_map(|ended| ended.done).collect()
    }
}

/// Tells the actor of the end, however it comes.
struct Ending {
    cx: ActorCx,
    me: ActorRef<Mail<IdentityMsg>>,
    ended: Arc<Mutex<Vec<Ended>>>,
    lock: LockKey,
    done: Option<Done>,
}

impl Ending {
    fn with(mut self, done: Option<Done>) {
        self.done = done;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.ended.lock().push(Ended { lock: self.lock, done: self.done.take() });
        self.cx.tell_self(&self.me, IdentityMsg::Hashed);
    }
}

/// Checks the password of a login. A caller that waits no more has nothing checked.
pub(super) fn check_login(
    (login, lock): (Login, LockKey),
    account: Option<(SubjectId, u64, String)>,
    salt: [u8; 16],
    reply: Answer<LoggedIn>,
) -> impl FnOnce(&Hasher) -> Option<Done> {
    move |hasher| {
        if reply.is_closed() {
            return None;
        }
        let phc = account.as_ref().map(|(.., phc)| phc.as_str());
        let is_right = hasher.verify(&login.password, phc);
        let is_outdated = is_right && phc.is_some_and(|phc| hasher.is_outdated(phc));
        let rehashed = if is_outdated { hasher.hash(&login.password, &salt).ok() } else { None };
        let checked = account.map(|(id, sets, _)| (id, sets));
        Some(Done::Login { login, lock, checked, is_right, rehashed, reply })
    }
}

/// Checks a new password against the policy and `earlier` ones, and hashes it.
pub(super) fn new_password(
    (asked, lock): (SetPassword, LockKey),
    (earlier, hints): (Vec<String>, Vec<String>),
    salt: [u8; 16],
    reply: Answer<()>,
) -> impl FnOnce(&Hasher) -> Option<Done> {
    move |hasher| {
        if reply.is_closed() {
            return None;
        }
        let hashed = hash_new(hasher, &asked, &earlier, &hints, &salt);
        let before = earlier.into_iter().next();
        Some(Done::Password { subject: asked.subject, lock, before, hashed, reply })
    }
}

fn hash_new(
    hasher: &Hasher,
    asked: &SetPassword,
    earlier: &[String],
    hints: &[String],
    salt: &[u8; 16],
) -> Result<String, IdentityError> {
    let is_present = |current: &Secret| hasher.verify(current, earlier.first().map(String::as_str));
    if !asked.current.as_ref().is_none_or(is_present) {
        return Err(IdentityError::Refused);
    }
    let hints: Vec<&str> = hints.iter().map(String::as_str).collect();
    check_strength(&asked.new, &hints)?;
    if earlier.iter().any(|phc| hasher.verify(&asked.new, Some(phc))) {
        return Err(WeakPassword::Reused.into());
    }
    hasher.hash(&asked.new, salt)
}
