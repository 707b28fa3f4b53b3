//! The cases of one shard, made of events, and what may happen to them next. No clock, no message, no log.

use std::collections::BTreeMap;

use aivillage_runtime::{Durable, StoreError};
use serde::{Deserialize, Serialize};

use super::case::{Appeal, Case, CaseId, Choice, DAY_MS, Grounds, Phase, REFER_MS, Rereview, Sender, Vote};
use super::error::{CaseError, WORDS};
use super::event::CaseEvent;
use super::jury::{JURORS, Juror, MAJORITY};
use super::report::{Quarter, Tally};
use super::standing::{CONFIRMED_MS, Kept, Mark, Restriction, Standing};
use super::words;
use crate::keys::{Kept as Sealed, SubjectTag};
use crate::moderation::{Action, Level};

/// Cases of one shard; beyond that the oldest ended ones go early.
const CASES: usize = 4_096;
/// How long a case that has ended is kept: an appeal is possible for 30 days, a report is for a quarter.
const KEEP_MS: u64 = 400 * DAY_MS;
/// How long evidence of H0 is kept, whatever its sender asks for.
const EVIDENCE_MS: u64 = 180 * DAY_MS;
/// Open cases of one sender in one category within a day; the same again is counted, and is no case of its own.
const OPEN: usize = 20;
/// Quarters whose counts are kept: ten years.
const QUARTERS: usize = 40;

/// The cases of a shard, what is known of their senders, and how many there were.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Docket {
    cases: BTreeMap<CaseId, Case>,
    senders: BTreeMap<Sender, Standing>,
    tallies: BTreeMap<Quarter, Tally>,
}

impl Durable for Docket {
    type Event = CaseEvent;
    const SCHEMA: u16 = 2;

    fn apply(&mut self, event: &CaseEvent) {
        match event {
            CaseEvent::Opened(id, case) => self.opened(*id, case),
            CaseEvent::Repeated(id, at_ms) => self.changed(*id, *at_ms, |case, tally| {
                case.repeats = case.repeats.saturating_add(1);
                tally.of(case).repeated += 1;
            }),
            CaseEvent::Appealed { case, appeal, deadline_ms } => self.changed(*case, appeal.at_ms, |case, tally| {
                (case.phase, case.deadline_ms, case.appeal) = (Phase::Appealed, *deadline_ms, Some(appeal.clone()));
                tally.of(case).appealed += 1;
            }),
            CaseEvent::Rereviewed { case, look, restriction } => self.rereviewed(*case, look, restriction.as_ref()),
            CaseEvent::JuryDrawn { case, root, pool, jurors } => self.with(*case, |case| {
                (case.phase, case.jurors) = (Phase::Jury, jurors.clone());
                (case.seed, case.pool) = (root.clone(), pool.clone());
            }),
            CaseEvent::Voted(case, vote) => self.with(*case, |case| case.votes.push(vote.clone())),
            CaseEvent::JuryUpheld(case, deadline_ms) => {
                self.with(*case, |case| (case.phase, case.deadline_ms) = (Phase::Upheld2, *deadline_ms));
            }
            CaseEvent::Referred(case, deadline_ms) => {
                self.with(*case, |case| (case.phase, case.deadline_ms) = (Phase::Community, *deadline_ms));
            }
            CaseEvent::Ended { case, phase, is_timed_out, at_ms } => self.ended(*case, *phase, *is_timed_out, *at_ms),
            CaseEvent::Forgotten(cases) => self.cases.retain(|id, _| !cases.contains(id)),
            CaseEvent::Erased(subject) => {
                self.cases.retain(|_, case| !is_of(&case.sender, *subject));
                self.senders.retain(|sender, _| !is_of(sender, *subject));
            }
        }
    }

    fn upgrade(from: u16, bytes: &[u8]) -> Result<CaseEvent, StoreError> {
        words::event_before(from, bytes)
    }

    fn upgrade_snapshot(from: u16, bytes: &[u8]) -> Result<Self, StoreError> {
        let (cases, (senders, tallies)) = words::cases_before(from, bytes)?;
        Ok(Self { cases, senders, tallies })
    }
}

fn is_of(sender: &Sender, subject: SubjectTag) -> bool {
    sender.tag().is_ok_and(|tag| tag == subject)
}

impl Docket {
    fn with(&mut self, id: CaseId, change: impl FnOnce(&mut Case)) {
        if let Some(case) = self.cases.get_mut(&id) {
            change(case);
        }
    }

    fn changed(&mut self, id: CaseId, at_ms: u64, change: impl FnOnce(&mut Case, &mut Tally)) {
        let Some(case) = self.cases.get_mut(&id) else { return };
        change(case, self.tallies.entry(Quarter::at(at_ms)).or_default());
    }

