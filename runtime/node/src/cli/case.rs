//! `village case` and `village appeal`: what followed from a verdict, and how to have it looked at again.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    Global, Outcome,
    client::Client,
    output::{self, BAD, BOLD, DIM, GOOD, NAME, WARN, items, paint, text},
};

/// Commands of `village case`.
#[derive(Debug, Subcommand)]
pub(crate) enum Case {
    /// List the cases that you sent, moderate or judge, newest first.
    List(List),
    /// Show one case.
    Show(Show),
    /// Vote as a juror.
    Vote(Vote),
}

impl Case {
    /// Lists, shows or votes.
    ///
    /// # Errors
    /// A case that is none of the caller's business, or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::open(global)?;
        match self {
            Self::List(list) => list.run(&client, global.json).await,
            Self::Show(show) => {
                said(&client.get(&["v1", "cases", &show.case], &[]).await?, global.json);
                Ok(())
            }
            Self::Vote(vote) => {
                let choice = vote.choice.to_possible_value().map(|value| value.get_name().to_owned());
                let body = json!({ "choice": choice, "reason": vote.reason });
                said(&client.post(&["v1", "cases", &vote.case, "votes"], &body).await?, global.json);
                Ok(())
            }
        }
    }
}

/// Arguments of `village case list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village case list
  village case list --limit 200 --json")]
pub(crate) struct List {
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
}

/// Arguments of `village case show`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village case show 0198c0de-0000-7000-8000-000000000001")]
pub(crate) struct Show {
    /// Which case; the notice names it.
    case: String,
}

/// Arguments of `village case vote`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  village case vote 0198c0de-0000-7000-8000-000000000001 overturn --reason \"it quotes a news report\"")]
pub(crate) struct Vote {
    /// Which case.
    case: String,
    /// What you vote for.
    #[arg(value_enum)]
    choice: Choice,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    /// The verdict was wrong.
    Overturn,
    /// It was right, and the consequence too hard.
    Reduce,
    /// It was right.
    Uphold,
}

/// Arguments of `village appeal`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  village appeal 0198c0de-0000-7000-8000-000000000001 --grounds context --text \"it is a quotation\"
  village appeal 0198c0de-0000-7000-8000-000000000001 --grounds not_harmful
  village appeal 0198c0de-0000-7000-8000-000000000001 --grounds other --text \"see before\" --community")]
pub(crate) struct Appeal {
    /// Which case; the notice names it.
    case: String,
    /// What you hold against the verdict.
    #[arg(long, value_enum)]
    grounds: Grounds,
    /// In your words; asked for with `other`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    text: String,
    /// Ask the community about what a jury has upheld.
    #[arg(long)]
    community: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Grounds {
    /// The text does not say that.
    NotHarmful,
    /// It quotes, reports or speaks against it.
    Context,
    /// It is art, satire or fiction.
    Art,
    /// It was judged for the viewpoint that it expresses.
    Viewpoint,
    /// Somebody else sent it.
    NotMine,
    /// Something else; the words say what.
    Other,
}

impl Appeal {
    /// Appeals and shows the case as it is then.
    ///
    /// # Errors
    /// A case of somebody else, one that was appealed before, a time that has passed, or no village.
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let grounds = self.grounds.to_possible_value().map(|value| value.get_name().to_owned());
        let body = json!({ "grounds": grounds, "text": self.text, "community": self.community });
        let view = Client::open(global)?.post(&["v1", "cases", &self.case, "appeal"], &body).await?;
        said(&view, global.json);
        Ok(())
    }
}

impl List {
    async fn run(self, client: &Client, as_json: bool) -> Outcome {
        let page = client.get(&["v1", "cases"], &[("limit", &self.limit.to_string())]).await?;
        if as_json {
            output::json(&page);
        } else {
            output::say(list(items(&page, "data")));
        }
        Ok(())
    }
}

fn list(cases: &[Value]) -> String {
    if cases.is_empty() {
        return "no cases".to_owned();
    }
    let rows = cases.iter().map(|case| {
        let names = ["case", "opened_at", "level", "category", "action", "phase", "deadline"];
        names.map(|name| text(case, name).to_owned()).to_vec()
    });
    output::table(&["case", "opened", "level", "category", "action", "phase", "until"], rows)
}

fn said(case: &Value, as_json: bool) {
    if as_json {
        output::json(case);
    } else {
        output::say(show(case));
    }
}

fn show(case: &Value) -> String {
    let phase = text(case, "phase");
    let style = match phase {
        "overturned" | "reduced" => GOOD,
        "upheld" | "final" => BAD,
        _ => WARN,
    };
    let what = ["level", "category", "action"].map(|name| text(case, name)).join(" ");
    let mut lines = vec![
        format!("{}  {}", paint(BOLD, text(case, "case")), paint(style, phase)),
        format!("  {what}, by rule {} under article {}", paint(NAME, text(case, "rule")), text(case, "article")),
        format!("  {}", text(case, "excerpt").replace('\n', " ")),
    ];
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            lines.push(format!("  {} {value}", paint(DIM, format_args!("{name:<9}"))));
        }
    };
    line("opened", text(case, "opened_at"));
    line("until", text(case, "deadline"));
    line("ended", text(case, "ended_at"));
    line("grounds", text(case, "grounds"));
    line("appeal", text(case, "appeal"));
    let agrees = case.get("rereview_agrees").and_then(Value::as_bool);
    line("2nd look", agrees.map_or("", |agrees| if agrees { "comes to the same" } else { "does not see it" }));
    for vote in items(case, "votes") {
        line("vote", &format!("{}: {}", text(vote, "choice"), text(vote, "reason")));
    }
    line("text", text(case, "content"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_shown_with_what_there_is_of_it() {
        let case = json!({
            "case": "1", "phase": "jury", "level": "H2", "category": "spam", "action": "label", "rule": "R-H2-SPAM",
            "article": "A2.2", "excerpt": "b** now", "opened_at": "2026-11-26T20:00:00Z", "deadline": "2026-11-29T20:00:00Z",
            "ended_at": null, "rereview_agrees": true, "votes": [{"choice": "overturn", "reason": "asked for"}],
        });
        let shown = anstream::adapter::strip_str(&show(&case)).to_string();
        assert!(
            shown.starts_with("1  jury\n  H2 spam label, by rule R-H2-SPAM under article A2.2\n  b** now"),
            "{shown}"
        );
        assert!(shown.contains("overturn: asked for") && shown.contains("comes to the same"), "{shown}");
        assert!(!shown.contains("ended") && !shown.contains("appeal"), "{shown}");
        assert!(list(&[case]).contains("2026-11-29T20:00:00Z"));
        assert_eq!(list(&[]), "no cases");
    }
}
