//! What an erased person said, had noted and stored: on three nodes, in no file, and certified.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aivillage_actors::agent::{Agent, AgentMsg, NoteText, RecallQuery};
use aivillage_actors::conversation::{Conversation, ConversationMsg, HistoryQuery, Message, Role};
use aivillage_actors::{ConversationData, NoteData, install};
use aivillage_governance::Governance;
use aivillage_governance::cases::{Cases, Sender};
use aivillage_governance::erasure::{CertificateSigner, Erased, Erasure, ErasureMsg};
use aivillage_governance::identity::accounts::{NewKey, NewSubject};
use aivillage_governance::identity::role::Role as AccountRole;
use aivillage_governance::identity::{Identity, IdentityMsg};
use aivillage_governance::keys::SignedCertificate;
use aivillage_governance::keys::certificate::ErasedStore;
use aivillage_governance::moderation::{Action, Category, Stage, Verdict};
use aivillage_memory::names::{ShardName, index_name};
use aivillage_memory::{Document, Memory, MemoryData, Put, PutReport, PutStatus, Query, WaitFor};
use aivillage_runtime::{Batch, CallError, Idem, Level, MsgCx, Principal, PrincipalKind, TreeId, Village};

const CANARY: &str = "the canary sings in the attic at dawn";
/// In the clear, so that the test knows that it would find one.
const DECOY: &str = "a decoy that nobody has sealed at all";
const NOTED: &str = "the canary keeps its key under the mat";
const NAME: &str = "ada.lovelace@example.org";
const LABEL: &str = "the laptop in the attic of Ada";
const SPAM: &str = "buy the canary now and sing for ever";
const KEY: &str = "local:c-1";
const AGENT: &str = "local:sage";

struct Node {
    village: Village,
    _governance: Governance,
}

async fn node(dir: &Path, join: Option<&(String, String)>) -> Node {
    let mut config: toml::Table = "node.listen = '127.0.0.1:0'".parse().unwrap();
    if let Some((token, seed)) = join {
        config.insert("join".into(), toml::from_str(&format!("token = '{token}'\nseeds = ['{seed}']")).unwrap());
    }
    let builder = Village::builder().config(config).data_dir(dir).clustered();
    let (builder, governance) = aivillage_governance::install(builder).unwrap();
    governance.owners.add(ConversationData);
    governance.owners.add(NoteData);
    governance.owners.add(MemoryData);
    let builder = install(aivillage_memory::install(builder)).unwrap();
    let village = builder.start().await.unwrap();
    governance.begin(&village).await;
    Node { village, _governance: governance }
}

/// Tries again until it is done: a cluster that comes to be refuses some things for a moment.
async fn until_ok<T, E: std::fmt::Display>(mut work: impl AsyncFnMut() -> Result<T, E>) -> T {
    let trying = async {
        loop {
            match work().await {
                Ok(done) => return done,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), trying).await.expect("it is done in time")
}

async fn by<T>(subject: &str, work: impl Future<Output = T>) -> T {
    let principal = Principal {
        tenant: "local".into(),
        subject: subject.into(),
        kind: PrincipalKind::User,
        roles: vec!["user".into()],
        scopes: Vec::new(),
    };
    MsgCx::request(None, None, Some(Arc::new(principal))).scope(work).await
}

async fn say(village: &Village, subject: &str, text: &str) {
    let message = || Message { role: Role::User, agent: "sage".into(), text: text.into(), at_ms: 1 };
    let addr = village.addr::<Conversation>(KEY);
    let said = async || addr.ask(|reply| ConversationMsg::Append(vec![message()], reply)).await;
    by(subject, until_ok(said)).await;
}

async fn history(village: &Village) -> Result<Vec<String>, CallError> {
    let addr = village.addr::<Conversation>(KEY);
    let messages = addr.ask(|reply| ConversationMsg::History(HistoryQuery { limit: 100 }, reply)).await?;
    Ok(messages.into_iter().map(|message| message.text).collect())
}

/// An account of this name with a key; its subject.
async fn account(village: &Village, name: &str) -> String {
    let desk = village.addr::<Identity>("local");
    let new = || NewSubject { kind: PrincipalKind::User, name: name.into(), roles: [AccountRole::User].into() };
    let made = async || match desk.ask(|reply| IdentityMsg::CreateUser(new(), reply)).await {
        Ok(made) => made.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let subject = until_ok(made).await;
    let key = || NewKey { subject, label: LABEL.into(), scopes: Vec::new(), expires_ms: None };
    until_ok(async || desk.ask(|reply| IdentityMsg::CreateKey(key(), reply)).await).await.unwrap();
    subject.to_string()
}

/// A case about something mild that somebody sent.
async fn accuse(village: &Village, subject: &str) {
    let verdict = || Verdict { action: Action::Label, category: Some(Category::Spam), ..Verdict::default() };
    let sender = || Sender::new("local", subject);
    let cases = Cases::new(village);
    until_ok(async || cases.open(verdict(), sender(), Stage::UserInput, SPAM.into()).await).await;
}

async fn remember(village: &Village, subject: &str, text: &str) {
    let addr = village.addr::<Agent>(AGENT);
    let idem = Idem::of(&[subject.as_bytes()]);
    let note = || NoteText { text: text.into() };
    // A repetition gets the answer that was stored.
    for _ in 0..2 {
        let noted = async || addr.call().idem(idem).ask(|reply| AgentMsg::Remember(note(), reply)).await;
        assert_eq!(by(subject, until_ok(noted)).await.text, text);
    }
}

async fn recall(village: &Village) -> Result<Vec<String>, CallError> {
    let query = RecallQuery { text: String::new(), limit: 100 };
    let notes = village.addr::<Agent>(AGENT).ask(|reply| AgentMsg::Recall(query, reply)).await?;
    Ok(notes.into_iter().map(|note| note.text).collect())
}

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The files below a folder that hold these bytes.
fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let has = |path: &PathBuf| {
        std::fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    files(dir).into_iter().filter(has).collect()
}

/// What each node says of one store.
fn stores_of<'a>(signed: &'a SignedCertificate, owner: &str) -> Vec<&'a ErasedStore> {
    signed.certificate.stores.iter().filter(|store| store.owner == owner).collect()
}

