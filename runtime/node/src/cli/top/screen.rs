//! How `village top` is drawn: a function of what it knows.

use ratatui::Frame;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Row, Table};
use serde_json::Value;

use super::view::{Order, Page, View, WINDOW, number};
use crate::cli::output::{self, items, text};

/// Lines that the newest happenings get beside something else.
const FEW: u16 = 8;
/// Lines that what a page is about gets in any case.
const LEAST: u16 = 5;

/// A part of the screen.
struct Pane {
    /// Lines that show all of it.
    lines: usize,
    height: Height,
    draw: fn(&mut Frame<'_>, Rect, &View),
}

/// How many lines a part gets.
#[derive(Clone, Copy)]
enum Height {
    /// All it has.
    Full,
    /// What is left; it is scrolled.
    Rest,
    /// A few.
    Few,
}

/// The parts of the page, from top to bottom.
fn panes(view: &View) -> Vec<Pane> {
    let (page, cluster) = (view.page, &view.look.cluster);
    let (members, groups) = (items(cluster, "members").len(), items(cluster, "groups").len());
    let (problems, happenings) = (items(cluster, "problems").len(), items(&view.look.history, "data").len());
    let mut panes = Vec::new();
    let mut add = |is_there: bool, lines: usize, height: Height, draw: fn(&mut Frame<'_>, Rect, &View)| {
        if is_there {
            panes.push(Pane { lines, height: if page == Page::All { Height::Full } else { height }, draw });
        }
    };
    let nodes = page != Page::Tree && members > 0;
    add(nodes, members + 3, Height::Full, draw_nodes);
    add(nodes && problems > 0, problems, Height::Full, draw_problems);
    add(page.has(Page::Kinds), items(&view.look.status, "kinds").len() + 3, Height::Rest, draw_kinds);
    add(page.has(Page::Groups) && groups > 0, groups + 3, Height::Rest, draw_groups);
    let alone = page == Page::Groups && groups == 0;
    add(page != Page::Tree, happenings.max(1) + 2, if alone { Height::Rest } else { Height::Few }, draw_history);
    add(page.has(Page::Tree), view.branches().len().max(1) + 3, Height::Rest, draw_tree);
    panes
}

/// Lines of what the page scrolls.
fn scrolled(view: &View) -> usize {
    match view.page {
        Page::Kinds | Page::All => items(&view.look.status, "kinds").len(),
        Page::Groups if items(&view.look.cluster, "groups").is_empty() => items(&view.look.history, "data").len(),
        Page::Groups => items(&view.look.cluster, "groups").len(),
        Page::Tree => view.branches().len(),
    }
}

/// Draws the newest view, scrolled no further than there are lines.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View) {
    view.scroll = view.scroll.min(scrolled(view).saturating_sub(1));
    let panes = panes(view);
    let constraint = |pane: &Pane| {
        let lines = u16::try_from(pane.lines).unwrap_or(u16::MAX);
        match pane.height {
            Height::Full => Constraint::Length(lines),
            Height::Rest => Constraint::Min(LEAST),
            Height::Few => Constraint::Length(lines.min(FEW)),
        }
    };
    let heights = [Constraint::Length(2)].into_iter().chain(panes.iter().map(constraint));
    let areas = Layout::vertical(heights).split(frame.area());
    let mut areas = areas.iter().copied();
    if let Some(head) = areas.next() {
        frame.render_widget(title(view), head);
    }
    for (pane, area) in panes.iter().zip(areas) {
        (pane.draw)(frame, area, view);
    }
}

/// Names on the left, figures on the right.
fn heading(names: &[&'static str], left: usize) -> Row<'static> {
    let cells = names.iter().enumerate().map(|(at, name)| {
        let line = Line::from(*name);
        Cell::from(if at < left { line } else { line.right_aligned() })
    });
    Row::new(cells).bold()
}

fn right(figure: impl Into<String>) -> Cell<'static> {
    Cell::from(Line::from(figure.into()).right_aligned())
}

fn title(view: &View) -> Text<'static> {
    let (status, cluster) = (&view.look.status, &view.look.cluster);
    let health = if cluster.is_object() { text(cluster, "health") } else { "one node" };
    let color = match health {
        "healthy" | "one node" => Color::Green,
        "no_quorum" => Color::Red,
        _ => Color::Yellow,
    };
    let facts = format!(
        "  node {}  up {}  actors {}  dead letters {}",
        text(status, "node"),
        output::time(number(status, "uptime_s")),
        number(status, "actors"),
        number(status, "dead_letters")
    );
    let first = Line::from(vec![
        Span::from("village ").bold(),
        Span::from(health.replace('_', " ")).fg(color),
        Span::from(facts),
    ]);
    let second = match &view.failure {
        Some(why) => Line::from(format!("no answer, this is the last view: {why}")).red(),
        None if view.interactive => keys(view.page),
        None => Line::default(),
    };
    Text::from(vec![first, second])
}

