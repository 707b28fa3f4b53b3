//! What is refused, and that everything else goes on.

use aivillage_memory::{Document, Memory, Put, PutStatus, Query, RawDocument};

use crate::{document, put, village};

async fn parse(memory: &Memory, name: &str, bytes: &[u8]) -> Result<Vec<Document>, String> {
    let raw = RawDocument { name: name.to_owned(), bytes: bytes.to_vec(), ..RawDocument::default() };
    memory.parse(raw).await.map_err(|error| error.code().into_owned())
}

#[tokio::test]
async fn unreadable_files_are_refused_with_a_code() {
    let memory = Memory::new(&village(None).await, "local");
    let cases: [(&str, &[u8], &str); 7] = [
        ("broken.pdf", b"%PDF-1.7\n1 0 obj\n<<", "bad_pdf"),
        ("bomb.zip", b"PK\x03\x04\x14\0\0\0\x08\0aaaaaaaaaaaaaaaaaaaaaa", "unsupported_media_type"),
        ("bomb.txt", b"\x1f\x8b\x08\0\0\0\0\0\0\x03aaaaaaaa", "unsupported_media_type"),
        ("latin.txt", b"\x80\x81\x8d\x8f\x90\x9d\xff\xfe", "bad_encoding"),
        ("bad.json", b"{\"a\": ", "bad_syntax"),
        ("empty.txt", b" \n ", "memory_empty"),
        ("image.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "unsupported_media_type"),
    ];
    for (name, bytes, code) in cases {
        assert_eq!(parse(&memory, name, bytes).await, Err(code.to_owned()), "{name}");
    }
    let huge = vec![b'a'; (32 << 20) + 1];
    assert_eq!(parse(&memory, "huge.txt", &huge).await, Err("payload_too_large".to_owned()));
    let good = parse(&memory, "fine.md", b"# Wells\n\nStill parsed.").await.expect("others go on");
    assert_eq!(good[0].title.as_deref(), Some("Wells"));
}

#[tokio::test]
async fn bad_documents_of_a_batch_are_listed_and_good_ones_stored() {
    let memory = Memory::new(&village(None).await, "local");
    let report =
        put(&memory, vec![document("a", "A good one."), document("b", " \u{0} "), document("c\n", "bad id")]).await;
    let codes: Vec<_> = report.results.iter().map(|r| r.error.as_ref().map(|e| e.code.as_str())).collect();
    assert_eq!(codes, [None, Some("memory_empty"), Some("bad_name")]);
    assert_eq!(report.results[1].status, PutStatus::Failed);
    assert_eq!(memory.query(Query::new("good")).await.expect("answers").passages.len(), 1);
}

#[tokio::test]
async fn requests_over_a_limit_are_refused_whole() {
    let memory = Memory::new(&village(None).await, "local");
    let many = (0..257).map(|n| document(&n.to_string(), "text")).collect();
    let error = memory.put(Put { documents: many, ..Put::default() }).await.unwrap_err();
    assert_eq!(error.code(), "payload_too_large");
    let long = Query::new("word ".repeat(2000));
    assert_eq!(memory.query(long).await.unwrap_err().code(), "payload_too_large");
    assert_eq!(memory.query(Query { k: 101, ..Query::new("x") }).await.unwrap_err().code(), "payload_too_large");
    assert_eq!(memory.query(Query::new(" ?! ")).await.unwrap_err().code(), "memory_empty");
    let bad = Put { collection: Some("../up".to_owned()), ..Put::default() };
    assert_eq!(memory.put(bad).await.unwrap_err().code(), "bad_name");
}

#[tokio::test]
async fn a_key_that_is_no_shard_is_told_so() {
    let village = village(None).await;
    let body = serde_json::json!({ "Stats": null });
    let error = village
        .send_json("memory.shard", "nonsense", body, aivillage_runtime::CallOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "bad_name");
}

#[tokio::test]
async fn a_batch_of_the_largest_size_is_stored() {
    let memory = Memory::new(&village(None).await, "local");
    let words = |n: usize| (0..150).map(|w| format!("w{} ", n * 150 + w)).collect::<String>();
    let report = put(&memory, (0..256).map(|n| document(&format!("d{n}"), &words(n))).collect()).await;
    assert!(report.results.iter().all(|result| result.status == PutStatus::Created));
    let found = memory.query(Query::new("w30000")).await.expect("answers");
    assert_eq!(found.passages[0].doc, "d200");
}

#[tokio::test]
async fn a_large_document_is_cut_and_found_by_its_end() {
    let memory = Memory::new(&village(None).await, "local");
    let mut text: String = (0..20_000).map(|n| format!("Sentence number{n} stands here. ")).collect();
    text.push_str("The treasure lies under the old \u{fc}lm tree.");
    put(&memory, vec![document("large", &text)]).await;
    let found = memory.query(Query::new("treasure under the tree")).await.expect("answers");
    assert!(found.passages[0].text.ends_with("The treasure lies under the old \u{fc}lm tree."));
    assert_eq!(memory.get("main", "large", None).await.expect("there").text, text);
}
