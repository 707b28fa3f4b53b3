//! Two tenants share a village: an account, a password, a second factor, keys, and what one learns of the other.

use aivillage_tests::{Place, eventually};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use totp_rs::Totp;

use crate::place;

const GOOD: &str = "umbrella-plinth-otter-forge";

/// Types a line as somebody who has no key of the village but `credential`.
async fn typed(place: &Place, credential: &str, line: &str, code: i32) -> Result<String> {
    let ran = place.sh(&format!("VILLAGE_KEY={credential} {line}")).await?.expect(code)?;
    Ok(format!("{}{}", ran.stdout, ran.stderr))
}

async fn json(place: &Place, line: &str) -> Result<Value> {
    place.sh(line).await?.expect(0)?.json()
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no {pointer} in {value}"))
}

/// What an authenticator app shows.
fn code(url: &str) -> Result<String> {
    Ok(Totp::from_url(url).map_err(|error| anyhow::anyhow!("{error:?}"))?.generate_current().to_string())
}

#[tokio::test]
async fn a_person_gets_an_account_and_exactly_its_rights() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    node.put(&[("ferry", "The ferry leaves at noon.")]).await?;
    place.sh("village user add ada --role user").await?.expect(0)?;
    place.sh(&format!("echo {GOOD} | village user password ada")).await?.expect(0)?;
    let list = place.sh("village user list").await?.expect(0)?;
    ensure!(list.stdout.contains("ada") && list.stdout.contains("password"), "{list:?}");

    // Another user of the machine: no key of the village, an own home.
    let home =
        format!("HOME={} XDG_CONFIG_HOME= village --data elsewhere --url {}", place.path("home").display(), node.url);
    place.sh(&format!("echo wrong-wrong-wrong | {home} login ada")).await?.expect(3)?;
    place.sh(&format!("echo {GOOD} | {home} login ada")).await?.expect(0)?;
    let answer = place.sh(&format!("{home} ask sage 'When does the ferry leave?'")).await?.expect(0)?;
    ensure!(answer.stdout.contains("noon"), "{answer:?}");
    let refused = place.sh(&format!("{home} user add eve")).await?.expect(3)?;
    ensure!(refused.stderr.contains("id.manage"), "{refused:?}");
    let key = place.sh(&format!("{home} key new --label laptop --scope agent.read")).await?.expect(0)?;
    let key = key.stdout.trim().to_owned();
    typed(&place, &key, "village agents", 0).await?;
    typed(&place, &key, "village ask sage hello", 3).await?;
    place.sh(&format!("{home} logout")).await?.expect(0)?;
    place.sh(&format!("{home} agents")).await?.expect(3)?;
    typed(&place, &key, "village agents", 0).await?;
    place.sh("village user suspend ada").await?.expect(0)?;
    eventually("the end of the key", async || typed(&place, &key, "village agents", 3).await.ok()).await?;
    Ok(())
}

#[tokio::test]
async fn tenants_share_a_village_and_nothing_else() -> Result<()> {
    let place = place()?;
    let node = place.up().await?;
    node.put(&[("secret", "The quetzalcoatlus flies at noon.")]).await?;
    let made = json(&place, "village tenant add acme --admin alice --json").await?;
    let alice = text(&made, "/admin/key")?.to_owned();
    place.write("new.txt", GOOD)?;
    typed(&place, &alice, "village user password --first < new.txt", 0).await?;
    let shown = typed(&place, &alice, "village user add bob --role user", 3).await?;
    ensure!(shown.contains("second factor"), "{shown}");
    let offer = json(&place, &format!("VILLAGE_KEY={alice} village user totp --json")).await?;
    let first = code(text(&offer, "/url")?)?;
    let codes = json(&place, &format!("echo {first} | VILLAGE_KEY={alice} village user totp --confirm --json")).await?;
    place.write("login.txt", format!("{GOOD}\n{}\n", text(&codes, "/recovery_codes/0")?))?;
    let home =
        format!("HOME={} XDG_CONFIG_HOME= village --data elsewhere --url {}", place.path("home").display(), node.url);
    place.sh(&format!("{home} login alice --tenant acme < login.txt")).await?.expect(0)?;
    place.sh(&format!("{home} user add bob --role user")).await?.expect(0)?;
    let bob = place.sh(&format!("{home} key new --user bob")).await?.expect(0)?.stdout.trim().to_owned();
    let answer = typed(&place, &bob, "village ask sage 'When does the quetzalcoatlus fly?' --json", 0).await?;
    ensure!(!answer.contains("at noon"), "{answer}");
    for line in ["village status", "village log tail", "village cluster status", "village tenant list"] {
        typed(&place, &bob, line, 1).await?;
    }
    let ours = place.sh("village user list").await?.expect(0)?;
    ensure!(!ours.stdout.contains("bob"), "{ours:?}");
    place.sh("village tenant suspend acme").await?.expect(0)?;
    typed(&place, &bob, "village agents", 3).await?;
    place.sh("village tenant suspend acme --undo").await?.expect(0)?;
    typed(&place, &bob, "village agents", 0).await?;
    Ok(())
}
