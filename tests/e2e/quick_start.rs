//! The README's quick start, typed literally in an empty directory.

use std::{fs, time::Instant};

use aivillage_tests::Place;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::place;

const KETTLE: &str =
    "# The kettle\n\nThe kettle is descaled with vinegar every second month. Rinse it twice afterwards.\n";
const HEATING: &str = "The boiler in the cellar holds 120 litres. Its pressure must stay between 1.2 and 1.8 bar.\n";

/// The lines of the README that a person types into the second terminal.
fn typed() -> Result<Vec<String>> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let lines = readme
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("village memory add ") || line.starts_with("village ask "));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    ensure!(lines.len() >= 2, "the README shows no quick start");
    Ok(lines)
}

fn notes(place: &Place) -> Result<()> {
    place.write("notes/kettle.md", KETTLE)?;
    place.write("notes/heating.txt", HEATING)?;
    Ok(())
}

/// Every citation must be a verbatim piece of the file it names.
fn assert_verbatim(answer: &Value) -> Result<()> {
    let citations = answer.get("citations").and_then(Value::as_array).context("no citations")?;
    ensure!(!citations.is_empty(), "no citation: {answer}");
    for citation in citations {
        let quote = citation.get("quote").and_then(Value::as_str).context("no quote")?;
        let doc = citation.get("doc").and_then(Value::as_str).context("no doc")?;
        let text = fs::read_to_string(doc).with_context(|| format!("the citation names no file: {doc}"))?;
        ensure!(text.contains(quote), "{quote:?} is not in {doc}");
    }
    Ok(())
}

#[tokio::test]
async fn typed_literally_it_gives_a_cited_answer() -> Result<()> {
    let place = place()?;
    notes(&place)?;
    let node = place.up().await?;
    let ready = Instant::now();
    for line in typed()? {
        let ran = place.sh(&line).await?.expect(0)?;
        if line.starts_with("village ask ") {
            ensure!(ran.stdout.contains("The kettle is descaled with vinegar every second month."), "{ran:?}");
            ensure!(ran.stdout.contains("[1]") && ran.stdout.contains("Sources"), "{ran:?}");
        }
    }
    ensure!(ready.elapsed().as_secs() < 10, "first answer {:?} after ready", ready.elapsed());
    ensure!(node.ready_s < 10.0, "ready after {} s", node.ready_s);
    Ok(())
}

#[tokio::test]
async fn over_http_the_same_question_has_verbatim_sources() -> Result<()> {
    let place = place()?;
    notes(&place)?;
    let node = place.up().await?;
    let added = place.run(["memory", "add", "notes", "--json"]).await?.expect(0)?.json()?;
    ensure!(added.get("created") == Some(&2.into()), "{added}");
    let answer = node.ask("sage", "How much does the boiler in the cellar hold?").await?;
    ensure!(answer.get("answer").and_then(Value::as_str).is_some_and(|text| text.contains("120 litres")), "{answer}");
    assert_verbatim(&answer)
}

#[tokio::test]
async fn adding_twice_changes_nothing_and_an_edited_file_is_a_new_version() -> Result<()> {
    let place = place()?;
    notes(&place)?;
    let _node = place.up().await?;
    let add = ["memory", "add", "notes", "--json"];
    place.run(add).await?.expect(0)?;
    let again = place.run(add).await?.expect(0)?.json()?;
    ensure!(again.get("unchanged") == Some(&2.into()), "{again}");
    place.write("notes/kettle.md", "The kettle was replaced by a samovar.")?;
    let edited = place.run(add).await?.expect(0)?.json()?;
    ensure!(edited.get("updated") == Some(&1.into()) && edited.get("unchanged") == Some(&1.into()), "{edited}");
    let shown = place.run(["memory", "get", "notes/kettle.md"]).await?.expect(0)?;
    ensure!(shown.stdout.contains("samovar") && shown.stdout.contains("version 2"), "{shown:?}");
    place.run(["memory", "rm", "notes/kettle.md"]).await?.expect(0)?;
    place.run(["memory", "get", "notes/kettle.md"]).await?.expect(1)?;
    Ok(())
}

#[tokio::test]
async fn every_reading_command_speaks_to_people_and_to_scripts() -> Result<()> {
    let place = place()?;
    notes(&place)?;
    let _node = place.up().await?;
    place.run(["memory", "add", "notes"]).await?.expect(0)?;
    for line in [
        "status",
        "agents",
        "agents show sage",
        "memory stats",
        "memory query kettle",
        "jobs",
        "config show",
        "version",
    ] {
        let people = place.run(line.split(' ')).await?.expect(0)?;
        ensure!(!people.stdout.trim().is_empty(), "{line} prints nothing");
        ensure!(!people.stdout.contains('\u{1b}'), "{line} prints colours into a pipe: {people:?}");
        place.run(line.split(' ').chain(["--json"])).await?.expect(0)?.json().context(line)?;
    }
    Ok(())
}
