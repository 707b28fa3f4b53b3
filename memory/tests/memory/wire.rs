//! Every message and every answer is the same after it went to another node.

use aivillage_governance::keys::{SubjectTag, TenantId};
use aivillage_memory::context::{AnswerCandidate, Contradiction};
use aivillage_memory::document::PutError;
use aivillage_memory::ingest::{Ingest, IngestMsg};
use aivillage_memory::journal::DocKey;
use aivillage_memory::lexical::search::Sought;
use aivillage_memory::question::Question;
use aivillage_memory::registry::{Registry, RegistryMsg};
use aivillage_memory::retriever::{Retriever, RetrieverMsg};
use aivillage_memory::shard::folders::{Folders, FoldersMsg};
use aivillage_memory::shard::read::{Found, FoundPassage, SearchShard};
use aivillage_memory::shard::{Shard, ShardMsg};
use aivillage_memory::{
    CollectionStats, Context, Coverage, Delete, DeleteReport, Document, DocumentView, Format, Gap, GapKind,
    GetDocument, Mode, Parts, Passage, Put, PutReport, PutResult, PutStatus, Query, RawDocument, WaitFor,
};
use aivillage_runtime::testing::asked;
use serde_json::json;

fn document() -> Document {
    let metadata = json!({ "tags": ["x", 1, -2, 1.5, null, true], "deep": { "er": [{}] }, "big": u64::MAX });
    Document {
        id: Some("id".into()),
        title: Some("\u{fc}ber".into()),
        text: "two\nlines".into(),
        format: Format::Markdown,
        url: None,
        source: Some("s".into()),
        metadata: metadata.as_object().expect("a map").clone(),
    }
}

/// Asks with a message that carries `sent`, and checks it and the answer.
macro_rules! check {
    ($kind:ty, $message:path, $sent:expr, $answer:expr) => {{
        let (sent, answer) = ($sent, $answer);
        let open = |body| match body {
            $message(got, reply) => {
                assert_eq!(got, $sent);
                reply
            }
            #[allow(unreachable_patterns, reason = "some have one message only")]
            other => panic!("{other:?}"),
        };
        let heard = asked::<$kind, _>(|reply| $message(sent, reply), open, answer);
        assert_eq!(heard, Ok($answer));
    }};
}

/// A long document as it is read.
fn view() -> DocumentView {
    DocumentView {
        collection: "c".into(),
        id: "i".into(),
        version: 2,
        versions: vec![1, 2],
        title: None,
        text: "t".repeat(100_000),
        format: Format::Blocks,
        url: Some("u".into()),
        source: None,
        metadata: document().metadata,
        language: "eng".into(),
        duplicate_of: None,
        stored_ms: u64::MAX,
        chunks: 7,
    }
}

#[test]
fn messages_of_a_shard() {
    let put = || Put { collection: Some("c".into()), documents: vec![document(); 2], wait: WaitFor::Searchable };
    let error = Some(PutError { code: "c".into(), message: "m".into() });
    let result = |status| PutResult {
        id: "i".into(),
        status,
        version: Some(3),
        duplicate_of: Some("d".into()),
        error: error.clone(),
    };
    let report = || PutReport { results: vec![result(PutStatus::Created), result(PutStatus::Failed)] };
    check!(Shard, ShardMsg::Put, put(), report());
    check!(Shard, ShardMsg::Get, GetDocument { id: "i".into(), version: Some(1) }, view());
    let deleted = || DeleteReport { deleted: vec!["a".into()], missing: vec!["b".into()] };
    check!(Shard, ShardMsg::Delete, Delete { ids: vec!["a".into()], wait: WaitFor::Durable }, deleted());
    let stats = || CollectionStats {
        collection: "c".into(),
        documents: 1,
        chunks: 2,
        duplicates: 3,
        journal_seq: 4,
        searchable_seq: 5,
        index_bytes: 6,
        languages: vec![("eng".into(), 1)],
    };
    let open = |body| match body {
        ShardMsg::Stats(reply) => reply,
        other => panic!("{other:?}"),
    };
    assert_eq!(asked::<Shard, _>(ShardMsg::Stats, open, stats()), Ok(stats()));
    let search = || SearchShard { question: Question::parse("a \"b c\" -d title:e what?"), limit: usize::MAX };
    let sought = Sought { word: "w".into(), terms: vec!["t".into()], df: 9, idf: 0.1, asks: true, fuzzy: false };
    let passage = FoundPassage {
        doc: "d".into(),
        duplicate_of: Some("e".into()),
        version: 1,
        ordinal: 2,
        title: None,
        heading: "h".into(),
        text: "t".into(),
        span: (3, 4),
        page: 5,
        source: None,
        url: Some("u".into()),
        language: "eng".into(),
        score: 6.25,
        covered: vec![1.0, 0.7, 0.0],
    };
    let found =
        || Found { sought: vec![sought.clone()], chunks: 1, score_max: 0.5, passages: vec![passage.clone(); 2] };
    check!(Shard, ShardMsg::Search, search(), found());
}

