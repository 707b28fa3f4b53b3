//! `gov.tokens`: the values that tokens stand for.
//!
//! Key: tenant, so a token of another tenant is not there. Durable: yes, replicated; each value is sealed for whom it is about,
//! see [`Personal`]. Lost in a crash: the mail in hand; what was not acknowledged is stored when it is sent again.
//!
//! A value is told only for a purpose, and the log has it before the caller: no answer without its entry. The same value has
//! the same token whomever it is about; it is kept for who was first, and goes with them when they are erased.

mod data;

use std::collections::BTreeMap;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Durable, Entity, Kind, KindOptions,
    Mail, MsgCx, Reply, Village,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{DataKind, DlpConfig, PseudonymKey, Redacted, Redactor, Token, VaultEntry};
use crate::keys::{CryptError, Kept, Personal, SubjectTag, VillageSecret};
use crate::tlog::{Ack, Decision, Event, Home, Payload};

pub use data::TokenData;
pub(crate) use data::{Held, HeldView};

/// What values are kept for, as their keys name it.
const PURPOSE: &str = "dlp.token";
/// Most tokens of a tenant.
const MAX_TOKENS: usize = 65_536;
/// Most values stored at once: one commit of the group, which takes little more than 192 KiB.
const MAX_AT_ONCE: usize = 1_024;
/// Longest purpose, bytes.
const MAX_PURPOSE: usize = 64;

/// What a [`TokenVault`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum TokenMsg {
    /// Keeps values; of those that are there the first stays.
    Keep(Vec<Stored>, Reply<()>),
    /// The value of a token, for a purpose; none if there is none, or whom it is about was erased.
    Reveal(Token, String, Reply<Option<Revealed>>),
    /// What is kept about one person.
    Of(SubjectTag, Reply<Vec<Token>>),
    /// Forgets what is kept about one person, and tells how much that was.
    Forget(SubjectTag, Reply<u64>),
}

/// A sealed value and its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    token: Token,
    kind: DataKind,
    value: Kept,
}

/// What a token stands for. Its `Debug` form does not show the value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revealed {
    /// What kind of data it is.
    pub kind: DataKind,
    /// What stood in the text first.
    pub value: String,
}

impl std::fmt::Debug for Revealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revealed").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The values of a tenant's tokens.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Drawer {
    held: BTreeMap<Token, (DataKind, Kept)>,
}

/// What happened to them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum DrawerEvent {
    /// Values came.
    Kept(Vec<Stored>),
    /// What is about one person was forgotten.
    Forgotten(SubjectTag),
}

impl Durable for Drawer {
    type Event = DrawerEvent;

    fn apply(&mut self, event: &DrawerEvent) {
        match event {
            DrawerEvent::Kept(stored) => {
                for Stored { token, kind, value } in stored {
                    self.held.entry(token.clone()).or_insert_with(|| (*kind, value.clone()));
                }
            }
            DrawerEvent::Forgotten(subject) => self.held.retain(|_, (_, value)| value.subject() != Some(*subject)),
        }
    }
}

impl Drawer {
    fn owners(&self) -> impl Iterator<Item = (Token, Option<SubjectTag>)> {
        self.held.iter().map(|(token, (_, value))| (token.clone(), value.subject()))
    }

    fn of(&self, subject: SubjectTag) -> Vec<Token> {
        let held = self.held.iter().filter(|(_, (_, value))| value.subject() == Some(subject));
        held.map(|(token, _)| token.clone()).collect()
    }

    /// Those that are not there yet.
    ///
    /// # Errors
    /// `token_vault_full`.
    fn new_of(&self, stored: Vec<Stored>) -> Result<Vec<Stored>, AppError> {
        let mut new = stored;
        new.retain(|stored| !self.held.contains_key(&stored.token));
        if self.held.len() + new.len() > MAX_TOKENS {
            return Err(AppError::new("token_vault_full", format!("a tenant has at most {MAX_TOKENS} tokens")));
        }
        Ok(new)
    }
}

/// The behaviour; its data is [`Drawer`].
#[derive(Debug)]
pub struct TokenVault;

impl Kind for TokenVault {
    const NAME: &'static str = "gov.tokens";
    type Body = TokenMsg;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

/// The values of a tenant, and what opens them.
#[derive(Debug)]
pub struct Desk {
    cx: ActorCx,
    drawer: Entity<Drawer>,
    personal: Personal,
}

impl Actor for TokenVault {
    type Msg = Mail<TokenMsg>;
    type State = Desk;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Desk, ActorProcessingErr> {
        let personal = Personal::new(cx.village(), cx.key(), PURPOSE)?;
        Ok(Desk { drawer: cx.recover().await?, personal, cx })
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, desk: &mut Desk) -> Result<(), ActorProcessingErr> {
        match mail.body {
            TokenMsg::Keep(stored, reply) => reply.complete(desk.keep(stored).await),
            TokenMsg::Reveal(token, purpose, reply) => reply.complete(desk.reveal(&mail.cx, &token, &purpose).await),
            TokenMsg::Of(subject, reply) => reply.send(desk.drawer.of(subject)),
            TokenMsg::Forget(subject, reply) => reply.complete(desk.forget(subject).await),
        }
        Ok(())
    }
}

impl Desk {
    async fn keep(&mut self, stored: Vec<Stored>) -> Result<(), CallError> {
        let new = self.drawer.new_of(stored)?;
        if !new.is_empty() {
            self.drawer.commit(DrawerEvent::Kept(new)).await?;
        }
        Ok(())
    }

