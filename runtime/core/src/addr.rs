//! How an actor is reached: by kind and key, wherever it lives.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::directory::Directory;
use crate::entry::{Entry, Refused, Taken};
use crate::error::CallError;
use crate::kind::{Kind, Overflow};
use crate::mail::{Idem, Mail, MsgCx, Reply, Wire};
use crate::mailbox::{Gauge, RECHECK};
use crate::principal::Principal;
use crate::trace_cx::TraceCx;

/// The address of one actor: kind `K` and a key. Cheap to clone; the actor starts with the first message.
///
/// # Delivery
/// At most once. Messages from one sender arrive in order. An `ask` ends in a reply or a [`CallError`] before its
/// deadline. With an idempotency key on a durable kind the effect happens exactly once, however often it is repeated.
pub struct Addr<K: Kind> {
    target: Target<K::Body>,
    _kind: PhantomData<fn() -> K>,
}

pub(crate) enum Target<B: Wire> {
    Local(Arc<Directory<B>>, Arc<Entry<B>>),
    /// An address that cannot be: every message gets this error.
    Nowhere(CallError),
}

impl<B: Wire> Clone for Target<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Local(directory, entry) => Self::Local(directory.clone(), entry.clone()),
            Self::Nowhere(error) => Self::Nowhere(error.clone()),
        }
    }
}

impl<K: Kind> Clone for Addr<K> {
    fn clone(&self) -> Self {
        Self { target: self.target.clone(), _kind: PhantomData }
    }
}

impl<K: Kind> std::fmt::Debug for Addr<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = match &self.target {
            Target::Local(_, entry) => &*entry.key,
            Target::Nowhere(_) => "?",
        };
        write!(f, "Addr({}/{key})", K::NAME)
    }
}

impl<K: Kind> Addr<K> {
    pub(crate) fn new(target: Target<K::Body>) -> Self {
        Self { target, _kind: PhantomData }
    }

    /// Sends a message and waits until it is in the mailbox, not until it is handled.
    ///
    /// # Errors
    /// `Overloaded` when the mailbox is full (a kind with `Overflow::Wait` waits instead), `Draining`, `UnknownKind`.
    pub async fn tell(&self, body: K::Body) -> Result<(), CallError> {
        match self.target.post(Mail::from(body)) {
            Posted::Taken => Ok(()),
            other => self.target.settle(other, None).await,
        }
    }

    /// Sends a message without ever waiting.
    ///
    /// # Errors
    /// As [`Addr::tell`]; a full mailbox is always `Overloaded`.
    pub fn try_tell(&self, body: K::Body) -> Result<(), CallError> {
        match self.target.post(Mail::from(body)) {
            Posted::Taken => Ok(()),
            Posted::Refused(error) => Err(error),
            Posted::Wait(..) => Err(FULL),
            Posted::Elsewhere(mail) => self.target.send_on(mail),
        }
    }

    /// Sends a message with a reply port in it and waits for the answer.
    ///
    /// The deadline is that of the message in hand when this is first polled, else `limits.call_timeout`.
    ///
    /// # Errors
    /// Any [`CallError`]; after `Timeout` and `Panicked` the effect is unknown.
    pub async fn ask<T: Send + 'static>(&self, body: impl FnOnce(Reply<T>) -> K::Body) -> Result<T, CallError> {
        self.call().ask(body).await
    }

    /// Asks for what may be handled twice, such as all that only reads: see [`Call::repeatable`].
    ///
    /// # Errors
    /// As [`Addr::ask`].
    pub async fn query<T: Send + 'static>(&self, body: impl FnOnce(Reply<T>) -> K::Body) -> Result<T, CallError> {
        self.call().repeatable().ask(body).await
    }

    /// Starts a message with a deadline, a principal, a trace or an idempotency key of its own.
    pub fn call(&self) -> Call<'_, K> {
        Call { addr: self, cx: MsgCx::current().inherited() }
    }
}