    fn opened(&mut self, id: CaseId, case: &Case) {
        let (category, at_ms, restriction) = (case.judged.category, case.opened_ms, case.restriction.clone());
        self.senders.entry(case.sender.clone()).or_default().add(Mark { case: id, category, at_ms, restriction });
        self.tallies.entry(Quarter::at(at_ms)).or_default().of(case).opened += 1;
        if self.tallies.len() > QUARTERS {
            self.tallies.pop_first();
        }
        self.cases.insert(id, case.clone());
    }

    fn rereviewed(&mut self, id: CaseId, look: &Rereview, restriction: Option<&Restriction>) {
        let Some(case) = self.cases.get_mut(&id) else { return };
        case.rereview = Some(look.clone());
        if case.phase == Phase::Appealed && look.agrees {
            case.phase = Phase::Upheld1;
        }
        if let Some(restriction) = restriction {
            case.restriction = restriction.clone();
            if let Some(standing) = self.senders.get_mut(&case.sender) {
                standing.restrict(id, restriction);
            }
        }
    }

    fn ended(&mut self, id: CaseId, phase: Phase, is_timed_out: bool, at_ms: u64) {
        let Some(case) = self.cases.get_mut(&id) else { return };
        self.tallies.entry(Quarter::at(at_ms)).or_default().ended(case, phase, is_timed_out, at_ms);
        (case.phase, case.is_timed_out, case.ended_ms) = (phase, is_timed_out, Some(at_ms));
        // Nobody needs the text any more.
        case.content = None;
        let Some(standing) = self.senders.get_mut(&case.sender) else { return };
        match phase {
            Phase::Overturned => standing.clear(id),
            Phase::Reduced => standing.lift(id),
            _ => return,
        }
        case.restriction = Restriction::NONE;
        if standing.is_empty() {
            self.senders.remove(&case.sender);
        }
    }

    /// A case.
    ///
    /// # Errors
    /// [`CaseError::NotFound`].
    pub fn case(&self, id: CaseId) -> Result<&Case, CaseError> {
        self.cases.get(&id).ok_or(CaseError::NotFound)
    }

    /// All cases, the newest first.
    pub fn cases(&self) -> impl Iterator<Item = (CaseId, &Case)> {
        self.cases.iter().rev().map(|(id, case)| (*id, case))
    }

    /// What there is of one sender: cases, and their standing.
    #[must_use]
    pub fn items(&self, subject: SubjectTag) -> u64 {
        let cases = self.cases.values().filter(|case| is_of(&case.sender, subject)).count();
        (cases + usize::from(self.senders.keys().any(|sender| is_of(sender, subject)))) as u64
    }

    /// The case of a sender that has to be kept longest as evidence of a grave harm, and until when, Unix milliseconds.
    #[must_use]
    pub fn held(&self, sender: &Sender, now_ms: u64) -> Option<(CaseId, u64)> {
        let is_evidence = |case: &&Case| case.judged.level() == Level::H0 && case.phase != Phase::Overturned;
        let until = |case: &Case| case.opened_ms.saturating_add(EVIDENCE_MS);
        let of_sender = self.cases.iter().filter(|(_, case)| case.sender == *sender);
        let held = of_sender.filter(|(_, case)| is_evidence(case) && now_ms < until(case));
        held.map(|(id, case)| (*id, until(case))).max_by_key(|(_, until_ms)| *until_ms)
    }

    /// What is known of the senders.
    #[must_use]
    pub fn senders(&self) -> &BTreeMap<Sender, Standing> {
        &self.senders
    }

    /// The counts of a quarter.
    #[must_use]
    pub fn tally(&self, quarter: Quarter) -> Tally {
        self.tallies.get(&quarter).cloned().unwrap_or_default()
    }

