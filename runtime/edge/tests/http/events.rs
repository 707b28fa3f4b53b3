//! Server-sent events: in order, resumable, with gaps told.

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Door, problem};

/// One event as a client sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub name: String,
    pub id: String,
    pub data: String,
}

/// Reads an event stream as the WHATWG rules say; only what the door sends is supported.
pub(crate) struct Reader {
    bytes: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Reader {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Reader { bytes: response.bytes_stream().boxed(), text: String::new() }
    }

    /// The next event with data; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Seen> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let mut seen = Seen::default();
                for line in block.lines() {
                    match line.split_once(": ").unwrap_or((line, "")) {
                        ("event", value) => value.clone_into(&mut seen.name),
                        ("id", value) => value.clone_into(&mut seen.id),
                        ("data", value) => value.clone_into(&mut seen.data),
                        _ => {}
                    }
                }
                if !seen.data.is_empty() {
                    return Some(seen);
                }
            }
            let piece = self.bytes.next().await?.ok()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_every_event_once() {
    let door = Door::open().await;
    let topic = door.village.topic("news");
    let start = topic.newest().await.unwrap();
    for n in 0..10 {
        topic.publish(json!({"n": n})).await.unwrap();
    }
    let mut last = start.to_string();
    let mut got = Vec::new();
    // Three connections, each cut after some events.
    for take in [3, 4, 3] {
        let request = door.request(Method::GET, "/v1/events?topics=news").header("last-event-id", &last);
        let mut reader = Reader::new(request.send().await.unwrap());
        for _ in 0..take {
            let seen = reader.next().await.unwrap();
            assert_eq!(seen.name, "news");
            last = seen.id;
            got.push(serde_json::from_str::<Value>(&seen.data).unwrap()["n"].as_u64().unwrap());
        }
    }
    assert_eq!(got, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn events_that_are_gone_are_told_as_a_gap() {
    let door = Door::open().await;
    let topic = door.village.topic("news");
    let start = topic.newest().await.unwrap();
    for n in 0..aivillage_runtime::topic::RING + 5 {
        topic.publish(json!(n)).await.unwrap();
    }
    let request = door.request(Method::GET, "/v1/events?topics=news").header("last-event-id", start.to_string());
    let mut reader = Reader::new(request.send().await.unwrap());
    let gap = reader.next().await.unwrap();
    assert_eq!(gap.name, "gap");
    assert_eq!(serde_json::from_str::<Value>(&gap.data).unwrap()["from"], start.to_string());
    assert_eq!(reader.next().await.unwrap().data, "5");
}

#[tokio::test]
async fn several_topics_share_one_stream_and_one_id() {
    let door = Door::open().await;
    let (a, b) = (door.village.topic("a"), door.village.topic("b"));
    let at = format!("a:{},b:{}", a.newest().await.unwrap(), b.newest().await.unwrap());
    a.publish(json!("from a")).await.unwrap();
    b.publish(json!("from b")).await.unwrap();
    let open = |last: String| door.request(Method::GET, "/v1/events?topics=a,b").header("last-event-id", last).send();
    let mut reader = Reader::new(open(at).await.unwrap());
    let mut names = [reader.next().await.unwrap(), reader.next().await.unwrap()];
    let resume = names[1].id.clone();
    names.sort_by(|x, y| x.name.cmp(&y.name));
    assert_eq!((names[0].data.as_str(), names[1].data.as_str()), ("\"from a\"", "\"from b\""));
    a.publish(json!("later")).await.unwrap();
    let mut reader = Reader::new(open(resume).await.unwrap());
    assert_eq!(reader.next().await.unwrap().data, "\"later\"");
}

#[tokio::test]
async fn requests_that_cannot_be_streams_are_refused() {
    let door = Door::open().await;
    for path in ["/v1/events", "/v1/events?topics=", "/v1/events?topics=a%20b"] {
        assert_eq!(problem(door.get(path).await).await, (400, "bad_request".into()), "{path}");
    }
    let request = door.request(Method::GET, "/v1/events?topics=a").header("last-event-id", "yesterday");
    assert_eq!(request.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_shed() {
    let door = Door::with(|config| config.max_streams = 1).await;
    let held = door.get("/v1/events?topics=a").await;
    assert_eq!(held.status(), 200);
    let refused = door.get("/v1/events?topics=a").await;
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(problem(refused).await, (503, "shed".into()));
}
