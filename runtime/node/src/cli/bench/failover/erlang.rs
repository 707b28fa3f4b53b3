//! An Erlang process registered with `global`, whose node is killed: the other node registers its own as soon as it can.

use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;

use crate::cli::bench::remote::{erlang::WITH_PARENT, first_line};

const SERVER: &str = r#"
    Loop = fun L() -> receive {ask, From} -> From ! {ok, node()}, L() end end,
    yes = global:register_name(place, spawn(Loop)),
    io:format("~s ~s~n", [node(), os:getpid()]),
    receive stop -> ok end."#;

fn client(server: &str, pid: &str) -> String {
    format!(
        r#"
    pong = net_adm:ping('{server}'),
    ok = global:sync(),
    Loop = fun L() -> receive {{ask, From}} -> From ! {{ok, node()}}, L() end end,
    Ask = fun() -> case global:whereis_name(place) of
        undefined -> none;
        Place -> Place ! {{ask, self()}}, receive {{ok, Node}} -> Node after 300 -> none end
    end end,
    '{server}' = Ask(),
    os:cmd("kill -9 {pid}"),
    Begun = erlang:monotonic_time(nanosecond),
    Again = fun A() -> case Ask() of
        Node when Node =:= node() -> ok;
        _ -> case global:whereis_name(place) of
            undefined -> global:register_name(place, spawn(Loop));
            _ -> timer:sleep(5)
        end, A()
    end end,
    ok = Again(),
    io:format("~p~n", [erlang:monotonic_time(nanosecond) - Begun]),
    halt()."#
    )
}

fn node(name: &str, code: &str) -> Command {
    let mut command = Command::new("erl");
    command.args(["-noshell", "-name", name, "-setcookie", "village_bench", "-eval", &format!("{WITH_PARENT}{code}")]);
    command
}

/// Time from the kill to the first answer.
pub(super) async fn measure() -> anyhow::Result<Duration> {
    let name = |side: &str| format!("failover_{side}_{}@127.0.0.1", std::process::id());
    let (mut server, said) = first_line(node(&name("server"), SERVER)).await?;
    let (server_name, pid) = said.split_once(' ').context("an Erlang node said nothing of itself")?;
    let client = first_line(node(&name("client"), &client(server_name, pid))).await;
    // Killed already, unless the client did not come so far.
    let _ = server.kill().await;
    let (mut client, nanos) = client?;
    client.wait().await?;
    Ok(Duration::from_nanos(nanos.trim().parse()?))
}
