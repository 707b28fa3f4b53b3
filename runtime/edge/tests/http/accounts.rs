//! Accounts over HTTP: who logs in as what, with which keys, and what others learn of it.

use aivillage_governance::tlog::Home;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use totp_rs::Totp;

use crate::harness::{Door, eventually, problem};

pub(crate) const GOOD: &str = "umbrella-plinth-otter-forge";

impl Door {
    pub(crate) fn by(&self, credential: &str, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(credential)
    }

    pub(crate) async fn post_by(&self, credential: &str, path: &str, body: Value) -> Response {
        self.by(credential, Method::POST, path).json(&body).send().await.unwrap()
    }

    pub(crate) async fn get_by(&self, credential: &str, path: &str) -> Response {
        self.by(credential, Method::GET, path).send().await.unwrap()
    }

    /// An account of the tenant that runs the village, and a key of it.
    pub(crate) async fn account(&self, name: &str, roles: &[&str]) -> (String, String) {
        let made = json(self.post("/v1/users", &json!({ "name": name, "roles": roles })).await, 201).await;
        let id = text(&made, "id");
        let key = json(self.post("/v1/keys", &json!({ "subject": id })).await, 201).await;
        (id, text(&key, "key"))
    }

    /// The same with a password.
    pub(crate) async fn person(&self, name: &str, roles: &[&str]) -> (String, String) {
        let (id, key) = self.account(name, roles).await;
        let set = self.post_by(&key, &format!("/v1/users/{id}/password"), json!({ "new": GOOD })).await;
        assert_eq!(set.status(), 204);
        (id, key)
    }

    pub(crate) async fn login(&self, body: Value) -> Response {
        self.client.post(self.url("/v1/auth/login")).json(&body).send().await.unwrap()
    }
}

pub(crate) async fn json(response: Response, status: u16) -> Value {
    let got = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    assert_eq!(got, status, "{body}");
    body
}

pub(crate) fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_else(|| panic!("no {name} in {body}")).to_owned()
}

/// What an authenticator app shows for an enrolment.
pub(crate) fn code(url: &str) -> String {
    let now_s = aivillage_runtime::clock::unix_ms() / 1_000;
    Totp::from_url(url).unwrap().generate(now_s).to_string()
}

#[tokio::test]
async fn a_person_logs_in_goes_on_and_out() {
    let door = Door::open().await;
    let (id, _) = door.person("Ada", &["user"]).await;
    let wrong = door.login(json!({ "name": "ada", "password": "not-the-password" })).await;
    assert_eq!(problem(wrong).await, (401, "unauthenticated".to_owned()));
    let tokens = json(door.login(json!({ "name": " ADA", "password": GOOD })).await, 200).await;
    let access = text(&tokens, "access_token");
    let me = json(door.get_by(&access, "/v1/auth/me").await, 200).await;
    assert_eq!((&me["tenant"], &me["subject"], &me["name"]), (&json!("local"), &json!(id), &json!("Ada")));
    assert_eq!((&me["roles"], &me["amr"], &me["mfa"]), (&json!(["user"]), &json!(["pwd"]), &json!(false)));
    assert_eq!(door.get_by(&access, "/v1/agents").await.status(), 200);
    assert_eq!(problem(door.get_by(&access, "/v1/events").await).await, (403, "forbidden".to_owned()));

    let refresh = async |token: &str| {
        let body = json!({ "refresh_token": token });
        door.client.post(door.url("/v1/auth/refresh")).json(&body).send().await.unwrap()
    };
    let first = text(&tokens, "refresh_token");
    let next = json(refresh(&first).await, 200).await;
    assert_eq!(problem(refresh(&first).await).await.0, 401, "used before: somebody else has it too");
    assert_eq!(problem(refresh(&text(&next, "refresh_token")).await).await.0, 401, "so all of its line end");
    refused(&door, &text(&next, "access_token")).await;

    let session = json(door.login(json!({ "name": "ada", "password": GOOD, "grant": "session" })).await, 200).await;
    let session = text(&session, "session");
    assert_eq!(door.get_by(&session, "/v1/agents").await.status(), 200);
    for _ in 0..2 {
        assert_eq!(door.post_by(&session, "/v1/auth/logout", json!({})).await.status(), 204);
    }
    refused(&door, &session).await;
}

