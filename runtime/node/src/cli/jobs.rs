//! `village jobs`: long operations and how far they are.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    Global, Outcome,
    client::Client,
    output::{self, items, text},
};

/// Arguments of `village jobs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village jobs
  village jobs show 0198c0de-0000-7000-8000-000000000001
  village jobs cancel 0198c0de-0000-7000-8000-000000000001")]
pub(crate) struct Jobs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List jobs, newest first (the default).
    #[command(after_help = "Example:\n  village jobs list")]
    List,
    /// Show one job.
    #[command(after_help = "Example:\n  village jobs show 0198c0de-0000-7000-8000-000000000001")]
    Show {
        /// Id of the job.
        id: String,
    },
    /// Cancel one job.
    #[command(after_help = "Example:\n  village jobs cancel 0198c0de-0000-7000-8000-000000000001")]
    Cancel {
        /// Id of the job.
        id: String,
    },
}

impl Jobs {
    /// Lists, shows or cancels.
    ///
    /// # Errors
    /// Unknown job or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        let answer = match self.what.unwrap_or(What::List) {
            What::List => {
                let page = client.get(&["v1", "jobs"], &[("limit", "200")]).await?;
                if !global.json {
                    output::say(list(items(&page, "data")));
                    return Ok(());
                }
                page
            }
            What::Show { id } => client.get(&["v1", "jobs", &id], &[]).await?,
            What::Cancel { id } => client.delete(&["v1", "jobs", &id], &[]).await?,
        };
        output::json(&answer);
        Ok(())
    }
}

fn list(jobs: &[Value]) -> String {
    if jobs.is_empty() {
        return "no jobs".to_owned();
    }
    let rows = jobs.iter().map(|job| {
        let count = |name: &str| job.pointer(&format!("/progress/{name}")).and_then(Value::as_u64);
        let progress = match (count("done"), count("total")) {
            (Some(done), Some(total)) => format!("{done}/{total}"),
            (Some(done), None) => done.to_string(),
            _ => String::new(),
        };
        vec![
            text(job, "id").into(),
            text(job, "kind").into(),
            text(job, "state").into(),
            progress,
            text(job, "updated_at").into(),
        ]
    });
    output::table(&["id", "kind", "state", "#progress", "updated"], rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn list_shows_progress_and_says_when_there_is_none() {
        assert_eq!(list(&[]), "no jobs");
        let job = json!({"id": "1", "kind": "memory.put", "state": "running", "progress": {"done": 3, "total": 9}});
        assert!(list(&[job]).contains("3/9"));
    }
}
