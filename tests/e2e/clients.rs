//! Official client packages against a real village.

use anyhow::{Result, ensure};

use aivillage_tests::skipped;

use crate::place;

#[tokio::test]
async fn openai_package_talks_to_the_village() -> Result<()> {
    let python = std::env::var("VILLAGE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let place = place()?;
    let has_openai = place.command(&python).args(["-c", "import openai"]).output().await;
    if !has_openai.is_ok_and(|output| output.status.success()) {
        skipped(
            "openai_package_talks_to_the_village",
            "no python with the package `openai`; `.ci/run clients` installs it",
        );
        return Ok(());
    }
    let node = place.up().await?;
    node.put(&[("kettle", "The kettle is descaled with vinegar every second month.")]).await?;
    let output = place
        .command(&python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/openai_client.py"))
        .env("OPENAI_BASE_URL", format!("{}/v1", node.url))
        .env("OPENAI_API_KEY", &node.key)
        .output()
        .await?;
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && said.contains("all checks passed"), "{said}\n{wrong}");
    Ok(())
}
