//! `gov.erasure`: erases people of a tenant, and keeps the certificates.
//!
//! Key: tenant. Durable: the certificates, replicated; whom they are about is a tag and a pseudonym. Lost in a crash: an erasure
//! under way; whoever asked asks again, and it goes on where it was.

use std::collections::BTreeMap;
use std::time::Duration;

use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Durability, Durable, Entity, Kind, KindOptions,
    Mail, Reply, Village, clock,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::Value;
use uuid::Uuid;

use super::census::{Has, find_everywhere, places_of};
use super::signer::CertificateSigner;
use super::{Owners, Subject};
use crate::keys::certificate::{ErasedStore, LogEntry, Stamp};
use crate::keys::vault::Shredding;
use crate::keys::{ErasureCertificate, SignedCertificate, SubjectTag, TenantId, Vault};
use crate::tlog::{Ack, Decision, Event, Home, Payload};

/// How often the nodes are asked whether nothing is left, at most: copies are behind by a moment.
const COUNTS: u32 = 50;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest basis, characters.
const MAX_BASIS: usize = 64;
/// Certificates that are kept; older ones go. Whoever needs one longer has the file.
const KEPT: usize = 1_000;

/// What an [`Erasure`] understands.
#[derive(Debug, Serialize, Deserialize)]
pub enum ErasureMsg {
    /// Erases a subject of the tenant. One that was erased before gets its certificate.
    Erase {
        /// Their name.
        subject: String,
        /// Why, e.g. `gdpr-17`.
        basis: String,
        /// Sent when it is done and counted.
        reply: Reply<Erased>,
    },
    /// The certificate with this id.
    Get(Uuid, Reply<Option<Erased>>),
    /// All that is kept of a subject, by store.
    Export(String, Reply<Vec<(String, ByteBuf)>>),
    /// An erasure is done; sent by itself.
    Done(SubjectTag, Reply<Erased>, Box<Result<Erased, CallError>>),
}

/// An erasure that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Its id.
    pub id: Uuid,
    /// The certificate as JSON.
    pub certificate: ByteBuf,
}

impl Erased {
    /// Reads the certificate.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn certificate(&self) -> Result<SignedCertificate, crate::keys::CertificateError> {
        SignedCertificate::from_json(&self.certificate)
    }
}

/// The certificates of a tenant.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Certificates {
    by_id: BTreeMap<Uuid, ByteBuf>,
    by_subject: BTreeMap<SubjectTag, Uuid>,
}

/// Somebody was erased.
#[derive(Debug, Serialize, Deserialize)]
pub struct Certified(SubjectTag, Erased);

impl Durable for Certificates {
    type Event = Certified;

    fn apply(&mut self, Certified(subject, erased): &Certified) {
        self.by_id.insert(erased.id, erased.certificate.clone());
        self.by_subject.insert(*subject, erased.id);
        while self.by_id.len() > KEPT {
            let Some((oldest, _)) = self.by_id.pop_first() else { return };
            self.by_subject.retain(|_, id| *id != oldest);
        }
    }
}

impl Certificates {
    fn get(&self, id: Uuid) -> Option<Erased> {
        self.by_id.get(&id).map(|certificate| Erased { id, certificate: certificate.clone() })
    }

    fn of(&self, subject: SubjectTag) -> Option<Erased> {
        self.by_subject.get(&subject).and_then(|id| self.get(*id))
    }
}

/// The behaviour; its data is [`Certificates`].
#[derive(Debug)]
pub struct Erasure {
    owners: Owners,
    signer: CertificateSigner,
}

impl Erasure {
    /// Erases in these stores.
    #[must_use]
    pub fn new(owners: Owners, signer: CertificateSigner) -> Self {
        Self { owners, signer }
    }
}

impl Kind for Erasure {
    const NAME: &'static str = "gov.erasure";
    type Body = ErasureMsg;

    fn options() -> KindOptions {
        KindOptions::default().durable(Durability::Replicated)
    }
}

