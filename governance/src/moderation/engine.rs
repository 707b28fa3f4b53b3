//! One pass over a text: views, rules, mask, models, decision, evidence. Pure: the same text, model and policy have the
//! same verdict.

use std::ops::Range;

use super::decide::{Policy, Scores, Signals, decide};
use super::features::{Features, sentences, windows, word_bucket, word_hash};
use super::hashes::HashList;
use super::lexicon::{Lexicon, LexiconError};
use super::linear::Heads;
use super::manifest::{Manifest, Threshold};
use super::mask::{Mask, MaskError};
use super::model::{Format, Model};
use super::norm::{VIEW_BYTES, View, ViewKind, views};
use super::rules::{Effect, Rules, RulesError};
use super::taxonomy::{ACTIONABLE, CATEGORIES, Category, Level};
use super::texts::Texts;
use super::verdict::{CheckError, CheckRequest, Evidence, Score, TEXT_BYTES, Verdict};
use super::words::Words;

/// From this difference in probability on models A and B are not of one mind.
const DISPUTE: f32 = 0.4;
/// Words that the models alone need: out of fewer they take "send it to me" for harm.
const LEAST_WORDS: usize = 6;
/// Log-odds that they alone need for what is grave, H0 and H1: 80 % sure.
const LEAST_SURE: f32 = 1.386;
/// Bytes that a piece of a long text has in common with the one before.
const PIECE_OVERLAP: usize = 1024;
/// Words on each side of a rule's hit that are scored with it alone: in a whole window a short phrase drowns.
const CLOSE_UP: usize = 2;
/// Hits of a view that are looked at so.
const CLOSE_UPS: usize = 16;
/// Letters in tag characters that no flag emoji has; flags spell at most six.
const HIDDEN_LETTERS: usize = 8;
/// What text in invisible characters adds to the logit of prompt injection.
const HIDDEN_WEIGHT: f32 = 4.0;
/// The logit of a head about a text without words.
const UNHEARD: f32 = -12.0;
/// Places of model evidence.
const PLACES: usize = 3;

/// An engine cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The list of viewpoint terms.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// The rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The lexicon.
    #[error(transparent)]
    Lexicon(#[from] LexiconError),
    /// The model file.
    #[error(transparent)]
    Model(#[from] Format),
    /// The manifest is no JSON of a manifest.
    #[error("model manifest: {0}")]
    Manifest(String),
    /// The manifest is not the one the model was made with.
    #[error("the model was made with another manifest: its SHA-256 differs")]
    Mismatch,
}

/// Rules, mask and models, ready to judge.
#[derive(Debug)]
pub struct Engine {
    rules: Rules,
    mask: Mask,
    lexicon: Lexicon,
    model: Model,
    manifest: Manifest,
    thresholds: Heads<Threshold>,
    hashes: HashList,
    name: String,
}

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// Model A's.
    A,
    /// Model B's.
    B,
    /// The mean of their log-odds.
    Both,
}

impl Voice {
    fn of(self, a: f32, b: f32) -> f32 {
        match self {
            Self::A => a,
            Self::B => b,
            Self::Both => f32::midpoint(a, b),
        }
    }
}

/// What was found in a text.
#[derive(Debug)]
struct Findings {
    logits: Heads<f32>,
    /// The same of what is enough to restrict somebody.
    backed: Heads<f32>,
    /// Where each head is highest: view and words.
    peaks: Heads<(usize, Range<usize>)>,
    /// The largest difference of the models, and for which actionable head.
    dispute: f32,
    hits: Vec<(usize, Range<usize>)>,
    views: Vec<(View, Words)>,
}

impl Engine {
    /// Makes an engine of a model file and its manifest, with the rules and terms of this release.
    ///
    /// # Errors
    /// [`EngineError`]: the model does not fit this release.
    pub fn new(model: &[u8], manifest: &str, hashes: HashList) -> Result<Self, EngineError> {
        use sha2::{Digest, Sha256};
        let model = Model::decode(model)?;
        let hash: [u8; 32] = Sha256::digest(manifest.as_bytes()).into();
        if hash != model.manifest {
            return Err(EngineError::Mismatch);
        }
        let manifest = Manifest::parse(manifest).map_err(EngineError::Manifest)?;
        Self::with(model, manifest, hashes, &Texts::default())
    }