    async fn forget(&mut self, subject: SubjectTag) -> Result<u64, CallError> {
        let held = self.drawer.of(subject).len() as u64;
        if held > 0 {
            self.drawer.commit(DrawerEvent::Forgotten(subject)).await?;
        }
        Ok(held)
    }

    async fn reveal(&self, cx: &MsgCx, token: &Token, purpose: &str) -> Result<Option<Revealed>, CallError> {
        if !is_purpose(purpose) {
            let wanted = "a purpose has 3 to 64 small letters, digits, `-` and `.`, such as `chargeback`";
            return Err(AppError::new("payload_invalid", wanted).into());
        }
        let Some((kind, kept)) = self.drawer.held.get(token) else { return Ok(None) };
        let value: Option<String> = self.personal.open(token.as_str().as_bytes(), kept).await?;
        let Some(value) = value else { return Ok(None) };
        self.log(cx, token, *kind, purpose).await?;
        Ok(Some(Revealed { kind: *kind, value }))
    }

    /// Who, which token, what for; the entry is on the disk when this returns. A village that keeps no log has none.
    async fn log(&self, cx: &MsgCx, token: &Token, kind: DataKind, purpose: &str) -> Result<(), CallError> {
        let Some(home) = self.cx.village().provided::<Home>() else { return Ok(()) };
        let (tenant, key) = (self.cx.key(), home.log_key(self.cx.key()));
        let event = Event {
            kind: "dlp.detokenise".to_owned(),
            actor: key.pseudonym(Personal::subject_of(cx)),
            action: "key.detokenise".to_owned(),
            object: key.pseudonym(token.as_str()),
            tenant: key.pseudonym(tenant),
            article: None,
            decision: Decision::Allow,
            case: None,
            payload: Payload::Clear(json!({ "kind": kind, "purpose": purpose })),
        };
        home.log().append(event, Ack::Durable).await?;
        Ok(())
    }
}

/// A code and no sentence: the log is for good and names nobody.
fn is_purpose(purpose: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    (3..=MAX_PURPOSE).contains(&purpose.len()) && purpose.bytes().all(is_part)
}

/// Redacts texts of a tenant with tokens that can be taken back, and takes them back. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokens {
    secret: VillageSecret,
}

impl Tokens {
    /// With keys that are derived of this secret.
    #[must_use]
    pub fn new(secret: VillageSecret) -> Self {
        Self { secret }
    }

    /// What a tenant's tokens and date shifts are derived with.
    fn key(&self, tenant: &str) -> Result<PseudonymKey, CallError> {
        let key = self.secret.derive(&format!("dlp tokens of {tenant}"));
        Ok(key.map(|key| PseudonymKey::new(&key)).ok_or(CryptError::NoRoot)?)
    }

    /// Redacts a text about `subject`; when this returns every token in it can be taken back.
    ///
    /// # Errors
    /// `crypt_no_root`, `crypt_shredded`, `token_vault_full`, `payload_too_large`, and what else keeps a value from being stored:
    /// then there is no text.
    pub async fn redact(
        &self,
        village: &Village,
        (tenant, subject): (&str, &str),
        text: String,
        config: DlpConfig,
    ) -> Result<Redacted, CallError> {
        let (key, of, year) = (self.key(tenant)?, subject.to_owned(), super::this_year());
        let work = move || Redactor::new(&config, &key, &of).in_year(year).redact(&text);
        let redacted = village.blocking("dlp.redact", work).await.map_err(|_| CallError::Panicked)?;
        if redacted.vault.len() > MAX_AT_ONCE {
            let why = format!("a text gets at most {MAX_AT_ONCE} tokens; send it in parts");
            return Err(AppError::new("payload_too_large", why).into());
        }
        let personal = Personal::new(village, tenant, PURPOSE)?;
        let mut stored = Vec::with_capacity(redacted.vault.len());
        for VaultEntry { token, kind, value } in &redacted.vault {
            let value = personal.seal(subject, token.as_str().as_bytes(), value).await?;
            stored.push(Stored { token: token.clone(), kind: *kind, value });
        }
        if !stored.is_empty() {
            let vault = village.addr::<TokenVault>(tenant);
            vault.call().repeatable().ask(|reply| TokenMsg::Keep(stored, reply)).await?;
        }
        Ok(redacted)
    }
}

#[cfg(test)]
mod tests;
