//! The HTTP side of a running village.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{PATIENCE, eventually};

/// Where a village answers, and the key to it.
#[derive(Debug, Clone)]
pub struct Api {
    /// Address of the API, without a slash at the end.
    pub url: String,
    /// Address of health and metrics.
    pub admin_url: String,
    /// The admin key.
    pub key: String,
    /// The node's id.
    pub id: String,
    /// What the node is called.
    pub name: String,
    /// Its process.
    pub pid: i32,
    http: reqwest::Client,
}

impl Api {
    /// Reads what a village said when it was ready; its paths are relative to this directory.
    pub(crate) fn of(ready: &Value, directory: &Path) -> Result<Self> {
        let text = |name: &str| {
            ready.get(name).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("{name}: {ready}"))
        };
        Ok(Self {
            url: text("url")?,
            admin_url: text("admin_url")?,
            key: fs::read_to_string(directory.join(text("key_file")?))?.trim().to_owned(),
            id: text("node")?,
            name: text("name")?,
            pid: ready.get("pid").and_then(Value::as_i64).and_then(|pid| pid.try_into().ok()).context("no pid")?,
            http: reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?,
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
    /// As [`Api::post`].
    pub async fn ask(&self, agent: &str, question: &str) -> Result<Value> {
        self.post(&format!("/v1/agents/{agent}/ask"), &json!({ "input": question })).await
    }

    /// Puts documents, each an id and a text, and waits until they can be found.
    ///
    /// # Errors
    /// As [`Api::post`], and when one is refused.
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

    /// Waits until the cluster is as healthy as this and has so many members that are up; returns its status.
    ///
    /// # Errors
    /// When it does not become so in time.
    pub async fn until_cluster(&self, health: &str, up: usize) -> Result<Value> {
        let looked = async || {
            let status = self.get("/v1/cluster").await.ok()?;
            let members = status.get("members")?.as_array()?;
            let is_up = members.iter().filter(|member| member.get("state") == Some(&"up".into())).count();
            (status.get("health")? == health && is_up == up).then_some(status)
        };
        eventually(&format!("{health} with {up} up, as {} sees it", self.name), looked).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Value> {
    let response = request.send().await?;
    let (status, text) = (response.status(), response.text().await?);
    ensure!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).with_context(|| text)
}