    /// Makes an engine of parts that were not read from files.
    ///
    /// # Errors
    /// [`EngineError::Mask`], [`EngineError::Rules`] and [`EngineError::Lexicon`]: the texts are broken.
    pub fn with(model: Model, manifest: Manifest, hashes: HashList, texts: &Texts) -> Result<Self, EngineError> {
        Ok(Self {
            rules: Rules::parse(&texts.rules)?,
            mask: Mask::parse(&texts.viewpoints)?,
            lexicon: Lexicon::parse(&texts.lexicon)?,
            thresholds: manifest.by_head(),
            name: data_encoding::HEXLOWER.encode(&model.manifest[..8]),
            model,
            manifest,
            hashes,
        })
    }

    /// The engine with the model of this release.
    ///
    /// # Errors
    /// [`EngineError`]: the release is broken; a test keeps it from that.
    pub fn embedded(hashes: HashList) -> Result<Self, EngineError> {
        let model = include_bytes!("../../models/moderation.avmd");
        Self::new(model, include_str!("../../models/moderation.json"), hashes)
    }

    /// The model's manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The terms that no model sees.
    #[must_use]
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The words as models see them: viewpoints masked, each with its class.
    #[must_use]
    pub fn prepare(&self, words: &Words) -> Words {
        let mut masked = self.mask.apply(words);
        self.lexicon.mark(&mut masked);
        masked
    }

    /// What the operator knows by hash.
    #[must_use]
    pub fn hashes(&self) -> &HashList {
        &self.hashes
    }

    /// The model's name: the first bytes of its manifest's hash, hex.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Judges a content. Tenant and tier have no say.
    ///
    /// # Errors
    /// [`CheckError::TooLong`].
    pub fn check(&self, request: &CheckRequest, policy: &Policy) -> Result<Verdict, CheckError> {
        self.judge(&request.content, policy)
    }

    /// Judges a content for an appeal: by model B, which has no part in what model A said. Hard rules stay.
    ///
    /// # Errors
    /// [`CheckError::TooLong`].
    pub fn recheck(&self, request: &CheckRequest, policy: &Policy) -> Result<Verdict, CheckError> {
        self.judge_by(&request.content, policy, Voice::B)
    }

    /// Judges a text.
    ///
    /// # Errors
    /// [`CheckError::TooLong`].
    pub fn judge(&self, text: &str, policy: &Policy) -> Result<Verdict, CheckError> {
        self.judge_by(text, policy, Voice::Both)
    }

    fn judge_by(&self, text: &str, policy: &Policy, voice: Voice) -> Result<Verdict, CheckError> {
        if text.len() > TEXT_BYTES {
            return Err(CheckError::TooLong { bytes: text.len() as u64 });
        }
        let mut worst = Verdict { model: self.name.clone(), ..Verdict::default() };
        for (n, at) in pieces(text).into_iter().enumerate() {
            let mut verdict = self.judge_piece(&text[at.clone()], policy, voice);
            let shift = u32::try_from(at.start).unwrap_or(u32::MAX);
            for place in &mut verdict.evidence {
                place.start = place.start.saturating_add(shift);
                place.end = place.end.saturating_add(shift);
            }
            if n == 0 || (verdict.action, verdict.p) > (worst.action, worst.p) {
                worst = verdict;
            }
        }
        if self.hashes.contains(text.as_bytes()) {
            worst = listed(text, policy, worst);
        }
        Ok(worst)
    }

    /// The calibrated scores of a text of at most one view, rules included, whatever the policy is. For evaluation.
    #[must_use]
    pub fn scores(&self, text: &str, voice: Voice) -> Scores {
        Scores::split(&self.find(text, voice).logits.map(probability))
    }

