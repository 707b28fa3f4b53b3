//! Broken, huge and poisoned input: each refused with a reason, while other work goes on.

use std::{fs, io::Write as _};

use aivillage_tests::Node;
use anyhow::{Context as _, Result, ensure};
use futures::future::{Either, select};
use serde_json::Value;

use crate::place;

/// Asks again and again until `work` is done; every answer must be right.
async fn while_asking<T>(node: &Node, work: impl Future<Output = Result<T>>) -> Result<T> {
    let asking = async {
        let mut answered = 0;
        loop {
            let answer = node.ask("sage", "How long is the canal?").await?;
            ensure!(answer.get("answerable") == Some(&Value::Bool(true)), "other work suffered: {answer}");
            answered += 1;
            if answered > 10_000 {
                return Ok(());
            }
        }
    };
    match select(std::pin::pin!(work), std::pin::pin!(asking)).await {
        Either::Left((done, _)) => done,
        Either::Right((asked, work)) => {
            asked?;
            work.await
        }
    }
}

#[tokio::test]
async fn bad_files_are_listed_and_the_good_ones_are_in() -> Result<()> {
    let place = place()?;
    place.write("in/good.md", "The boiler holds 120 litres.")?;
    place.write(
        "in/broken.pdf",
        b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\ntrailer << /Root 1 0 R >>\n\xff\xff\xff",
    )?;
    place.write("in/latin.txt", b"caf\xe9 cr\xe8me br\xfbl\xe9e is served at noon")?;
    place.write(
        "in/noise.txt",
        (0..40_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>(),
    )?;
    place.write("in/empty.md", "")?;
    let sparse = fs::File::create(place.path("in/huge.txt"))?;
    sparse.set_len(1 << 30)?;
    place.sh("head -c 300M /dev/zero | gzip -9 > in/bomb.gz && cp in/bomb.gz in/bomb.docx").await?.expect(0)?;
    let node = place.up().await?;
    node.put(&[("canal", "The canal is 193 kilometres long.")]).await?;
    let ran = while_asking(&node, async { place.run(["memory", "add", "in", "--json"]).await }).await?;
    let report = ran.json()?;
    let listed = |list: &str, name: &str| {
        let list = report.get(list).and_then(Value::as_array);
        list.is_some_and(|list| {
            list.iter().any(|entry| entry.get("file").and_then(Value::as_str).is_some_and(|file| file.ends_with(name)))
        })
    };
    ensure!(ran.code == 1, "{report}");
    ensure!(listed("failed", "huge.txt") && listed("failed", "broken.pdf"), "{report}");
    ensure!(listed("failed", "bomb.gz") || listed("skipped", "bomb.gz"), "{report}");
    for name in ["good.md", "latin.txt"] {
        ensure!(!listed("failed", name) && !listed("skipped", name), "{name}: {report}");
    }
    let answer = node.ask("sage", "How much does the boiler hold?").await?;
    ensure!(answer.to_string().contains("120 litres"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn an_oversized_or_compressed_body_is_refused_over_http() -> Result<()> {
    let place = place()?;
    let node = place.up_with(&["--set", "edge.max_body=1MiB", "--set", "edge.upload_max=2MiB"]).await?;
    node.put(&[("canal", "The canal is 193 kilometres long.")]).await?;
    place.sh("head -c 300M /dev/zero | gzip -9 > bomb.gz").await?.expect(0)?;
    let bomb = fs::read(place.path("bomb.gz"))?;
    let post = |body: Vec<u8>| {
        node.request(reqwest::Method::POST, "/v1/memory/documents?name=x.txt")
            .header("content-type", "text/plain")
            .body(body)
    };
    while_asking(&node, async {
        let status = post(bomb.clone()).header("content-encoding", "gzip").send().await?.status();
        ensure!(status.is_client_error(), "a compressed bomb got {status}");
        let status = post(vec![b'a'; 3 << 20]).send().await?.status();
        ensure!(status.as_u16() == 413, "3 MiB got {status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn invalid_utf_8_and_bad_json_are_client_errors_with_a_problem() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    let bodies: [&[u8]; 5] = [b"{\"input\":\"\xff\xfe\"}", b"{\"input\":", b"", b"[1,2", b"{\"input\":7}"];
    for body in bodies {
        let request =
            node.request(reqwest::Method::POST, "/v1/agents/sage/ask").header("content-type", "application/json");
        let response = request.body(body.to_vec()).send().await?;
        let status = response.status();
        ensure!(status.is_client_error(), "{body:?} got {status}");
        let problem: Value = serde_json::from_str(&response.text().await?)?;
        ensure!(problem.get("code").is_some() && problem.get("detail").is_some(), "{problem}");
    }
    Ok(())
}

#[tokio::test]
async fn standard_input_is_a_document_too() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    let mut child = place.village();
    child.args(["memory", "add", "-", "--name", "piped.txt"]).stdin(std::process::Stdio::piped());
    let mut child = child.spawn()?;
    let pipe = child.stdin.take().context("no pipe")?.into_owned_fd()?;
    fs::File::from(pipe).write_all(b"The pipe delivers 42 messages.")?;
    ensure!(child.wait().await?.success());
    let document = node.get("/v1/memory/documents/piped.txt").await?;
    ensure!(document.to_string().contains("42 messages"), "{document}");
    Ok(())
}