/// The certificates, and what erases.
#[derive(Debug)]
pub struct Office {
    cx: ActorCx,
    done: Entity<Certificates>,
    owners: Owners,
    signer: CertificateSigner,
}

impl Actor for Erasure {
    type Msg = Mail<ErasureMsg>;
    type State = Office;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Office, ActorProcessingErr> {
        Ok(Office { done: cx.recover().await?, cx, owners: self.owners.clone(), signer: self.signer.clone() })
    }

    async fn handle(
        &self,
        me: ActorRef<Self::Msg>,
        mail: Self::Msg,
        office: &mut Office,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            ErasureMsg::Erase { subject, basis, reply } => office.erase(&me, subject, basis, reply),
            ErasureMsg::Get(id, reply) => reply.send(office.done.get(id)),
            ErasureMsg::Export(subject, reply) => office.export(subject, reply),
            ErasureMsg::Done(subject, reply, done) => reply.complete(office.keep(subject, *done).await),
        }
        Ok(())
    }
}

impl Office {
    fn subject(&self, name: String) -> Subject {
        Subject { tenant: self.cx.key().to_owned(), name }
    }

    fn erase(&self, me: &ActorRef<Mail<ErasureMsg>>, name: String, basis: String, reply: Reply<Erased>) {
        let subject = self.subject(name);
        let tag = match subject.tag() {
            Ok(tag) => tag,
            Err(error) => return reply.fail(error),
        };
        // Names of this kind are those of keys that belong to nobody.
        if subject.name.contains(char::is_control) {
            return reply.fail(AppError::new("bad_request", "a name has no control characters"));
        }
        if basis.chars().count() > MAX_BASIS {
            return reply.fail(AppError::new("bad_request", format!("a basis has at most {MAX_BASIS} characters")));
        }
        if let Some(erased) = self.done.of(tag) {
            return reply.send(erased);
        }
        let (cx, me) = (self.cx.clone(), me.clone());
        let (village, owners, signer) = (cx.village().clone(), self.owners.clone(), self.signer.clone());
        let work = async move {
            let done = erase(&village, &owners, &signer, &subject, basis).await;
            cx.tell_self(&me, ErasureMsg::Done(tag, reply, Box::new(done)));
        };
        self.cx.village().task("erasure.erase", work).detach();
    }

    async fn keep(&mut self, subject: SubjectTag, done: Result<Erased, CallError>) -> Result<Erased, CallError> {
        let erased = done?;
        // Somebody else asked for the same meanwhile.
        if let Some(before) = self.done.of(subject) {
            return Ok(before);
        }
        self.done.commit(Certified(subject, erased.clone())).await?;
        Ok(erased)
    }

    fn export(&self, name: String, reply: Reply<Vec<(String, ByteBuf)>>) {
        let (subject, owners, village) = (self.subject(name), self.owners.clone(), self.cx.village().clone());
        let work = async move { reply.complete(export(&village, &owners, &subject).await) };
        self.cx.village().task("erasure.export", work).detach();
    }
}

async fn export(village: &Village, owners: &Owners, subject: &Subject) -> Result<Vec<(String, ByteBuf)>, CallError> {
    let (mut all, found) = (Vec::new(), find_everywhere(village, subject).await?);
    for owner in owners.all() {
        let items = owner.export(village, subject, &places_of(&found, owner.name())).await?;
        all.push((owner.name().to_owned(), ByteBuf::from(Value::Array(items).to_string())));
    }
    Ok(all)
}

