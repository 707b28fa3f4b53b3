//! The whole village inside a program: two notes go into the memory, Sage answers with its sources, or says that it cannot.
//!
//! `cargo run --example ask_an_agent -p aivillage-examples`

use aivillage::prelude::*;

const NOTES: [(&str, &str); 2] = [
    ("kettle.md", "The kettle is descaled with vinegar every second month. Rinse it twice afterwards."),
    ("boiler.md", "The boiler holds 120 litres. Its pressure must stay between 1.2 and 1.8 bar."),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Without a data directory everything is kept in memory.
    let village = aivillage::full(Village::builder())?.start().await?;

    let documents = NOTES.map(|(id, text)| Document { id: Some(id.into()), text: text.into(), ..Document::default() });
    let put = Put { documents: documents.into(), wait: WaitFor::Searchable, ..Put::default() };
    for stored in village.memory().put(put).await?.results {
        println!("{} {:?}", stored.id, stored.status);
    }

    for question in ["How is the kettle descaled?", "Who painted the ceiling?"] {
        let answer = village.agent("sage").ask(question).await?;
        println!("\n{question}\n  {}", answer.answer);
        for citation in &answer.citations {
            println!("  [{}] {}: \u{201c}{}\u{201d}", citation.n, citation.doc, citation.quote);
        }
    }
    Ok(village.shutdown().await?)
}
