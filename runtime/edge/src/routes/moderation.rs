//! `/v1/moderations`: what a text may say, in the shape of the `OpenAI` API and with what this village adds.

use std::collections::BTreeMap;
use std::sync::Arc;

use aivillage_governance::moderation::engine::Voice;
use aivillage_governance::moderation::norm::VIEW_BYTES;
use aivillage_governance::moderation::verdict::TEXT_BYTES;
use aivillage_governance::moderation::{Action, Category, CheckRequest, Level, ModeratorHandle, Verdict};
use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Body, ok};
use crate::door::Door;
use crate::error::{ApiError, Code};

/// Most texts of a request.
const TEXTS: usize = 256;

/// What is to be judged.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ModerationBody {
    /// A text, texts, or parts of type `text`.
    input: Input,
    /// Taken, and of no effect: this village judges with its own model.
    #[serde(default)]
    #[expect(dead_code, reason = "clients send it")]
    model: Option<String>,
}

/// One text or many.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<Item>),
}

/// A text, or a part as chats have them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Item {
    Text(String),
    Part {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        text: Option<String>,
    },
}

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Moderations {
    /// Names the answer.
    id: String,
    /// The model that judged.
    model: String,
    /// One for each text.
    results: Vec<Judgement>,
}

/// What is said of one text.
#[derive(Debug, Serialize, JsonSchema)]
struct Judgement {
    /// Whether it would be restricted.
    flagged: bool,
    /// By category of this village and of `OpenAI`: whether it is seen.
    categories: BTreeMap<&'static str, bool>,
    /// How likely it is, 0 to 1.
    category_scores: BTreeMap<&'static str, f32>,
    /// What would become of it.
    action: Action,
    /// How grave.
    level: Option<Level>,
    /// For what.
    category: Option<Category>,
    /// The article of the constitution that a restriction would cite.
    article: Option<String>,
    /// Whether the sender may be at risk and should be shown where help is.
    support: bool,
}

/// The categories of `OpenAI` by those of this village that make them up.
const OPENAI: [(&str, &[Category]); 13] = [
    ("harassment", &[Category::Harassment]),
    ("harassment/threatening", &[Category::ViolentThreat, Category::Extortion]),
    ("hate", &[Category::Hate]),
    ("hate/threatening", &[Category::TerrorIncitement]),
    (
        "illicit",
        &[Category::FraudPhishing, Category::MalwareIntrusion, Category::IllegalTrade, Category::HumanTrafficking],
    ),
    ("illicit/violent", &[Category::MassCasualtyWeapon, Category::TerrorIncitement]),
    ("self-harm", &[Category::SelfHarmPromotion]),
    ("self-harm/intent", &[]),
    ("self-harm/instructions", &[Category::SelfHarmPromotion]),
    ("sexual", &[Category::AdultSexual, Category::Ncii]),
    ("sexual/minors", &[Category::Csam, Category::MinorGrooming]),
    ("violence", &[Category::ViolentThreat, Category::TerrorIncitement]),
    ("violence/graphic", &[Category::Gore]),
];
/// What somebody says who may be at risk; a rule finds it, no score does.
const INTENT: &str = "self-harm/intent";

impl Judgement {
    fn of(verdict: Verdict, scores: &[(Category, f32, bool)]) -> Self {
        let is_seen = |category: Category| {
            verdict.category == Some(category) || scores.iter().any(|(of, _, seen)| *of == category && *seen)
        };
        let p = |category: Category| scores.iter().find(|(of, ..)| *of == category).map_or(0.0, |(_, p, _)| *p);
        let (mut categories, mut category_scores) = (BTreeMap::new(), BTreeMap::new());
        for (category, ..) in scores {
            categories.insert(category.code(), is_seen(*category));
            category_scores.insert(category.code(), p(*category));
        }
        // Names that both have mean the same.
        for (name, parts) in OPENAI {
            categories.insert(name, parts.iter().any(|category| is_seen(*category)));
            category_scores.insert(name, parts.iter().map(|category| p(*category)).fold(0.0, f32::max));
        }
        categories.insert(INTENT, verdict.support);
        category_scores.insert(INTENT, f32::from(u8::from(verdict.support)));
        Self {
            flagged: verdict.action > Action::Support,
            categories,
            category_scores,
            action: verdict.action,
            level: verdict.level,
            category: verdict.category,
            article: verdict.article,
            support: verdict.support,
        }
    }
}

/// Judges texts; nothing is kept of them and nothing follows.
#[utoipa::path(post, path = "/v1/moderations", tag = "openai",
    request_body(content = ref("#/components/schemas/ModerationBody"), content_type = "application/json"),
    responses((status = 200, description = "A judgement for each text", body = ref("#/components/schemas/Moderations")),
        (status = 413, description = "More than 1 MiB of text", body = ref("#/components/schemas/OpenAiError"))))]
