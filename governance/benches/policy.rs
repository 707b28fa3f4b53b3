//! Figures of the policy decision point beside Cedar without slices, on the same policies in the same run. Prints a table and
//! one line of JSON.
//!
//! `cargo bench -p aivillage-governance --bench policy`; `REQUESTS=1000` makes it small.
#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a program that prints figures")]

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use aivillage_governance::policy::{Bundle, Facts, PdpHandle, Request, Resource, Sources, Subject};
use aivillage_runtime::PrincipalKind;
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet,
    RestrictedExpression,
};
use serde_json::{Map, Value, json};

/// The allocator of the binary `village`, which is what the figures are about.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Actions that the policies are about, with a type of resource.
const ACTIONS: [(&str, &str); 20] = [
    ("agent.read", "Agent"),
    ("agent.ask", "Agent"),
    ("agent.create", "Agent"),
    ("agent.tool", "Agent"),
    ("memory.query", "Document"),
    ("memory.write", "Document"),
    ("rag.read", "Document"),
    ("rag.create", "Collection"),
    ("rag.update", "Document"),
    ("job.read", "Job"),
    ("job.start", "Job"),
    ("model.inference", "Model"),
    ("model.train", "Model"),
    ("fog.submit", "Job"),
    ("fog.quota.read", "Namespace"),
    ("tenant.create", "Tenant"),
    ("id.read", "User"),
    ("gov.read", "Proposal"),
    ("mod.report", "Case"),
    ("audit.read", "AuditEntry"),
];
/// Different principals and resources: 10,000 entities in all.
const NAMES: usize = 5_000;

/// Rows of the table and of the JSON line.
type Figures = Map<String, Value>;

fn main() {
    // `cargo test` also runs benches, to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let count = std::env::var("REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let mut figures = Figures::new();
    figures.insert("requests".into(), count.into());
    for policies in [10, 100, 1_000, 10_000] {
        measure(policies, count, &mut figures);
    }
    for (name, value) in &figures {
        println!("{name:<56} {value}");
    }
    println!("{}", Value::Object(figures));
}

/// `count` policies, one in ten a forbid, over 20 actions and 20 roles.
fn policies(count: usize) -> String {
    let policy = |n: usize| {
        let (action, kind) = ACTIONS[n % ACTIONS.len()];
        let role = format!("AiVillage::Role::\"r{}\"", n / ACTIONS.len() % 20);
        let scope =
            format!("principal in {role}, action == AiVillage::Action::\"{action}\", resource is AiVillage::{kind}");
        let when = format!("resource.labels.contains(\"l{}\")", n % 7);
        match n % 10 {
            3 => format!("@id(\"p{n}\") @article(\"A1\") forbid ({scope}) when {{ {when} && context.taint }};\n"),
            _ => format!("@id(\"p{n}\") permit ({scope}) when {{ {when} && principal.tenant == resource.tenant }};\n"),
        }
    };
    (0..count).map(policy).collect()
}

fn sources(count: usize) -> Sources {
    Sources::embedded().with("bench.cedar", policies(count)).expect("a bundle")
}

fn request(n: usize) -> Request {
    let (action, kind) = ACTIONS[n % ACTIONS.len()];
    let tenant = format!("t{}", n % 3);
    let principal = Subject {
        tenant: tenant.clone(),
        subject: format!("p{}", n % NAMES),
        kind: PrincipalKind::User,
        roles: vec![format!("r{}", n % 20), "user".into()],
        groups: Vec::new(),
        scopes: Vec::new(),
        labels: Vec::new(),
        suspended: false,
        acts_for: None,
    };
    let labels = vec![format!("l{}", n % 7)];
    let resource = Resource { labels, ..Resource::new(kind, format!("r{}", n % NAMES), tenant) };
    Request {
        principal,
        action: action.into(),
        resource,
        facts: Facts { taint: n.is_multiple_of(11), ..Facts::default() },
    }
}

/// Cedar as it is: all policies in one set, the same three entities made for each request.
struct Plain {
    all: PolicySet,
    actions: HashMap<String, Entity>,
}

impl Plain {
    fn new(count: usize) -> Self {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
        let read = |file: &str| std::fs::read_to_string(format!("{dir}/{file}")).expect("a file of the crate");
        let text = format!("{}{}{}", read("always.cedar"), read("roles.cedar"), policies(count));
        let (schema, _) = cedar_policy::Schema::from_cedarschema_str(&read("schema.cedarschema")).expect("a schema");
        let groups = schema.action_entities().expect("actions");
        let above = |uid: &EntityUid| groups.ancestors(uid).into_iter().flatten().cloned().collect::<HashSet<_>>();
        let entity = |uid: &EntityUid| (uid.id().unescaped().to_owned(), Entity::new_no_attrs(uid.clone(), above(uid)));
        let actions = schema.actions().map(entity).collect();
        Self { all: PolicySet::from_str(&text).expect("policies"), actions }
    }

