//! What `village top` knows: the newest answers of the village, and what they were a while ago.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::KeyCode;
use serde_json::Value;

use crate::cli::{
    Exit, Failure,
    client::Client,
    output::{items, text},
};

/// Messages are counted anew every few seconds, so a rate is one over this time.
const WINDOW: Duration = Duration::from_secs(15);
/// Lines that a page key scrolls.
const PAGE: usize = 10;

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct View {
    pub(super) status: Value,
    /// Null for a village that is no cluster.
    pub(super) cluster: Value,
    /// Keys are listened to.
    pub(super) interactive: bool,
    /// Why there is nothing newer.
    pub(super) failure: Option<String>,
    /// First kind shown.
    pub(super) scroll: usize,
    pub(super) order: Order,
    history: VecDeque<(Instant, BTreeMap<String, u64>)>,
}

/// What the kinds are sorted by, most first.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Rate,
    Live,
    Waiting,
    Name,
}

/// A kind as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kind {
    pub(super) name: String,
    pub(super) live: u64,
    /// Messages a second.
    pub(super) rate: f64,
    pub(super) waiting: u64,
    pub(super) restarts: u64,
}

/// Asks the village how it is: its status, and its cluster if it is one.
pub(super) async fn fetch(client: &Client) -> Result<[Value; 2], Failure> {
    let status = client.get(&["v1", "status"], &[]).await?;
    match client.get(&["v1", "cluster"], &[]).await {
        Ok(cluster) => Ok([status, cluster]),
        Err(failure) if failure.exit == Exit::Unavailable => Err(failure),
        Err(_) => Ok([status, Value::Null]),
    }
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

impl View {
    /// Takes over what was seen; after a failure the last view stays, with the reason.
    pub(super) fn update(&mut self, looked: Result<[Value; 2], Failure>) {
        match looked {
            Ok([status, cluster]) => {
                let handled = items(&status, "kinds").iter();
                let handled = handled.map(|kind| (text(kind, "kind").to_owned(), number(kind, "handled"))).collect();
                self.history.push_back((Instant::now(), handled));
                while self.history.len() > 2 && self.history.get(1).is_some_and(|(at, _)| at.elapsed() >= WINDOW) {
                    self.history.pop_front();
                }
                (self.status, self.cluster, self.failure) = (status, cluster, None);
            }
            Err(failure) => self.failure = Some(failure.message),
        }
    }

    pub(super) fn press(&mut self, key: KeyCode) {
        self.scroll = match key {
            KeyCode::Up => self.scroll.saturating_sub(1),
            KeyCode::Down => self.scroll + 1,
            KeyCode::PageUp => self.scroll.saturating_sub(PAGE),
            KeyCode::PageDown => self.scroll + PAGE,
            KeyCode::Home => 0,
            _ => self.scroll,
        };
        if key == KeyCode::Char('s') {
            self.order = match self.order {
                Order::Rate => Order::Live,
                Order::Live => Order::Waiting,
                Order::Waiting => Order::Name,
                Order::Name => Order::Rate,
            };
        }
    }

    /// The kinds in their order.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = items(&self.status, "kinds").iter().map(|kind| self.kind(kind)).collect();
        // By name first, so that equal ones do not jump about.
        kinds.sort_by(|one, other| one.name.cmp(&other.name));
        match self.order {
            Order::Rate => kinds.sort_by(|one, other| other.rate.total_cmp(&one.rate)),
            Order::Live => kinds.sort_by_key(|kind| std::cmp::Reverse(kind.live)),
            Order::Waiting => kinds.sort_by_key(|kind| std::cmp::Reverse(kind.waiting)),
            Order::Name => {}
        }
        kinds
    }

    fn kind(&self, kind: &Value) -> Kind {
        let name = text(kind, "kind").to_owned();
        let rate = self.history.front().zip(self.history.back()).map_or(0.0, |((then, before), (now, after))| {
            let count = |of: &BTreeMap<String, u64>| of.get(&name).copied().unwrap_or_default();
            let more = u32::try_from(count(after).saturating_sub(count(before))).unwrap_or(u32::MAX);
            let seconds = now.duration_since(*then).as_secs_f64();
            if seconds > 0.0 { f64::from(more) / seconds } else { 0.0 }
        });
        let number = |field: &str| number(kind, field);
        Kind { live: number("live"), rate, waiting: number("waiting"), restarts: number("restarts"), name }
    }
}
