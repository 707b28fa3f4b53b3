//! Two Erlang nodes, plain TCP: the same work in Erlang.

use tokio::process::Command;

use super::{BODY, Figures, IN_FLIGHT, first_line, pinned};

/// Whether there is an Erlang to measure.
pub(in crate::cli::bench) async fn is_installed() -> bool {
    let probe = Command::new("erl").args(["-noshell", "-eval", "halt()."]).output().await;
    probe.is_ok_and(|output| output.status.success())
}

/// Ends the node when standard input does: when the bench is gone.
pub(in crate::cli::bench) const WITH_PARENT: &str = r#"
    spawn(fun() -> io:get_line(""), halt() end),"#;

const SERVER: &str = r#"
    register(echo, self()),
    io:format("~s~n", [node()]),
    Loop = fun L() -> receive {tell, _} -> L(); {ask, From, Body} -> From ! {ok, Body}, L() end end,
    Loop()."#;

fn client(server: &str, share: u32) -> String {
    let count = |usual: u32| (usual * share / 100).max(10);
    let (warm, asks, each, tells) = (count(2_000), count(10_000), count(800), count(400_000));
    format!(
        r#"
    Far = {{echo, '{server}'}},
    Body = binary:copy(<<"7">>, {BODY}),
    Ask = fun() -> Far ! {{ask, self(), Body}}, receive {{ok, _}} -> ok end end,
    Times = fun T(0, _) -> ok; T(N, F) -> F(), T(N - 1, F) end,
    Now = fun() -> erlang:monotonic_time(nanosecond) end,
    pong = net_adm:ping('{server}'),
    Times({warm}, Ask),
    Sorted = lists:sort([begin B = Now(), Ask(), Now() - B end || _ <- lists:seq(1, {asks})]),
    At = fun(Share) -> lists:nth(max(1, trunc({asks} * Share)), Sorted) / 1000 end,
    Me = self(),
    B1 = Now(),
    [spawn(fun() -> Times({each}, fun() -> Far ! {{ask, self(), Body}}, receive {{ok, _}} -> ok end end), Me ! done end)
        || _ <- lists:seq(1, {IN_FLIGHT})],
    Times({IN_FLIGHT}, fun() -> receive done -> ok end end),
    Asks = {each} * {IN_FLIGHT} / ((Now() - B1) / 1.0e9),
    B2 = Now(),
    Times({tells}, fun() -> Far ! {{tell, Body}} end),
    Ask(),
    Tells = {tells} / ((Now() - B2) / 1.0e9),
    io:format("{{\"ask_p50_us\":~f,\"ask_p99_us\":~f,\"asks_per_s\":~f,\"tells_per_s\":~f}}~n",
        [At(0.5), At(0.99), Asks, Tells]),
    halt()."#
    )
}

fn node(name: &str, code: &str, pin: bool) -> Command {
    let mut command = pinned("erl", pin);
    command.args(["-noshell", "-name", name, "-setcookie", "village_bench", "-eval", &format!("{WITH_PARENT}{code}")]);
    command
}

/// One run.
pub(super) async fn measure(share: u32, pin: bool) -> anyhow::Result<Figures> {
    let name = |side: &str| format!("bench_{side}_{}@127.0.0.1", std::process::id());
    let (mut server, server_name) = first_line(node(&name("server"), SERVER, pin)).await?;
    let client = first_line(node(&name("client"), &client(&server_name, share), pin)).await;
    server.kill().await?;
    let (mut client, figures) = client?;
    client.wait().await?;
    Ok(serde_json::from_str(&figures)?)
}