/// What keys do; the page that is shown stands out.
fn keys(page: Page) -> Line<'static> {
    let pages = [("1 kinds", Page::Kinds), ("2 groups", Page::Groups), ("3 tree", Page::Tree)];
    let mut spans = Vec::new();
    for (name, its) in pages {
        let name = Span::from(name);
        spans.extend([if its == page { name.reversed() } else { name.dim() }, Span::from("  ")]);
    }
    let sorts = if page == Page::Kinds { ", s sorts" } else { "" };
    spans.push(Span::from(format!("Tab next  arrows scroll{sorts}, q ends")).dim());
    Line::from(spans)
}

fn draw_problems(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let problems = items(&view.look.cluster, "problems").iter().filter_map(Value::as_str);
    let problems: Vec<_> = problems.map(|problem| Line::from(format!("! {problem}")).yellow()).collect();
    frame.render_widget(Text::from(problems), area);
}

fn draw_kinds(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let kinds = view.kinds();
    let rows = kinds.into_iter().skip(view.scroll).map(|kind| {
        let busy = if kind.waiting > 0 { Style::new().yellow() } else { Style::new() };
        let figures = [
            kind.live.to_string(),
            format!("{:.1}", kind.rate),
            duration(kind.p50_us),
            duration(kind.p99_us),
            kind.waiting.to_string(),
            kind.restarts.to_string(),
        ];
        Row::new([Cell::from(kind.name)].into_iter().chain(figures.map(right))).style(busy)
    });
    let order = match view.order {
        Order::Rate => "by messages/s",
        Order::Live => "by live",
        Order::Slow => "by p99",
        Order::Waiting => "by waiting",
        Order::Name => "by name",
    };
    let widths = [20, 7, 11, 9, 9, 8, 8].map(Constraint::Length);
    let first = [Constraint::Min(20)];
    let title = format!(" kinds of this node, {order}; times for a message in the last {} s ", WINDOW.as_secs());
    let kinds = Table::new(rows, first.into_iter().chain(widths.into_iter().skip(1)))
        .header(heading(&["kind", "live", "messages/s", "p50", "p99", "waiting", "restarts"], 1))
        .block(Block::bordered().title(title));
    frame.render_widget(kinds, area);
}

/// Three digits and a unit.
fn duration(us: Option<f64>) -> String {
    let Some(us) = us else { return "-".to_owned() };
    let (value, unit) = match us {
        us if us < 1e3 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let leader = text(&view.look.cluster, "leader");
    let rows = view.members().into_iter().map(|member| {
        let state = text(member, "state");
        let color = match state {
            "up" => Color::Green,
            "down" => Color::Red,
            _ => Color::Yellow,
        };
        let role = if text(member, "id") == leader { "leads the cluster" } else { "" };
        Row::new([
            Cell::from(text(member, "name").to_owned()),
            Cell::from(text(member, "id").to_owned()),
            Cell::from(state.to_owned()).style(Style::new().fg(color)),
            Cell::from(text(member, "addr").to_owned()),
            right(leads(member).to_string()),
            Cell::from(role),
        ])
    });
    let widths = [
        Constraint::Min(10),
        Constraint::Length(17),
        Constraint::Length(9),
        Constraint::Length(22),
        Constraint::Length(7),
        Constraint::Length(18),
    ];
    let names = ["name", "id", "state", "address"].map(Cell::from);
    let nodes = Table::new(rows, widths)
        .header(Row::new(names.into_iter().chain([right("groups")])).bold())
        .block(Block::bordered().title(" nodes "));
    frame.render_widget(nodes, area);
}

/// How many groups a member leads, besides the control group.
fn leads(member: &Value) -> usize {
    items(member, "leads").iter().filter(|group| group.as_u64() != Some(0)).count()
}

fn draw_groups(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let names = |group: &Value, field: &str| {
        let ids = items(group, field).iter().filter_map(Value::as_str);
        let mut names: Vec<_> = ids.map(|id| view.name_of(id)).collect();
        names.sort_by_key(|name| (name.len(), *name));
        if names.is_empty() { "-".to_owned() } else { names.join(" ") }
    };
    let rows = items(&view.look.cluster, "groups").iter().skip(view.scroll).map(|group| {
        let number = number(group, "group");
        let name = if number == 0 { "control".to_owned() } else { number.to_string() };
        let leader = group.get("leader").and_then(Value::as_str);
        let leader = leader.map_or(Cell::from("none").red(), |id| Cell::from(view.name_of(id).to_owned()));
        let applied = group.get("applied").and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |at| at.to_string());
        Row::new([
            Cell::from(name),
            leader,
            Cell::from(names(group, "voters")),
            Cell::from(names(group, "learners")),
            right(text_or_number(group, "term")),
            right(applied),
        ])
    });
    let spread: Vec<_> =
        view.members().into_iter().map(|member| format!("{} {}", text(member, "name"), leads(member))).collect();
    let widths = [
        Constraint::Length(8),
        Constraint::Min(10),
        Constraint::Length(24),
        Constraint::Length(16),
        Constraint::Length(7),
        Constraint::Length(10),
    ];
    let groups = Table::new(rows, widths)
        .header(heading(&["group", "leader", "voters", "learners", "term", "applied"], 4))
        .block(Block::bordered().title(format!(" groups led: {} ", spread.join(", "))));
    frame.render_widget(groups, area);
}