/// A message being prepared; made by [`Addr::call`]. Inherits from the message in hand what is not set.
#[must_use = "nothing is sent until `ask` or `tell`"]
pub struct Call<'a, K: Kind> {
    addr: &'a Addr<K>,
    cx: MsgCx,
}

impl<K: Kind> std::fmt::Debug for Call<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Call({:?}, {:?})", self.addr, self.cx)
    }
}

impl<K: Kind> Call<'_, K> {
    /// Limits the wait. The deadline of the message in hand still holds if it is sooner.
    pub fn deadline(mut self, after: Duration) -> Self {
        let at = Instant::now() + after;
        let deadline = self.cx.deadline_mut();
        *deadline = Some(deadline.map_or(at, |sooner| sooner.min(at)));
        self
    }

    /// Names the effect, so that a repeated call has it once.
    pub fn idem(mut self, key: Idem) -> Self {
        self.cx.more_mut().idem = Some(key);
        self
    }

    /// Says that it does no harm when it is handled twice, such as a question: it is sent again also when nobody knows whether it
    /// was handled, because its node has died meanwhile.
    pub fn repeatable(mut self) -> Self {
        self.cx.more_mut().repeatable = true;
        self
    }

    /// Says on whose behalf.
    pub fn principal(mut self, principal: impl Into<Arc<Principal>>) -> Self {
        self.cx.more_mut().principal = Some(principal.into());
        self
    }

    /// Says which trace the message belongs to.
    pub fn trace(mut self, trace: TraceCx) -> Self {
        self.cx.more_mut().trace = Some(trace);
        self
    }

    /// As [`Addr::tell`].
    ///
    /// # Errors
    /// As [`Addr::tell`].
    pub async fn tell(self, body: K::Body) -> Result<(), CallError> {
        let deadline = self.cx.deadline();
        let posted = self.addr.target.post(Mail::new(body, self.cx));
        self.addr.target.settle(posted, deadline).await
    }

    /// As [`Addr::ask`].
    ///
    /// # Errors
    /// As [`Addr::ask`].
    pub async fn ask<T: Send + 'static>(mut self, body: impl FnOnce(Reply<T>) -> K::Body) -> Result<T, CallError> {
        let (tx, rx) = oneshot::channel();
        let deadline = self.addr.target.deadline(&mut self.cx);
        let mail = Mail::new(body(Reply::typed(tx)), self.cx);
        match self.addr.target.post(mail) {
            Posted::Taken => {}
            // Boxed, because it is rare, and large in a future that is moved for each ask.
            other => Box::pin(self.addr.target.settle(other, Some(deadline))).await?,
        }
        await_reply(rx, deadline).await
    }
}

/// Waits for an answer until `deadline`.
pub(crate) async fn await_reply<T>(
    mut rx: oneshot::Receiver<Result<T, CallError>>,
    deadline: Instant,
) -> Result<T, CallError> {
    // Most answers come before anything else happens on this worker: then the timer is never armed.
    tokio::select! {
        biased;
        answer = &mut rx => return answer.unwrap_or(Err(CallError::NoReply)),
        () = tokio::task::yield_now() => {}
    }
    match tokio::time::timeout_at(deadline, rx).await {
        Ok(Ok(answer)) => answer,
        // The port was dropped with nobody to run its drop code, as when the runtime itself ends.
        Ok(Err(_)) => Err(CallError::NoReply),
        Err(_) => Err(CallError::Timeout),
    }
}

pub(crate) const FULL: CallError = CallError::Overloaded { retry_after_ms: 50 };

pub(crate) enum Posted<B> {
    Taken,
    Refused(CallError),
    /// The mailbox is full and the kind's senders wait.
    Wait(Mail<B>, Option<Arc<Gauge>>),
    /// The actor lives on another node, or its messages have to be kept until it has answered.
    Elsewhere(Mail<B>),
}