#[test]
fn messages_of_a_shard_about_an_owner() {
    let subject = SubjectTag::of(TenantId::of("t"), "ada").expect("a name");
    check!(Shard, ShardMsg::Forget, subject, 7);
    let place = Some((DocKey([1; 16]), 2));
    let open = |body| match body {
        ShardMsg::Of(of, after, reply) => {
            assert_eq!((of, after), (subject, place));
            reply
        }
        other => panic!("{other:?}"),
    };
    let page = || (vec![view()], place);
    assert_eq!(asked::<Shard, _>(|reply| ShardMsg::Of(subject, place, reply), open, page()), Ok(page()));
}

#[test]
fn messages_of_the_folders() {
    let open = |FoldersMsg::Clear(shard, generation, reply)| {
        assert_eq!((shard.as_str(), generation), ("t:c:0", 9));
        reply
    };
    assert_eq!(asked::<Folders, _>(|reply| FoldersMsg::Clear("t:c:0".into(), 9, reply), open, ()), Ok(()));
}

#[test]
fn messages_of_the_registry() {
    check!(Registry, RegistryMsg::Ensure, "c".to_owned(), ());
    check!(Registry, RegistryMsg::Resolve, vec!["c".to_owned()], vec!["c".to_owned()]);
    let open = |body| match body {
        RegistryMsg::List(reply) => reply,
        other => panic!("{other:?}"),
    };
    assert_eq!(asked::<Registry, _>(RegistryMsg::List, open, vec!["c".to_owned()]), Ok(vec!["c".to_owned()]));
}

#[test]
fn messages_of_ingest() {
    let raw = || RawDocument {
        name: "x.pdf".into(),
        mime: Some("application/pdf".into()),
        bytes: (0..=255).cycle().take(100_000).collect(),
        source: None,
    };
    check!(Ingest, IngestMsg::Parse, raw(), vec![document()]);
}

#[test]
fn messages_of_the_retriever() {
    let query = || Query { mode: Mode::Comprehensive, collections: vec!["c".into()], ..Query::new("words") };
    let candidate = AnswerCandidate { text: "a".into(), p: 0.5, passages: vec![1] };
    let passage = Passage {
        n: 1,
        collection: "c".into(),
        doc: "d".into(),
        version: 1,
        chunk: 0,
        title: None,
        heading: Some("h".into()),
        page: Some(2),
        text: "t".into(),
        span: (0, 9),
        score: 0.1,
        parts: Parts { bm25: 12.5 },
        coverage: 1.0,
        source: None,
        url: None,
        language: "und".into(),
        trust: 0.5,
        copies: 2,
    };
    let context = || Context {
        passages: vec![passage.clone()],
        answers: vec![candidate.clone()],
        contradictions: vec![Contradiction { slot: "s".into(), values: vec![candidate.clone()] }],
        gaps: vec![Gap { kind: GapKind::UnknownEntity, text: "w".into() }],
        confidence: 0.25,
        answerable: true,
        coverage: Coverage { asked: 2, answered: 1, missing_shards: vec!["c".into()] },
        mode: Mode::Fast,
        trace_id: Some("t".into()),
    };
    check!(Retriever, RetrieverMsg::Query, query(), context());
}
