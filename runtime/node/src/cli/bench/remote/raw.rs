//! Two nodes of raw `ractor_cluster`, as its own documentation starts them: plain TCP.

use std::time::Duration;

use aivillage_runtime::ractor_cluster::{NodeServer, RactorClusterMessage, client_connect};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, pg};

use super::measure::{self, Far};
use crate::cli::output;

const GROUP: &str = "bench.echo";

#[derive(RactorClusterMessage)]
enum EchoMsg {
    Tell(String),
    #[rpc]
    Ask(String, RpcReplyPort<String>),
}

struct Echo;

impl Actor for Echo {
    type Msg = EchoMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<EchoMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        pg::join(GROUP.into(), vec![me.get_cell()]);
        Ok(())
    }

    async fn handle(&self, _: ActorRef<EchoMsg>, msg: EchoMsg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match msg {
            EchoMsg::Ask(body, reply) => reply.send(body)?,
            EchoMsg::Tell(body) => drop(body),
        }
        Ok(())
    }
}

impl Far for ActorRef<EchoMsg> {
    async fn ask(&self, body: String) -> anyhow::Result<()> {
        match self.call(|reply| EchoMsg::Ask(body, reply), None).await {
            Ok(answer) if answer.is_success() => Ok(()),
            _ => anyhow::bail!("no answer"),
        }
    }

    async fn tell(&self, body: String) -> anyhow::Result<()> {
        self.cast(EchoMsg::Tell(body)).map_err(|error| anyhow::anyhow!("{error}"))
    }
}

fn node(port: u16, name: &str) -> NodeServer {
    NodeServer::new(port, "bench".to_owned(), name.to_owned(), format!("{name}-host"), None, None)
        .with_listen_addr([127, 0, 0, 1].into())
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts a node with the actor on it, says its port, and runs until it is ended.
pub(super) async fn serve() -> anyhow::Result<()> {
    let port = free_port()?;
    let _server = Actor::spawn(None, node(port, "server"), ()).await?;
    let _echo = Actor::spawn(None, Echo, ()).await?;
    output::say(port);
    crate::cli::bench::until_ended().await
}

/// Connects and measures.
pub(super) async fn measure(port: &str, share: u32) -> anyhow::Result<()> {
    let (server, _) = Actor::spawn(None, node(0, "client"), ()).await?;
    client_connect(&server, format!("127.0.0.1:{port}")).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let echo: ActorRef<EchoMsg> = loop {
        let far = pg::get_members(&GROUP.to_owned()).into_iter().find(|cell| !cell.get_id().is_local());
        match far {
            Some(cell) => break cell.into(),
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let figures = measure::measure(echo, share).await?;
    output::say(serde_json::to_string(&figures)?);
    Ok(())
}
