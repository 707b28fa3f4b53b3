//! One node of `village up --nodes`: its process, what it says, and what happens when it ends.

use std::{
    collections::VecDeque,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::watch,
    time::Instant,
};

use super::{Order, Shared, plan::Planned};
use crate::cli::{
    Exit, Failure, Global,
    client::{Client, KEY_FILE},
    output::{self, GOOD, paint, text},
    token,
};

/// Longest line that is shown in one piece.
const LINE_MAX: u64 = 64 * 1024;
/// How long a node may take to join with a token of its own.
const TOKEN_TTL: Duration = Duration::from_mins(10);
/// How often a running node is asked for a token, and the pause in between.
const TOKEN_TRIES: u32 = 20;
const TOKEN_PAUSE: Duration = Duration::from_millis(500);

/// A node that is ready.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) key_file: PathBuf,
    pub(super) cluster_addr: String,
}

/// Keeps one node running.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeper<'f> {
    pub(super) number: usize,
    pub(super) node: &'f Planned,
    pub(super) shared: &'f Shared,
    /// It joins nobody.
    pub(super) founds: bool,
}

/// A running process and its pipes.
struct Process {
    child: Child,
    stdout: ChildStdout,
    stderr: ChildStderr,
    /// Its end tells the process to end.
    _stdin: Option<ChildStdin>,
}

/// How a process ended.
struct Ended {
    status: ExitStatus,
    /// What it said was wrong.
    said: Option<Failure>,
}

/// What is done about it.
#[derive(Debug, PartialEq)]
enum Verdict {
    Rest,
    Again(Duration),
    Fail(Exit),
}

