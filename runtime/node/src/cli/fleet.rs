//! `village up --nodes N`: several nodes of one village on this machine, each a process of its own.
//!
//! This process has no part in the village. It starts the nodes, tells whose line is whose, starts one again that died, and ends
//! them all. The first node founds the village; the others join with tokens that a running node made. A node that is a member
//! already just starts. Each node ends when this process does, however that ends: its standard input is a pipe from here.

mod child;
mod plan;

use std::{cell::OnceCell, collections::BTreeMap, path::Path, time::Instant};

use anstyle::{AnsiColor, Style};
use futures::future::join_all;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    Exit, Failure, Global, Outcome, config,
    options::NodeOptions,
    output::{self, BOLD, DIM, GOOD, NAME, paint},
    serve::{self, StopSignals},
};
use child::{Keeper, Ready};
pub(crate) use plan::directories;

/// What the nodes are told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Run,
    Drain,
    Kill,
}

/// What the keepers of all nodes share.
#[derive(Debug)]
struct Shared {
    order: watch::Sender<Order>,
    /// Counts the signals to read the configuration again.
    reread: watch::Sender<u32>,
    /// Nodes that are ready, by their number from 0.
    ready: watch::Sender<BTreeMap<usize, Ready>>,
    /// The first failure; the command ends with it.
    failed: OnceCell<Failure>,
    restart: bool,
    json: bool,
    quiet: bool,
    /// Columns of a node's name.
    width: usize,
}

impl Shared {
    fn stopping(&self) -> bool {
        *self.order.borrow() != Order::Run
    }

    fn order(&self, order: Order) {
        self.order.send_if_modified(|now| {
            let more = order > *now;
            *now = order.max(*now);
            more
        });
    }

    /// One node cannot go on, so none does.
    fn fail(&self, failure: Failure) {
        let _ = self.failed.set(failure);
        self.order(Order::Drain);
    }

    fn prefixed(&self, number: usize, name: &str, line: &str) -> String {
        const COLOURS: [AnsiColor; 6] = [
            AnsiColor::Cyan,
            AnsiColor::Green,
            AnsiColor::Yellow,
            AnsiColor::Magenta,
            AnsiColor::Blue,
            AnsiColor::BrightRed,
        ];
        let colour = COLOURS.get(number % COLOURS.len()).copied().unwrap_or(AnsiColor::Cyan);
        let style = Style::new().fg_color(Some(colour.into()));
        format!("{} {line}", paint(style, format_args!("{name:<width$} |", width = self.width)))
    }

    /// What this process has to say about a node.
    fn tell(&self, number: usize, name: &str, line: &str) {
        if !self.json && !self.quiet {
            output::note(self.prefixed(number, name, line));
        }
    }
}

/// Runs the nodes until all have ended.
///
/// # Errors
/// Exit 2 for a wrong configuration, 3 when the directory is that of a single node; what the first node that did not start said;
/// 1 when one did not end well or all were killed by a second signal; 70 when a node died too often.
pub(crate) async fn run(count: u16, options: &NodeOptions, restart: bool, global: &Global) -> Outcome {
    let started = Instant::now();
    let sources = options.sources(global, None);
    let cluster = sources.load().map_err(|error| config::refused(&error))?.value;
    let data = cluster.node.data.clone();
    if serve::is_node(&data) {
        return Err(Failure::new(Exit::Refused, format!("{} is the directory of a single node", data.display())).hint(
            "start it with `village up` and let others join it with `village token new`, or name another one with --data DIR",
        ));
    }
    let nodes = plan::plan(count, &sources, &cluster)?;
    let mut stop = StopSignals::listen(false)?;
    let no_handler = |error| Failure::new(Exit::Failed, format!("no signal handler: {error}"));
    let mut hangup = signal(SignalKind::hangup()).map_err(no_handler)?;
    let shared = Shared {
        order: watch::Sender::new(Order::Run),
        reread: watch::Sender::new(0),
        ready: watch::Sender::default(),
        failed: OnceCell::new(),
        restart,
        json: global.json,
        quiet: options.quiet,
        width: nodes.iter().map(|node| node.name.len()).max().unwrap_or(0),
    };
    note_what_is_left_out(&data, nodes.len(), &shared);
    let founder = nodes.iter().all(|node| !node.is_member()).then_some(0);
    let keepers = nodes.iter().enumerate().map(|(number, node)| {
        let keeper = Keeper { number, node, shared: &shared, founds: founder == Some(number) };
        Box::pin(keeper.keep())
    });
    let running = join_all(keepers);
    tokio::pin!(running);
    let mut announcing = Box::pin(announce(&shared, nodes.len(), started));
    let mut announced = false;
    loop {
        tokio::select! {
            _ = &mut running => break,
            () = &mut announcing, if !announced => announced = true,
            () = stop.first() => on_signal(&shared),
            _ = hangup.recv() => shared.reread.send_modify(|count| *count += 1),
        }
    }
    shared.failed.get().cloned().map_or(Ok(()), Err)
}

fn on_signal(shared: &Shared) {
    if shared.stopping() {
        let kept = "everything acknowledged is in the store";
        let _ = shared.failed.set(Failure::new(Exit::Failed, format!("stopped by a second signal; {kept}")));
        return shared.order(Order::Kill);
    }
    if !shared.quiet && !shared.json {
        output::note(paint(DIM, "\ndraining all nodes; a second signal stops at once"));
    }
    shared.order(Order::Drain);
}

fn note_what_is_left_out(data: &Path, count: usize, shared: &Shared) {
    let there = directories(data).len();
    if there > count && !shared.quiet && !shared.json {
        let left = output::count(there - count, "node");
        output::note(format_args!("{} has {there} nodes: {left} of them stay down", data.display()));
    }
}

/// Says once when all nodes are ready.
async fn announce(shared: &Shared, count: usize, started: Instant) {
    let mut ready = shared.ready.subscribe();
    let Ok(nodes) = ready.wait_for(|nodes| nodes.len() == count).await.map(|nodes| nodes.clone()) else { return };
    let seconds = started.elapsed().as_secs_f64();
    if shared.json {
        let urls: Vec<_> = nodes.values().map(|node| &node.url).collect();
        output::say(
            json!({ "ready": true, "nodes": count, "urls": urls, "seconds": seconds, "pid": std::process::id() }),
        );
        return;
    }
    let line = format!("{} in {seconds:.2} s: {count} nodes", paint(GOOD, "ready"));
    if shared.quiet {
        return output::say(line);
    }
    output::say(format_args!("\n  {}  {}\n", paint(BOLD, "AI Village"), paint(DIM, format_args!("{count} nodes"))));
    for node in nodes.values() {
        output::say(format_args!(
            "  {:<width$}  {}  {}",
            node.name,
            paint(NAME, &node.url),
            paint(DIM, format_args!("cluster {}  key {}", node.cluster_addr, node.key_file.display())),
            width = shared.width
        ));
    }
    let program = serve::program();
    output::say(format_args!(
        "\n  In another terminal:\n    {program} cluster status\n    {program} ask sage \"what do my notes say about ...?\"\n"
    ));
    output::say(format_args!("  {line}; Ctrl-C stops all\n"));
}