    fn judge_piece(&self, text: &str, policy: &Policy, voice: Voice) -> Verdict {
        let findings = self.find(text, voice);
        let scores = Scores::split(&findings.logits.map(probability));
        let rules = self.rules.rules();
        let hit = |n: &(usize, Range<usize>)| rules.get(n.0);
        let hard = findings.hits.iter().filter_map(hit).filter(|rule| rule.hard).map(|rule| rule.category).min();
        let support = findings.hits.iter().filter_map(hit).any(|rule| rule.effect == Effect::Support);
        let thin = self.thin(&findings);
        let signals = Signals { hard, support, is_disputed: findings.dispute > DISPUTE, thin };
        let decision = decide(&scores.actionable, signals, &self.thresholds, policy);
        let p_of = |category: Category| scores.actionable.0.get(category.index()).copied().unwrap_or_default();
        let mut verdict = Verdict {
            action: decision.action,
            category: decision.category,
            level: decision.category.map(Category::level),
            article: decision.category.map(|category| category.article().to_owned()),
            rule: hard.filter(|hard| decision.category == Some(*hard)).and_then(|hard| {
                let decided = findings.hits.iter().filter_map(hit).find(|rule| rule.hard && rule.category == hard);
                decided.map(|rule| rule.id.clone())
            }),
            p: decision.category.map_or_else(|| scores.actionable.0.into_iter().fold(0.0, f32::max), p_of),
            is_uncertain: decision.is_uncertain,
            support,
            scores: Vec::new(),
            labels: scores.labels.likely().collect(),
            evidence: Vec::new(),
            model: self.name.clone(),
        };
        let above = scores.actionable.iter().zip(&self.thresholds).filter(|((_, p), threshold)| *p >= threshold.lo);
        verdict.scores = above.map(|((category, p), _)| Score { category, p }).collect();
        verdict.scores.sort_by(|a, b| b.p.total_cmp(&a.p));
        if let Some(category) = verdict.category {
            verdict.evidence = self.evidence(&findings, category);
        } else if support {
            verdict.evidence = self.rule_evidence(&findings, |rule| rule.effect == Effect::Support);
        }
        verdict
    }

    /// Categories that the models alone speak for, out of few words or not surely: of those they err.
    fn thin(&self, findings: &Findings) -> u32 {
        let all = Category::ALL.iter().take(ACTIONABLE).zip(&findings.backed).zip(&self.thresholds);
        let thin = all.filter(|((_, backed), threshold)| probability(**backed) < threshold.hi);
        thin.map(|((category, _), _)| 1 << category.index()).sum()
    }

    fn find(&self, text: &str, voice: Voice) -> Findings {
        let mut findings = Findings {
            logits: [f32::MIN; CATEGORIES],
            backed: [f32::MIN; CATEGORIES],
            peaks: std::array::from_fn(|_| (0, 0..0)),
            dispute: 0.0,
            hits: self.rules.raw_hits(text).map(|hit| (hit.rule, hit.range)).collect(),
            views: Vec::new(),
        };
        let mut raw = [0.0; CATEGORIES];
        self.add_rules(&mut raw, findings.hits.iter().map(|(rule, _)| *rule));
        for (n, view) in views(text).into_iter().enumerate() {
            let words = Words::of(&view.text);
            let mut added = if n == 0 { raw } else { [0.0; CATEGORIES] };
            if view.kind == ViewKind::Tags
                && view.text.text().chars().filter(|ch| ch.is_alphabetic()).count() >= HIDDEN_LETTERS
            {
                added[Category::PromptInjection.index()] += HIDDEN_WEIGHT;
            }
            let masked = self.prepare(&words);
            let mut all = windows(&masked);
            all.extend(sentences(&masked));
            let mut rules = Vec::new();
            for hit in self.rules.hits(&words) {
                let folded = words.folded(hit.range);
                if rules.len() < CLOSE_UPS {
                    all.push(masked.around(&folded, CLOSE_UP));
                }
                findings.hits.push((hit.rule, view.origin(folded)));
                rules.push(hit.rule);
            }
            self.add_rules(&mut added, rules.into_iter());
            self.score(&mut findings, (n, &masked, all), &added, voice);
            findings.views.push((view, masked));
        }
        findings
    }

    /// Adds each rule's weight once, however often it hit.
    fn add_rules(&self, logits: &mut Heads<f32>, hits: impl Iterator<Item = usize>) {
        let mut seen: Vec<usize> = hits.collect();
        seen.sort_unstable();
        seen.dedup();
        for rule in seen.into_iter().filter_map(|n| self.rules.rules().get(n)) {
            logits[rule.category.index()] += rule.weight;
        }
    }