async fn erase(
    village: &Village,
    owners: &Owners,
    signer: &CertificateSigner,
    subject: &Subject,
    basis: String,
) -> Result<Erased, CallError> {
    let not_ready = || CallError::from(AppError::new("crypt_no_root", "the village's secret is not there yet"));
    let subject_pseudonym = signer.pseudonym(subject).ok_or_else(not_ready)?;
    let vault = Vault::of(village).ok_or_else(not_ready)?;
    let requested_at = Stamp(clock::unix_ms());
    // All members have to answer before anything is destroyed: nobody is told of an erasure that could not be shown.
    let found = find_everywhere(village, subject).await?;
    for owner in owners.all() {
        if let Some(why) = owner.hold(village, subject, &places_of(&found, owner.name())).await? {
            return Err(AppError::new("erasure_held", format!("{} may not be erased yet: {why}", owner.name())).into());
        }
    }
    let shredding = vault.shred(TenantId::of(&subject.tenant), subject.tag()?).await?;
    // After the keys are gone nothing is added any more.
    let before = find_everywhere(village, subject).await?;
    for owner in owners.all() {
        owner.erase(village, subject, &places_of(&before, owner.name())).await?;
    }
    let after = count_until_none(village, subject).await?;
    let id = Uuid::now_v7();
    let log = log(village, subject, id).await?;
    let certificate = ErasureCertificate {
        v: 1,
        subject_pseudonym,
        requested_at: Stamp(requested_at.0.min(shredding.at.0)),
        done_at: Stamp(clock::unix_ms().max(shredding.at.0)),
        basis,
        stores: stores(&before, &after),
        backups_unreadable_by: unreadable(&shredding),
        keys: shredding.keys,
        holds: Vec::new(),
        models_flagged: Vec::new(),
        log,
    };
    let wrong = |error: String| CallError::from(AppError::new("erasure_incomplete", error));
    let signed = signer.sign(certificate).ok_or_else(not_ready)?.map_err(|error| wrong(error.to_string()))?;
    let json = serde_json::to_vec(&signed).map_err(|error| wrong(error.to_string()))?;
    Ok(Erased { id, certificate: ByteBuf::from(json) })
}

/// Backups are unreadable two epochs after the keys went; a certificate does not promise what is over when it is made.
fn unreadable(shredding: &Shredding) -> Stamp {
    Stamp(shredding.backups_unreadable_by.0.max(clock::unix_ms()))
}

async fn count_until_none(village: &Village, subject: &Subject) -> Result<Vec<Has>, CallError> {
    let mut tries = 0;
    loop {
        let left = find_everywhere(village, subject).await?;
        let Some(some) = left.iter().find(|has| has.items() > 0) else { return Ok(left) };
        tries += 1;
        if tries == COUNTS {
            let detail = format!("{} of {} still has {} items", some.owner, some.node, some.items());
            return Err(AppError::new("erasure_incomplete", detail).into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn stores(before: &[Has], after: &[Has]) -> Vec<ErasedStore> {
    let store = |has: &Has| {
        let had = before.iter().find(|before| (before.node, &before.owner) == (has.node, &has.owner));
        let (enumerated, remaining) = (had.map_or(0, Has::items), has.items());
        let erased = enumerated.saturating_sub(remaining);
        ErasedStore { owner: has.owner.clone(), node: has.node.to_string(), enumerated, erased, remaining }
    };
    after.iter().map(store).collect()
}

/// Writes the erasure into this node's transparency log, durably; none where there is no log.
async fn log(village: &Village, subject: &Subject, id: Uuid) -> Result<Option<LogEntry>, CallError> {
    let Some(home) = village.provided::<Home>() else { return Ok(None) };
    let key = home.log_key(&subject.tenant);
    let event = Event {
        kind: "key.shred".to_owned(),
        actor: key.pseudonym("gov.erasure"),
        action: "comp.erase".to_owned(),
        object: key.pseudonym(&subject.name),
        tenant: key.pseudonym(&subject.tenant),
        article: None,
        decision: Decision::Allow,
        case: None,
        payload: Payload::Clear(serde_json::json!({ "erasure": id })),
    };
    let receipt = home.log().append(event, Ack::Durable).await?;
    let origin = home.log().key().name().to_owned();
    Ok(receipt.index.map(|index| LogEntry { origin, index }))
}
