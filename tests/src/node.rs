//! A running village process.

use std::{
    fs,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::PATIENCE;

/// A village that was ready when it was started. Killed when dropped.
#[derive(Debug)]
pub struct Node {
    /// Address of the API, without a slash at the end.
    pub url: String,
    /// Address of health and metrics.
    pub admin_url: String,
    /// The admin key.
    pub key: String,
    /// Seconds from start to ready, as the village counted them.
    pub ready_s: f64,
    http: reqwest::Client,
    child: Child,
    // Kept open: a village must not meet a closed pipe while a test looks at it.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Node {
    pub(crate) async fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.context("not ready in time")??;
        let Some(line) = line else {
            let mut stderr = String::new();
            if let Some(mut pipe) = child.stderr.take() {
                timeout(PATIENCE, pipe.read_to_string(&mut stderr)).await??;
            }
            bail!("ended before it was ready: {stderr}");
        };
        drain(&mut child);
        let ready: Value = serde_json::from_str(&line).with_context(|| format!("no ready line: {line}"))?;
        let text = |name: &str| {
            ready.get(name).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("{name}: {line}"))
        };
        let key_file = command.as_std().get_current_dir().context("no directory")?.join(text("key_file")?);
        Ok(Self {
            url: text("url")?,
            admin_url: text("admin_url")?,
            key: fs::read_to_string(key_file)?.trim().to_owned(),
            ready_s: ready.get("seconds").and_then(Value::as_f64).unwrap_or(f64::NAN),
            http: reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?,
            child,
            _stdout: lines,
        })
    }

    /// A request with the admin key.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// Gets JSON.
    ///
    /// # Errors
    /// A broken connection or a status that is no success.
    pub async fn get(&self, path: &str) -> Result<Value> {
        answer(self.request(reqwest::Method::GET, path)).await
    }

    /// Posts JSON and gets JSON.
    ///
    /// # Errors
    /// A broken connection or a status that is no success.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        answer(self.request(reqwest::Method::POST, path).json(body)).await
    }

    /// Asks an agent.
    ///
    /// # Errors
    /// As [`Node::post`].
    pub async fn ask(&self, agent: &str, question: &str) -> Result<Value> {
        self.post(&format!("/v1/agents/{agent}/ask"), &json!({ "input": question })).await
    }

    /// Puts documents, each an id and a text, and waits until they can be found.
    ///
    /// # Errors
    /// As [`Node::post`], and when one is refused.
    pub async fn put(&self, documents: &[(&str, &str)]) -> Result<()> {
        let documents: Vec<Value> =
            documents.iter().map(|(id, text)| json!({ "id": id, "title": id, "text": text })).collect();
        let report = self.post("/v1/memory/documents?wait=searchable", &json!({ "documents": documents })).await?;
        let failed = report.get("results").and_then(Value::as_array).is_none_or(|results| {
            results.iter().any(|result| result.get("status").is_none_or(|status| status == "failed"))
        });
        ensure!(!failed, "not stored: {report}");
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("it has ended")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Kills it as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// The system's.
    pub async fn kill9(mut self) -> Result<()> {
        self.child.kill().await.context("kill -9")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        self.ended_within(PATIENCE).await
    }

    /// Waits for its end, at most so long.
    ///
    /// # Errors
    /// When it goes on.
    pub async fn ended_within(&mut self, limit: Duration) -> Result<ExitStatus> {
        Ok(timeout(limit, self.child.wait()).await.context("it goes on")??)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Value> {
    let response = request.send().await?;
    let (status, text) = (response.status(), response.text().await?);
    ensure!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).with_context(|| text)
}

/// Reads the log so that the pipe never fills.
fn drain(child: &mut Child) {
    let Some(stderr) = child.stderr.take().and_then(|pipe| pipe.into_owned_fd().ok()) else { return };
    let mut pipe = fs::File::from(stderr);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
    });
}