pub(crate) async fn check(State(door): State<Arc<Door>>, Body(body): Body<ModerationBody>) -> Answer<Response> {
    let texts = texts(body.input)?;
    let moderator = door.moderator.clone();
    // A text as long as may be takes half a second.
    let judge = move || texts.into_iter().map(|text| judge(&moderator, text)).collect::<Result<Vec<_>, ApiError>>();
    let judged = door.village.blocking("edge.moderate", judge).await;
    let judged = judged.map_err(|error| ApiError::new(Code::Internal, error.to_string()))??;
    let mut results = Vec::with_capacity(judged.len());
    for (text, verdict, scores) in judged {
        let verdict = door.moderator.advise(&text, verdict, door.moderator.policy()).await;
        results.push(Judgement::of(verdict, &scores));
    }
    let model = format!("village-moderation-{}", door.moderator.engine().name());
    Ok(ok(Moderations { id: format!("modr-{}", uuid::Uuid::now_v7().simple()), model, results }))
}

fn texts(input: Input) -> Answer<Vec<String>> {
    let items = match input {
        Input::One(text) => vec![Item::Text(text)],
        Input::Many(items) => items,
    };
    let many = items.len();
    if many == 0 || many > TEXTS {
        let detail = format!("`input` has {many} texts; 1 to {TEXTS} are judged at once");
        return Err(ApiError::new(Code::BadRequest, detail).param("input"));
    }
    let text = |item| match item {
        Item::Text(text) | Item::Part { text: Some(text), .. } => Ok(text),
        Item::Part { kind, .. } => {
            let kind: String = kind.chars().take(32).collect();
            Err(ApiError::new(Code::UnsupportedContent, format!("a part of type `{kind}` is not judged"))
                .param("input"))
        }
    };
    let texts: Vec<String> = items.into_iter().map(text).collect::<Answer<_>>()?;
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > TEXT_BYTES {
        let detail = format!("the texts have {bytes} bytes; at most {TEXT_BYTES} are judged at once");
        return Err(ApiError::new(Code::PayloadTooLarge, detail).param("input"));
    }
    Ok(texts)
}

/// A text with its verdict, and of each category that can lead to an action how likely it is and whether that is sure.
type Judged = (String, Verdict, Vec<(Category, f32, bool)>);

fn judge(moderator: &ModeratorHandle, content: String) -> Answer<Judged> {
    let request = CheckRequest { content, ..CheckRequest::default() };
    let verdict = moderator.check(&request, moderator.policy());
    let verdict = verdict.map_err(|error| ApiError::new(Code::PayloadTooLarge, error.to_string()).param("input"))?;
    let engine = moderator.engine();
    let start = request.content.get(..request.content.floor_char_boundary(VIEW_BYTES)).unwrap_or_default();
    let scores = engine.scores(start, Voice::Both).actionable;
    // What is further on is in the verdict.
    let most = |category: Category, p: f32| {
        let found = verdict.scores.iter().find(|score| score.category == category);
        found.map_or(p, |score| score.p.max(p))
    };
    let thresholds = engine.manifest().by_head();
    let all = scores.iter().zip(thresholds);
    let all = all.map(|((category, p), sure)| (category, most(category, p), most(category, p) >= sure.hi)).collect();
    Ok((request.content, verdict, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_categories_of_openai_are_made_of_ours() {
        let verdict = Verdict { action: Action::Support, support: true, ..Verdict::default() };
        let scores = [(Category::ViolentThreat, 0.9, true), (Category::Gore, 0.2, false)];
        let said = Judgement::of(verdict, &scores);
        let is = |name: &str| (said.categories[name], said.category_scores[name]);
        assert_eq!(is("violence"), (true, 0.9));
        assert_eq!(is("violence/graphic"), (false, 0.2));
        assert_eq!(is("violent_threat"), (true, 0.9));
        assert_eq!(is("self-harm/intent"), (true, 1.0));
        assert_eq!(is("sexual"), (false, 0.0));
        assert!(!said.flagged, "who is at risk is helped");
    }

    #[test]
    fn inputs_are_texts_and_parts_and_bounded() {
        let read = |json: serde_json::Value| texts(serde_json::from_value::<ModerationBody>(json).unwrap().input);
        let input = |value: serde_json::Value| read(serde_json::json!({ "input": value, "model": "omni" }));
        assert_eq!(input("a".into()).unwrap(), ["a"]);
        assert_eq!(input(serde_json::json!(["a", {"type": "text", "text": "b"}])).unwrap(), ["a", "b"]);
        let image = input(serde_json::json!([{"type": "image_url", "image_url": {"url": "x"}}])).unwrap_err();
        assert_eq!(image.code(), "unsupported_content");
        assert_eq!(input(serde_json::json!([])).unwrap_err().code(), "bad_request");
        assert_eq!(input(serde_json::json!(vec!["a"; TEXTS + 1])).unwrap_err().code(), "bad_request");
        let long = "x".repeat(TEXT_BYTES);
        assert!(input(long.clone().into()).is_ok());
        assert_eq!(input(serde_json::json!([long, "y"])).unwrap_err().code(), "payload_too_large");
    }
}