fn text_or_number(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn draw_history(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let block = Block::bordered().title(" what happened, newest first, UTC ");
    let history = items(&view.look.history, "data");
    if history.is_empty() {
        let why = if view.look.history.is_null() { "for the key of the village's owner" } else { "nothing yet" };
        return frame.render_widget(ratatui::widgets::Paragraph::new(Line::from(why).dim()).block(block), area);
    }
    // Only where nothing else is scrolled.
    let first =
        if view.page == Page::Groups && items(&view.look.cluster, "groups").is_empty() { view.scroll } else { 0 };
    let rows = history.iter().skip(first).map(|happening| {
        let what = text(happening, "what");
        let style = match what {
            "crash" | "restart" | "quarantine" => Style::new().red(),
            _ => Style::new().cyan(),
        };
        let times = match number(happening, "count") {
            0 | 1 => String::new(),
            count => format!("  {count} times"),
        };
        Row::new([
            Cell::from(clock(number(happening, "at_ms"))),
            Cell::from(what.to_owned()).style(style),
            Cell::from(text(happening, "about").to_owned()),
            Cell::from(format!("{}{times}", text(happening, "detail"))),
        ])
    });
    let widths = [Constraint::Length(8), Constraint::Length(10), Constraint::Length(20), Constraint::Min(20)];
    frame.render_widget(Table::new(rows, widths).block(block), area);
}

/// The time of day, UTC.
fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn draw_tree(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let block = Block::bordered().title(" supervision tree of this node ");
    let branches = view.branches();
    if branches.is_empty() {
        let why = if view.look.supervision.is_null() { "not told, or for the owner's key" } else { "nothing yet" };
        return frame.render_widget(ratatui::widgets::Paragraph::new(Line::from(why).dim()).block(block), area);
    }
    let first = if view.page == Page::Tree { view.scroll } else { 0 };
    let rows = branches.into_iter().skip(first).map(|branch| {
        let style = match &*branch.state {
            "running" | "" => Style::new(),
            "idle" | "starting" | "ending" => Style::new().yellow(),
            _ => Style::new().red(),
        };
        let figure = |figure: u64| right(if figure == 0 { String::new() } else { figure.to_string() });
        Row::new([
            Cell::from(branch.name),
            Cell::from(branch.state).style(style),
            figure(branch.waiting),
            figure(branch.restarts),
        ])
    });
    let widths = [Constraint::Min(30), Constraint::Length(12), Constraint::Length(9), Constraint::Length(9)];
    let tree = Table::new(rows, widths).header(heading(&["who", "state", "waiting", "restarts"], 2)).block(block);
    frame.render_widget(tree, area);
}

/// The whole view as text, without lines that are empty.
pub(super) fn plain(view: &View, width: u16) -> String {
    let mut shown = view.clone();
    (shown.page, shown.scroll) = (Page::All, 0);
    let lines = panes(&shown).iter().map(|pane| pane.lines).sum::<usize>() + 2;
    // A terminal in memory has this many cells; what a village lists is far below.
    let height = u16::try_from(lines).unwrap_or(u16::MAX).min(u16::MAX / width.max(1));
    draw_plain(&mut shown, (width, height))
}

fn draw_plain(shown: &mut View, (width, height): (u16, u16)) -> String {
    // Drawing into memory does not fail.
    let Ok(mut terminal) = ratatui::Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw(frame, shown));
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(width));
    let rows = rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
    let rows: Vec<_> = rows.map(|row| row.trim_end().to_owned()).collect();
    let blank = |row: &&String| row.trim_matches(['│', ' ']).is_empty();
    rows.iter().filter(|row| !blank(row)).cloned().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyCode;
    use serde_json::json;

    use super::super::view::Look;
    use super::*;
    use crate::cli::{Exit, Failure};

    fn look() -> Look {
        let handling = json!({"samples": 2, "p50_us": 2.5, "p99_us": 4000.0, "buckets": [[2.5, 1], [4000.0, 1]]});
        let status = json!({
            "node": "n1id", "uptime_s": 61, "actors": 3, "dead_letters": 1,
            "kinds": [
                {"kind": "agent", "live": 2, "handled": 9, "waiting": 4, "restarts": 1, "handling": handling},
                {"kind": "edge.job", "live": 1, "handled": 0, "waiting": 0, "restarts": 0},
            ],
        });
        let member = |name: &str, state: &str, leads: &[u8]| json!({"name": name, "id": format!("{name}id"), "state": state, "addr": "10.0.0.1:4100", "leads": leads});
        let group = |group: u8, leader: Option<&str>, voters: &[&str]| json!({"group": group, "leader": leader, "term": 7, "voters": voters, "learners": [], "applied": 40 + group});
        let cluster = json!({
            "health": "degraded", "leader": "n1id", "problems": ["n2 is down"],
            "members": [member("n2", "down", &[]), member("n1", "up", &[0, 1])],
            "groups": [group(0, Some("n1id"), &["n2id", "n1id"]), group(1, Some("n1id"), &["n1id"]), group(2, None, &[])],
        });
        let happening = |seconds: u64, what: &str, about: &str, detail: &str, count: u64| json!({"at_ms": seconds * 1000, "what": what, "about": about, "detail": detail, "count": count});
        let history = json!({"data": [
            happening(86_400 + 3_723, "crash", "agent", "out of paper", 3),
            happening(86_400 + 60, "leader", "group 1", "led by n1", 1),
            happening(86_399, "member", "n2", "down: silent", 1),
        ]});
        let branch = |name: &str, state: &str, children: Vec<Value>, more: u64| json!({"name": name, "state": state, "restarts": 0, "waiting": 0, "children": children, "more": more});
        let mut sage = branch("local:sage", "running", Vec::new(), 0);
        (sage["waiting"], sage["restarts"]) = (4.into(), 1.into());
        let kinds = vec![branch("agent", "running", vec![sage], 2), branch("edge.job", "restarting", Vec::new(), 0)];
        let trees = vec![
            branch("root", "running", kinds, 0),
            branch("cluster", "running", vec![branch("sys.link", "running", Vec::new(), 0)], 0),
        ];
        Look { status, cluster, history, supervision: json!({"data": trees}) }
    }

    fn view() -> View {
        let mut view = View::default();
        view.interactive = true;
        view.update(Ok(look()));
        view
    }

    fn shown(key: char) -> String {
        let mut view = view();
        view.press(KeyCode::Char(key));
        draw_plain(&mut view, (100, 26))
    }

    #[test]
    fn first_page_shows_nodes_problems_kinds_and_what_happened() {
        insta::assert_snapshot!(shown('1'), @r"
        village degraded  node n1id  up 1m 1s  actors 3  dead letters 1
        1 kinds  2 groups  3 tree  Tab next  arrows scroll, s sorts, q ends
        ┌ nodes ───────────────────────────────────────────────────────────────────────────────────────────┐
        │name                 id                state     address                 groups                   │
        │n1                   n1id              up        10.0.0.1:4100                1 leads the cluster │
        │n2                   n2id              down      10.0.0.1:4100                0                   │
        └──────────────────────────────────────────────────────────────────────────────────────────────────┘
        ! n2 is down
        ┌ kinds of this node, by messages/s; times for a message in the last 15 s ─────────────────────────┐
        │kind                                        live  messages/s       p50       p99  waiting restarts│
        │agent                                          2         0.0   2.50 µs   4.00 ms        4        1│
        │edge.job                                       1         0.0         -         -        0        0│
        └──────────────────────────────────────────────────────────────────────────────────────────────────┘
        ┌ what happened, newest first, UTC ────────────────────────────────────────────────────────────────┐
        │01:02:03 crash      agent                out of paper  3 times                                    │
        │00:01:00 leader     group 1              led by n1                                                │
        │23:59:59 member     n2                   down: silent                                             │
        └──────────────────────────────────────────────────────────────────────────────────────────────────┘
        ");
    }

    #[test]
    fn second_page_shows_who_leads_what() {
        insta::assert_snapshot!(shown('2'), @r"
        village degraded  node n1id  up 1m 1s  actors 3  dead letters 1
        1 kinds  2 groups  3 tree  Tab next  arrows scroll, q ends
        ┌ nodes ───────────────────────────────────────────────────────────────────────────────────────────┐
        │name                 id                state     address                 groups                   │
        │n1                   n1id              up        10.0.0.1:4100                1 leads the cluster │
        │n2                   n2id              down      10.0.0.1:4100                0                   │
        └──────────────────────────────────────────────────────────────────────────────────────────────────┘
        ! n2 is down
        ┌ groups led: n1 1, n2 0 ──────────────────────────────────────────────────────────────────────────┐
        │group    leader                       voters                   learners            term    applied│
        │control  n1                           n1 n2                    -                      7         40│
        │1        n1                           n1                       -                      7         41│
        │2        none                         -                        -                      7         42│
        └──────────────────────────────────────────────────────────────────────────────────────────────────┘
        ┌ what happened, newest first, UTC ────────────────────────────────────────────────────────────────┐
        │01:02:03 crash      agent                out of paper  3 times                                    │
        │00:01:00 leader     group 1              led by n1                                                │
        │23:59:59 member     n2                   down: silent                                             │
        └──────────────────────────────────────────────────────────────────────────────────────────────────┘
        ");
    }

    #[test]
    fn third_page_shows_the_supervision_tree() {
        insta::assert_snapshot!(shown('3'), @r"
        village degraded  node n1id  up 1m 1s  actors 3  dead letters 1
        1 kinds  2 groups  3 tree  Tab next  arrows scroll, q ends
        ┌ supervision tree of this node ───────────────────────────────────────────────────────────────────┐
        │who                                                               state          waiting  restarts│
        │root                                                              running                         │
        │├─ agent                                                          running                         │
        ││  ├─ local:sage                                                  running              4         1│
        ││  └─ and 2 more                                                                                  │
        │└─ edge.job                                                       restarting                      │
        │cluster                                                           running                         │
        │└─ sys.link                                                       running                         │
        └──────────────────────────────────────────────────────────────────────────────────────────────────┘
        ");
    }

    #[test]
    fn a_printed_view_has_everything_once() {
        let plain = plain(&view(), 110);
        for part in ["leads the cluster", "! n2 is down", "edge.job", "groups led", "out of paper", "local:sage"] {
            assert!(plain.contains(part), "{part} is missing in\n{plain}");
        }
        for part in [" nodes ", " kinds of", " groups led", " what happened", " supervision tree"] {
            assert_eq!(plain.matches(part).count(), 1, "{part} in\n{plain}");
        }
    }

    #[test]
    fn a_failure_keeps_the_last_view_and_a_village_of_one_has_no_nodes() {
        let mut view = view();
        view.update(Err(Failure::new(Exit::Unavailable, "no village answers")));
        assert_eq!(view.failure.as_deref(), Some("no village answers"));
        assert_eq!(view.kinds().len(), 2);
        view.update(Ok(Look { cluster: Value::Null, history: Value::Null, ..look() }));
        assert_eq!(view.failure, None);
        let plain = plain(&view, 80);
        assert!(plain.contains("one node") && plain.contains("for the key of"), "{plain}");
        assert!(!plain.contains("address") && !plain.contains("groups led"), "{plain}");
    }

    #[test]
    fn kinds_are_sorted_and_scrolled_no_further_than_they_go() {
        let mut view = view();
        view.press(KeyCode::Char('s'));
        assert_eq!((view.order, view.kinds()[0].name.as_str()), (Order::Live, "agent"));
        view.press(KeyCode::PageDown);
        draw_plain(&mut view, (80, 20));
        assert_eq!(view.scroll, 1);
        view.press(KeyCode::Tab);
        assert_eq!((view.page, view.scroll), (Page::Groups, 0));
    }

    #[test]
    fn times_are_those_since_the_first_look_or_else_of_all() {
        let mut view = view();
        assert_eq!((view.kinds()[0].p50_us, view.kinds()[1].p50_us), (Some(2.5), None));
        let mut later = look();
        later.status["kinds"][0]["handling"]["buckets"] = json!([[2.5, 1], [30.0, 5], [4000.0, 1]]);
        view.update(Ok(later));
        assert_eq!((view.kinds()[0].p50_us, view.kinds()[0].p99_us), (Some(30.0), Some(30.0)));
    }

    #[test]
    fn durations_have_three_digits() {
        let shown = [None, Some(0.25), Some(12.5), Some(250.0), Some(3_000.0), Some(1_500_000.0)].map(duration);
        assert_eq!(shown, ["-", "0.25 µs", "12.5 µs", "250 µs", "3.00 ms", "1.50 s"]);
    }
}
