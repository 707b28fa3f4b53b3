//! `village top`: nodes, kinds, groups, happenings and the supervision tree, live.

mod screen;
mod view;

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use self::view::{Look, Page, View};
use super::{
    Exit, Failure, Global, Outcome,
    client::Client,
    output::{self, is_terminal},
};

/// How long the keyboard is waited for before it is seen whether the view has ended.
const KEY: Duration = Duration::from_millis(100);
/// Columns of a view that is printed.
const PLAIN: u16 = 110;

/// Arguments of `village top`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village top
  village top --once
  village top --json | jq '.status.kinds[] | {kind, p99: .handling.p99_us}'

Keys: 1 kinds, 2 groups, 3 supervision tree, Tab the next; arrows, PageUp and PageDown scroll; s changes the order of the
kinds; q, Esc or Ctrl-C ends it. How long messages take is measured on the node that answers, for some of them.")]
pub(crate) struct Top {
    /// Print all pages once as text, as it is done when the output is no terminal.
    #[arg(long)]
    once: bool,
    /// How often it looks.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    every: Duration,
}

impl Top {
    /// Shows what is there until it is told to stop.
    ///
    /// # Errors
    /// No village at the start (exit 4), or a wrong key (exit 3).
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let mut client = Client::open(global)?;
        let mut view = View::default();
        let first = Look::fetch(&client, Page::All).await?;
        if global.json {
            let Look { status, cluster, history, supervision } = first;
            output::json(&json!({
                "status": status, "cluster": cluster, "history": history["data"], "supervision": supervision["data"],
            }));
            return Ok(());
        }
        view.update(Ok(first));
        if self.once || !is_terminal() || !std::io::stdin().is_terminal() {
            output::say(screen::plain(&view, PLAIN));
            return Ok(());
        }
        view.interactive = true;
        let failed = |error: std::io::Error| Failure::new(Exit::Failed, format!("the terminal failed: {error}"));
        let (pressed, mut keys) = mpsc::channel(16);
        let reading = std::thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&pressed));
        reading.map_err(failed)?;
        // Restores the terminal at a panic too.
        let mut terminal = ratatui::try_init().map_err(failed)?;
        let mut tick = interval(self.every.max(KEY));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = loop {
            if let Err(error) = terminal.draw(|frame| screen::draw(frame, &mut view)) {
                break Err(failed(error));
            }
            tokio::select! {
                key = keys.recv() => match key {
                    Some(key) if !is_end(&key) => {
                        let page = view.page;
                        view.press(key.code);
                        if view.page != page {
                            // What it shows may not have been asked for.
                            tick.reset_immediately();
                        }
                    }
                    _ => break Ok(()),
                },
                _ = tick.tick() => {
                    let looked = Look::fetch(&client, view.page).await;
                    if looked.is_err() && let Ok(another) = Client::open(global) {
                        // The node may be back under another address.
                        client = another;
                    }
                    view.update(looked);
                }
            }
        };
        ratatui::restore();
        ended
    }
}

fn is_end(key: &KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    control_c || matches!(key.code, KeyCode::Esc | KeyCode::Char('q'))
}

/// Ends when nobody listens any more, or the keyboard is gone.
fn read_keys(pressed: &mpsc::Sender<KeyEvent>) {
    while !pressed.is_closed() {
        match event::poll(KEY).and_then(|is_there| is_there.then(event::read).transpose()) {
            Ok(Some(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                if pressed.blocking_send(key).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}
