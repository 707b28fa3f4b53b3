//! The ledger: what a person sees of it, while the village runs and after.

use aivillage_tests::Place;
use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use crate::place;

async fn audits(place: &Place, args: &[&str]) -> Result<serde_json::Value> {
    place.run(["ledger", "audit", "--json"].iter().chain(args)).await?.expect(0)?.json()
}

#[tokio::test]
async fn a_ledger_without_accounts_audits_running_and_stopped() -> Result<()> {
    let place = place()?;
    let mut node = place.up().await?;
    let empty = json!({ "segments": 0, "accounts": 0, "holds": 0, "posted": {} });
    ensure!(audits(&place, &[]).await? == empty);
    let shown = place.run(["ledger", "accounts"]).await?.expect(0)?;
    ensure!(shown.stdout.contains("no accounts"), "{shown:?}");
    let shown = place.run(["ledger", "transfers", "--json"]).await?.expect(0)?.json()?;
    ensure!(shown == json!({ "data": [], "next": null }), "{shown}");
    let busy = place.run(["ledger", "audit", "--stopped"]).await?.expect(3)?;
    ensure!(busy.stderr.contains("stop the village"), "{busy:?}");
    node.signal(Signal::TERM)?;
    node.ended().await?;
    ensure!(audits(&place, &["--stopped"]).await? == empty);
    place.run(["ledger", "audit", "--stopped", "--data", "nowhere"]).await?.expect(2)?;
    Ok(())
}
