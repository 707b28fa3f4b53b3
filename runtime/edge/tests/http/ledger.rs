//! The ledger, read over HTTP.

use std::time::Duration;

use aivillage_governance::ledger::client::{Hold, LedgerClient};
use aivillage_governance::ledger::record::{AccountId, LedgerId, NewAccount, Transfer, TransferId};
use serde_json::{Value, json};

use crate::harness::{Door, problem};

/// Two accounts, a payment beyond what a JSON number holds, and a hold of which a part is settled.
async fn busy() -> Door {
    let door = Door::open().await;
    let client = LedgerClient::new(&door.village);
    let account = |id, no_overdraft| {
        let ledger = LedgerId::MICRO_USD;
        NewAccount { id: AccountId(id), ledger, code: 7, no_overdraft, user: 0 }
    };
    client.open(vec![account(1, false), account(2, true)]).await.unwrap();
    let (id, debit, credit) = (TransferId(10), AccountId(1), AccountId(2));
    let (amount, ledger) = (1_u128 << 100, LedgerId::MICRO_USD);
    client.submit(vec![Transfer { id, debit, credit, amount, ledger, code: 1, ..Transfer::default() }]).await.unwrap();
    let timeout = Some(Duration::from_hours(1));
    let hold = Hold { id: TransferId(11), from: credit, to: debit, ledger, amount: 50, code: 1, timeout };
    client.hold(&[hold]).await.unwrap();
    client.settle(TransferId(12), TransferId(11), 20).await.unwrap();
    door
}

async fn get(door: &Door, path: &str) -> Value {
    let answer = door.get(path).await;
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.unwrap()
}

#[tokio::test]
async fn accounts_are_read_with_amounts_of_any_size() {
    let door = busy().await;
    let most = ((1_u128 << 100) - 20).to_string();
    let two = get(&door, &format!("/v1/ledger/accounts/{:032x}", 2)).await;
    assert_eq!((&two["available"], &two["unit"], &two["code"]), (&json!(most), &json!("micro_usd"), &json!(7)));
    assert_eq!((&two["debits_posted"], &two["debits_pending"]), (&json!("20"), &json!("0")));
    let first = get(&door, "/v1/ledger/accounts?limit=1").await;
    assert_eq!(first["data"][0]["id"], format!("{:032x}", 1));
    let next = first["next"].as_str().unwrap();
    let rest = get(&door, &format!("/v1/ledger/accounts?after={next}&limit=5")).await;
    assert_eq!((&rest["data"], &rest["next"]), (&json!([two]), &Value::Null));
    assert_eq!(problem(door.get(&format!("/v1/ledger/accounts/{:032x}", 3)).await).await.0, 404);
    for bad in ["/v1/ledger/accounts/1", "/v1/ledger/accounts?after=x"] {
        assert_eq!(problem(door.get(bad).await).await, (400, "bad_request".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn transfers_and_the_audit_tell_what_took_effect() {
    let door = busy().await;
    let all = get(&door, "/v1/ledger/transfers").await;
    let seen: Vec<_> = all["data"].as_array().unwrap().iter().map(|it| (&it["kind"], &it["amount"])).collect();
    let most = json!((1_u128 << 100).to_string());
    let word = |word: &str| json!(word);
    assert_eq!(seen, [(&word("transfer"), &most), (&word("hold"), &word("50")), (&word("settle"), &word("20"))]);
    assert_eq!(all["data"][2]["pending"], format!("{:032x}", 11));
    assert_eq!((&all["data"][1]["timeout_s"], &all["data"][0]["timeout_s"]), (&json!(3_600), &Value::Null));
    let next = all["next"].as_u64().unwrap();
    assert_eq!(get(&door, &format!("/v1/ledger/transfers?from={next}")).await, json!({ "data": [], "next": null }));
    let audit = get(&door, "/v1/ledger/audit").await;
    let posted = ((1_u128 << 100) + 20).to_string();
    assert_eq!(audit, json!({ "segments": 4, "accounts": 2, "holds": 0, "posted": { "micro_usd": posted } }));
    assert_eq!(problem(door.client.get(door.url("/v1/ledger/audit")).send().await.unwrap()).await.0, 401);
}
