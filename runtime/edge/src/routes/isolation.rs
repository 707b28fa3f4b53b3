//! What belongs to another tenant is as if it were not there: random requests over every route and every exposed message, two
//! at a time.
//!
//! One of the two names something of another tenant, the other one something that nobody has. Status and body must be the
//! same, and nothing of the other tenant's may be in them. Only the keys of `/.well-known/jwks/{tenant}` are published for
//! everybody who knows a tenant's name.

mod bench;
mod draw;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;
use uuid::Uuid;

use bench::{Bench, THEIRS, Things, acme};
use draw::{Draw, NOBODY, Pair, Surface, deck, surfaces};

/// Requests at least; `ISOLATION_REQUESTS` sets another number.
const REQUESTS: usize = 100_000;
/// Pairs of each route and message at least.
const LEAST: usize = 100;
/// Lanes in which pairs are sent at once.
const LANES: usize = 8;
/// What an answer says of the request that it is for: its trace and times, and of an erasure the pseudonym that was asked for.
const OWN: [&str; 7] =
    ["trace_id", "created", "elapsed_us", "ms", "subject_pseudonym", "signature", "backups_unreadable_by"];
/// Draws the requests; `ISOLATION_SEED` sets another one.
const SEED: u64 = 20_261_127;

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// An answer without what it says of the caller's own request: the names that were asked for, the trace, new ids, times.
fn plain(body: &str, name: &str, account: &str) -> String {
    let body = body.replace(name, "NAME").replace("acmf", "acme").replace(account, "ACCOUNT");
    match serde_json::from_str(&body) {
        Ok(value) => without_own(value).to_string(),
        // Of an event stream.
        Err(_) => body.lines().map(line).collect::<Vec<_>>().join("\n"),
    }
}

fn line(line: &str) -> String {
    let data = line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok());
    data.map_or_else(|| line.to_owned(), |data| without_own(data).to_string())
}

fn without_own(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let own = |name: &str| OWN.contains(&name) || name.ends_with("_ms") || name.ends_with("_at");
            let fields = fields.into_iter().filter(|(name, _)| !own(name));
            let fields = fields.map(|(name, value)| {
                let is_new = matches!(&*name, "key" | "id");
                (name, if is_new { Value::from("NEW") } else { without_own(value) })
            });
            Value::Object(fields.collect())
        }
        Value::Array(values) => values.into_iter().map(without_own).collect(),
        Value::String(text) if Uuid::parse_str(&text).is_ok() => Value::from("UUID"),
        // What is like the name that was asked for is in the order of that likeness.
        Value::String(text) => {
            let likes = ["; nearest: ", ", did you mean "];
            let end = likes.iter().filter_map(|like| text.find(like)).min().unwrap_or(text.len());
            Value::from(text.get(..end).unwrap_or_default())
        }
        other => other,
    }
}

/// Fails if the answers differ, or tell anything of the other tenant.
fn compare(things: &Things, pair: &Pair, [(status, first), (other_status, second)]: &[(u16, String); 2]) -> bool {
    let ((_, theirs), (_, nobodys)) = (&pair.theirs, &pair.nobodys);
    status == other_status && plain(first, theirs, &things.user) == plain(second, nobodys, NOBODY)
}

/// What of the other tenant an answer tells. The name in it is the caller's own word.
fn told<'t>(things: &'t Things, pair: &Pair, answer: &str) -> Option<&'t str> {
    let answer = answer.replace(&*pair.theirs.1, "");
    things.telling().into_iter().chain([THEIRS]).find(|word| answer.contains(word))
}

/// How often what was answered, by surface.
type Sent = BTreeMap<String, BTreeMap<u16, usize>>;

