//! How `village top` is drawn: a function of what it knows.

use ratatui::Frame;
use ratatui::backend::TestBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Row, Table};
use serde_json::Value;

use super::view::{Order, View};
use crate::cli::output::{self, items, text};

/// Draws the newest view, scrolled no further than there are kinds.
pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let kinds = view.kinds();
    view.scroll = view.scroll.min(kinds.len().saturating_sub(1));
    let members = items(&view.cluster, "members");
    let wrong: Vec<&str> = items(&view.cluster, "problems").iter().filter_map(Value::as_str).collect();
    let lines = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let nodes = if members.is_empty() { 0 } else { lines(members.len()) + 3 };
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(nodes),
        Constraint::Length(lines(wrong.len())),
        Constraint::Min(3),
    ])
    .split(frame.area());
    let [head, cluster, problems, rest] = areas[..] else { return };
    frame.render_widget(title(view), head);
    if nodes > 0 {
        draw_nodes(frame, cluster, view, members);
    }
    let wrong: Vec<_> = wrong.into_iter().map(|problem| Line::from(format!("! {problem}")).yellow()).collect();
    frame.render_widget(ratatui::text::Text::from(wrong), problems);
    let rows = kinds.iter().skip(view.scroll).map(|kind| {
        let figures =
            [kind.live.to_string(), format!("{:.1}", kind.rate), kind.waiting.to_string(), kind.restarts.to_string()];
        let busy = if kind.waiting > 0 { Style::new().yellow() } else { Style::new() };
        let figures = figures.map(|figure| Cell::from(Line::from(figure).right_aligned()));
        Row::new([Cell::from(kind.name.clone())].into_iter().chain(figures)).style(busy)
    });
    let order = match view.order {
        Order::Rate => "by messages/s",
        Order::Live => "by live",
        Order::Waiting => "by waiting",
        Order::Name => "by name",
    };
    let widths = [Constraint::Min(20), Constraint::Length(8), Constraint::Length(12), Constraint::Length(9)];
    let kinds = Table::new(rows, widths.into_iter().chain([Constraint::Length(9)]))
        .header(heading(&["kind", "live", "messages/s", "waiting", "restarts"], 1))
        .block(Block::bordered().title(format!(" kinds of this node, {order} ")));
    frame.render_widget(kinds, rest);
}

/// Names on the left, figures on the right.
fn heading(names: &[&'static str], left: usize) -> Row<'static> {
    let cells = names.iter().enumerate().map(|(at, name)| {
        let line = Line::from(*name);
        Cell::from(if at < left { line } else { line.right_aligned() })
    });
    Row::new(cells).bold()
}

fn title(view: &View) -> ratatui::text::Text<'static> {
    let status = &view.status;
    let number = |name: &str| status.get(name).and_then(Value::as_u64).unwrap_or_default();
    let health = if view.cluster.is_object() { text(&view.cluster, "health") } else { "one node" };
    let color = match health {
        "healthy" | "one node" => Color::Green,
        "no_quorum" => Color::Red,
        _ => Color::Yellow,
    };
    let facts = format!(
        "  node {}  up {}  actors {}  dead letters {}",
        text(status, "node"),
        output::time(number("uptime_s")),
        number("actors"),
        number("dead_letters")
    );
    let first = Line::from(vec![
        Span::from("village ").bold(),
        Span::from(health.replace('_', " ")).fg(color),
        Span::from(facts),
    ]);
    let second = match &view.failure {
        Some(why) => Line::from(format!("no answer, this is the last view: {why}")).red(),
        None if view.interactive => Line::from("q ends, arrows scroll, s sorts").dim(),
        None => Line::default(),
    };
    ratatui::text::Text::from(vec![first, second])
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, view: &View, members: &[Value]) {
    let mut members: Vec<&Value> = members.iter().collect();
    // n2 before n10.
    members.sort_by_key(|member| (text(member, "name").len(), text(member, "name"), text(member, "id")));
    let leader = text(&view.cluster, "leader");
    let rows = members.into_iter().map(|member| {
        let state = text(member, "state");
        let color = match state {
            "up" => Color::Green,
            "down" => Color::Red,
            _ => Color::Yellow,
        };
        let leads = items(member, "leads").iter().filter(|group| group.as_u64() != Some(0)).count();
        let role = if text(member, "id") == leader { "leads the cluster" } else { "" };
        Row::new([
            Cell::from(text(member, "name").to_owned()),
            Cell::from(text(member, "id").to_owned()),
            Cell::from(state.to_owned()).style(Style::new().fg(color)),
            Cell::from(text(member, "addr").to_owned()),
            Cell::from(Line::from(leads.to_string()).right_aligned()),
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
    let groups = Cell::from(Line::from("groups").right_aligned());
    let nodes = Table::new(rows, widths)
        .header(Row::new(names.into_iter().chain([groups])).bold())
        .block(Block::bordered().title(" nodes "));
    frame.render_widget(nodes, area);
}

/// The view as text, without the lines at the end that are empty.
pub(super) fn plain(view: &View, (width, height): (u16, u16)) -> String {
    let mut shown = view.clone();
    // Drawing into memory does not fail.
    let Ok(mut terminal) = ratatui::Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw(frame, &mut shown));
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

    use super::*;
    use crate::cli::{Exit, Failure};

    fn view() -> View {
        let mut view = View::default();
        let status = json!({
            "node": "n1id", "uptime_s": 61, "actors": 3, "dead_letters": 1,
            "kinds": [
                {"kind": "agent", "live": 2, "handled": 9, "waiting": 4, "restarts": 1},
                {"kind": "edge.job", "live": 1, "handled": 0, "waiting": 0, "restarts": 0},
            ],
        });
        let member =
            |name: &str, state: &str| json!({"name": name, "id": format!("{name}id"), "state": state, "leads": [0, 3]});
        let cluster = json!({
            "health": "degraded", "leader": "n1id", "problems": ["n2 is down"],
            "members": [member("n2", "down"), member("n1", "up")],
        });
        view.update(Ok([status, cluster]));
        view
    }

    #[test]
    fn view_shows_nodes_problems_and_kinds() {
        let plain = plain(&view(), (110, 30));
        for part in ["degraded", "node n1id", "leads the cluster", "! n2 is down", "down", "agent", "edge.job"] {
            assert!(plain.contains(part), "{part} is missing in\n{plain}");
        }
        assert!(plain.find("n1id ").unwrap() < plain.find("n2id").unwrap(), "{plain}");
    }

    #[test]
    fn a_failure_keeps_the_last_view_and_a_village_of_one_has_no_nodes() {
        let mut view = view();
        view.update(Err(Failure::new(Exit::Unavailable, "no village answers")));
        assert_eq!(view.failure.as_deref(), Some("no village answers"));
        assert_eq!(view.kinds().len(), 2);
        view.update(Ok([view.status.clone(), Value::Null]));
        assert_eq!(view.failure, None);
        let plain = plain(&view, (80, 20));
        assert!(plain.contains("one node") && !plain.contains("address"), "{plain}");
    }

    #[test]
    fn kinds_are_sorted_and_scrolled_no_further_than_they_go() {
        let mut view = view();
        view.press(KeyCode::Char('s'));
        assert_eq!((view.order, view.kinds()[0].name.as_str()), (Order::Live, "agent"));
        view.press(KeyCode::PageDown);
        let mut terminal = ratatui::Terminal::new(TestBackend::new(80, 20)).unwrap();
        terminal.draw(|frame| draw(frame, &mut view)).unwrap();
        assert_eq!(view.scroll, 1);
        view.press(KeyCode::Home);
        assert_eq!(view.scroll, 0);
    }
}
