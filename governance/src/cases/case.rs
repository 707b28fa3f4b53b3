//! A case: one verdict on one content of one sender, and what became of it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::jury::Juror;
use super::standing::Restriction;
use crate::keys::{CryptError, Kept, SubjectTag, TenantId};
use crate::moderation::{Action, Category, H2Action, Level, Stage};

/// Shards that the cases are spread over. A sender's cases are all in one.
pub const SHARDS: u8 = 16;
/// How long who lost before a jury may ask the community.
pub const REFER_MS: u64 = 7 * DAY_MS;
/// Milliseconds of a day.
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;
/// Milliseconds of an hour.
pub(crate) const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Names a case: a `UUIDv7` whose last bits are the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CaseId(Uuid);

impl CaseId {
    /// A new name for a case of a sender.
    #[must_use]
    pub fn new(sender: &Sender) -> Self {
        Self::of(Uuid::now_v7(), sender)
    }

    /// The name made of random bytes.
    #[must_use]
    pub fn of(id: Uuid, sender: &Sender) -> Self {
        let mut bytes = id.into_bytes();
        if let Some(last) = bytes.last_mut() {
            *last = (*last & !(SHARDS - 1)) | sender.shard();
        }
        Self(Uuid::from_bytes(bytes))
    }

    /// The shard that has the case.
    #[must_use]
    pub fn shard(self) -> u8 {
        let [.., last] = self.0.into_bytes();
        last % SHARDS
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CaseId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Who sent the content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sender {
    /// Of which tenant.
    pub tenant: String,
    /// Under which name there.
    pub subject: String,
}

impl Sender {
    /// Somebody of a tenant.
    pub fn new(tenant: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), subject: subject.into() }
    }

    /// As what is sealed for it names it.
    ///
    /// # Errors
    /// [`CryptError::BadName`].
    pub fn tag(&self) -> Result<SubjectTag, CryptError> {
        SubjectTag::of(TenantId::of(&self.tenant), &self.subject)
    }

    /// The shard of all cases of this sender.
    #[must_use]
    pub fn shard(&self) -> u8 {
        let hash = Sha256::new().chain_update(self.tenant.as_bytes()).chain_update([0]).chain_update(&self.subject);
        hash.finalize().first().map_or(0, |first| first % SHARDS)
    }
}

/// What a tenant pays for: how soon an appeal is decided, never how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Within 72 hours.
    #[default]
    Bronze,
    /// 48.
    Silver,
    /// 24.
    Gold,
    /// 12.
    Platinum,
}

impl Tier {
    /// The tier of this name; what is unknown is bronze.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "silver" => Self::Silver,
            "gold" => Self::Gold,
            "platinum" => Self::Platinum,
            _ => Self::Bronze,
        }
    }

    /// Within what time an appeal is decided, milliseconds.
    #[must_use]
    pub fn path_ms(self) -> u64 {
        let hours = match self {
            Self::Bronze => 72,
            Self::Silver => 48,
            Self::Gold => 24,
            Self::Platinum => 12,
        };
        hours * HOUR_MS
    }
}

/// Where a case is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Decided; an appeal is possible.
    Open,
    /// Appealed; judged anew by who had no part in the verdict.
    Appealed,
    /// That one agrees; a jury is to be drawn.
    Upheld1,
    /// The jury has it.
    Jury,
    /// The jury agrees; the community may be asked about H2.
    Upheld2,
    /// The members vote.
    Community,
    /// Ended: nobody appealed.
    Final,
    /// Ended: the verdict was wrong.
    Overturned,
    /// Ended: the verdict stays, what followed from it does not.
    Reduced,
    /// Ended: the verdict stays.
    Upheld,
}

impl Phase {
    /// Whether nothing more can happen.
    #[must_use]
    pub fn is_end(self) -> bool {
        self >= Self::Final
    }

    /// Its stable name, the same as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Appealed => "appealed",
            Self::Upheld1 => "upheld1",
            Self::Jury => "jury",
            Self::Upheld2 => "upheld2",
            Self::Community => "community",
            Self::Final => "final",
            Self::Overturned => "overturned",
            Self::Reduced => "reduced",
            Self::Upheld => "upheld",
        }
    }
}

/// What somebody holds against a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grounds {
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

/// What a juror votes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// The verdict was wrong.
    Overturn,
    /// It was right, and the consequence too hard.
    Reduce,
    /// It was right.
    Uphold,
}

/// A juror's vote. Who cast it was authenticated; it is an entry of the signed log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote<T = Kept> {
    /// Whose.
    pub juror: Juror,
    /// For what.
    pub choice: Choice,
    /// Why.
    pub reason: T,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// An appeal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appeal<T = Kept> {
    /// What is held against the verdict.
    pub grounds: Grounds,
    /// In the appellant's words.
    pub text: T,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// The second look by machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rereview {
    /// Whether it came to the same.
    pub agrees: bool,
    /// The model that looked.
    pub model: String,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// What a verdict said, as far as the case needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// What became of the content.
    pub action: Action,
    /// For what.
    pub category: Category,
    /// The model that said so.
    pub model: String,
    /// What the namespace does about H2.
    pub h2: H2Action,
}

impl Judged {
    /// How grave it is.
    #[must_use]
    pub fn level(&self) -> Level {
        self.category.level()
    }
}