impl Keeper<'_> {
    /// Runs the node until all are told to stop, it has ended by itself, or it cannot go on, which then holds for all.
    pub(super) async fn keep(self) {
        let (mut restarts, mut was_ready) = (Restarts::default(), false);
        loop {
            let process = match self.start().await {
                Ok(Some(process)) => process,
                Ok(None) => return,
                Err(failure) => return self.shared.fail(failure),
            };
            let ended = self.attend(process, &mut was_ready).await;
            self.shared.ready.send_if_modified(|ready| ready.remove(&self.number).is_some());
            if self.shared.stopping() {
                return self.stopped(&ended);
            }
            let how = how(ended.status);
            match self.judge(ended.status, was_ready, &mut restarts) {
                Verdict::Rest if ended.status.success() => return self.tell("stopped"),
                Verdict::Rest => return self.tell(&format!("{how}; it stays down")),
                Verdict::Again(pause) => {
                    self.tell(&format!("{how}; starting it again in {:.1} s", pause.as_secs_f64()));
                    if !self.pause(pause).await {
                        return;
                    }
                }
                Verdict::Fail(exit) => return self.shared.fail(self.failure(exit, &how, was_ready, ended.said)),
            }
        }
    }

    fn judge(&self, status: ExitStatus, was_ready: bool, restarts: &mut Restarts) -> Verdict {
        if was_ready && (status.success() || !self.shared.restart) {
            return Verdict::Rest;
        }
        if !was_ready {
            return Verdict::Fail(exit_of(status));
        }
        restarts.died(Instant::now()).map_or(Verdict::Fail(Exit::GaveUp), Verdict::Again)
    }

    fn failure(&self, exit: Exit, how: &str, was_ready: bool, said: Option<Failure>) -> Failure {
        let name = &self.node.name;
        let message = if was_ready {
            format!("{name} died {} times within {} s: giving up", Restarts::MOST, Restarts::WINDOW.as_secs())
        } else {
            format!("{name} did not start: {}", said.as_ref().map_or(how, |failure| &failure.message))
        };
        let hint = said.and_then(|failure| failure.hint);
        let failure = Failure::new(exit, message);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    fn stopped(&self, ended: &Ended) {
        if ended.status.success() {
            return self.tell("stopped");
        }
        let why = ended.said.as_ref().map_or_else(|| how(ended.status), |failure| failure.message.clone());
        self.tell(&why);
        self.shared.fail(Failure::new(Exit::Failed, format!("{}: {why}", self.node.name)));
    }

    fn tell(&self, line: &str) {
        self.shared.tell(self.number, &self.node.name, line);
    }

    /// Waits; false when all were told to stop meanwhile.
    async fn pause(&self, pause: Duration) -> bool {
        let mut order = self.shared.order.subscribe();
        tokio::time::timeout(pause, order.wait_for(|order| *order != Order::Run)).await.is_err()
    }

    /// Starts the process, with the right to join if it needs one; none when all were told to stop meanwhile.
    async fn start(&self) -> Result<Option<Process>, Failure> {
        let cannot = |error| Failure::new(Exit::Failed, format!("{} cannot be started: {error}", self.node.name));
        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        command.args(&self.node.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: Ctrl-C on the terminal is for this process, which passes it on in good order.
        command.process_group(0).kill_on_drop(true);
        if !self.founds && !self.node.is_member() {
            let Some(made) = self.token().await? else { return Ok(None) };
            // By the environment, because everybody on the machine can read the arguments of a process.
            command.env("VILLAGE__JOIN__TOKEN", text(&made, "token"));
            command.env("VILLAGE__JOIN__SEEDS", json!([text(&made, "addr")]).to_string());
        }
        let mut child = command.spawn().map_err(cannot)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(Failure::new(Exit::Failed, format!("{} has no output", self.node.name)));
        };
        Ok(Some(Process { child, stdout, stderr, _stdin: stdin }))
    }

    /// Has a node that is ready make a token.
    async fn token(&self) -> Result<Option<Value>, Failure> {
        let (mut ready, mut order) = (self.shared.ready.subscribe(), self.shared.order.subscribe());
        let mut last = None;
        for _ in 0..TOKEN_TRIES {
            let seed = tokio::select! {
                _ = order.wait_for(|order| *order != Order::Run) => return Ok(None),
                seed = ready.wait_for(|ready| !ready.is_empty()) => {
                    seed.ok().and_then(|ready| ready.values().next().cloned())
                }
            };
            let Some(seed) = seed else { return Ok(None) };
            match ask_for_token(&seed, &self.node.name).await {
                Ok(made) => return Ok(Some(made)),
                Err(failure) => last = Some(failure),
            }
            if !self.pause(TOKEN_PAUSE).await {
                return Ok(None);
            }
        }
        let why = last.map(|failure| failure.message).unwrap_or_default();
        Err(Failure::new(Exit::Unavailable, format!("{} cannot join: {why}", self.node.name)))
    }

    /// Passes on what the process says and what it is told, until it has ended.
    async fn attend(&self, process: Process, was_ready: &mut bool) -> Ended {
        let Process { mut child, stdout, stderr, _stdin } = process;
        let mut said = None;
        let out = lines(stdout, |line| self.on_output(line, was_ready));
        let err = lines(stderr, |line| match complaint(line) {
            Some(failure) => said = Some(failure),
            None => output::note(self.shared.prefixed(self.number, &self.node.name, line)),
        });
        let (status, (), ()) = tokio::join!(self.end(&mut child), out, err);
        Ended { status, said }
    }

    fn on_output(&self, line: &str, was_ready: &mut bool) {
        let ready = serde_json::from_str::<Value>(line).ok().filter(|said| said.get("ready") == Some(&true.into()));
        let Some(said) = ready else {
            return output::say(self.shared.prefixed(self.number, &self.node.name, line));
        };
        let url = text(&said, "url").to_owned();
        if self.shared.json {
            output::say(&said);
        } else {
            let seconds = said.get("seconds").and_then(Value::as_f64).unwrap_or_default();
            let again = if *was_ready { " again" } else { "" };
            self.tell(&format!("{}{again} in {seconds:.2} s at {url}", paint(GOOD, "ready")));
        }
        *was_ready = true;
        let ready = Ready {
            name: self.node.name.clone(),
            url,
            key_file: self.node.dir.join(KEY_FILE),
            cluster_addr: text(&said, "cluster_addr").to_owned(),
        };
        self.shared.ready.send_modify(|all| drop(all.insert(self.number, ready)));
    }

    /// Waits for the end of the process and passes orders on.
    async fn end(&self, child: &mut Child) -> ExitStatus {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let send = |signal| {
            if let Some(pid) = pid
                && let Err(error) = kill_process(pid, signal)
            {
                // It may have ended in this moment; then there is nothing to tell it.
                tracing::debug!(%error, "signal not sent");
            }
        };
        let (mut order, mut reread) = (self.shared.order.subscribe(), self.shared.reread.subscribe());
        let mut obeyed = Order::Run;
        loop {
            tokio::select! {
                status = child.wait() => return status.unwrap_or_else(|_| ExitStatus::from_raw(0)),
                () = changed(&mut order, obeyed) => {
                    obeyed = *self.shared.order.borrow();
                    send(if obeyed == Order::Kill { Signal::KILL } else { Signal::TERM });
                }
                Ok(()) = reread.changed() => send(Signal::HUP),
            }
        }
    }
}

