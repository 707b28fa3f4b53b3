//! Several nodes that are one village: started, joined, killed, stopped, started again.

use aivillage_tests::{Api, Place, eventually};
use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::place;

/// A question through one edge is answered from what was put in through another.
async fn assert_answers(node: &Api) -> Result<()> {
    let answer = node.ask("sage", "How long is the canal?").await.with_context(|| format!("through {}", node.name))?;
    ensure!(
        answer.get("answer").and_then(Value::as_str).is_some_and(|text| text.contains("193 kilometres")),
        "{answer}"
    );
    ensure!(answer.pointer("/citations/0/doc") == Some(&"canal".into()), "not cited: {answer}");
    Ok(())
}

/// A document that is written in the background: the job is one job, whichever node is asked.
async fn assert_job_is_seen_by_all(nodes: &[Api]) -> Result<()> {
    let first = nodes.last().context("no node")?;
    let body = json!({ "documents": [{ "id": "late", "text": "The ferry leaves at noon." }] });
    let request = first.request(reqwest::Method::POST, "/v1/memory/documents").header("prefer", "respond-async");
    let job: Value = request.json(&body).send().await?.error_for_status()?.json().await?;
    let id = job.get("id").and_then(Value::as_str).with_context(|| job.to_string())?;
    for node in nodes {
        node.get(&format!("/v1/jobs/{id}")).await.with_context(|| format!("through {}", node.name))?;
        ensure!(node.get("/v1/jobs").await?.to_string().contains(id), "not listed by {}", node.name);
    }
    Ok(())
}