impl<B: Wire> Target<B> {
    /// The deadline of a message: its own, or the default counted from now.
    #[inline]
    pub(crate) fn deadline(&self, cx: &mut MsgCx) -> Instant {
        *cx.deadline_mut().get_or_insert_with(|| {
            let limit = match self {
                Self::Local(directory, _) => directory.call_timeout(),
                Self::Nowhere(_) => Duration::ZERO,
            };
            Instant::now() + limit
        })
    }

    #[inline]
    pub(crate) fn post(&self, mail: Mail<B>) -> Posted<B> {
        let (directory, entry) = match self {
            Self::Local(directory, entry) => (directory, entry),
            Self::Nowhere(error) => return Posted::Refused(error.clone()),
        };
        if directory.home.is_routed(entry.slot_id) {
            return Posted::Elsewhere(mail);
        }
        match entry.send(mail) {
            Ok(Taken::Delivered) => Posted::Taken,
            Ok(Taken::Activate) => match directory.activate(entry) {
                Ok(()) => Posted::Taken,
                Err(error) => Posted::Refused(error),
            },
            Err(Refused::Error(error)) => Posted::Refused(error),
            Err(Refused::Full(mail, gauge)) => match directory.options().overflow {
                Overflow::Reject => Posted::Refused(FULL),
                Overflow::Wait => Posted::Wait(mail, gauge),
                Overflow::DropNewest => {
                    directory.dropped(&entry.key, "mailbox full", 1);
                    drop(mail);
                    Posted::Taken
                }
            },
        }
    }

    /// Finishes a post that could not be taken at once.
    pub(crate) async fn settle(&self, mut posted: Posted<B>, deadline: Option<Instant>) -> Result<(), CallError> {
        if let Posted::Elsewhere(mail) = posted {
            return self.forward(mail, deadline).await;
        }
        let deadline = deadline.or_else(|| match self {
            Self::Local(directory, _) => Some(Instant::now() + directory.call_timeout()),
            Self::Nowhere(_) => None,
        });
        loop {
            match posted {
                Posted::Taken => return Ok(()),
                Posted::Refused(error) => return Err(error),
                Posted::Wait(mail, gauge) => {
                    let room = if let Some(gauge) = gauge {
                        gauge.wait_for_room(deadline).await
                    } else {
                        // The activation is still starting; its mailbox is not there to wait at.
                        tokio::time::sleep(RECHECK).await;
                        deadline.is_none_or(|at| Instant::now() < at)
                    };
                    if !room {
                        return Err(FULL);
                    }
                    posted = self.post(mail);
                }
                Posted::Elsewhere(mail) => return self.forward(mail, deadline).await,
            }
        }
    }

    /// Takes a message to another node; its answer has been delivered when this resolves.
    async fn forward(&self, mail: Mail<B>, deadline: Option<Instant>) -> Result<(), CallError> {
        let (directory, entry) = match self {
            Self::Local(directory, entry) => (directory, entry),
            Self::Nowhere(error) => return Err(error.clone()),
        };
        let to = directory.destination(entry);
        let Some(message) = directory.router.send_now(to, mail)? else { return Ok(()) };
        let deadline = deadline.unwrap_or_else(|| Instant::now() + directory.call_timeout());
        directory.router.forward(to, message, deadline).await
    }

    /// Takes a message to another node in the background.
    pub(crate) fn send_on(&self, mail: Mail<B>) -> Result<(), CallError> {
        let Self::Local(directory, entry) = self else { return Err(FULL) };
        let Some(message) = directory.router.send_now(directory.destination(entry), mail)? else { return Ok(()) };
        let Some(guard) = directory.router.enter_background() else {
            message.refuse(FULL);
            return Err(FULL);
        };
        let (directory, entry) = (directory.clone(), entry.clone());
        let deadline = Instant::now() + directory.call_timeout();
        let router = directory.router.clone();
        router
            .tasks()
            .spawn("forward", async move {
                let _guard = guard;
                if directory.router.forward(directory.destination(&entry), message, deadline).await.is_err() {
                    directory.dropped(&entry.key, "not reached", 1);
                }
            })
            .detach();
        Ok(())
    }
}
