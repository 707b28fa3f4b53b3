//! What `village top` knows: the newest answers of the village, and what they were a while ago.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use aivillage_runtime::telemetry::Handling;
use ratatui::crossterm::event::KeyCode;
use serde_json::Value;

use crate::cli::{
    Exit, Failure,
    client::Client,
    output::{items, text},
};

/// Messages are counted anew every few seconds, so a rate is one over this time.
pub(super) const WINDOW: Duration = Duration::from_secs(15);
/// Lines that a page key scrolls.
const PAGE: usize = 10;
/// Happenings that are asked for.
const HAPPENINGS: &str = "200";
/// Actors of each kind that are asked for, the busiest.
const ACTORS: &str = "10";

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct View {
    pub(super) look: Look,
    /// Keys are listened to.
    pub(super) interactive: bool,
    /// Why there is nothing newer.
    pub(super) failure: Option<String>,
    pub(super) page: Page,
    /// First line shown of what the page lists.
    pub(super) scroll: usize,
    pub(super) order: Order,
    looks: VecDeque<(Instant, BTreeMap<String, Counted>)>,
}

/// What the village says of itself.
#[derive(Debug, Default, Clone)]
pub(super) struct Look {
    pub(super) status: Value,
    /// Null for a village that is no cluster.
    pub(super) cluster: Value,
    /// Null when the key is not its owner's.
    pub(super) history: Value,
    /// Null likewise, and while no page shows it.
    pub(super) supervision: Value,
}

/// What is shown.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// Nodes, kinds, the newest happenings.
    #[default]
    Kinds,
    /// Nodes, who leads the groups, happenings.
    Groups,
    /// The supervision trees.
    Tree,
    /// Everything, in full: for a view that is printed.
    All,
}

impl Page {
    fn next(self) -> Self {
        match self {
            Self::Kinds => Self::Groups,
            Self::Groups => Self::Tree,
            Self::Tree | Self::All => Self::Kinds,
        }
    }

    pub(super) fn has(self, part: Self) -> bool {
        self == part || self == Self::All
    }
}

/// What the kinds are sorted by, most first.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Rate,
    Live,
    Slow,
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
    /// Microseconds that its actors took for a message.
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) waiting: u64,
    pub(super) restarts: u64,
}

/// What only rises.
#[derive(Debug, Default, Clone)]
struct Counted {
    handled: u64,
    handling: Handling,
}

/// A line of a supervision tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    /// Its name with the lines that lead to it.
    pub(super) name: String,
    pub(super) state: String,
    pub(super) restarts: u64,
    pub(super) waiting: u64,
}

impl Look {
    /// Asks the village how it is, and for what the page shows.
    ///
    /// # Errors
    /// When it does not answer, or not to this key.
    pub(super) async fn fetch(client: &Client, page: Page) -> Result<Self, Failure> {
        let tree = async {
            if page.has(Page::Tree) {
                optional(client.get(&["v1", "supervision"], &[("actors", ACTORS)]).await)
            } else {
                Ok(Value::Null)
            }
        };
        let (status, cluster, history, supervision) = futures::join!(
            client.get(&["v1", "status"], &[]),
            client.get(&["v1", "cluster"], &[]),
            client.get(&["v1", "history"], &[("limit", HAPPENINGS)]),
            tree,
        );
        Ok(Self {
            status: status?,
            cluster: optional(cluster)?,
            history: optional(history)?,
            supervision: supervision?,
        })
    }
}

/// Null for what this village does not have, or this key may not see.
fn optional(answer: Result<Value, Failure>) -> Result<Value, Failure> {
    match answer {
        Err(failure) if failure.exit == Exit::Unavailable => Err(failure),
        answer => Ok(answer.unwrap_or_default()),
    }
}

pub(super) fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

