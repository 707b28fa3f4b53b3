//! What is left after a crash, and after damage.

use std::path::{Path, PathBuf};

use aivillage_memory::names::ShardName;
use aivillage_memory::{Document, Memory, Put, Query, WaitFor};
use aivillage_runtime::Village;

use crate::{document, put, village};

/// Runs `work` on a village in a runtime of its own, and lets both end without any shutdown.
fn crash<T>(dir: &Path, work: impl AsyncFnOnce(Village) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async { work(village(Some(dir)).await).await })
}

fn many(range: std::ops::Range<usize>) -> Vec<Document> {
    range
        .map(|n| document(&format!("d{n}"), &format!("Note number{n} speaks of topic{n} and of nothing else.")))
        .collect()
}

fn index_folder(dir: &Path) -> PathBuf {
    ShardName::new("local", "main").expect("valid").folder(dir).join("lexical")
}

async fn check_all(village: &Village, count: usize) {
    let memory = Memory::new(village, "local");
    let stats = &memory.stats(None).await.expect("counts")[0];
    assert_eq!(stats.documents, count as u64);
    // Opening replays before it answers; the last commit of that replay may still be under way.
    put(&memory, vec![document("probe", "probe")]).await;
    for n in [0, count / 2, count - 1] {
        let found = memory.query(Query::new(format!("topic{n}"))).await.expect("answers");
        assert_eq!(found.passages.first().map(|p| p.doc.clone()), Some(format!("d{n}")));
    }
}

#[test]
fn acknowledged_documents_survive_a_crash() {
    let dir = tempfile::tempdir().expect("dir");
    crash(dir.path(), async |village| {
        let memory = Memory::new(&village, "local");
        for start in [0, 100] {
            let documents = many(start..start + 100);
            memory.put(Put { documents, wait: WaitFor::Durable, ..Put::default() }).await.expect("durable");
        }
        memory
            .put(Put { documents: vec![document("gone", "topic0 topic1")], ..Put::default() })
            .await
            .expect("durable");
        memory.delete("main", vec!["gone".to_owned()]).await.expect("deleted");
    });
    crash(dir.path(), async |village| check_all(&village, 200).await);
}

#[test]
fn a_damaged_index_is_set_aside_and_rebuilt() {
    let dir = tempfile::tempdir().expect("dir");
    crash(dir.path(), async |village| {
        put(&Memory::new(&village, "local"), many(0..150)).await;
        village.shutdown().await.expect("clean");
    });
    let folder = index_folder(dir.path());
    for entry in std::fs::read_dir(&folder).expect("an index").filter_map(Result::ok) {
        if entry.path().extension().is_some_and(|extension| extension == "term" || extension == "idx") {
            std::fs::write(entry.path(), b"not an index").expect("damaged");
        }
    }
    crash(dir.path(), async |village| check_all(&village, 150).await);
    let aside = std::fs::read_dir(folder.parent().expect("parent")).expect("listing").filter_map(Result::ok);
    assert!(aside.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("damaged")));
}

#[test]
fn a_lost_index_is_rebuilt() {
    let dir = tempfile::tempdir().expect("dir");
    crash(dir.path(), async |village| {
        put(&Memory::new(&village, "local"), many(0..50)).await;
        village.shutdown().await.expect("clean");
    });
    std::fs::remove_dir_all(index_folder(dir.path())).expect("removed");
    crash(dir.path(), async |village| check_all(&village, 50).await);
}

#[test]
fn an_index_from_the_past_is_brought_up_or_rebuilt() {
    let dir = tempfile::tempdir().expect("dir");
    let old = tempfile::tempdir().expect("dir");
    crash(dir.path(), async |village| {
        put(&Memory::new(&village, "local"), many(0..40)).await;
        village.shutdown().await.expect("clean");
    });
    copy(&index_folder(dir.path()), old.path());
    crash(dir.path(), async |village| {
        let memory = Memory::new(&village, "local");
        for start in (40..240).step_by(20) {
            put(&memory, many(start..start + 20)).await;
        }
        village.shutdown().await.expect("clean");
    });
    std::fs::remove_dir_all(index_folder(dir.path())).expect("removed");
    copy(old.path(), &index_folder(dir.path()));
    crash(dir.path(), async |village| check_all(&village, 240).await);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("listing").filter_map(Result::ok) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}
