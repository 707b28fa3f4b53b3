//! The listeners: open, serve each connection in a supervised task, drain.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aivillage_governance::Governance;
use aivillage_governance::gate::Gate;
use aivillage_governance::tlog::Home;
use aivillage_runtime::{TaskHandle, Village};
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::config::EdgeConfig;
use crate::door::Door;
use crate::error::EdgeError;
use crate::pipeline::Peer;
use crate::routes;

/// Largest request head: longer ones are answered 431 by the protocol layer.
const HEAD_BYTES: usize = 64 * 1024;
/// The same for HTTP/2.
const H2_HEAD_BYTES: u32 = 64 * 1024;
/// Streams one HTTP/2 connection may have open.
const H2_STREAMS: u32 = 256;

/// The door itself; see [`Edge::start`].
#[derive(Debug)]
pub struct Edge;

impl Edge {
    /// Opens both listeners and serves until [`RunningEdge::drain`].
    ///
    /// The village must have been built with [`crate::install`] and with [`aivillage_governance::install`], which gave
    /// `governance`; its policies are put to work.
    ///
    /// # Errors
    /// [`EdgeError`]: an address is taken or not loopback, the admin key cannot be read, a value of `[edge]` is wrong.
    pub async fn start(
        village: &Village,
        config: EdgeConfig,
        data_dir: &Path,
        governance: &Governance,
    ) -> Result<RunningEdge, EdgeError> {
        Self::start_logged(village, config, data_dir, governance, None).await
    }

    /// As [`Edge::start`], and logs what is done and what is denied: without the log, nothing but reading is let in.
    ///
    /// # Errors
    /// As [`Edge::start`].
    pub async fn start_logged(
        village: &Village,
        config: EdgeConfig,
        data_dir: &Path,
        governance: &Governance,
        log: impl Into<Option<Home>>,
    ) -> Result<RunningEdge, EdgeError> {
        config.validate()?;
        let log = log.into();
        if log.is_none() {
            tracing::info!("no transparency log: what is done here is not provable");
        }
        let listener = open("edge.listen", config.listen).await?;
        let admin = open("edge.admin_listen", config.admin_listen).await?;
        let addr = local(&listener, config.listen);
        let admin_addr = local(&admin, config.admin_listen);
        let gate = Gate::of(village).unwrap_or_else(|| governance.gate.clone());
        if let Some(log) = &log {
            governance.case_log.keep_in(log);
        }
        let rights = (governance, gate, log);
        let (door, admin_key_path) = Door::open(village, config, data_dir, rights, [addr, admin_addr])?;
        governance.begin(village).await;
        let tidy = village.task("edge.tidy", tidy(door.clone()));
        let public = Acceptor::new(&door, routes::public(&door));
        let private = Acceptor::new(&door, routes::admin(&door));
        Ok(RunningEdge {
            addr,
            admin_addr,
            admin_key_path,
            public: village.task("edge.listener", public.run(listener, door.stop.clone())),
            admin: village.task("edge.admin_listener", private.run(admin, door.closed.clone())),
            tidy,
            door,
        })
    }
}

/// A serving edge.
#[derive(Debug)]
pub struct RunningEdge {
    /// Where the API listens.
    pub addr: SocketAddr,
    /// Where health and metrics listen.
    pub admin_addr: SocketAddr,
    /// The file with the admin key.
    pub admin_key_path: PathBuf,
    door: Arc<Door>,
    public: TaskHandle<()>,
    admin: TaskHandle<()>,
    tidy: TaskHandle<()>,
}

impl RunningEdge {
    /// Stops accepting, tells streams to end, lets requests in flight finish for at most `edge.drain`, closes.
    pub async fn drain(self) {
        self.door.stop.cancel();
        ended("edge.listener", self.public.await);
        // The admin listener closes last: it tells balancers that the node is not ready while the public one drains.
        self.door.closed.cancel();
        ended("edge.admin_listener", self.admin.await);
        self.tidy.abort();
    }
}

fn ended(listener: &'static str, result: Result<(), aivillage_runtime::TaskError>) {
    if let Err(error) = result {
        tracing::error!(listener, %error, "listener failed");
    }
}

async fn open(key: &'static str, addr: SocketAddr) -> Result<TcpListener, EdgeError> {
    if !addr.ip().is_loopback() {
        return Err(EdgeError::NotLoopback { key, addr });
    }
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => EdgeError::PortInUse { key, addr },
        _ => EdgeError::Listen { key, addr, source },
    })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Forgets old entries of the limiters once a minute.
async fn tidy(door: Arc<Door>) {
    loop {
        tokio::time::sleep(Duration::from_mins(1)).await;
        door.tidy();
    }
}

/// Serves the connections of one listener.
struct Acceptor {
    door: Arc<Door>,
    router: Router,
    http: Arc<Builder<TokioExecutor>>,
    connections: Arc<Semaphore>,
}

impl Acceptor {
    fn new(door: &Arc<Door>, router: Router) -> Self {
        let mut http = Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(door.config.header_timeout.get())
            .max_buf_size(HEAD_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .max_header_list_size(H2_HEAD_BYTES)
            .keep_alive_interval(Duration::from_secs(20));
        let connections = Arc::new(Semaphore::new(door.config.max_connections.min(Semaphore::MAX_PERMITS)));
        Acceptor { door: door.clone(), router, http: Arc::new(http), connections }
    }

    async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.next(&listener) => accepted,
            };
            if let Some((stream, peer, place)) = accepted {
                self.serve(stream, peer, place, graceful.watcher());
            }
        }
        drop(listener);
        if tokio::time::timeout(self.door.config.drain.get(), graceful.shutdown()).await.is_err() {
            tracing::warn!("connections were still busy at the end of edge.drain and are cut");
        }
    }

    /// The next connection, once there is a place for it.
    async fn next(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let place = self.connections.clone().acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, peer)) => Some((stream, peer, place)),
            Err(error) => {
                // Out of file descriptors, or the peer was gone already. The first mends itself when others close.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                None
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit, watcher: Watcher) {
        let _ = stream.set_nodelay(true);
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer.ip()));
            // A router is always ready: `poll_ready` of axum's router does nothing.
            router.clone().call(request)
        });
        let (http, door) = (self.http.clone(), self.door.clone());
        self.door
            .village
            .task("edge.connection", async move {
                let _place = place;
                door.metrics.connections.inc();
                let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(error, "connection ended early");
                }
                door.metrics.connections.dec();
            })
            .detach();
    }
}