    /// Scores a view window by window; the highest of each head counts.
    fn score(
        &self,
        findings: &mut Findings,
        (view, words, all): (usize, &Words, Vec<Range<usize>>),
        added: &Heads<f32>,
        voice: Voice,
    ) {
        for (logit, added) in findings.logits.iter_mut().zip(added) {
            *logit = logit.max(UNHEARD + added);
        }
        for (backed, added) in findings.backed.iter_mut().zip(added) {
            *backed = backed.max(UNHEARD + added);
        }
        for window in all {
            let features = Features::of(words, window.clone());
            let (a, b) = self.model_logits(&features);
            for (head, (a, b)) in a.into_iter().zip(b).enumerate() {
                if head < ACTIONABLE {
                    let (p_a, p_b) = (probability(a + added[head]), probability(b + added[head]));
                    let is_noticed = p_a.max(p_b) >= self.thresholds[head].hi;
                    findings.dispute = findings.dispute.max(if is_noticed { (p_a - p_b).abs() } else { 0.0 });
                }
                let logit = voice.of(a, b) + added[head];
                let is_sure = logit >= LEAST_SURE || !is_grave(head);
                if added[head] > 0.0 || (window.len() >= LEAST_WORDS && is_sure) {
                    findings.backed[head] = findings.backed[head].max(logit);
                }
                if logit > findings.logits[head] {
                    findings.logits[head] = logit;
                    findings.peaks[head] = (view, window.clone());
                }
            }
        }
    }

    /// The calibrated log-odds of models A and B; without a model B twice those of A.
    fn model_logits(&self, features: &Features) -> (Heads<f32>, Heads<f32>) {
        let mut a = self.model.linear.logits(features);
        for (z, head) in a.iter_mut().zip(self.model.linear.heads()) {
            *z = -(head.platt_a * *z + head.platt_b);
        }
        let b = self.model.bag.as_ref().map_or(a, |bag| bag.logits(&features.bag));
        (a, b)
    }

    fn rule_evidence(&self, findings: &Findings, is_meant: impl Fn(&super::rules::Rule) -> bool) -> Vec<Evidence> {
        let meant = findings.hits.iter().filter_map(|(n, range)| Some((self.rules.rules().get(*n)?, range)));
        meant.filter(|(rule, _)| is_meant(rule)).map(|(rule, range)| place(range, &rule.id)).collect()
    }

    /// The hits of the category's rules, then the words that weighed most for it.
    fn evidence(&self, findings: &Findings, category: Category) -> Vec<Evidence> {
        let mut evidence =
            self.rule_evidence(findings, |rule| rule.category == category && rule.effect == Effect::Harm);
        let (view, window) = &findings.peaks[category.index()];
        let Some((view, words)) = findings.views.get(*view) else { return evidence };
        let part = words.words().get(window.clone()).unwrap_or_default();
        let grams = (1..=3).flat_map(|size| part.windows(size));
        let mut weighed: Vec<(f32, Range<usize>)> = grams
            .filter_map(|gram| {
                let row = self.model.linear.row(word_bucket(word_hash(words.text(), gram)))?;
                let weight = row.scale * f32::from(row.weights[category.index()]);
                let (first, last) = (gram.first()?, gram.last()?);
                (weight > 0.0).then(|| (weight, view.origin(first.from..last.to)))
            })
            .collect();
        weighed.sort_by(|a, b| b.0.total_cmp(&a.0));
        evidence.extend(weighed.iter().take(PLACES).map(|(_, range)| place(range, "model")));
        // Two patterns of a rule may hit the same words.
        evidence.dedup();
        evidence
    }
}

/// A verdict on a content whose hash is known.
fn listed(text: &str, policy: &Policy, verdict: Verdict) -> Verdict {
    let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
    Verdict {
        action: policy.action(Category::Csam),
        category: Some(Category::Csam),
        level: Some(Category::Csam.level()),
        article: Some(Category::Csam.article().to_owned()),
        rule: Some("hash-list".to_owned()),
        p: 1.0,
        evidence: vec![Evidence { start: 0, end, by: "hash-list".to_owned() }],
        ..verdict
    }
}

fn place(range: &Range<usize>, by: &str) -> Evidence {
    let at = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Evidence { start: at(range.start), end: at(range.end), by: by.to_owned() }
}

/// Whether a head is of H0 or H1.
fn is_grave(head: usize) -> bool {
    Category::ALL.get(head).is_some_and(|category| matches!(category.level(), Level::H0 | Level::H1))
}

fn probability(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

/// Pieces of a text of at most one view, each with an end of the one before.
fn pieces(text: &str) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    loop {
        let end = text.floor_char_boundary(start + VIEW_BYTES);
        pieces.push(start..end);
        if end == text.len() {
            return pieces;
        }
        start = text.floor_char_boundary(end - PIECE_OVERLAP);
    }
}

#[cfg(test)]
mod tests;