/// Sends pairs one after the other; tells what was answered, and the first fault of each surface.
async fn walk(
    bench: Arc<Bench>,
    things: Arc<Things>,
    lane: Vec<(Surface, Pair, String)>,
) -> (Sent, BTreeMap<String, String>) {
    let (mut sent, mut faults) = (Sent::new(), BTreeMap::new());
    for (surface, pair, key) in &lane {
        let mut answers = [(); 2].map(|()| (0, String::new()));
        // What changes by itself between two looks is looked at again; what tells of another tenant differs each time.
        for _ in 0..if surface.only_looks() { 5 } else { 1 } {
            answers = [bench.send(key, &pair.theirs.0).await, bench.send(key, &pair.nobodys.0).await];
            for (status, _) in &answers {
                *sent.entry(surface.name()).or_default().entry(*status).or_default() += 1;
            }
            if compare(&things, pair, &answers) {
                break;
            }
        }
        let [(status, first), (other, second)] = &answers;
        let what = match told(&things, pair, first) {
            Some(word) => format!("tells {word}"),
            None if !compare(&things, pair, &answers) => "differs".to_owned(),
            None if *status >= 500 => "fails".to_owned(),
            None => continue,
        };
        let fault = || format!("{what}: {:?} {status}\n{first}\n{other} {second}", pair.theirs.0);
        faults.entry(surface.name()).or_insert_with(fault);
    }
    (sent, faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_another_tenant_shows_in_100_000_random_requests() {
    let seed = setting("ISOLATION_SEED", SEED);
    let pairs = setting("ISOLATION_REQUESTS", REQUESTS).div_ceil(2);
    let bench = Bench::new().await;
    let things = acme(&bench, LEAST).await;
    let (admin, id) = bench.tenant("beta", "bert").await;
    let session = bench.session("beta", "bert", (&admin, &id)).await;
    let (dpo_key, dpo) = bench.account(&session, "dan", "dpo").await;
    let dpo = bench.session("beta", "dan", (&dpo_key, &dpo)).await;
    let (juror, _) = bench.account(&session, "jo", "juror").await;
    let who = [admin, session, dpo, juror];

    let surfaces = surfaces(&bench);
    let mut rng = StdRng::seed_from_u64(seed);
    let deck = deck(&surfaces, (pairs, LEAST.min(pairs)), &mut rng);
    let mut lanes: [Vec<_>; LANES] = Default::default();
    let mut draw = Draw::new(&things, rng);
    for (n, surface) in deck.iter().enumerate() {
        let pair = draw.pair(surface);
        let key = if surface.asks() { who.choose(&mut draw.rng).unwrap().clone() } else { String::new() };
        lanes[n % LANES].push((surface.clone(), pair, key));
    }
    let (bench, things) = (Arc::new(bench), Arc::new(things));
    let walks = lanes.map(|lane| bench.village.task("test.lane", walk(bench.clone(), things.clone(), lane)));
    let (mut sent, mut faults) = (Sent::new(), BTreeMap::new());
    for walked in futures::future::join_all(walks).await {
        let (sent_here, faults_here) = walked.unwrap();
        for (name, statuses) in sent_here {
            for (status, count) in statuses {
                *sent.entry(name.clone()).or_default().entry(status).or_default() += count;
            }
        }
        faults.extend(faults_here);
    }

    let mut table = String::new();
    for (name, statuses) in &sent {
        let all: usize = statuses.values().sum();
        writeln!(table, "{all:>6}  {name}  {statuses:?}").unwrap();
    }
    let all: usize = sent.values().flat_map(BTreeMap::values).sum();
    #[expect(clippy::print_stdout, reason = "shown with --nocapture")]
    {
        println!("seed {seed}, {all} requests:\n{table}");
    }
    assert!(faults.is_empty(), "seed {seed}: {}", faults.into_values().collect::<Vec<_>>().join("\n\n"));
    assert!(all >= 2 * pairs && sent.len() == surfaces.iter().map(Surface::name).collect::<Vec<_>>().len(), "{table}");
    assert!(sent.values().all(|statuses| statuses.values().sum::<usize>() >= 2 * LEAST.min(pairs)), "{table}");
    // Some were let in: the walls are not only the first one.
    assert!(sent.values().filter(|statuses| statuses.contains_key(&200)).count() > 20, "{table}");
}