async fn assert_sends_through(place: &Place, node: &Api) -> Result<()> {
    let query = json!({ "text": "canal" }).to_string();
    let ran = place.run(["send", "memory.retriever", "local", "Query", &query, "--url", &node.url]).await?.expect(0)?;
    ensure!(ran.stdout.contains("193 kilometres"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn three_nodes_are_one_village_and_go_on_without_one() -> Result<()> {
    let place = place()?;
    let mut fleet = place.up_nodes(3, &["--no-restart"]).await?;
    let [n1, n2, n3] = &fleet.nodes[..] else { anyhow::bail!("{:?}", fleet.nodes) };
    n1.until_cluster("healthy", 3).await?;
    let ran = place.run(["cluster", "status"]).await?.expect(0)?;
    ensure!(ran.stdout.contains("3 nodes, 3 up") && ran.stdout.contains(&n3.id), "{ran:?}");
    let ran = place.run(["status"]).await?.expect(0)?;
    ensure!(ran.stdout.contains("3 nodes, 3 up") && ran.stdout.contains("health healthy"), "{ran:?}");
    n2.put(&[("canal", "The canal is 193 kilometres long.")]).await?;
    for node in [n1, n2, n3] {
        assert_answers(node).await?;
        assert_sends_through(&place, node).await?;
    }
    assert_job_is_seen_by_all(&fleet.nodes).await?;

    fleet.kill9(2)?;
    n1.until_cluster("degraded", 2).await?;
    let ran = place.run(["cluster", "status"]).await?.expect(2)?;
    ensure!(ran.stdout.contains("n3 is down") && ran.stderr.is_empty(), "{ran:?}");
    for node in [n1, n2] {
        assert_answers(node).await?;
    }
    let ran = place.run(["top", "--once"]).await?.expect(0)?;
    for part in
        ["! n3 is down", "groups led: n1", "member     n3                   down", "led by n", "sys.member", "p99"]
    {
        ensure!(ran.stdout.contains(part), "{part:?} is missing in\n{}", ran.stdout);
    }
    let seen = place.run(["top", "--json"]).await?.expect(0)?.json()?;
    ensure!(seen["supervision"][0]["name"] == "root" && seen["history"][0]["at_ms"].is_u64(), "{seen}");
    fleet.signal(Signal::TERM)?;
    let status = fleet.ended().await?;
    ensure!(status.code() == Some(0), "{status}");
    fleet.all_gone().await?;

    // All of them at once, with what they know of each other; no token is needed.
    let again = place.up_nodes(3, &[]).await?;
    for node in &again.nodes {
        node.until_cluster("healthy", 3).await?;
        assert_answers(node).await?;
    }
    Ok(())
}

/// Writes a document under an idempotency key; the body of the answer, and whether it is one that was kept.
async fn put_once(node: &Api) -> Result<(Value, bool)> {
    let request = node.request(reqwest::Method::POST, "/v1/memory/documents").header("idempotency-key", "canal-1");
    let body = json!({ "documents": [{ "id": "canal", "text": "The canal is 193 kilometres long." }] });
    let answer = request.json(&body).send().await?.error_for_status()?;
    let replayed = answer.headers().contains_key("idempotency-replayed");
    Ok((answer.json().await?, replayed))
}

#[tokio::test]
async fn what_was_acknowledged_outlives_every_node_in_turn() -> Result<()> {
    let place = place()?;
    let mut fleet = place.up_nodes(3, &[]).await?;
    for node in &fleet.nodes {
        node.until_cluster("healthy", 3).await?;
    }
    let (created, _) = put_once(&fleet.nodes[0]).await?;
    ensure!(created.to_string().contains("created"), "{created}");
    let body = json!({ "documents": [{ "id": "ferry", "text": "The ferry leaves at noon." }] });
    let request = fleet.nodes[0].request(reqwest::Method::POST, "/v1/memory/documents");
    let job: Value = request.header("prefer", "respond-async").json(&body).send().await?.json().await?;
    let path = job.pointer("/links/self").and_then(Value::as_str).with_context(|| job.to_string())?;
    let ended = async || fleet.nodes[1].get(path).await.ok().filter(|job| job.get("state") != Some(&"running".into()));
    let done = eventually("the end of the job", ended).await?;
    ensure!(done.pointer("/result/created") == Some(&1.into()), "{done}");

    let page = fleet.nodes[0].get("/v1/agents?limit=2").await?;
    let cursor = page.get("next_cursor").and_then(Value::as_str).with_context(|| page.to_string())?;
    let next = fleet.nodes[1].get(&format!("/v1/agents?limit=2&cursor={cursor}")).await?;
    ensure!(next.get("data").is_some_and(|data| Some(data) != page.get("data")), "the page before again: {next}");

    for victim in 0..3 {
        fleet.kill9(victim)?;
        for node in fleet.nodes.iter().enumerate().filter(|(at, _)| *at != victim).map(|(_, node)| node) {
            // Run again it would say that nothing has changed.
            let again = put_once(node).await.with_context(|| format!("through {}", node.name))?;
            ensure!(again == (created.clone(), true), "{again:?}");
            assert_answers(node).await?;
            ensure!(node.get(path).await? == done, "another job through {}", node.name);
            let listed = node.get("/v1/jobs").await?;
            ensure!(listed.get("data") == Some(&json!([done])), "{listed}, through {}", node.name);
        }
        fleet.back(victim).await?;
        for node in &fleet.nodes {
            node.until_cluster("healthy", 3).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_request_whose_node_is_killed_in_the_middle_is_taken_over_by_its_repetition() -> Result<()> {
    /// As many as one message between nodes takes.
    const DOCUMENTS: usize = 80;
    let place = place()?;
    let fleet = place.up_nodes(3, &["--no-restart"]).await?;
    for node in &fleet.nodes {
        node.until_cluster("healthy", 3).await?;
    }
    let text = "The ferry leaves at noon, and comes back at night when nobody waits for it. ".repeat(32);
    let documents: Vec<_> = (0..DOCUMENTS).map(|n| json!({ "id": format!("d{n}"), "text": text })).collect();
    let body = json!({ "documents": documents });
    let put = async |node: &Api| {
        let request = node.request(reqwest::Method::POST, "/v1/memory/documents").header("idempotency-key", "many");
        request.json(&body).send().await
    };
    let [n1, n2, n3] = &fleet.nodes[..] else { anyhow::bail!("{:?}", fleet.nodes) };
    // The keeper of the key lives, so what it gets next comes behind the claim.
    let claimed = async || {
        let keepers = futures::future::join_all(fleet.nodes.iter().map(|node| node.get("/v1/actors/edge.idem"))).await;
        let lives = |keeper: &Result<Value>| keeper.as_ref().is_ok_and(|kind| kind.get("live") != Some(&0.into()));
        keepers.iter().any(lives).then_some(())
    };
    let killed = async {
        eventually("the claim", claimed).await?;
        let meanwhile = put(n2).await?;
        ensure!(meanwhile.status() == 409, "{meanwhile:?}");
        fleet.kill9(0)
    };
    let (first, killed) = tokio::join!(put(n1), killed);
    killed?;
    ensure!(first.is_err(), "it was not in the middle: {first:?}");

    let repeated = async || put(n2).await.ok().filter(|answer| answer.status().is_success());
    let second = eventually("the claim is taken over", repeated).await?;
    ensure!(!second.headers().contains_key("idempotency-replayed"), "nobody had answered");
    let second: Value = second.json().await?;
    let results = second.get("results").and_then(Value::as_array).with_context(|| second.to_string())?;
    ensure!(results.len() == DOCUMENTS, "{} results", results.len());
    let third = put(n3).await?.error_for_status()?;
    ensure!(third.headers().contains_key("idempotency-replayed") && third.json::<Value>().await? == second);
    let stats = n3.get("/v1/memory/stats").await?;
    ensure!(stats.pointer("/collections/0/documents") == Some(&DOCUMENTS.into()), "{stats}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_dies_is_started_again_and_none_outlives_its_parent() -> Result<()> {
    let place = place()?;
    let mut fleet = place.up_nodes(3, &[]).await?;
    fleet.kill9(1)?;
    let ready = fleet.said().await?;
    ensure!(ready.get("name") == Some(&"n2".into()) && ready.get("pid") != Some(&fleet.nodes[1].pid.into()), "{ready}");
    fleet.nodes[0].until_cluster("healthy", 3).await?;
    fleet.signal(Signal::KILL)?;
    fleet.ended().await?;
    fleet.all_gone().await
}

/// What `village token new` prints, without the command in front.
async fn token(place: &Place, args: &[&str]) -> Result<String> {
    let ran = place.run(["token", "new"].iter().chain(args)).await?.expect(0)?;
    let line = ran.stdout.trim().strip_prefix("village join ").with_context(|| format!("{ran:?}"))?;
    Ok(line.to_owned())
}

#[tokio::test]
async fn another_machine_joins_with_a_token_once() -> Result<()> {
    let (here, there, elsewhere) = (place()?, place()?, place()?);
    let founder = here.up_with(&["--set", "node.name=hall"]).await?;
    let address = token(&here, &["--note", "for the attic"]).await?;
    let listed = here.run(["token", "list"]).await?.expect(0)?;
    ensure!(listed.stdout.contains("for the attic") && !listed.stdout.contains(&address[4..60]), "{listed:?}");

    let mut joined = there.join(&address, &["--set", "node.name=attic", "--label", "gpu=true"]).await?;
    founder.until_cluster("healthy", 2).await?;
    let status = here.run(["cluster", "status"]).await?.expect(0)?;
    ensure!(status.stdout.contains("attic") && status.stdout.contains("gpu=true"), "{status:?}");
    founder.put(&[("canal", "The canal is 193 kilometres long.")]).await?;
    assert_answers(&joined).await?;

    let denied = elsewhere.run(["join", &address, "--listen", "127.0.0.1:0"]).await?.expect(3)?;
    ensure!(denied.stderr.contains("village token new"), "{denied:?}");

    joined.signal(Signal::TERM)?;
    ensure!(joined.ended().await?.code() == Some(0));
    // With an existing membership it just starts: the token is used up, and nobody asks for it.
    let joined = there.join(&address, &["--set", "node.name=attic"]).await?;
    founder.until_cluster("healthy", 2).await?;
    assert_answers(&joined).await
}

#[tokio::test]
async fn tokens_are_revoked_and_wrong_ones_refused() -> Result<()> {
    let (here, elsewhere) = (place()?, place()?);
    let founder = here.up().await?;
    let address = token(&here, &["--uses", "3", "--ttl", "5m"]).await?;
    let made = founder.get("/v1/cluster/tokens").await?;
    let id = made.pointer("/data/0/id").and_then(Value::as_str).with_context(|| made.to_string())?;
    here.run(["token", "revoke", id]).await?.expect(0)?;
    let listed = here.run(["token", "list"]).await?.expect(0)?;
    ensure!(listed.stdout.trim() == "no tokens", "{listed:?}");
    here.run(["token", "revoke", id]).await?.expect(1)?;

    let join =
        async |address: &str, code| elsewhere.run(["join", address, "--listen", "127.0.0.1:0"]).await?.expect(code);
    join(&address, 3).await?;
    let (secret, _) = address.split_once('@').context("no address")?;
    let nobody = join(&format!("{secret}@127.0.0.1:1"), 4).await?;
    ensure!(nobody.stderr.contains("127.0.0.1:1"), "{nobody:?}");
    let cut = join(&address[..40], 2).await?;
    ensure!(!cut.stderr.contains(&address[10..40]), "a part of the secret is shown: {cut:?}");
    Ok(())
}

#[tokio::test]
async fn a_node_is_drained_and_removed() -> Result<()> {
    let (here, there) = (place()?, place()?);
    let founder = here.up_with(&["--set", "node.name=hall"]).await?;
    let mut joined = there.join(&token(&here, &[]).await?, &["--set", "node.name=attic"]).await?;
    founder.until_cluster("healthy", 2).await?;
    let refused = here.run(["cluster", "remove", "attic"]).await?.expect(3)?;
    ensure!(refused.stderr.contains("attic is up") && refused.stderr.contains("cluster drain attic"), "{refused:?}");
    here.run(["cluster", "drain", "nobody"]).await?.expect(1)?;
    let drained = here.run(["cluster", "drain", "attic"]).await?.expect(0)?;
    ensure!(drained.stdout.contains("handed over"), "{drained:?}");
    joined.signal(Signal::TERM)?;
    ensure!(joined.ended().await?.code() == Some(0));
    here.run(["cluster", "remove", &joined.id[..8]]).await?.expect(0)?;
    founder.until_cluster("healthy", 1).await?;
    let last = here.run(["cluster", "remove", "hall", "--force"]).await?.expect(3)?;
    ensure!(last.stderr.contains("last node"), "{last:?}");
    Ok(())
}

#[tokio::test]
async fn a_cluster_port_in_use_is_refused_with_the_way_out() -> Result<()> {
    let (place, other) = (place()?, place()?);
    let node = place.up().await?;
    let taken = node.get("/v1/cluster").await?;
    let taken = taken.pointer("/members/0/addr").and_then(Value::as_str).context("no address")?;
    let ran = other.run(["up", "--listen", "127.0.0.1:0", "--cluster-listen", taken]).await?.expect(3)?;
    ensure!(ran.stderr.contains(taken) && ran.stderr.contains("--cluster-listen 127.0.0.1:0"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn the_directories_of_one_and_of_several_nodes_are_told_apart() -> Result<()> {
    let (one, several) = (place()?, place()?);
    let mut node = one.up().await?;
    node.signal(Signal::TERM)?;
    node.ended().await?;
    let ran = one.run(["up", "--nodes", "2", "--listen", "127.0.0.1:0"]).await?.expect(3)?;
    ensure!(ran.stderr.contains("single node") && ran.stderr.contains("village token new"), "{ran:?}");
    several.write("village-data/n1/identity.ed25519", "")?;
    let ran = several.run(["up", "--listen", "127.0.0.1:0"]).await?.expect(3)?;
    ensure!(ran.stderr.contains("--nodes 1"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_cannot_start_ends_all_with_its_reason() -> Result<()> {
    let place = place()?;
    place.write("village-data/n1/identity.ed25519", "no key")?;
    let ran = place.run(["up", "--nodes", "2", "--listen", "127.0.0.1:0"]).await?;
    ensure!(ran.code == 1 && ran.stderr.contains("n1 did not start"), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn a_survivor_of_a_lost_majority_goes_on_alone() -> Result<()> {
    let (place, elsewhere) = (place()?, place()?);
    let mut fleet = place.up_nodes(3, &["--no-restart"]).await?;
    let dropped = fleet.nodes[1].id.clone();
    fleet.nodes[2].put(&[("canal", "The canal is 193 kilometres long.")]).await?;
    fleet.nodes[0].until_cluster("healthy", 3).await?;
    let survivor = ["--data", "village-data/n1"];
    let recover = async |more: &[&str], code| {
        place.run(["cluster", "recover"].iter().chain(&survivor).chain(more)).await?.expect(code)
    };
    let running = recover(&["--i-accept-data-loss"], 3).await?;
    ensure!(running.stderr.contains(&format!("in use by pid {}", fleet.nodes[0].pid)), "{running:?}");
    fleet.signal(Signal::KILL)?;
    fleet.ended().await?;
    fleet.all_gone().await?;

    let shown = recover(&["--json"], 3).await?.json()?;
    ensure!(shown.get("done") == Some(&false.into()) && shown.to_string().contains(&dropped), "{shown}");
    let done = recover(&["--i-accept-data-loss"], 0).await?;
    ensure!(done.stdout.contains(&dropped) && done.stdout.contains("the whole cluster now"), "{done:?}");
    let empty = elsewhere.run(["cluster", "recover", "--i-accept-data-loss"]).await?.expect(3)?;
    ensure!(!elsewhere.path("village-data").exists(), "made by the command: {empty:?}");

    let alone = place.up_with(&survivor).await?;
    alone.until_cluster("healthy", 1).await?;
    assert_answers(&alone).await?;
    alone.put(&[("ferry", "The ferry leaves at noon.")]).await?;
    // A dropped node comes back with what it knew. It is not let in, and says why.
    let line = "timeout -s KILL 15 village up --listen 127.0.0.1:0 --data village-data/n2 2>&1";
    let refused = place.sh(line).await?;
    ensure!(refused.stdout.contains("it has to join anew"), "{refused:?}");
    alone.until_cluster("healthy", 1).await?;
    // Others join anew, and get all there is.
    let ran = place.run(["token", "new"].iter().chain(&survivor)).await?.expect(0)?;
    let address = ran.stdout.trim().strip_prefix("village join ").with_context(|| format!("{ran:?}"))?.to_owned();
    let joined = elsewhere.join(&address, &[]).await?;
    alone.until_cluster("healthy", 2).await?;
    assert_answers(&joined).await
}