    fn decide(&self, request: &Request) -> bool {
        let (who, what) = (&request.principal, &request.resource);
        let tenant = uid("Tenant", &who.tenant);
        let roles = who.roles.iter().map(|role| uid("Role", role)).chain([uid("Role", "guest"), tenant.clone()]);
        let user = uid("User", &format!("{}/{}", who.tenant, who.subject));
        let thing = match what.kind.as_str() {
            "Tenant" => uid("Tenant", &what.id),
            kind => uid(kind, &format!("{}/{}", what.tenant, what.id)),
        };
        let principal = Entity::new(user.clone(), attributes(who.name(), &tenant, &[]), roles.collect());
        let name = format!("{}:{}/{}", what.kind.to_lowercase(), what.tenant, what.id);
        let resource = Entity::new(thing.clone(), attributes(name, &tenant, &what.labels), HashSet::from([tenant]));
        let action = self.actions[&request.action].clone();
        let context = Context::from_pairs([
            ("mfa".to_owned(), RestrictedExpression::new_bool(request.facts.mfa)),
            ("taint".to_owned(), RestrictedExpression::new_bool(request.facts.taint)),
            ("in_scope".to_owned(), RestrictedExpression::new_bool(true)),
        ]);
        let query =
            cedar_policy::Request::new(user, action.uid(), thing, context.expect("facts"), None).expect("a request");
        let three = [principal.expect("an entity"), resource.expect("an entity"), action];
        let entities = Entities::from_entities(three, None).expect("entities");
        Authorizer::new().is_authorized(&query, &self.all, &entities).decision() == Decision::Allow
    }
}

fn uid(kind: &str, id: &str) -> EntityUid {
    thread_local! { static TYPES: std::cell::RefCell<HashMap<String, EntityTypeName>> = std::cell::RefCell::default(); }
    let parse = |kind: &str| EntityTypeName::from_str(&format!("AiVillage::{kind}")).expect("a type");
    let kind = TYPES.with_borrow_mut(|types| types.entry(kind.to_owned()).or_insert_with(|| parse(kind)).clone());
    EntityUid::from_type_name_and_id(kind, EntityId::new(id))
}

fn attributes(name: String, tenant: &EntityUid, labels: &[String]) -> HashMap<String, RestrictedExpression> {
    let words =
        |words: &[String]| RestrictedExpression::new_set(words.iter().cloned().map(RestrictedExpression::new_string));
    HashMap::from([
        ("name".to_owned(), RestrictedExpression::new_string(name)),
        ("tenant".to_owned(), RestrictedExpression::new_entity_uid(tenant.clone())),
        ("labels".to_owned(), words(labels)),
        ("shared_with".to_owned(), words(&[])),
        ("egress".to_owned(), words(&[])),
        ("regions".to_owned(), words(&[])),
        ("suspended".to_owned(), RestrictedExpression::new_bool(false)),
    ])
}

fn measure(count: usize, requests: usize, figures: &mut Figures) {
    let mut put = |name: &str, value: Value| figures.insert(format!("{count} policies: {name}"), value);
    let sources = sources(count);
    let started = Instant::now();
    let bundle = Arc::new(Bundle::load(&sources).expect("a bundle"));
    put("load, ms", json!(started.elapsed().as_millis()));
    let changed = sources.with("bench.cedar", policies(count).replace("l3", "l4")).expect("a bundle");
    let started = Instant::now();
    drop(Bundle::load_after(&changed, Some(&bundle)).expect("a bundle"));
    put("reload with one in seven changed, ms", json!(started.elapsed().as_millis()));
    let handle = PdpHandle::new(100_000);
    handle.publish(bundle.clone(), 1);
    let plain = Plain::new(count);
    let asked: Vec<Request> = (0..requests).map(request).collect();
    // The whole set is slow: as many requests as take some seconds.
    let few = &asked[..requests.min((4_000_000 / (count + 20)).max(100))];
    let allowed = few.iter().filter(|request| same(&bundle, &plain, request)).count();
    put("same answers", few.len().into());
    put("of these allowed", allowed.into());
    let uncached = times(&asked, 1, |request| bundle.decide(request));
    let cedar = times(few, 1, |request| plain.decide(request));
    let hot: Vec<Request> = asked.iter().take(1_000).cloned().collect();
    let repeated: Vec<Request> = hot.iter().cycle().take(requests).cloned().collect();
    drop(times(&hot, 1, |request| handle.decide(request)));
    // One decision takes little longer than reading the clock.
    let cached = times(&repeated, 16, |request| handle.decide(request));
    for (name, times) in [("cached", &cached), ("uncached", &uncached), ("cedar, whole set", &cedar)] {
        put(&format!("{name} p50, us"), rounded(at(times, 50)));
        put(&format!("{name} p99, us"), rounded(at(times, 99)));
    }
    put("uncached against cedar, times faster", rounded(at(&cedar, 50) / at(&uncached, 50)));
}

/// Whether it is allowed; both must say the same.
fn same(bundle: &Bundle, plain: &Plain, request: &Request) -> bool {
    let decision = bundle.decide(request);
    assert!(decision.errors.is_empty(), "{decision:?}");
    assert_eq!(decision.allow, plain.decide(request), "{request:?}");
    decision.allow
}

/// Microseconds of a call, sorted, each measured over `batch` of them.
fn times<T>(requests: &[Request], batch: usize, decide: impl Fn(&Request) -> T) -> Vec<f64> {
    let one = |requests: &[Request]| {
        let started = Instant::now();
        for request in requests {
            black_box(decide(request));
        }
        started.elapsed().as_secs_f64() * 1e6 / requests.len() as f64
    };
    let mut times: Vec<f64> = requests.chunks(batch).map(one).collect();
    times.sort_by(f64::total_cmp);
    times
}

fn at(times: &[f64], percent: usize) -> f64 {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn rounded(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}
