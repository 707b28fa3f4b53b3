//! What an erased person said: on three nodes, in no file, and certified.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aivillage_actors::conversation::{Conversation, ConversationMsg, HistoryQuery, Message, Role};
use aivillage_actors::{ConversationData, install};
use aivillage_governance::Governance;
use aivillage_governance::erasure::{CertificateSigner, Erased, Erasure, ErasureMsg};
use aivillage_governance::keys::SignedCertificate;
use aivillage_runtime::{Batch, CallError, Level, MsgCx, Principal, PrincipalKind, TreeId, Village};

const CANARY: &str = "the canary sings in the attic at dawn";
/// In the clear, so that the test knows that it would find one.
const DECOY: &str = "a decoy that nobody has sealed at all";
const KEY: &str = "local:c-1";

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

/// The files below a folder that hold these bytes.
fn files_with(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        {
            found.push(path);
        }
    }
    found
}

async fn erase(village: &Village, subject: &str) -> Result<Erased, CallError> {
    let ask = |reply| ErasureMsg::Erase { subject: subject.into(), basis: "gdpr-17".into(), reply };
    village.addr::<Erasure>("local").call().deadline(Duration::from_secs(30)).ask(ask).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_person_is_in_no_file_and_the_certificate_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let dirs: Vec<_> = (1..=3).map(|node| dir.path().join(node.to_string())).collect();
    let first = node(&dirs[0], None).await;
    let cluster = first.village.cluster().unwrap();
    let token = until_ok(async || cluster.new_token(2, Duration::from_mins(1), "test").await).await;
    let join = (token.to_string(), cluster.addr().to_owned());
    let nodes = [first, node(&dirs[1], Some(&join)).await, node(&dirs[2], Some(&join)).await];
    let villages: Vec<&Village> = nodes.iter().map(|node| &node.village).collect();
    // A node that has no copies of a group yet has nothing to count.
    let cluster = villages[0].cluster().unwrap();
    let is_well = || Some(cluster.status()).filter(|it| it.health == "healthy" && it.members.len() == 3);
    until_ok(async || is_well().ok_or("not yet")).await;

    say(villages[1], "ada", CANARY).await;
    say(villages[2], "bob", "bob was here and stays").await;
    let decoy = Batch::new().put(TreeId(60_000), "decoy", DECOY);
    villages[0].store().commit(decoy, Level::Disk).await.unwrap();
    for village in &villages {
        let said = until_ok(async || history(village).await).await;
        assert_eq!(said, [CANARY, "bob was here and stays"]);
    }
    let ask = |reply| ErasureMsg::Export("ada".into(), reply);
    let exported = until_ok(async || villages[2].addr::<Erasure>("local").ask(ask).await).await;
    let (owner, exported) = (&exported[0].0, String::from_utf8(exported[0].1.to_vec()).unwrap());
    assert!(owner == "conversations" && exported.contains(CANARY) && !exported.contains("bob"), "{exported}");

    let erased = until_ok(async || erase(villages[0], "ada").await).await;
    let certificate = erased.certificate().unwrap();
    let signer = villages[1].provided::<CertificateSigner>().unwrap();
    // Each node has the village's secret in its own time.
    let key = until_ok(async || signer.public_key().ok_or("not there yet")).await;
    certificate.verify(key).unwrap();
    let stores = &certificate.certificate.stores;
    assert_eq!(stores.len(), 3, "each node counted");
    assert!(
        stores.iter().all(|store| store.enumerated == 1 && store.erased == 1 && store.remaining == 0),
        "{stores:?}"
    );
    assert_eq!(certificate.certificate.keys.len(), 1);
    let flipped = String::from_utf8(erased.certificate.to_vec()).unwrap().replacen("gdpr-17", "gdpr-16", 1);
    assert!(SignedCertificate::from_json(flipped.as_bytes()).unwrap().verify(key).is_err());

    for village in &villages {
        assert_eq!(until_ok(async || history(village).await).await, ["bob was here and stays"]);
    }
    let again = async {
        let message = Message { role: Role::User, agent: "sage".into(), text: CANARY.into(), at_ms: 1 };
        villages[0].addr::<Conversation>(KEY).ask(|reply| ConversationMsg::Append(vec![message], reply)).await
    };
    assert_eq!(by("ada", again).await.unwrap_err().code(), "crypt_shredded");
    for node in nodes {
        node.village.shutdown().await.unwrap();
    }
    assert_eq!(files_with(dir.path(), CANARY), Vec::<PathBuf>::new());
    assert!(!files_with(dir.path(), DECOY).is_empty());
}
