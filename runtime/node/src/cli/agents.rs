//! `village agents`: who lives in the village.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failure, Global, Outcome,
    client::Client,
    output::{self, BOLD, DIM, NAME, items, paint, text},
};

/// Arguments of `village agents`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village agents
  village agents show sage")]
pub(crate) struct Agents {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List all agents (the default).
    #[command(after_help = "Example:\n  village agents list --json")]
    List,
    /// Show one agent.
    #[command(after_help = "Example:\n  village agents show sage")]
    Show {
        /// Id of the agent.
        id: String,
    },
}

impl Agents {
    /// Lists agents or shows one.
    ///
    /// # Errors
    /// Unknown agent or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        match self.what.unwrap_or(What::List) {
            What::List => {
                let agents = all(&client).await?;
                if global.json {
                    output::json(&json!({ "data": agents }));
                } else {
                    output::say(list(&agents));
                }
            }
            What::Show { id } => {
                let agent = client.get(&["v1", "agents", &id], &[]).await?;
                if global.json {
                    output::json(&agent);
                } else {
                    output::say(card(&agent));
                }
            }
        }
        Ok(())
    }
}

/// Every page of the roster.
async fn all(client: &Client) -> Result<Vec<Value>, Failure> {
    let mut agents = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = if cursor.is_empty() {
            client.get(&["v1", "agents"], &[("limit", "200")]).await?
        } else {
            client.get(&["v1", "agents"], &[("limit", "200"), ("cursor", &cursor)]).await?
        };
        agents.extend_from_slice(items(&page, "data"));
        text(&page, "next_cursor").clone_into(&mut cursor);
        if cursor.is_empty() {
            return Ok(agents);
        }
    }
}

fn list(agents: &[Value]) -> String {
    let rows = agents.iter().map(|agent| {
        let purpose = text(agent, "purpose").split_whitespace().collect::<Vec<_>>().join(" ");
        ["id", "name", "category"]
            .iter()
            .map(|name| text(agent, name).to_owned())
            .chain([shorten(&purpose, 70)])
            .collect()
    });
    output::table(&["id", "name", "category", "purpose"], rows)
}

fn card(agent: &Value) -> String {
    let tools = items(agent, "tools");
    let names: Vec<&str> = tools.iter().map(|tool| tool.as_str().unwrap_or_else(|| text(tool, "name"))).collect();
    format!(
        "{} {}\n{}\n{} {}\n\n{}",
        paint(BOLD, text(agent, "name")),
        paint(DIM, format_args!("({}, {})", text(agent, "id"), text(agent, "category"))),
        output::wrap(text(agent, "purpose"), 100, ""),
        paint(DIM, "tools:"),
        names.join(", "),
        paint(NAME, format_args!("village ask {} \"...\"", text(agent, "id"))),
    )
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_has_one_line_per_agent_and_cuts_long_purposes() {
        let agents = [json!({"id": "sage", "name": "Sage", "category": "knowledge", "purpose": "answers ".repeat(30)})];
        let plain = anstream::adapter::strip_str(&list(&agents)).to_string();
        assert_eq!(plain.lines().count(), 2);
        assert!(plain.lines().all(|line| line.chars().count() < 110), "{plain}");
    }

    #[test]
    fn card_names_tools_given_as_text_or_object() {
        let agent = json!({"id": "sage", "name": "Sage", "tools": ["a.b", {"name": "c.d"}]});
        assert!(card(&agent).contains("a.b, c.d"));
    }
}