impl View {
    /// Takes over what was seen; after a failure the last view stays, with the reason.
    pub(super) fn update(&mut self, looked: Result<Look, Failure>) {
        match looked {
            Ok(look) => {
                let counted =
                    items(&look.status, "kinds").iter().map(|kind| (text(kind, "kind").to_owned(), counted(kind)));
                self.looks.push_back((Instant::now(), counted.collect()));
                while self.looks.len() > 2 && self.looks.get(1).is_some_and(|(at, _)| at.elapsed() >= WINDOW) {
                    self.looks.pop_front();
                }
                (self.look, self.failure) = (look, None);
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
        let page = match key {
            KeyCode::Tab => self.page.next(),
            KeyCode::Char('1') => Page::Kinds,
            KeyCode::Char('2') => Page::Groups,
            KeyCode::Char('3') => Page::Tree,
            _ => self.page,
        };
        if page != self.page {
            (self.page, self.scroll) = (page, 0);
        }
        if key == KeyCode::Char('s') {
            self.order = match self.order {
                Order::Rate => Order::Live,
                Order::Live => Order::Slow,
                Order::Slow => Order::Waiting,
                Order::Waiting => Order::Name,
                Order::Name => Order::Rate,
            };
        }
    }

    /// The kinds in their order.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = items(&self.look.status, "kinds").iter().map(|kind| self.kind(kind)).collect();
        // By name first, so that equal ones do not jump about.
        kinds.sort_by(|one, other| one.name.cmp(&other.name));
        match self.order {
            Order::Rate => kinds.sort_by(|one, other| other.rate.total_cmp(&one.rate)),
            Order::Live => kinds.sort_by_key(|kind| std::cmp::Reverse(kind.live)),
            Order::Slow => {
                let slow = |kind: &Kind| kind.p99_us.unwrap_or_default();
                kinds.sort_by(|one, other| slow(other).total_cmp(&slow(one)));
            }
            Order::Waiting => kinds.sort_by_key(|kind| std::cmp::Reverse(kind.waiting)),
            Order::Name => {}
        }
        kinds
    }

    fn kind(&self, kind: &Value) -> Kind {
        let name = text(kind, "kind").to_owned();
        let (rate, newest) = self.looks.front().zip(self.looks.back()).map_or_else(
            || (0.0, Handling::default()),
            |((then, before), (now, after))| {
                let [before, after] = [before, after].map(|look| look.get(&name).cloned().unwrap_or_default());
                let more = u32::try_from(after.handled.saturating_sub(before.handled)).unwrap_or(u32::MAX);
                let seconds = now.duration_since(*then).as_secs_f64();
                let rate = if seconds > 0.0 { f64::from(more) / seconds } else { 0.0 };
                let newest = after.handling.since(&before.handling);
                // Without anything newer, how it has been since the start.
                (rate, if newest.samples > 0 { newest } else { after.handling })
            },
        );
        let number = |field: &str| number(kind, field);
        Kind {
            live: number("live"),
            rate,
            p50_us: newest.p50_us,
            p99_us: newest.p99_us,
            waiting: number("waiting"),
            restarts: number("restarts"),
            name,
        }
    }

    /// The name of a member, or its id where it is not known.
    pub(super) fn name_of<'v>(&'v self, id: &'v str) -> &'v str {
        let member = items(&self.look.cluster, "members").iter().find(|member| text(member, "id") == id);
        member.map(|member| text(member, "name")).filter(|name| !name.is_empty()).unwrap_or(id)
    }

    /// The members, n2 before n10.
    pub(super) fn members(&self) -> Vec<&Value> {
        let mut members: Vec<&Value> = items(&self.look.cluster, "members").iter().collect();
        members.sort_by_key(|member| (text(member, "name").len(), text(member, "name"), text(member, "id")));
        members
    }

    /// The supervision trees, line by line.
    pub(super) fn branches(&self) -> Vec<Branch> {
        let mut branches = Vec::new();
        for tree in items(&self.look.supervision, "data") {
            grow(tree, String::new(), "", &mut branches);
        }
        branches
    }
}

fn counted(kind: &Value) -> Counted {
    // An older node does not tell its times.
    let handling = kind.get("handling").cloned().map(serde_json::from_value).and_then(Result::ok).unwrap_or_default();
    Counted { handled: number(kind, "handled"), handling }
}

/// `lead` stands before the name, `below` before those of the children.
fn grow(tree: &Value, lead: String, below: &str, branches: &mut Vec<Branch>) {
    branches.push(Branch {
        name: lead + text(tree, "name"),
        state: text(tree, "state").to_owned(),
        restarts: number(tree, "restarts"),
        waiting: number(tree, "waiting"),
    });
    let (children, more) = (items(tree, "children"), number(tree, "more"));
    for (at, child) in children.iter().enumerate() {
        let last = at + 1 == children.len() && more == 0;
        let (turn, past) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        grow(child, format!("{below}{turn}"), &format!("{below}{past}"), branches);
    }
    if more > 0 {
        let name = format!("{below}└─ and {more} more");
        branches.push(Branch { name, state: String::new(), restarts: 0, waiting: 0 });
    }
}