/// The rule of the constitution that a verdict is under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Such as `R-H1`.
    pub rule: String,
    /// The article that it comes from.
    pub article: String,
    /// Version of the constitution.
    pub version: u32,
    /// After how many times the sender is suspended; 0 never.
    pub strikes: u8,
    /// For how many hours.
    pub suspend_hours: u32,
    /// For how many days an appeal is possible.
    pub appeal_days: u32,
}

/// A case. Its texts are sealed for the sender, or are as they were ([`Words`](super::words::Words)).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case<T = Kept> {
    /// Who sent the content.
    pub sender: Sender,
    /// Where it was on its way.
    pub stage: Stage,
    /// The tenant's tier then.
    pub tier: Tier,
    /// What was said of it.
    pub judged: Judged,
    /// By which rule.
    pub terms: Terms,
    /// What followed for the sender.
    pub restriction: Restriction,
    /// A part of the text that does not repeat the harm.
    pub excerpt: T,
    /// The text, until the case has ended; never of what abuses children.
    pub content: Option<T>,
    /// When, Unix milliseconds.
    pub opened_ms: u64,
    /// How often the same came again while the case was open.
    pub repeats: u32,
    /// Where it is on its way.
    pub phase: Phase,
    /// When the phase ends by itself, Unix milliseconds.
    pub deadline_ms: u64,
    /// The appeal, if there is one.
    pub appeal: Option<Appeal<T>>,
    /// The second look, if there was one. H0 has one without appeal.
    pub rereview: Option<Rereview>,
    /// Root of the log's checkpoint that seeded the draw of the jury, hex.
    pub seed: String,
    /// Digest of those who were drawn from, hex.
    pub pool: String,
    /// The jury.
    pub jurors: Vec<Juror>,
    /// Its votes.
    pub votes: Vec<Vote<T>>,
    /// Whether it ended because a deadline passed.
    pub is_timed_out: bool,
    /// When it ended, Unix milliseconds.
    pub ended_ms: Option<u64>,
}

/// Unix milliseconds as RFC 3339.
pub(crate) fn rfc3339(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl<T> Case<T> {
    /// The same case with these texts.
    pub(super) fn with<U>(
        self,
        (excerpt, content): (U, Option<U>),
        appeal: Option<Appeal<U>>,
        votes: Vec<Vote<U>>,
    ) -> Case<U> {
        Case {
            sender: self.sender,
            stage: self.stage,
            tier: self.tier,
            judged: self.judged,
            terms: self.terms,
            restriction: self.restriction,
            excerpt,
            content,
            opened_ms: self.opened_ms,
            repeats: self.repeats,
            phase: self.phase,
            deadline_ms: self.deadline_ms,
            appeal,
            rereview: self.rereview,
            seed: self.seed,
            pool: self.pool,
            jurors: self.jurors,
            votes,
            is_timed_out: self.is_timed_out,
            ended_ms: self.ended_ms,
        }
    }

    /// A case that begins, about a text of which this is shown.
    pub(super) fn about(sender: Sender, judged: Judged, terms: Terms, opened_ms: u64, excerpt: T) -> Self {
        Self {
            sender,
            stage: Stage::UserInput,
            tier: Tier::Bronze,
            judged,
            terms,
            restriction: Restriction::NONE,
            excerpt,
            content: None,
            opened_ms,
            repeats: 0,
            phase: Phase::Open,
            deadline_ms: 0,
            appeal: None,
            rereview: None,
            seed: String::new(),
            pool: String::new(),
            jurors: Vec::new(),
            votes: Vec::new(),
            is_timed_out: false,
            ended_ms: None,
        }
    }

    /// Whether somebody sits on the jury.
    #[must_use]
    pub fn is_juror(&self, tenant: &str, subject: &str) -> bool {
        self.jurors.iter().any(|juror| juror.tenant == tenant && juror.subject == subject)
    }

    /// How it ends if the deadline of its phase passes; silence counts for the appellant unless the harm is severe.
    #[must_use]
    pub(crate) fn silence(&self) -> Phase {
        match self.phase {
            Phase::Open => Phase::Final,
            Phase::Upheld2 => Phase::Upheld,
            _ if self.judged.level() == Level::H2 => Phase::Overturned,
            _ => Phase::Upheld,
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn all_cases_of_a_sender_are_in_one_shard_that_the_name_tells() {
        let sender = Sender::new("acme", "ann");
        for _ in 0..64 {
            let id = CaseId::new(&sender);
            assert_eq!(id.shard(), sender.shard());
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        // A name that another tenant's sender cannot imitate by moving the boundary.
        assert_ne!(Sender::new("ab", "c").shard(), Sender::new("abcd", "").shard());
        let shards: std::collections::BTreeSet<u8> =
            (0..200).map(|n| Sender::new("acme", n.to_string()).shard()).collect();
        assert_eq!(shards.len(), usize::from(SHARDS));
    }

    #[test]
    fn times_are_told_as_people_write_them() {
        assert_eq!(rfc3339(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(u64::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_better_tier_is_sooner() {
        let tiers = ["none", "silver", "gold", "platinum"].map(|name| Tier::of(name).path_ms() / HOUR_MS);
        assert_eq!(tiers, [72, 48, 24, 12]);
    }
}