    /// Opens a case that is filled in but for what follows for the sender. The same id is the same case; of what a sender
    /// repeats without end only the newest case goes on.
    ///
    /// # Errors
    /// [`CaseError::NotActing`], [`CaseError::Full`].
    pub fn open(&self, id: CaseId, mut case: Case) -> Result<(CaseId, Vec<CaseEvent>), CaseError> {
        if case.judged.action < Action::Label || case.judged.level() == Level::H3 {
            return Err(CaseError::NotActing);
        }
        if self.cases.contains_key(&id) {
            return Ok((id, Vec::new()));
        }
        let now_ms = case.opened_ms;
        let is_same = |(_, old): &(CaseId, &Case)| {
            old.sender == case.sender
                && old.judged.category == case.judged.category
                && old.phase == Phase::Open
                && now_ms.saturating_sub(old.opened_ms) < DAY_MS
        };
        let mut same = self.cases().filter(is_same);
        if let Some((newest, _)) = same.next()
            && same.count() + 1 >= OPEN
        {
            return Ok((newest, vec![CaseEvent::Repeated(newest, now_ms)]));
        }
        let mut events = Vec::new();
        if self.cases.len() >= CASES {
            let ended = self.cases.iter().find(|(_, case)| case.phase.is_end()).map(|(id, _)| *id);
            events.push(CaseEvent::Forgotten(vec![ended.ok_or(CaseError::Full)?]));
        }
        let nobody = Standing::default();
        let standing = self.senders.get(&case.sender).unwrap_or(&nobody);
        case.restriction = standing.next(case.judged.category, &case.terms, now_ms);
        case.phase = Phase::Open;
        case.deadline_ms = now_ms.saturating_add(u64::from(case.terms.appeal_days).saturating_mul(DAY_MS));
        events.push(CaseEvent::Opened(id, Box::new(case)));
        Ok((id, events))
    }

    /// The sender appeals, with words and those sealed.
    ///
    /// # Errors
    /// [`CaseError::NotFound`], [`CaseError::WrongPhase`], [`CaseError::Late`], [`CaseError::NoReason`],
    /// [`CaseError::TooLong`].
    pub fn appeal(
        &self,
        id: CaseId,
        grounds: Grounds,
        (words, text): (&str, Sealed),
        now_ms: u64,
    ) -> Result<Vec<CaseEvent>, CaseError> {
        let case = self.in_time(id, Phase::Open, now_ms)?;
        if grounds == Grounds::Other || !words.is_empty() {
            check_words(words)?;
        }
        let appeal = Appeal { grounds, text, at_ms: now_ms };
        Ok(vec![CaseEvent::Appealed { case: id, appeal, deadline_ms: now_ms.saturating_add(case.tier.path_ms()) }])
    }

    /// A case that is in a phase whose deadline has not passed.
    fn in_time(&self, id: CaseId, phase: Phase, now_ms: u64) -> Result<&Case, CaseError> {
        let case = self.case(id)?;
        let is_late = case.phase == Phase::Final || (case.phase == phase && now_ms >= case.deadline_ms);
        if is_late {
            return Err(CaseError::Late { at: super::case::rfc3339(case.deadline_ms) });
        }
        if case.phase == phase { Ok(case) } else { Err(CaseError::WrongPhase { phase: case.phase }) }
    }

    /// Another model has looked: at an appeal, or at H0, where that is done without one.
    ///
    /// # Errors
    /// [`CaseError::NotFound`]; [`CaseError::WrongPhase`]: nobody waits for it any more.
    pub fn rereview(&self, id: CaseId, look: Rereview) -> Result<Vec<CaseEvent>, CaseError> {
        let case = self.case(id)?;
        let (agrees, at_ms) = (look.agrees, look.at_ms);
        let event = |restriction| CaseEvent::Rereviewed { case: id, look, restriction };
        match case.phase {
            Phase::Open if case.judged.level() == Level::H0 && case.rereview.is_none() => {
                let until_ms = case.opened_ms.saturating_add(CONFIRMED_MS);
                let longer = agrees.then_some(Restriction { kept: Kept::Suspended, until_ms });
                Ok(vec![event(longer)])
            }
            Phase::Appealed if agrees => Ok(vec![event(None)]),
            Phase::Appealed => Ok(vec![event(None), end(id, Phase::Overturned, at_ms)]),
            phase => Err(CaseError::WrongPhase { phase }),
        }
    }

    /// Cases that wait for a jury.
    pub fn awaiting_jury(&self) -> impl Iterator<Item = (CaseId, &Case)> {
        self.cases().filter(|(_, case)| case.phase == Phase::Upheld1)
    }

    /// Cases that wait for another model, with their texts.
    pub fn awaiting_rereview(&self) -> impl Iterator<Item = (CaseId, &Case)> {
        self.cases().filter(|(_, case)| {
            case.phase == Phase::Appealed
                || (case.phase == Phase::Open && case.judged.level() == Level::H0 && case.rereview.is_none())
        })
    }

    /// A jury was drawn.
    ///
    /// # Errors
    /// [`CaseError::NotFound`], [`CaseError::WrongPhase`].
    pub fn jury(
        &self,
        id: CaseId,
        (root, pool): (String, String),
        jurors: Vec<Juror>,
    ) -> Result<Vec<CaseEvent>, CaseError> {
        match self.case(id)?.phase {
            Phase::Upheld1 => Ok(vec![CaseEvent::JuryDrawn { case: id, root, pool, jurors }]),
            phase => Err(CaseError::WrongPhase { phase }),
        }
    }

