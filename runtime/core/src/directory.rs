//! All addresses of one kind on this node, and what its senders need to know of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use ractor::ActorRef;

use crate::config::HotLimits;
use crate::dead_letters::DeadLetters;
use crate::entry::{Entry, Phase};
use crate::error::CallError;
use crate::home::Home;
use crate::kind::{KEY_MAX, Kind, KindOptions};
use crate::kind_host::HostMsg;
use crate::mail::{Wire, drop_because};
use crate::router::{Destination, KindRoute, Router};
use crate::telemetry::{KindMetrics, RuntimeMetrics};

/// The addresses of one kind.
pub(crate) struct Directory<B: Wire> {
    pub(crate) kind: &'static str,
    pub(crate) version: u16,
    options: KindOptions,
    entries: DashMap<Arc<str>, Arc<Entry<B>>>,
    pub(crate) host: ArcSwapOption<ActorRef<HostMsg<B>>>,
    closed: AtomicBool,
    limits: Arc<HotLimits>,
    dead_letters: Arc<DeadLetters>,
    runtime_metrics: Arc<RuntimeMetrics>,
    pub(crate) metrics: KindMetrics,
    live: AtomicUsize,
    pub(crate) home: Arc<Home>,
    pub(crate) route: KindRoute,
    pub(crate) router: Arc<Router>,
}

impl<B: Wire> Directory<B> {
    /// `hosted` is false for a kind that this node only sends to.
    pub(crate) fn new<K: Kind<Body = B>>(
        limits: Arc<HotLimits>,
        dead_letters: Arc<DeadLetters>,
        metrics: Arc<RuntimeMetrics>,
        router: Arc<Router>,
        hosted: bool,
    ) -> Self {
        let options = K::options();
        let home = Arc::new(Home::new(router.view.clone(), K::NAME, &options, hosted));
        router.register(&home);
        Self {
            kind: K::NAME,
            version: K::VERSION,
            home,
            route: KindRoute::of::<K>(),
            router,
            options,
            entries: DashMap::new(),
            host: ArcSwapOption::empty(),
            closed: AtomicBool::new(false),
            limits,
            dead_letters,
            metrics: metrics.kind(K::NAME),
            runtime_metrics: metrics,
            live: AtomicUsize::new(0),
        }
    }

    pub(crate) fn options(&self) -> &KindOptions {
        &self.options
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        self.limits.call_timeout()
    }

    pub(crate) fn mailbox(&self) -> u32 {
        self.options.mailbox.unwrap_or_else(|| self.limits.mailbox())
    }

    /// The entry of a key, made if it is new.
    pub(crate) fn entry(&self, key: &str) -> Result<Arc<Entry<B>>, CallError> {
        if key.len() > KEY_MAX {
            return Err(CallError::Decode { detail: format!("a key has at most {KEY_MAX} bytes, not {}", key.len()) });
        }
        if let Some(entry) = self.entries.get(key) {
            return Ok(entry.clone());
        }
        let key: Arc<str> = key.into();
        let made = self.entries.entry(key.clone()).or_insert_with(|| {
            let slot = self.home.slot(&key);
            let entry = Entry::new(key, slot, self.mailbox());
            if self.is_closed() {
                entry.slot.lock().phase = Phase::Closed;
            }
            Arc::new(entry)
        });
        Ok(made.clone())
    }

    pub(crate) fn find(&self, key: &str) -> Option<Arc<Entry<B>>> {
        self.entries.get(key).map(|entry| entry.clone())
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry<B>>> {
        self.entries.iter().map(|entry| entry.clone()).collect()
    }

    /// Asks the host to activate a key whose entry is in phase `Starting`.
    pub(crate) fn activate(&self, entry: &Arc<Entry<B>>) -> Result<(), CallError> {
        let host = self.host.load();
        let asked = host.as_ref().is_some_and(|host| host.send_message(HostMsg::Activate(entry.clone())).is_ok());
        // A host that is being restarted finds waiting mail by itself; without any host the node is going down.
        if asked || (host.is_some() && !self.is_closed()) {
            return Ok(());
        }
        let mut slot = entry.slot.lock();
        slot.phase = Phase::Idle;
        drop_because(CallError::Draining, std::mem::take(&mut slot.waiting));
        Err(CallError::Draining)
    }

    /// Refuses mail from now on.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Where messages to an entry go.
    pub(crate) fn destination<'a>(&'a self, entry: &'a Entry<B>) -> Destination<'a> {
        Destination { route: &self.route, home: &self.home, key: &entry.key, slot: entry.slot_id }
    }

    /// Activations that live now.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn activation_started(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.metrics.started();
    }

    pub(crate) fn activation_ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.metrics.ended();
    }

    pub(crate) fn dropped(&self, key: &str, reason: &'static str, count: u64) {
        self.dead_letters.record(self.kind, key, reason, count);
        self.runtime_metrics.dead_letters(self.kind, reason, count);
    }

    /// Forgets entries that nobody holds and nothing lives behind.
    pub(crate) fn sweep(&self) {
        self.entries.retain(|_, entry| {
            let slot = entry.slot.lock();
            Arc::strong_count(entry) > 1 || slot.phase != Phase::Idle || slot.crashes.is_some()
        });
    }
}
