//! Storing, reading, replacing, deleting.

use aivillage_memory::{Memory, Put, PutStatus, Query, WaitFor};

use crate::{document, put, village};

#[tokio::test]
async fn a_document_is_stored_found_and_read() {
    let memory = Memory::new(&village(None).await, "local");
    let mut well = document("well.md", "The village well is twelve metres deep. It was dug by hand.");
    well.title = Some("The well".to_owned());
    well.metadata.insert("year".to_owned(), 1871.into());
    let report = put(&memory, vec![well]).await;
    assert_eq!((report.results[0].status, report.results[0].version), (PutStatus::Created, Some(1)));

    let context = memory.query(Query::new("How deep is the village well?")).await.expect("answers");
    let passage = &context.passages[0];
    assert!(context.answerable, "{context:?}");
    let view = memory.get("main", "well.md", None).await.expect("there");
    let (from, to) = (passage.span.0 as usize, passage.span.1 as usize);
    assert_eq!(view.text.chars().skip(from).take(to - from).collect::<String>(), passage.text);
    assert_eq!((view.language.as_str(), view.metadata["year"].as_i64()), ("eng", Some(1871)));
    assert_eq!(memory.collections().await.expect("lists"), ["main"]);
}

#[tokio::test]
async fn other_text_is_a_new_version_and_the_same_is_none() {
    let memory = Memory::new(&village(None).await, "local");
    put(&memory, vec![document("a", "The mill grinds corn.")]).await;
    let same = put(&memory, vec![document("a", "The mill grinds corn.\n")]).await;
    assert_eq!((same.results[0].status, same.results[0].version), (PutStatus::Unchanged, Some(1)));
    let other = put(&memory, vec![document("a", "The mill burnt down.")]).await;
    assert_eq!((other.results[0].status, other.results[0].version), (PutStatus::Updated, Some(2)));

    let found = memory.query(Query::new("mill corn")).await.expect("answers");
    assert_eq!(
        found.passages.iter().map(|p| (p.version, p.text.as_str())).collect::<Vec<_>>(),
        [(2, "The mill burnt down.")]
    );
    let first = memory.get("main", "a", Some(1)).await.expect("kept");
    assert_eq!((first.text.as_str(), first.versions), ("The mill grinds corn.", vec![1, 2]));
    assert_eq!(memory.get("main", "a", Some(3)).await.unwrap_err().code(), "not_found");
}

#[tokio::test]
async fn versions_beyond_the_limit_are_removed() {
    let memory = Memory::new(&village(None).await, "local");
    for n in 1..=13 {
        put(&memory, vec![document("a", &format!("version number {n}"))]).await;
    }
    assert_eq!(memory.get("main", "a", None).await.expect("there").versions, (4..=13).collect::<Vec<_>>());
    assert_eq!(memory.get("main", "a", Some(3)).await.unwrap_err().code(), "not_found");
}

#[tokio::test]
async fn deleted_documents_are_gone_at_once_and_come_back_under_a_new_number() {
    let memory = Memory::new(&village(None).await, "local");
    put(&memory, vec![document("a", "A fox crossed the field."), document("b", "A fox slept.")]).await;
    let report = memory.delete("main", vec!["a".to_owned(), "zzz".to_owned()]).await.expect("deletes");
    assert_eq!((report.deleted, report.missing), (vec!["a".to_owned()], vec!["zzz".to_owned()]));
    let found = memory.query(Query::new("fox")).await.expect("answers");
    assert_eq!(found.passages.iter().map(|p| p.doc.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(memory.get("main", "a", None).await.unwrap_err().code(), "not_found");
    let again = put(&memory, vec![document("a", "A fox crossed the field.")]).await;
    assert_eq!((again.results[0].status, again.results[0].version), (PutStatus::Created, Some(2)));
}

#[tokio::test]
async fn copies_are_linked_and_folded() {
    let memory = Memory::new(&village(None).await, "local");
    let text = "The bridge over the river was built of oak in the summer of the great flood by forty people of the \
                valley who worked by day and by night without any rest until the last plank lay in its place.";
    let report = put(
        &memory,
        vec![document("first", text), document("exact", text), document("near", &format!("{text} So it is told."))],
    )
    .await;
    let originals: Vec<_> = report.results.iter().map(|result| result.duplicate_of.as_deref()).collect();
    assert_eq!(originals, [None, Some("first"), Some("first")]);
    let found = memory.query(Query::new("bridge of oak")).await.expect("answers");
    assert_eq!(found.passages.iter().map(|p| p.copies).collect::<Vec<_>>(), [2]);
    let stats = &memory.stats(None).await.expect("counts")[0];
    assert_eq!((stats.documents, stats.duplicates), (3, 2));
}

#[tokio::test]
async fn a_document_without_id_is_named_by_its_content() {
    let memory = Memory::new(&village(None).await, "local");
    let nameless = |text: &str| aivillage_memory::Document { text: text.to_owned(), ..Default::default() };
    let first = put(&memory, vec![nameless("Some words.")]).await;
    let second = put(&memory, vec![nameless("Some words.")]).await;
    assert_eq!(first.results[0].id, second.results[0].id);
    assert_eq!(second.results[0].status, PutStatus::Unchanged);
}

#[tokio::test]
async fn tenants_and_collections_are_apart() {
    let village = village(None).await;
    let (ada, bob) = (Memory::new(&village, "ada"), Memory::new(&village, "bob"));
    put(&ada, vec![document("a", "The secret of the well.")]).await;
    let notes = Put {
        collection: Some("notes".to_owned()),
        documents: vec![document("a", "A note on wells.")],
        wait: WaitFor::Searchable,
    };
    ada.put(notes).await.expect("stored");
    assert!(bob.query(Query::new("well")).await.expect("answers").passages.is_empty());
    assert_eq!(bob.get("main", "a", None).await.unwrap_err().code(), "collection_not_found");
    let both = ada.query(Query::new("wells")).await.expect("answers");
    assert_eq!((both.passages.len(), both.coverage.asked), (2, 2));
    let one = Query { collections: vec!["notes".to_owned()], ..Query::new("wells") };
    assert_eq!(ada.query(one).await.expect("answers").passages.len(), 1);
    let unknown = Query { collections: vec!["note".to_owned()], ..Query::new("wells") };
    let error = ada.query(unknown).await.unwrap_err();
    assert!(error.to_string().contains("did you mean `notes`"), "{error}");
}

#[tokio::test]
async fn messages_are_callable_as_json() {
    let village = village(None).await;
    let body = serde_json::json!({ "Put": [{ "documents": [{ "id": "a", "text": "hello wells" }], "wait": "searchable" }, null] });
    let options = aivillage_runtime::CallOptions::default;
    let reply =
        village.send_json("memory.shard", "local:main:0", body, options()).await.expect("stored").expect("answer");
    assert_eq!(reply["results"][0]["status"], "created");
    let body = serde_json::json!({ "Query": [{ "text": "wells" }, null] });
    let reply = village.send_json("memory.retriever", "local", body, options()).await.expect("found").expect("answer");
    assert_eq!(reply["passages"][0]["doc"], "a");
    for kind in ["memory.shard", "memory.retriever", "memory.registry", "memory.ingest"] {
        let info = village.kind_info(kind).expect("hosted");
        assert!(info.messages.iter().all(|m| m.action.starts_with("memory.") && !m.doc.is_empty()), "{kind}");
    }
}