async fn refused(door: &Door, credential: &str) {
    eventually("a refusal", async || (door.get_by(credential, "/v1/auth/me").await.status() == 401).then_some(()))
        .await;
}

#[tokio::test]
async fn what_is_privileged_needs_a_second_factor() {
    let door = Door::open().await;
    let (id, key) = door.person("bob", &["admin"]).await;
    let login =
        async || json(door.login(json!({ "name": "bob", "password": GOOD, "grant": "session" })).await, 200).await;
    let session = text(&login().await, "session");
    let me = json(door.get_by(&session, "/v1/auth/me").await, 200).await;
    assert_eq!((&me["roles"], &me["waiting"]), (&json!([]), &json!(["admin"])));
    let eve = || json!({ "name": "eve", "roles": ["guest"] });
    let denied = json(door.post_by(&session, "/v1/users", eve()).await, 401).await;
    assert_eq!((&denied["code"], &denied["login"]), (&json!("mfa_required"), &json!("/v1/auth/mfa")));
    assert_eq!(denied["methods"], json!(["totp", "recovery_code"]));
    let denied = json(door.post_by(&key, "/v1/users", eve()).await, 401).await;
    assert_eq!(denied["login"], "/v1/auth/login", "a key cannot be stepped up");

    let offer = json(door.post_by(&session, &format!("/v1/users/{id}/totp"), json!({})).await, 200).await;
    let confirm = format!("/v1/users/{id}/totp/confirm");
    let wrong = door.post_by(&session, &confirm, json!({ "code": "000000" })).await;
    assert_eq!(problem(wrong).await.0, 401);
    let shown = json!({ "code": code(&text(&offer, "url")) });
    let codes = json(door.post_by(&session, &confirm, shown).await, 200).await;
    let recovery = |n: usize| codes["recovery_codes"][n].as_str().unwrap().to_owned();
    let raised = door.post_by(&session, "/v1/auth/mfa", json!({ "code": recovery(0) })).await;
    let raised = text(&json(raised, 200).await, "session");
    refused(&door, &session).await;
    assert_eq!(door.post_by(&raised, "/v1/users", eve()).await.status(), 201);

    let challenge = login().await;
    assert_eq!(challenge["grant"], "mfa");
    let answer = async |code: String| {
        let body = json!({ "challenge": challenge["challenge"], "code": code });
        door.client.post(door.url("/v1/auth/mfa")).json(&body).send().await.unwrap()
    };
    assert_eq!(problem(answer(recovery(0)).await).await.0, 401, "used");
    let session = text(&json(answer(recovery(1)).await, 200).await, "session");
    let me = json(door.get_by(&session, "/v1/auth/me").await, 200).await;
    assert_eq!((&me["roles"], &me["mfa"], &me["waiting"]), (&json!(["admin"]), &json!(true), &json!([])));
    let grab = door.by(&session, Method::PATCH, &format!("/v1/users/{id}")).json(&json!({ "roles": ["super_admin"] }));
    assert_eq!(
        problem(grab.send().await.unwrap()).await,
        (403, "forbidden".to_owned()),
        "nobody makes themselves more"
    );
}

