//! Transfers per second of the ledger: the state machine alone, the verification of its journal, and durable in a village of
//! one node, in full batches by few callers and one by one by many.
//!
//! `cargo bench -p aivillage-governance --bench ledger`; `TRANSFERS=100000` makes it small.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a program that prints figures")]

use std::time::{Duration, Instant};

use aivillage_governance::ledger::audit::verify;
use aivillage_governance::ledger::books::{Books, REMEMBER, Request};
use aivillage_governance::ledger::client::LedgerClient;
use aivillage_governance::ledger::record::{AccountId, LedgerId, NewAccount, Transfer, TransferId};
use aivillage_governance::ledger::segment::Segment;
use aivillage_governance::ledger::{KEY, Ledger, LedgerMsg};
use aivillage_runtime::{ActorCx, Village};
use futures::future::join_all;

/// The allocator of the binary `village`, which is what the figures are about.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ACCOUNTS: u128 = 10_000;
const BATCH: u128 = 2_000;
/// Callers at the same time.
const CALLERS: u128 = 256;

fn main() {
    // `cargo test` also runs benches, to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let count = std::env::var("TRANSFERS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    alone(count);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(durable(count / 5));
}

fn accounts() -> Vec<NewAccount> {
    let account = |id| NewAccount { id, ledger: LedgerId::MICRO_USD, code: 1, no_overdraft: false, user: 0 };
    (1..=ACCOUNTS).map(|id| account(AccountId(id))).collect()
}

/// Transfer `n`, between accounts that differ from one to the next.
fn transfer(n: u128) -> Transfer {
    let debit = n.wrapping_mul(7_919) % ACCOUNTS;
    let credit = (debit + 1 + n % (ACCOUNTS - 1)) % ACCOUNTS;
    Transfer {
        id: TransferId(n + 1),
        debit: AccountId(debit + 1),
        credit: AccountId(credit + 1),
        amount: 1 + n % 1_000,
        ledger: LedgerId::MICRO_USD,
        code: 1,
        ..Transfer::default()
    }
}

fn print(name: &str, count: u128, time: Duration) {
    println!("{name:<44} {:>10.0} transfers/s", count as f64 / time.as_secs_f64());
}

fn alone(count: u128) {
    let mut books = Books::default();
    let mut journal = Vec::new();
    for part in accounts().chunks(BATCH as usize) {
        journal.extend(books.turn(0, &[Request::Accounts(part.to_vec())]).segment);
    }
    let requests: Vec<_> = (0..count / BATCH)
        .map(|batch| Request::Transfers((batch * BATCH..(batch + 1) * BATCH).map(transfer).collect()))
        .collect();
    let begin = Instant::now();
    for request in &requests {
        journal.extend(books.turn(0, std::slice::from_ref(request)).segment);
    }
    print("state machine, sealed segments", count, begin.elapsed());
    let bytes: Vec<_> = journal.iter().map(Segment::encode).collect();
    let begin = Instant::now();
    let (again, audited) = verify(REMEMBER, &bytes).expect("the journal holds");
    print("verification of the journal", count, begin.elapsed());
    assert!(again == books && audited.segments == journal.len() as u64, "the journal makes the same books");
}

async fn durable(count: u128) {
    let dir = tempfile::tempdir().expect("a directory");
    let host = |_: &ActorCx| Ledger::default();
    let village = Village::builder().data_dir(dir.path()).host(host).start().await.expect("a village");
    let client = LedgerClient::new(&village);
    for part in accounts().chunks(BATCH as usize) {
        client.open(part.to_vec()).await.expect("accounts");
    }
    let begin = Instant::now();
    let batches = |caller: u128| {
        let ledger = village.addr::<Ledger>(KEY);
        async move {
            for batch in (caller..count / BATCH).step_by(4) {
                let transfers = (batch * BATCH..(batch + 1) * BATCH).map(transfer).collect();
                ledger.ask(|reply| LedgerMsg::Transfer(transfers, reply)).await.expect("an answer");
            }
        }
    };
    join_all((0..4).map(batches)).await;
    print("durable, 4 callers, batches of 2,000", count, begin.elapsed());
    let single = count / 10;
    let begin = Instant::now();
    let singles = |caller: u128| {
        let client = client.clone();
        async move {
            for n in (caller..single).step_by(CALLERS as usize) {
                client.submit(vec![transfer(count + n)]).await.expect("accepted");
            }
        }
    };
    join_all((0..CALLERS).map(singles)).await;
    print("durable, 256 callers, one by one", single, begin.elapsed());
    village.shutdown().await.expect("a clean end");
}
