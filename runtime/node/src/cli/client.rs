//! The way to a running village: which one, with which key, and what its answers mean.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use eventsource_stream::Eventsource as _;
use futures::{Stream, StreamExt as _};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde_json::Value;

use super::{Exit, Failure, Global, fleet, login::Kept, output};

/// Written by `village up` into the data directory while it serves.
pub(crate) const ADDRESS_FILE: &str = "edge.addr";
/// The key of the village in the data directory.
pub(crate) const KEY_FILE: &str = "admin.key";
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// A village on this machine answers at once; over a network a handshake may take a while.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A process on this machine accepts at once or not at all.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// A connection pool to one village.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServerEvent {
    /// Name of the event.
    pub(crate) name: String,
    /// Its data; text that is no JSON arrives as a string.
    pub(crate) data: Value,
}

impl Client {
    /// Finds the village and its key: `--url` before the data directory's address file before the default address;
    /// `--key-file` before `VILLAGE_KEY` before the data directory's `admin.key` before what `village login` got.
    ///
    /// # Errors
    /// A wrong URL, or a key file that was named and cannot be read.
    pub(crate) fn open(global: &Global) -> Result<Self, Failure> {
        let home = home(global);
        let base = base_url(global, &home)?;
        let key = key(global, &home, &base)?;
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("village/", env!("CARGO_PKG_VERSION")));
        // A proxy of the environment knows nothing of this machine's loopback.
        let builder = if is_loopback(&base) { builder.no_proxy() } else { builder };
        let http = builder
            .build()
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot set up HTTP: {}", chain(&error))))?;
        Ok(Self { http, base, key })
    }

    /// The same village with another key.
    #[must_use]
    pub(crate) fn with_key(&self, key: String) -> Self {
        Self { key: Some(key), ..self.clone() }
    }

    /// The village's address.
    #[must_use]
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Asks for a resource. Path segments are encoded here: a key may hold slashes.
    ///
    /// # Errors
    /// [`Failure`] with the exit code of the village's answer, or `Unavailable` when nobody answers.
    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.json(self.request(Method::GET, url)).await
    }

    /// Posts a JSON body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.json(self.request(Method::POST, self.url(path)).json(body)).await
    }

    /// Changes a resource.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn patch(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        self.json(self.request(Method::PATCH, self.url(path)).json(body)).await
    }

    /// All items of a list, page by page.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn all(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Vec<Value>, Failure> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut query = [&[("limit", "200")], query].concat();
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = self.get(path, &query).await?;
            all.extend_from_slice(output::items(&page, "data"));
            cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// Deletes a resource.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn delete(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.json(self.request(Method::DELETE, url)).await
    }

    /// Posts a JSON body and follows the answer as server-sent events.
    ///
    /// # Errors
    /// As [`Client::get`]; the stream yields a failure when the connection breaks.
    pub(crate) async fn stream(
        &self,
        path: &[&str],
        body: &Value,
    ) -> Result<impl Stream<Item = Result<ServerEvent, Failure>> + Unpin + use<>, Failure> {
        let request = self.request(Method::POST, self.url(path)).header("accept", "text/event-stream").json(body);
        let response = checked(self.send(request).await?).await?;
        Ok(Box::pin(response.bytes_stream().eventsource().map(|event| match event {
            Ok(event) => {
                let data = serde_json::from_str(&event.data).unwrap_or(Value::String(event.data));
                Ok(ServerEvent { name: event.event, data })
            }
            Err(error) => Err(Failure::new(Exit::Unavailable, format!("the village stopped in mid-answer: {error}"))),
        })))
    }

    /// A request with the key, for bodies that are no JSON.
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The address of a path whose segments are encoded here.
    #[must_use]
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Sends a request and reads the JSON answer; an empty one is `null`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = checked(self.send(request).await?).await?;
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| {
            Failure::new(Exit::Failed, format!("{} is no village: its answer is no JSON ({error})", self.base))
        })
    }

    /// Asks for a text.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) async fn text(&self, path: &[&str]) -> Result<String, Failure> {
        let response = checked(self.send(self.request(Method::GET, self.url(path))).await?).await?;
        response.text().await.map_err(|error| self.unreachable(&error))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let address = self.base.as_str().trim_end_matches('/');
        if error.is_connect() {
            Failure::new(Exit::Unavailable, format!("no village answers at {address}: start one with `village up`"))
                .hint("another one is named with --url URL, another data directory with --data DIR")
        } else {
            Failure::new(Exit::Unavailable, format!("the village at {address} broke off: {}", chain(error)))
        }
    }
}

async fn checked(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    Err(Failure::from_answer(status.as_u16(), &body))
}

/// The directory of the node to talk to: the data directory, or, where `village up --nodes` keeps several in it, that of the
/// node that was named by its address, or else the first that answers.
pub(crate) fn home(global: &Global) -> PathBuf {
    let data = global.data();
    let nodes = fleet::directories(data);
    if data.join(ADDRESS_FILE).exists() || nodes.is_empty() {
        return data.to_owned();
    }
    let address = |node: &PathBuf| -> Option<SocketAddr> {
        fs::read_to_string(node.join(ADDRESS_FILE)).ok()?.trim().parse().ok()
    };
    let named = |node: &&PathBuf| match &global.url {
        Some(url) => address(node).is_some_and(|at| url.ends_with(&at.to_string())),
        None => address(node).is_some_and(|at| TcpStream::connect_timeout(&at, PROBE_TIMEOUT).is_ok()),
    };
    nodes.iter().find(named).or(nodes.first()).map_or_else(|| data.to_owned(), Clone::clone)
}