async fn erase(village: &Village, subject: &str) -> Result<Erased, CallError> {
    let ask = |reply| ErasureMsg::Erase { subject: subject.into(), basis: "gdpr-17".into(), reply };
    village.addr::<Erasure>("local").call().deadline(Duration::from_secs(30)).ask(ask).await
}

/// Three nodes of a cluster, and where their data is.
async fn three(dir: &Path) -> ([Node; 3], Vec<PathBuf>) {
    let dirs: Vec<_> = (1..=3).map(|node| dir.join(node.to_string())).collect();
    let first = node(&dirs[0], None).await;
    let cluster = first.village.cluster().unwrap();
    let token = until_ok(async || cluster.new_token(2, Duration::from_mins(1), "test").await).await;
    let join = (token.to_string(), cluster.addr().to_owned());
    let nodes = [first, node(&dirs[1], Some(&join)).await, node(&dirs[2], Some(&join)).await];
    // A node that has no copies of a group yet has nothing to count.
    let cluster = nodes[0].village.cluster().unwrap();
    let is_well = || Some(cluster.status()).filter(|it| it.health == "healthy" && it.members.len() == 3);
    until_ok(async || is_well().ok_or("not yet")).await;
    (nodes, dirs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_person_is_in_no_file_and_the_certificate_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (nodes, _) = three(dir.path()).await;
    let villages: Vec<&Village> = nodes.iter().map(|node| &node.village).collect();

    let ada = account(villages[0], NAME).await;
    let ada = ada.as_str();
    accuse(villages[1], ada).await;
    say(villages[1], ada, CANARY).await;
    say(villages[2], "bob", "bob was here and stays").await;
    remember(villages[2], ada, NOTED).await;
    remember(villages[0], "bob", "bob left his hat here").await;
    let decoy = Batch::new().put(TreeId(60_000), "decoy", DECOY);
    villages[0].store().commit(decoy, Level::Disk).await.unwrap();
    for village in &villages {
        let said = until_ok(async || history(village).await).await;
        assert_eq!(said, [CANARY, "bob was here and stays"]);
        assert_eq!(until_ok(async || recall(village).await).await, ["bob left his hat here", NOTED]);
    }
    let ask = |reply| ErasureMsg::Export(ada.into(), reply);
    let exported = until_ok(async || villages[2].addr::<Erasure>("local").ask(ask).await).await;
    for (owner, canary) in [("conversations", CANARY), ("notes", NOTED), ("accounts", NAME), ("cases", SPAM)] {
        let items = exported.iter().find(|(name, _)| name == owner).unwrap();
        let items = String::from_utf8(items.1.to_vec()).unwrap();
        assert!(items.contains(canary) && !items.contains("bob"), "{items}");
    }

    let erased = until_ok(async || erase(villages[0], ada).await).await;
    let certificate = erased.certificate().unwrap();
    let signer = villages[1].provided::<CertificateSigner>().unwrap();
    // Each node has the village's secret in its own time.
    let key = until_ok(async || signer.public_key().ok_or("not there yet")).await;
    certificate.verify(key).unwrap();
    // A case leaves a mark on its sender's standing, and an account has a key.
    for (owner, items) in [("conversations", 1), ("notes", 1), ("accounts", 2), ("cases", 2), ("memory", 0)] {
        let stores = stores_of(&certificate, owner);
        assert_eq!(stores.len(), 3, "each node counted");
        for store in stores {
            assert_eq!((store.enumerated, store.erased, store.remaining), (items, items, 0), "{store:?}");
        }
    }
    assert_eq!(certificate.certificate.keys.len(), 4, "one for each purpose");
    let flipped = String::from_utf8(erased.certificate.to_vec()).unwrap().replacen("gdpr-17", "gdpr-16", 1);
    assert!(SignedCertificate::from_json(flipped.as_bytes()).unwrap().verify(key).is_err());

    for village in &villages {
        assert_eq!(until_ok(async || history(village).await).await, ["bob was here and stays"]);
        assert_eq!(until_ok(async || recall(village).await).await, ["bob left his hat here"]);
    }
    let again = async {
        let message = Message { role: Role::User, agent: "sage".into(), text: CANARY.into(), at_ms: 1 };
        villages[0].addr::<Conversation>(KEY).ask(|reply| ConversationMsg::Append(vec![message], reply)).await
    };
    assert_eq!(by(ada, again).await.unwrap_err().code(), "crypt_shredded");
    for node in nodes {
        node.village.shutdown().await.unwrap();
    }
    for canary in [CANARY, NOTED, NAME, LABEL, SPAM] {
        assert_eq!(files_with(dir.path(), canary), Vec::<PathBuf>::new());
    }
    assert!(!files_with(dir.path(), DECOY).is_empty());
}

/// A word of hers that is everywhere, and one that is in a title only.
const WORD: &str = "zanzibarquokka";
const TITLE: &str = "quetzalcoatlus";

fn document(id: &str, text: &str) -> Document {
    Document { id: Some(id.into()), text: text.into(), ..Document::default() }
}

async fn put(village: &Village, subject: &str, documents: Vec<Document>) -> PutReport {
    let memory = Memory::new(village, "local");
    let put = || Put { documents: documents.clone(), wait: WaitFor::Searchable, ..Put::default() };
    by(subject, until_ok(async || memory.put(put()).await)).await
}

/// Ids of the documents that a question finds, without one of those who ask.
async fn found(village: &Village, question: &str) -> Vec<String> {
    let memory = Memory::new(village, "local");
    let context = until_ok(async || memory.query(Query::new(question)).await).await;
    let mut ids: Vec<_> = context.passages.into_iter().map(|passage| passage.doc).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Stores what the story begins with: hers in all forms, and what is of others beside and upon it.
async fn store(villages: &[&Village]) {
    let long: String = (0..1_500).map(|n| format!("Line {n} tells of the {WORD} and of number{n}. ")).collect();
    let mut hers = vec![
        document(&format!("note-{WORD}"), &format!("The {WORD} sings in the attic at dawn.")),
        document("hers/long", &long),
        document("hers/first", &format!("First she wrote about a {WORD} on a hill.")),
        document("hers/gone", &format!("This {WORD} she took back herself.")),
        document("shared", &format!("The mill of the {WORD} is by the river.")),
    ];
    hers[0].title = Some(format!("On the {TITLE}"));
    hers[0].source = Some(format!("Diary of the {WORD}"));
    hers[0].url = Some(format!("https://example.org/{WORD}"));
    hers[0].metadata.insert("note".into(), format!("more of the {WORD}").into());
    let report = put(villages[1], "ada", hers).await;
    assert!(report.results.iter().all(|result| result.status != PutStatus::Failed), "{report:?}");
    put(villages[1], "ada", vec![document("hers/first", "Then she wrote about a goat on that hill.")]).await;
    Memory::new(villages[1], "local").delete("main", vec!["hers/gone".into()]).await.unwrap();
    let his = [("his", "The well of the village is deep and cold."), ("shared", "The mill is by the river, he says.")];
    put(villages[2], "bob", his.map(|(id, text)| document(id, text)).to_vec()).await;
    put(villages[0], "bob", vec![document("his/copy", &format!("The {WORD} sings in the attic at dawn."))]).await;
}

/// Files of indexes.
fn indexes(dir: &Path) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.components().any(|part| part.as_os_str() == "memory")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_an_erased_person_are_in_no_file_of_any_node() {
    let dir = tempfile::tempdir().unwrap();
    let (mut nodes, dirs) = three(dir.path()).await;
    let villages: Vec<&Village> = nodes.iter().map(|node| &node.village).collect();
    let name = ShardName::new("local", "main").unwrap();
    store(&villages).await;
    assert!(found(villages[2], WORD).await.contains(&"hers/long".to_owned()));
    assert_eq!(found(villages[0], TITLE).await, [format!("note-{WORD}")]);
    for word in [WORD, TITLE, "goat on that hill"] {
        let files = files_with(dir.path(), word);
        assert!(files.iter().all(|file| indexes(dir.path()).contains(file)), "{word} is in {files:?}");
    }
    // The shard was on the other nodes before.
    let folders: Vec<_> = dirs.iter().map(|dir| name.folder(dir).join(index_name(0))).collect();
    let live = folders.iter().find(|folder| folder.exists()).unwrap();
    for stale in folders.iter().filter(|folder| !folder.exists()) {
        copy(live, stale);
    }
    copy(live, &live.with_extension("damaged-7"));
    let before = indexes(dir.path());
    assert!(before.len() > 9, "{before:?}");

    let exported = until_ok(async || {
        villages[0].addr::<Erasure>("local").ask(|reply| ErasureMsg::Export("ada".into(), reply)).await
    });
    let exported = exported.await.into_iter().find(|(owner, _)| owner == "memory").unwrap();
    let exported = String::from_utf8(exported.1.to_vec()).unwrap();
    for part in [WORD, TITLE, "number1499", "First she wrote", "goat on that hill", "The mill of the"] {
        assert!(exported.contains(part), "{part}");
    }
    assert!(!exported.contains("he says") && !exported.contains("deep and cold"));

    let erased = until_ok(async || erase(villages[0], "ada").await).await;
    let certificate = erased.certificate().unwrap();
    let signer = villages[1].provided::<CertificateSigner>().unwrap();
    certificate.verify(until_ok(async || signer.public_key().ok_or("not there yet")).await).unwrap();
    let stores = stores_of(&certificate, "memory");
    assert_eq!(stores.len(), 3, "each node counted");
    // Two versions of the first and one of three others, and what she deleted.
    assert!(stores.iter().all(|store| (store.enumerated, store.erased, store.remaining) == (6, 6, 0)), "{stores:?}");

    check(&villages).await;
    let left: Vec<_> = before.iter().filter(|file| file.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    let refused = put(villages[2], "ada", vec![document("again", "she is back")]).await;
    assert_eq!(refused.results[0].error.as_ref().map(|error| error.code.as_str()), Some("crypt_shredded"));
    // Wherever the shard was: it starts again, and so does the node.
    for (node, dir) in nodes.iter_mut().zip(&dirs) {
        node.village.shutdown().await.unwrap();
        *node = self::node(dir, None).await;
    }
    check(&nodes.iter().map(|node| &node.village).collect::<Vec<_>>()).await;
    for node in nodes {
        node.village.shutdown().await.unwrap();
    }
    for word in [TITLE, "goat on that hill", "First she wrote", "she took back"] {
        assert_eq!(files_with(dir.path(), word), Vec::<PathBuf>::new());
    }
}

/// What is there once she is erased.
async fn check(villages: &[&Village]) {
    for village in villages {
        assert_eq!(found(village, WORD).await, ["his/copy"]);
        assert_eq!(found(village, TITLE).await, Vec::<String>::new());
        assert_eq!(found(village, "goat hill").await, Vec::<String>::new());
        assert_eq!(found(village, "deep well").await, ["his"]);
        assert_eq!(found(village, "mill by the river").await, ["shared"]);
        let memory = Memory::new(village, "local");
        for (id, version) in [(&*format!("note-{WORD}"), None), ("hers/long", None), ("shared", Some(1))] {
            let is_gone = async || match memory.get("main", id, version).await {
                Err(error) if error.code() == "not_found" => Ok(()),
                other => Err(format!("{other:?}")),
            };
            until_ok(is_gone).await;
        }
        let shared = until_ok(async || memory.get("main", "shared", None).await).await;
        assert_eq!((shared.version, shared.versions), (2, vec![2]));
        let copy = until_ok(async || memory.get("main", "his/copy", None).await).await;
        assert_eq!(copy.duplicate_of, None);
        assert_eq!(until_ok(async || memory.stats(None).await).await[0].documents, 3);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