    /// A juror votes, with words that are sealed in the vote. Who does not sit on the jury does not learn that there is one.
    ///
    /// # Errors
    /// [`CaseError::NotFound`], [`CaseError::WrongPhase`], [`CaseError::Late`], [`CaseError::VotedAlready`],
    /// [`CaseError::NoReason`], [`CaseError::TooLong`].
    pub fn vote(&self, id: CaseId, vote: Vote, words: &str) -> Result<Vec<CaseEvent>, CaseError> {
        let case = self.case(id)?;
        if !case.jurors.contains(&vote.juror) {
            return Err(CaseError::NotFound);
        }
        if case.votes.iter().any(|old| old.juror == vote.juror) {
            return Err(CaseError::VotedAlready);
        }
        let case = self.in_time(id, Phase::Jury, vote.at_ms)?;
        check_words(words)?;
        let choices: Vec<Choice> = case.votes.iter().chain([&vote]).map(|vote| vote.choice).collect();
        let at_ms = vote.at_ms;
        let mut events = vec![CaseEvent::Voted(id, vote)];
        match outcome(&choices) {
            None => {}
            Some(Choice::Overturn) => events.push(end(id, Phase::Overturned, at_ms)),
            Some(Choice::Reduce) => events.push(end(id, Phase::Reduced, at_ms)),
            Some(Choice::Uphold) if case.judged.level() == Level::H2 => {
                events.push(CaseEvent::JuryUpheld(id, at_ms.saturating_add(REFER_MS)));
            }
            Some(Choice::Uphold) => events.push(end(id, Phase::Upheld, at_ms)),
        }
        Ok(events)
    }

    /// The sender asks the community.
    ///
    /// # Errors
    /// [`CaseError::NotFound`], [`CaseError::WrongPhase`], [`CaseError::Late`].
    pub fn refer(&self, id: CaseId, now_ms: u64) -> Result<Vec<CaseEvent>, CaseError> {
        let case = self.in_time(id, Phase::Upheld2, now_ms)?;
        Ok(vec![CaseEvent::Referred(id, now_ms.saturating_add(case.tier.path_ms()))])
    }

    /// The community has decided.
    ///
    /// # Errors
    /// [`CaseError::NotFound`], [`CaseError::WrongPhase`], [`CaseError::Late`].
    pub fn community(&self, id: CaseId, overturns: bool, now_ms: u64) -> Result<Vec<CaseEvent>, CaseError> {
        self.in_time(id, Phase::Community, now_ms)?;
        Ok(vec![end(id, if overturns { Phase::Overturned } else { Phase::Upheld }, now_ms)])
    }

    /// What ends because time has passed, and what is forgotten.
    #[must_use]
    pub fn due(&self, now_ms: u64) -> Vec<CaseEvent> {
        let late = self.cases.iter().filter(|(_, case)| !case.phase.is_end() && now_ms >= case.deadline_ms);
        let ends = late.map(|(id, case)| CaseEvent::Ended {
            case: *id,
            phase: case.silence(),
            is_timed_out: case.phase != Phase::Open,
            at_ms: now_ms,
        });
        let mut events: Vec<CaseEvent> = ends.collect();
        let is_old = |case: &Case| case.ended_ms.is_some_and(|ended| now_ms.saturating_sub(ended) >= KEEP_MS);
        let old: Vec<CaseId> = self.cases.iter().filter(|(_, case)| is_old(case)).map(|(id, _)| *id).collect();
        if !old.is_empty() {
            events.push(CaseEvent::Forgotten(old));
        }
        events
    }

    /// Whether there is anything that time may end.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.cases.values().any(|case| !case.phase.is_end())
    }
}

fn end(case: CaseId, phase: Phase, at_ms: u64) -> CaseEvent {
    CaseEvent::Ended { case, phase, is_timed_out: false, at_ms }
}

fn check_words(words: &str) -> Result<(), CaseError> {
    if words.trim().is_empty() {
        return Err(CaseError::NoReason);
    }
    if words.len() > WORDS { Err(CaseError::TooLong { bytes: words.len() }) } else { Ok(()) }
}

/// What a jury says: one choice has the majority, or all have voted and most of them want less.
fn outcome(choices: &[Choice]) -> Option<Choice> {
    let many = |choice| choices.iter().filter(|other| **other == choice).count();
    let decided = [Choice::Overturn, Choice::Uphold].into_iter().find(|choice| many(*choice) >= MAJORITY);
    // No majority for either among all of them: more than half would not leave it as it is.
    decided.or((choices.len() >= JURORS).then_some(Choice::Reduce))
}