/// Waits for an order that goes further than the one obeyed.
async fn changed(order: &mut watch::Receiver<Order>, obeyed: Order) {
    if order.wait_for(|order| *order > obeyed).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn ask_for_token(seed: &Ready, name: &str) -> Result<Value, Failure> {
    let (data, url, key_file) = (seed.key_file.parent().map(Into::into), seed.url.clone(), seed.key_file.clone());
    let client = Client::open(&Global { data, url: Some(url), key_file: Some(key_file), json: false })?;
    token::make(&client, 1, TOKEN_TTL, &format!("village up --nodes: {name}")).await
}

/// Reads lines until the pipe is closed.
async fn lines(pipe: impl AsyncRead + Unpin, mut each: impl FnMut(&str)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while (&mut pipe).take(LINE_MAX).read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        each(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// The failure that a command with `--json` says last.
fn complaint(line: &str) -> Option<Failure> {
    let said: Value = serde_json::from_str(line).ok()?;
    let error = said.get("error")?;
    let failure = Failure::new(Exit::Failed, error.get("message")?.as_str()?);
    Some(match error.get("hint").and_then(Value::as_str) {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

fn exit_of(status: ExitStatus) -> Exit {
    match status.code() {
        Some(2) => Exit::Usage,
        Some(3) => Exit::Refused,
        Some(4) => Exit::Unavailable,
        Some(70) => Exit::GaveUp,
        Some(78) => Exit::Unsound,
        _ => Exit::Failed,
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// When a process that died is started again.
#[derive(Debug, Default)]
struct Restarts {
    died: VecDeque<Instant>,
}

impl Restarts {
    /// Deaths within the window that are too many.
    const MOST: usize = 5;
    const WINDOW: Duration = Duration::from_mins(1);
    /// Longer than the others need to see that it is gone; shorter than a person likes to wait.
    const PAUSE: Duration = Duration::from_millis(500);

    /// The pause before the next start, twice as long each time; none after too many.
    fn died(&mut self, now: Instant) -> Option<Duration> {
        self.died.retain(|at| now.duration_since(*at) < Self::WINDOW);
        self.died.push_back(now);
        let before = self.died.len() - 1;
        (before + 1 < Self::MOST).then(|| Self::PAUSE * 2_u32.pow(u32::try_from(before).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_dies_again_and_again_is_given_up() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let pauses: Vec<_> = (0..5).map(|n| restarts.died(at(n)).map(|pause| pause.as_millis())).collect();
        assert_eq!(pauses, [Some(500), Some(1_000), Some(2_000), Some(4_000), None]);
    }

    #[test]
    fn deaths_that_are_far_apart_are_forgotten() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        for n in 0..20 {
            assert_eq!(restarts.died(start + Restarts::WINDOW * n), Some(Restarts::PAUSE));
        }
    }

    #[test]
    fn what_a_node_complains_of_is_told_from_its_log() {
        let failure = complaint(r#"{"error":{"message":"port in use","hint":"take another","exit":3}}"#).unwrap();
        assert_eq!((&*failure.message, failure.hint.as_deref()), ("port in use", Some("take another")));
        for line in ["2026-01-01 INFO village started", r#"{"level":"INFO"}"#, r#"{"error":"x"}"#] {
            assert_eq!(complaint(line), None, "{line}");
        }
    }

    #[test]
    fn ends_are_told_in_words_and_codes() {
        assert_eq!(how(ExitStatus::from_raw(9)), "killed by signal 9");
        assert_eq!(how(ExitStatus::from_raw(3 << 8)), "ended with exit code 3");
        assert_eq!(
            (exit_of(ExitStatus::from_raw(3 << 8)), exit_of(ExitStatus::from_raw(9))),
            (Exit::Refused, Exit::Failed)
        );
    }

    #[tokio::test]
    async fn lines_are_cut_where_they_are_too_long() {
        let long = "x".repeat(usize::try_from(LINE_MAX).unwrap() + 3);
        let (mut seen, text) = (Vec::new(), format!("one\n\u{fc}\r\n{long}\nlast"));
        lines(text.as_bytes(), |line| seen.push(line.chars().count())).await;
        assert_eq!(seen, [3, 1, usize::try_from(LINE_MAX).unwrap(), 3, 4]);
    }
}