#[tokio::test]
async fn a_cookie_counts_for_pages_of_this_server_only() {
    let door = Door::open().await;
    door.person("ada", &["user"]).await;
    let body = json!({ "name": "ada", "password": GOOD, "grant": "cookie" });
    assert_eq!(problem(door.login(body.clone()).await).await, (403, "csrf".to_owned()));
    let origin = door.url("");
    let here = |request: RequestBuilder| request.header("origin", &origin);
    let login = here(door.client.post(door.url("/v1/auth/login"))).json(&body).send().await.unwrap();
    let cookie = login.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; Secure; HttpOnly; SameSite=Strict;"), "{cookie}");
    let given = json(login, 200).await;
    assert_eq!((&given["grant"], &given["session"]), (&json!("cookie"), &Value::Null), "no script sees it");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let with = |method: Method, path: &str| door.client.request(method, door.url(path)).header("cookie", &cookie);
    assert_eq!(with(Method::GET, "/v1/agents").send().await.unwrap().status(), 200);
    let key = json!({ "label": "mine" });
    let foreign = with(Method::POST, "/v1/keys").header("origin", "https://evil.example").json(&key);
    assert_eq!(problem(foreign.send().await.unwrap()).await, (403, "csrf".to_owned()));
    assert_eq!(here(with(Method::POST, "/v1/keys")).json(&key).send().await.unwrap().status(), 201);
    let out = here(with(Method::POST, "/v1/auth/logout")).send().await.unwrap();
    assert!(out.headers()["set-cookie"].to_str().unwrap().ends_with("Max-Age=0"));
    eventually("the end", async || {
        (with(Method::GET, "/v1/agents").send().await.unwrap().status() == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_guesser_is_locked_out_and_learns_not_who_there_is() {
    let door = Door::open().await;
    door.person("ada", &["user"]).await;
    let mut told = Vec::new();
    for (tenant, name) in [("local", "ada"), ("local", "nobody"), ("nowhere", "ada")] {
        let guess = async || {
            let response = door.login(json!({ "tenant": tenant, "name": name, "password": "guess-guess-guess" })).await;
            let mut body: Value = response.json().await.unwrap();
            body["trace_id"].take();
            body
        };
        let first = guess().await;
        assert_eq!(first["status"], 401);
        for _ in 1..5 {
            assert_eq!(guess().await, first);
        }
        // On a slow machine a delay of a second may be over already; the next ones are longer.
        let mut locked = guess().await;
        while locked == first {
            locked = guess().await;
        }
        assert!(locked["retry_after_s"].take().as_u64().is_some_and(|after| after > 0), "{locked}");
        locked["detail"].take();
        told.push((first, locked));
    }
    assert_eq!((&told[0], &told[0]), (&told[1], &told[2]));
    assert_eq!((&told[0].1["status"], &told[0].1["code"]), (&json!(423), &json!("locked")));
}

#[tokio::test]
async fn attempts_to_log_in_are_few_for_each_address() {
    let door = Door::with(|config| config.limits.login = "2/min burst 2".parse().unwrap()).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let response = door.login(json!({ "name": "nobody", "password": "guess-guess-guess" })).await;
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses, [401, 401, 429]);
    assert_eq!(door.get("/v1/agents").await.status(), 200);
}

#[tokio::test]
async fn a_key_is_good_for_its_scopes_and_its_owner() {
    let door = Door::open().await;
    let (ada, key) = door.account("ada", &["user"]).await;
    let (_, eve) = door.account("eve", &["user"]).await;
    let narrow = json!({ "label": "reader", "scopes": ["memory.query", "agent.read"], "ttl_s": 60 });
    let narrow = json(door.post_by(&key, "/v1/keys", narrow).await, 201).await;
    let (id, narrow) = (text(&narrow, "id"), text(&narrow, "key"));
    assert_eq!(door.get_by(&narrow, "/v1/agents").await.status(), 200);
    let denied = json(door.get_by(&narrow, "/v1/jobs").await, 403).await;
    assert_eq!(denied["policy_ids"], json!(["forbid-out-of-scope"]));
    assert_eq!(problem(door.post_by(&narrow, "/v1/keys", json!({})).await).await.0, 403, "no way out of its scopes");

    let mine = json(door.get_by(&key, "/v1/keys").await, 200).await;
    let labels: Vec<_> = mine["data"].as_array().unwrap().iter().map(|key| key["label"].clone()).collect();
    assert!(labels.len() == 2 && labels.contains(&json!("reader")), "{mine}");
    for path in [format!("/v1/keys?subject={ada}"), "/v1/keys?subject=*".to_owned()] {
        assert_eq!(problem(door.get_by(&eve, &path).await).await.0, 403, "{path}");
    }
    let revoke =
        async |by: &str, id: &str| door.by(by, Method::DELETE, &format!("/v1/keys/{id}")).send().await.unwrap();
    let others = problem(revoke(&eve, &id).await).await;
    assert_eq!((&others, &others), (&problem(revoke(&eve, "aaaaaaaaaa").await).await, &(403, "forbidden".to_owned())));
    assert_eq!(revoke(&key, &id).await.status(), 204);
    refused(&door, &narrow).await;
    assert_eq!(json(door.get("/v1/keys?subject=*&limit=1").await, 200).await["data"].as_array().unwrap().len(), 1);
    let root = door.post("/v1/keys", &json!({})).await;
    assert_eq!(problem(root).await, (422, "payload_invalid".to_owned()), "the key of the node is no account");
}

#[tokio::test]
async fn who_is_suspended_does_nothing_until_let_in_again() {
    let door = Door::open().await;
    let (id, key) = door.account("ada", &["user"]).await;
    let change = async |body: Value| {
        let request = door.request(Method::PATCH, &format!("/v1/users/{id}")).json(&body);
        json(request.send().await.unwrap(), 200).await
    };
    assert_eq!(change(json!({ "suspended": true })).await["suspended"], true);
    refused(&door, &key).await;
    assert_eq!(change(json!({ "suspended": false, "roles": ["guest"] })).await["roles"], json!(["guest"]));
    eventually("a guest", async || {
        let me = door.get_by(&key, "/v1/auth/me").await;
        if me.status() == 200 { Some(me.json::<Value>().await.unwrap()) } else { None }
            .filter(|me| me["roles"] == json!(["guest"]))
    })
    .await;
    let wrong = door.request(Method::PATCH, &format!("/v1/users/{id}")).json(&json!({ "roles": ["admin", "juror"] }));
    assert_eq!(problem(wrong.send().await.unwrap()).await, (409, "sod_conflict".to_owned()));
    let unknown = door.request(Method::PATCH, &format!("/v1/users/{id}")).json(&json!({ "roles": ["king"] }));
    assert_eq!(problem(unknown.send().await.unwrap()).await, (422, "payload_invalid".to_owned()));
    let found = json(door.get("/v1/users?name=ADA").await, 200).await;
    assert_eq!(found["data"][0]["id"], id);
}

#[tokio::test]
async fn whoever_has_the_key_set_verifies_tokens_also_of_a_key_that_signs_no_more() {
    let door = Door::open().await;
    door.person("ada", &["user"]).await;
    let tokens = json(door.login(json!({ "name": "ada", "password": GOOD })).await, 200).await;
    let access = text(&tokens, "access_token");
    let kids = async || {
        let set = door.client.get(door.url("/.well-known/jwks.json")).send().await.unwrap();
        assert_eq!(set.headers()["cache-control"], "public, max-age=300");
        let set = json(set, 200).await;
        set["keys"].as_array().unwrap().iter().map(|key| text(key, "kid")).collect::<Vec<_>>()
    };
    let before = kids().await;
    assert_eq!(door.post("/v1/auth/rotate", &json!({})).await.status(), 204);
    let after = kids().await;
    assert_eq!((before.len(), &after[0], after.len()), (2, &before[1], 3));
    assert_eq!(door.get_by(&access, "/v1/agents").await.status(), 200);
    let nowhere = door.client.get(door.url("/.well-known/jwks/nowhere")).send().await.unwrap();
    assert_eq!(json(nowhere, 200).await, json!({ "keys": [] }));
}

#[tokio::test]
async fn no_answer_with_a_secret_is_kept_for_an_idempotency_key() {
    let door = Door::open().await;
    let (id, _) = door.account("ada", &["user"]).await;
    let request = door.request(Method::POST, "/v1/keys").header("idempotency-key", "k");
    let refused = request.json(&json!({ "subject": id })).send().await.unwrap();
    assert_eq!(problem(refused).await, (400, "bad_request".to_owned()));
}

async fn entries(home: &Home) -> Vec<Value> {
    let read = home.log().entries(Some(0), 1_000).await.unwrap();
    read.entries.iter().map(|entry| serde_json::from_slice(entry).unwrap()).collect()
}

#[tokio::test]
async fn logins_and_changes_of_accounts_are_entries_without_names() {
    let (door, home) = Door::logged().await;
    let (id, _) = door.person("lovelace", &["user"]).await;
    for password in ["guess-guess-guess", GOOD] {
        door.login(json!({ "name": "lovelace", "password": password })).await;
    }
    let all = entries(&home).await;
    let pseudonym = |who: &str| home.log_key("local").pseudonym(who).as_str().to_owned();
    let seen: Vec<_> =
        all.iter().map(|entry| (text(entry, "kind"), text(entry, "decision"), text(entry, "actor"))).collect();
    let line = |kind: &str, decision: &str, who: &str| (kind.to_owned(), decision.to_owned(), pseudonym(who));
    assert_eq!(
        seen,
        [
            line("auth.user", "allow", "admin"),
            line("auth.key", "allow", "admin"),
            line("auth.user", "allow", &id),
            line("auth.login", "deny", "lovelace"),
            line("auth.login", "allow", &id),
        ]
    );
    let text = json!(all).to_string();
    assert!(!text.contains("lovelace") && !text.contains("umbrella") && !text.contains(&id), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_share_a_village_and_nothing_else() {
    let door = Door::clustered().await;
    let made = json(door.post("/v1/tenants", &json!({ "name": "acme", "admin": "alice" })).await, 201).await;
    let alice = text(&made["admin"], "key");
    let again = door.post("/v1/tenants", &json!({ "name": "acme", "admin": "mallory" })).await;
    assert_eq!(problem(again).await, (409, "conflict".to_owned()));
    for (name, status) in [("a/b", 422), ("local", 409)] {
        let refused = door.post("/v1/tenants", &json!({ "name": name, "admin": "x" })).await;
        assert_eq!(problem(refused).await.0, status, "{name}");
    }
    let me = json(door.get_by(&alice, "/v1/auth/me").await, 200).await;
    assert_eq!((&me["tenant"], &me["roles"]), (&json!("acme"), &json!(["super_admin"])));
    // What all share belongs to whoever runs the village.
    for path in ["/v1/status", "/v1/cluster", "/v1/log", "/v1/tenants", "/v1/events", "/v1/actors/test.counter/a"] {
        assert_eq!(problem(door.get_by(&alice, path).await).await, (404, "not_found".to_owned()), "{path}");
    }
    assert_eq!(problem(door.post_by(&alice, "/v1/cluster/drain", json!({ "node": "1" })).await).await.0, 404);
    let (ada, key) = door.account("ada", &["user"]).await;
    let users = json(door.get_by(&alice, "/v1/users").await, 200).await;
    let names: Vec<_> = users["data"].as_array().unwrap().iter().map(|user| text(user, "name")).collect();
    assert_eq!(names, ["alice"]);
    let password = json!({ "new": GOOD });
    let taken = door.post_by(&alice, &format!("/v1/users/{ada}/password"), password.clone()).await;
    assert_eq!(problem(taken).await.1, "mfa_required");
    let tenant = async |is: bool| {
        let request = door.request(Method::PATCH, "/v1/tenants/acme").json(&json!({ "suspended": is }));
        assert_eq!(json(request.send().await.unwrap(), 200).await["suspended"], is);
    };
    tenant(true).await;
    assert_eq!(door.get_by(&alice, "/v1/agents").await.status(), 401);
    assert_eq!(door.get_by(&key, "/v1/agents").await.status(), 200);
    tenant(false).await;
    assert_eq!(door.get_by(&alice, "/v1/agents").await.status(), 200);
    let listed = json(door.get("/v1/tenants").await, 200).await;
    let names: Vec<_> = listed["data"].as_array().unwrap().iter().map(|tenant| text(tenant, "name")).collect();
    assert_eq!(names, ["acme", "local"]);
}

#[tokio::test]
async fn a_village_without_a_cluster_has_one_tenant() {
    let door = Door::open().await;
    let refused = door.post("/v1/tenants", &json!({ "name": "acme", "admin": "alice" })).await;
    assert_eq!(problem(refused).await, (409, "no_cluster".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_takes_back_no_other_lets_in() {
    let one = Door::clustered().await;
    let other = Door::join(&one).await;
    let (_, key) = one.account("ada", &["user"]).await;
    eventually("the key at the other node", async || {
        (other.get_by(&key, "/v1/agents").await.status() == 200).then_some(())
    })
    .await;
    let keys = json(other.get_by(&key, "/v1/keys").await, 200).await;
    let id = text(&keys["data"][0], "id");
    assert_eq!(other.by(&key, Method::DELETE, &format!("/v1/keys/{id}")).send().await.unwrap().status(), 204);
    for door in [&one, &other] {
        refused(door, &key).await;
    }
}
