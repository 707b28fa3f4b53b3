//! The data-loss layer at a stage: what is found, and what goes on.

use std::ops::Range;

use crate::dlp::{self, DataKind, DlpConfig, Finding, PseudonymKey, Redactor};
use crate::moderation::Stage;

use super::config::{DlpStages, Treatment};

/// The layer with its settings.
#[derive(Debug)]
pub(super) struct Cleaner {
    stages: DlpStages,
    detecting: DlpConfig,
    redacting: DlpConfig,
    key: PseudonymKey,
}

/// A content after the layer.
#[derive(Debug)]
pub(super) struct Cleaned {
    pub(super) content: String,
    pub(super) is_redacted: bool,
    /// Kinds that were found, each as often as it was.
    pub(super) found: Vec<DataKind>,
    /// Kinds that must not pass here.
    pub(super) barred: Vec<DataKind>,
}

impl Cleaner {
    pub(super) fn new(stages: DlpStages) -> Self {
        let (detecting, redacting) = (stages.detecting(), stages.redacting());
        // Nothing is moved or tokenised here, so nothing depends on the key.
        Self { stages, detecting, redacting, key: PseudonymKey::new(&rand::random()) }
    }

    pub(super) fn clean(&self, stage: Stage, content: String) -> Cleaned {
        let treatment = self.stages.at(stage);
        if treatment == Treatment::Off {
            return Cleaned { content, is_redacted: false, found: Vec::new(), barred: Vec::new() };
        }
        let findings = dlp::scan_for(&content, &self.detecting);
        let codes: Vec<Range<usize>> = of_kind(&findings, DataKind::Cvv).collect();
        let mut found: Vec<DataKind> = findings.into_iter().map(|finding| finding.kind).collect();
        // What is taken out is looked for also where it is not among what is counted.
        let is_barred = |kind: &DataKind| self.redacting.has(*kind);
        let has_barred = match treatment {
            Treatment::Redact | Treatment::Block if !found.iter().any(is_barred) => {
                let more = dlp::scan_for(&content, &self.redacting).into_iter().map(|finding| finding.kind);
                found.extend(more);
                found.iter().any(is_barred)
            }
            _ => found.iter().any(is_barred),
        };
        let barred = |found: &[DataKind]| found.iter().copied().filter(is_barred).collect::<Vec<_>>();
        match treatment {
            Treatment::Block if has_barred => Cleaned { content, is_redacted: false, barred: barred(&found), found },
            Treatment::Redact if has_barred => self.redacted(&content, found),
            _ if !codes.is_empty() => {
                // The verification value of a card goes wherever it is found.
                Cleaned { content: without(&content, &codes), is_redacted: true, found, barred: Vec::new() }
            }
            _ => Cleaned { content, is_redacted: false, found, barred: Vec::new() },
        }
    }

    fn redacted(&self, content: &str, found: Vec<DataKind>) -> Cleaned {
        let redacted = Redactor::new(&self.redacting, &self.key, "").redact(content);
        Cleaned { is_redacted: !redacted.edits.is_empty(), content: redacted.text, found, barred: Vec::new() }
    }
}

fn of_kind(findings: &[Finding], kind: DataKind) -> impl Iterator<Item = Range<usize>> {
    findings.iter().filter(move |finding| finding.kind == kind).map(|finding| finding.span.clone())
}

/// A text without some parts of it, which are in order and apart.
fn without(text: &str, parts: &[Range<usize>]) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut at = 0;
    for part in parts {
        rest.push_str(text.get(at..part.start).unwrap_or_default());
        at = part.end;
    }
    rest.push_str(text.get(at..).unwrap_or_default());
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dlp::Profile;

    const CARD: &str = "my card is 4111 1111 1111 1111 12/27 123, write to ann@example.org";

    fn cleaner(change: impl FnOnce(&mut DlpStages)) -> Cleaner {
        let mut stages = DlpStages::default();
        change(&mut stages);
        Cleaner::new(stages)
    }

    #[test]
    fn memory_keeps_no_cards_and_no_secrets_and_other_stages_only_count() {
        let cleaner = cleaner(|_| {});
        let kept = cleaner.clean(Stage::MemoryWrite, CARD.to_owned());
        assert!(kept.is_redacted && !kept.content.contains("4111"), "{}", kept.content);
        assert!(kept.content.contains("[PAN_1]") && kept.content.contains("ann@example.org"), "{}", kept.content);
        let said = cleaner.clean(Stage::UserInput, "my card is 4111 1111 1111 1111".to_owned());
        assert!(!said.is_redacted && said.found.contains(&DataKind::Pan));
    }

    #[test]
    fn the_code_of_a_card_goes_wherever_it_is_found() {
        let said = cleaner(|_| {}).clean(Stage::UserInput, CARD.to_owned());
        assert!(said.is_redacted && said.found.contains(&DataKind::Cvv), "{said:?}");
        assert!(
            said.content.contains("4111 1111 1111 1111 12/27 ") && !said.content.contains("123,"),
            "{}",
            said.content
        );
    }

    #[test]
    fn a_stage_may_hold_back_or_not_look_at_all() {
        let blocks = cleaner(|stages| stages.user_input = Treatment::Block);
        assert!(blocks.clean(Stage::UserInput, CARD.to_owned()).barred.contains(&DataKind::Pan));
        assert!(blocks.clean(Stage::UserInput, "ann@example.org".to_owned()).barred.is_empty());
        let off = cleaner(|stages| stages.user_input = Treatment::Off).clean(Stage::UserInput, CARD.to_owned());
        assert!(!off.is_redacted && off.found.is_empty() && off.content == CARD);
    }

    #[test]
    fn who_is_spoken_of_stays_readable_unless_a_profile_takes_names_out() {
        let text = "Maria Gonzalez asked Dr. Whitaker about the ferry.";
        for stage in [Stage::UserInput, Stage::AgentInput, Stage::AgentOutput, Stage::MemoryWrite, Stage::PublicPost] {
            let cleaned = cleaner(|_| {}).clean(stage, text.to_owned());
            assert!(!cleaned.is_redacted && cleaned.content == text, "{stage:?} {}", cleaned.content);
            assert!(cleaned.found.contains(&DataKind::Name), "it is counted");
        }
        let phi = cleaner(|stages| stages.redact = vec![Profile::Phi]).clean(Stage::MemoryWrite, text.to_owned());
        assert_eq!(phi.content, "[NAME_1] asked Dr. [NAME_2] about the ferry.");
    }

    #[test]
    fn what_is_taken_out_need_not_be_what_is_counted() {
        let cleaner = cleaner(|stages| stages.detect = Vec::new());
        assert!(!cleaner.clean(Stage::MemoryWrite, CARD.to_owned()).content.contains("4111"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_cleaned_is_clean(before in "\\PC{0,60}", after in "\\PC{0,60}") {
            let cleaner = cleaner(|_| {});
            let once = cleaner.clean(Stage::MemoryWrite, format!("{before} 4111111111111111 {after}")).content;
            let twice = cleaner.clean(Stage::MemoryWrite, once.clone());
            prop_assert!(!twice.is_redacted, "{} {}", once, twice.content);
        }
    }
}