fn base_url(global: &Global, home: &Path) -> Result<Url, Failure> {
    let written = fs::read_to_string(home.join(ADDRESS_FILE)).ok();
    let text = global.url.clone().or(written).unwrap_or_else(|| DEFAULT_URL.to_owned());
    let text = text.trim();
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    Url::parse(&text).ok().filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https")).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{text:?} is no address of a village; one looks like {DEFAULT_URL}"))
    })
}

fn key(global: &Global, home: &Path, base: &Url) -> Result<Option<String>, Failure> {
    if let Some(file) = &global.key_file {
        return read_key(file).map(Some).map_err(|error| {
            Failure::new(Exit::Refused, format!("cannot read the key file {}: {error}", file.display()))
        });
    }
    if let Ok(key) = std::env::var("VILLAGE_KEY") {
        return Ok(Some(key.trim().to_owned()));
    }
    let file = home.join(KEY_FILE);
    let login = || Kept::of_user().ok().and_then(|kept| kept.get(base.as_str()));
    // The key of this machine's village is for this machine: another host gets a key only when it was named.
    if !is_loopback(base) {
        return Ok(login());
    }
    match read_key(&file) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            if let Some(session) = login() {
                return Ok(Some(session));
            }
            Err(Failure::new(Exit::Refused, format!("{} belongs to another user", file.display()))
                .hint("run as the user who started the village, or give a key of your own with VILLAGE_KEY"))
        }
        Err(_) => Ok(login()),
    }
}

fn read_key(file: &Path) -> io::Result<String> {
    fs::read_to_string(file).map(|text| text.trim().to_owned())
}

fn is_loopback(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An error with its causes: the outermost text of an HTTP error says little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(data: &Path, url: Option<&str>) -> Global {
        Global { data: Some(data.into()), url: url.map(Into::into), key_file: None, json: false }
    }

    #[test]
    fn address_comes_from_option_then_file_then_default() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(base_url(&global(data.path(), None), data.path()).unwrap().as_str(), "http://127.0.0.1:8080/");
        fs::write(data.path().join(ADDRESS_FILE), "127.0.0.1:4711\n").unwrap();
        assert_eq!(base_url(&global(data.path(), None), data.path()).unwrap().as_str(), "http://127.0.0.1:4711/");
        assert_eq!(base_url(&global(data.path(), Some("http://h:1/x")), data.path()).unwrap().as_str(), "http://h:1/x");
    }

    #[test]
    fn among_several_nodes_the_first_that_answers_is_asked() {
        let data = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (alive, gone) = (listener.local_addr().unwrap().to_string(), "127.0.0.1:1");
        for (node, address) in [("n1", gone), ("n2", &alive)] {
            fs::create_dir(data.path().join(node)).unwrap();
            fs::write(data.path().join(node).join(ADDRESS_FILE), address).unwrap();
        }
        assert_eq!(home(&global(data.path(), None)), data.path().join("n2"));
        assert_eq!(home(&global(data.path(), Some("http://127.0.0.1:1"))), data.path().join("n1"));
        drop(listener);
        assert_eq!(home(&global(data.path(), None)), data.path().join("n1"));
    }

    #[test]
    fn nonsense_address_is_a_usage_error() {
        let data = tempfile::tempdir().unwrap();
        for url in ["ftp://x", "http://", "http://127.0.0.1:99999"] {
            let refused = base_url(&global(data.path(), Some(url)), data.path()).unwrap_err();
            assert_eq!(refused.exit, Exit::Usage, "{url}");
        }
    }

    #[test]
    fn local_key_is_never_sent_to_another_host() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("admin.key"), "avk_x\n").unwrap();
        let near = Client::open(&global(data.path(), Some("http://[::1]:1"))).unwrap();
        let far = Client::open(&global(data.path(), Some("http://example.com"))).unwrap();
        assert_eq!((near.key.as_deref(), far.key), (Some("avk_x"), None));
    }

    #[test]
    fn missing_named_key_file_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let mut global = global(data.path(), None);
        global.key_file = Some(data.path().join("absent"));
        assert_eq!(Client::open(&global).unwrap_err().exit, Exit::Refused);
    }

    #[test]
    fn segments_with_slashes_stay_one_segment() {
        let data = tempfile::tempdir().unwrap();
        let client = Client::open(&global(data.path(), Some("http://h:1/base"))).unwrap();
        assert_eq!(client.url(&["v1", "a/b", "ü"]).as_str(), "http://h:1/base/v1/a%2Fb/%C3%BC");
    }

    #[tokio::test]
    async fn closed_port_says_how_to_start_a_village() {
        let data = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let client = Client::open(&global(data.path(), Some(&format!("127.0.0.1:{port}")))).unwrap();
        let failure = client.get(&["readyz"], &[]).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert_eq!(
            failure.message,
            format!("no village answers at http://127.0.0.1:{port}: start one with `village up`")
        );
    }
}
