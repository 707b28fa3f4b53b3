//! Tests of the constitution.

use aivillage_runtime::testing::asked;
use aivillage_runtime::{PublicKey, Village};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::chain::{ConstitutionError, RootKeys, SignatureReason, body};
use super::check::{Broken, Change, Payment};
use super::document::{Action, Document, DocumentError};
use super::note::{NoteError, NoteKey};
use super::taxonomy::{Level, categories};
use super::*;

/// Root key `n`.
fn root(n: u8) -> (NoteKey, Ed25519KeyPair) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[n; 32]).unwrap();
    let public = PublicKey(pair.public_key().as_ref().try_into().unwrap());
    (NoteKey::try_new(&format!("root-{n}"), public).unwrap(), pair)
}

/// Two of the root keys 1 to 3.
fn roots() -> RootKeys {
    RootKeys::try_new((1..4).map(|n| root(n).0).collect(), 2).unwrap()
}

fn signed(toml: &str, previous: [u8; 32], by: &[u8]) -> Signed {
    let text = body(&Document::parse(toml).unwrap(), previous);
    let signatures = by.iter().map(|n| root(*n)).map(|(key, pair)| key.sign(&text, &pair));
    Signed { toml: toml.to_owned(), note: format!("{text}\n{}", signatures.collect::<String>()) }
}

fn first() -> Document {
    Document::parse(DEFAULT_TOML).unwrap()
}

/// The default constitution with a change, as version 2.
fn second(from: &str, to: &str) -> String {
    assert!(DEFAULT_TOML.contains(from), "{from}");
    DEFAULT_TOML.replace("version = 1", "version = 2").replace(from, to)
}

/// Versions 1 and 2.
fn versions() -> Vec<Signed> {
    let changed = second("max = 5.0", "max = 6.0");
    vec![signed(DEFAULT_TOML, [0; 32], &[1, 2]), signed(&changed, first().hash(), &[3, 2])]
}

#[test]
fn the_default_covers_every_category_and_each_rule_cites_an_article() {
    let document = first();
    for (level, category) in
        Level::ALL.into_iter().flat_map(|level| categories(level).iter().map(move |it| (level, *it)))
    {
        for namespace in ["", "public", "private"] {
            let (rule, article) = document.rule_for(level, category, namespace).unwrap();
            assert_eq!(rule.article, article.id);
            match level {
                Level::H0 | Level::H1 => assert_eq!(rule.measure.action, Action::Block, "{category}"),
                Level::H3 => assert!(rule.measure.action <= Action::Support, "{category}"),
                Level::H2 | Level::D => {}
            }
        }
    }
    let rule = |level, category, namespace| document.rule_for(level, category, namespace).map(|(rule, _)| &rule.id[..]);
    assert_eq!(rule(Level::H2, "hate", "public"), Some("R-H2-PUBLIC-HATE"));
    assert_eq!(rule(Level::H2, "hate", "elsewhere"), Some("R-H2"));
    assert_eq!(rule(Level::H3, "person_at_risk", ""), Some("R-CARE"));
    assert_eq!(rule(Level::H2, "csam", ""), None, "of another level");
    assert!(document.bounds().iter().all(|bound| document.article(&bound.article).is_some()));
    let entrenched = document.articles().iter().filter(|article| article.entrenched).map(|article| &article.id[..]);
    assert_eq!(entrenched.collect::<Vec<_>>(), ["A1.1", "A2.1", "A3.1", "A6.1", "A11.1"]);
}

#[test]
fn the_prose_says_the_same() {
    let heading = |id: &str, title: &str, star: &str| format!("### {id} {title}{star}\n\n");
    for article in first().articles() {
        let star = if article.entrenched { "*" } else { "" };
        let wanted = format!("{}{}\n", heading(&article.id, &article.title, star), article.text);
        assert!(DEFAULT_PROSE.contains(&wanted), "{wanted}");
    }
    assert_eq!(DEFAULT_PROSE.matches("### ").count(), first().articles().len());
}

#[test]
fn what_is_no_constitution_is_refused() {
    use DocumentError as E;
    let refused = |from: &str, to: &str| Document::parse(&DEFAULT_TOML.replacen(from, to, 1)).unwrap_err();
    assert_eq!(Document::parse(&" ".repeat(document::MAX_BYTES + 1)), Err(E::TooLarge));
    let E::Toml { reason } = refused("title = \"Privacy\"", "titel = \"Privacy\"") else { panic!() };
    assert!(reason.contains("line ") && reason.contains("titel"), "{reason}");
    let E::Toml { reason } = refused("strikes = 1", "strike = 1") else { panic!() };
    assert!(reason.contains("strike"), "{reason}");
    assert_eq!(refused("\"A1.2\"", "\"A1.1\""), E::Twice { id: "A1.1".into() });
    let unknown = |by: &str| E::Article { by: by.into(), article: "A99".into() };
    assert_eq!(refused("article = \"A1.1\"", "article = \"A99\""), unknown("R-H0"));
    assert_eq!(refused("article = \"A9.1\"", "article = \"A99\""), unknown("fog.tier.bronze.usd_per_h200h"));
    let category = E::Category { rule: "R-H2-SPAM".into(), level: Level::H2, category: "ham".into() };
    assert_eq!(refused("category = \"spam\"", "category = \"ham\""), category);
    let uncovered = E::Uncovered { level: Level::H0, category: "csam".into() };
    assert_eq!(refused("{ level = \"H0\" }", "{ level = \"H0\", category = \"violent_threat\" }"), uncovered);
    let viewpoint = E::Viewpoint { rule: "R-H3".into() };
    let label = "\"H3\" }\naction = \"label\"";
    assert_eq!(refused("\"H3\" }\naction = \"allow\"", label), viewpoint);
    assert_eq!(refused("strikes = 1\nsuspend_hours = 24\nnotice = true", ""), E::NoAppeal { rule: "R-H0".into() });
    let bound = E::Bound { key: "fog.tier.bronze.usd_per_h200h".into() };
    for (from, to) in
        [("max = 5.0", "max = 0.01"), ("max = 5.0", "max = inf"), ("change_pct = 25.0", "change_pct = -1.0")]
    {
        assert_eq!(refused(from, to), bound, "{to}");
    }
}

#[test]
fn the_hash_is_of_what_it_says_not_of_how_it_is_written() {
    let with = |from: &str, to: &str| Document::parse(&DEFAULT_TOML.replacen(from, to, 1)).unwrap().hash();
    let hash = first().hash();
    assert_eq!(with("# The rules", "# All the rules"), hash);
    assert_eq!(with("name = \"aivillage\"\nversion = 1", "version = 1\nname = \"aivillage\""), hash);
    assert_ne!(with("max = 5.0", "max = 5.1"), hash);
    // RFC 8785 section 3.2.4.
    let given =
        r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"literals":[null,true,false]}"#;
    let wanted = r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27]}"#;
    let given: serde_json::Value = serde_json::from_str(given).unwrap();
    assert_eq!(serde_json_canonicalizer::to_string(&given).unwrap(), wanted);
}

#[test]
fn a_chain_of_signed_versions_holds() {
    let chain = Chain::verify(versions(), &roots()).unwrap();
    assert_eq!(chain.current().version(), 2);
    assert_eq!(chain.version(1).unwrap().0, &first());
    assert!(chain.version(0).is_none() && chain.version(3).is_none());
}

#[test]
fn a_chain_that_does_not_hold_says_where_and_why() {
    use SignatureReason as R;
    let refused = |versions| Chain::verify(versions, &roots()).unwrap_err();
    let signature = |version, reason| ConstitutionError::Signature { version, reason };
    let [one, two] = <[Signed; 2]>::try_from(versions()).unwrap();
    let because = |last: Signed| refused(vec![one.clone(), last]);
    assert_eq!(refused(vec![]), ConstitutionError::Count { count: 0 });
    assert_eq!(refused(vec![one.clone(); 1_025]), ConstitutionError::Count { count: 1_025 });
    let of_two = |by: &[u8]| signed(&two.toml, first().hash(), by);
    assert_eq!(because(of_two(&[1])), signature(2, R::Few { have: 1, need: 2 }));
    assert_eq!(because(of_two(&[1, 1])), signature(2, R::Few { have: 1, need: 2 }), "one key twice is one");
    assert_eq!(because(of_two(&[1, 7])), signature(2, R::Few { have: 1, need: 2 }), "no root key");
    assert_eq!(because(signed(&two.toml, [9; 32], &[1, 2])), signature(2, R::Body), "another predecessor");
    let swapped = Signed { toml: second("max = 5.0", "max = 7.0"), ..two.clone() };
    assert_eq!(because(swapped), signature(2, R::Body));
    let no_note = Signed { note: String::new(), ..two.clone() };
    assert_eq!(because(no_note), signature(2, R::Note(NoteError::Format)));
    let forged = two.note.replace("root-2 ", "root-1 ");
    let named = signature(2, R::Few { have: 1, need: 2 });
    assert_eq!(because(Signed { note: forged, ..two.clone() }), named, "a name alone is no key");
    let mut bad = two.note.clone();
    bad.replace_range(bad.len() - 12..bad.len() - 8, "AAAA");
    assert_eq!(because(Signed { note: bad, ..two.clone() }), signature(2, R::Note(NoteError::Signature)));
    let again = signature(2, R::Version { version: 1, name: "aivillage".into() });
    assert_eq!(because(one.clone()), again);
    let other = signed(&two.toml.replace("\"aivillage\"", "\"other\""), first().hash(), &[1, 2]);
    assert_eq!(because(other), signature(2, R::Version { version: 2, name: "other".into() }));
    let text = because(Signed { toml: String::new(), ..two });
    assert!(matches!(text, ConstitutionError::Document { version: 2, reason: DocumentError::Toml { .. } }));
    let shown = signature(2, R::Few { have: 1, need: 2 }).to_string();
    assert_eq!(shown, "E-CONST-SIG 2 1 of the root keys signed, 2 must");
    for (keys, threshold) in [(vec![], 0), (vec![root(1).0], 2), (vec![root(1).0, root(1).0], 1)] {
        let count = keys.len();
        assert_eq!(RootKeys::try_new(keys, threshold), Err(R::Keys { keys: count, threshold }));
    }
}

fn findings(proposal: &Proposal) -> Vec<(String, Broken)> {
    first().check(proposal).into_iter().map(|finding| (finding.article, finding.what)).collect()
}

#[test]
fn parameters_stay_in_their_bounds() {
    let key = "fog.tier.bronze.usd_per_h200h";
    let change = |key: &str, from, to| {
        findings(&Proposal { changes: vec![Change { key: key.into(), from, to }], ..Proposal::default() })
    };
    assert_eq!(change(key, 1.0, 1.25), []);
    assert_eq!(change(key, 0.0, 5.0), [], "the first price");
    let (bronze, price) = (key.to_owned(), "A9.1".to_owned());
    let step = Broken::Step { key: bronze.clone(), max_change_pct: 25.0 };
    assert_eq!(change(key, 1.0, 1.26), [(price.clone(), step)]);
    let outside = |to| Broken::Outside { key: bronze.clone(), to, min: 0.05, max: 5.0 };
    assert_eq!(change(key, 4.9, 5.01), [(price, outside(5.01))]);
    assert_eq!(change(key, 1.0, f64::NAN).len(), 1);
    assert_eq!(change(key, f64::NAN, 1.0).len(), 1);
    assert_eq!(change("edge.listen", 1.0, 1.0), [("A8.2".into(), Broken::Unbounded { key: "edge.listen".into() })]);
}

#[test]
fn what_is_entrenched_is_extended_only() {
    let check =
        |from: &str, to: &str| findings(&Proposal { constitution: Some(second(from, to)), ..Proposal::default() });
    assert_eq!(check("max = 5.0", "max = 6.0"), []);
    assert_eq!(check("viewpoint that is expressed.", "viewpoint that is expressed. None ever did."), []);
    assert_eq!(check("the person whom it concerns.", "anybody."), [], "A4.1 is not entrenched");
    let lost = [("A2.1".to_owned(), Broken::Entrenched { id: "A2.1".into() })];
    assert_eq!(check("may depend on the viewpoint", "should depend on the viewpoint"), lost);
    assert_eq!(check("title = \"Viewpoint neutrality\"\nentrenched = true", "title = \"Viewpoint neutrality\""), lost);
    assert_eq!(check("Viewpoint neutrality", "Viewpoints"), lost);
    assert_eq!(check("expressed.", "expressed.not"), lost, "not apart");
    let same_version = Proposal { constitution: Some(DEFAULT_TOML.to_owned()), ..Proposal::default() };
    assert!(matches!(&findings(&same_version)[..], [(article, Broken::Document { .. })] if article == "A11.1"));
    assert!(matches!(&check("[[bound]]", "[[bond]]")[..], [(_, Broken::Document { .. })]));
}

#[test]
fn rules_of_entrenched_articles_cannot_be_walked_around() {
    let check =
        |from: &str, to: &str| findings(&Proposal { constitution: Some(second(from, to)), ..Proposal::default() });
    let weaker = check("suspend_hours = 24", "suspend_hours = 1");
    assert_eq!(weaker.len(), categories(Level::H0).len() * 3, "in each category and namespace");
    let ahead = "[[rule]]\nid = \"R-X\"\narticle = \"A2.2\"\n\
        when = { level = \"H0\", category = \"csam\", namespace = \"den\" }\naction = \"allow\"\n\n[[rule]]\nid = \"R-H0\"";
    let den = Broken::Weakened { level: Level::H0, category: "csam".into(), namespace: "den".into() };
    assert_eq!(check("[[rule]]\nid = \"R-H0\"", ahead), [("A1.1".to_owned(), den)]);
    assert_eq!(check("action = \"limit\"", "action = \"block\""), [], "A2.2 is not entrenched");
}

#[test]
fn nobody_proposes_a_large_payment_to_themselves_alone() {
    let pay = |amounts: &[(&[&str], u128)]| {
        let payment = |(who, amount_micro): &(&[&str], u128)| Payment {
            beneficiaries: who.iter().map(ToString::to_string).collect(),
            amount_micro: *amount_micro,
        };
        let payments = amounts.iter().map(payment).collect();
        findings(&Proposal { proposer: "ada".into(), payments, treasury_micro: 10_000, ..Proposal::default() })
    };
    let alone = |amount_micro| [("A8.1".to_owned(), Broken::SoleBeneficiary { amount_micro })];
    assert_eq!(pay(&[(&["ada"], 100)]), []);
    assert_eq!(pay(&[(&["ada"], 101)]), alone(101));
    assert_eq!(pay(&[(&["ada"], 60), (&["ada", "ada"], 60)]), alone(120), "in parts");
    assert_eq!(pay(&[(&["ada", "bob"], 9_000)]), []);
    assert_eq!(pay(&[(&[], 9_000)]), alone(9_000), "to nobody that is named");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_change_without_finding_is_in_its_bound_and_a_check_is_the_same_again(from in 0.0_f64..8.0, to in -1.0_f64..8.0) {
        let change = Change { key: "fog.tier.bronze.usd_per_h200h".into(), from, to };
        let proposal = Proposal { changes: vec![change], ..Proposal::default() };
        let found = first().check(&proposal);
        prop_assert_eq!(&first().check(&proposal), &found);
        if found.is_empty() {
            prop_assert!((0.05..=5.0).contains(&to) && (to - from).abs() <= from * 0.25 + 1e-12);
        }
    }

    #[test]
    fn no_changed_byte_of_a_signed_version_is_accepted(at in 0_usize..400, bit in 0_u8..8) {
        let mut version = signed(DEFAULT_TOML, [0; 32], &[1, 2]);
        let mut note = version.note.clone().into_bytes();
        let at = at % note.len();
        note[at] ^= 1 << bit;
        if let Ok(note) = String::from_utf8(note) {
            version.note = note;
            prop_assert!(Chain::verify(vec![version], &roots()).is_err());
        }
    }
}

#[tokio::test]
async fn the_actor_answers_from_all_versions() {
    let chain = Arc::new(Chain::verify(versions(), &roots()).unwrap());
    let host = move |_: &ActorCx| Constitution::new(chain.clone(), roots().keys(), VillageSecret::default());
    let village = Village::builder().host(host).start().await.unwrap();
    let constitution = village.addr::<Constitution>(KEY);
    let get = async |version| constitution.ask(|reply| ConstitutionMsg::Get { version, reply }).await.unwrap();
    let current = get(None).await.unwrap();
    assert_eq!((current.version, &current.signed), (2, &versions()[1]));
    assert_eq!(current.root_keys, roots().keys());
    assert_eq!(get(Some(1)).await.unwrap().hash, first().hash());
    assert_eq!(get(Some(3)).await, None);
    let change = Change { key: "no.bound".into(), from: 1.0, to: 1.0 };
    let proposal = Proposal { changes: vec![change], ..Proposal::default() };
    let found = constitution.ask(|reply| ConstitutionMsg::Check { proposal, reply }).await.unwrap();
    assert_eq!(found[0].what, Broken::Unbounded { key: "no.bound".into() });
}

#[tokio::test]
async fn the_program_s_own_is_signed_alike_by_every_node_of_a_village() {
    let (chain, secret) = (Arc::new(Chain::embedded().unwrap()), VillageSecret::default());
    let nodes = [(); 2].map(|()| Constitution::new(chain.clone(), &[], secret.clone()));
    assert_eq!(nodes[0].get(None).unwrap().signed.note, "", "no node has the secret yet");
    secret.set(Zeroizing::new([7; 32]));
    let version = nodes[0].get(None).unwrap();
    assert_eq!(nodes[1].get(None).as_ref(), Some(&version));
    let roots = RootKeys::try_new(version.root_keys, 1).unwrap();
    assert_eq!(Chain::verify(vec![version.signed], &roots).unwrap().current(), chain.current());
}

#[test]
fn messages_are_the_same_on_another_node() {
    let proposal =
        Proposal { constitution: Some(DEFAULT_TOML.to_owned()), treasury_micro: u128::MAX, ..Proposal::default() };
    let wanted = proposal.clone();
    let open = move |body| match body {
        ConstitutionMsg::Check { proposal, reply } => {
            assert_eq!(proposal, wanted);
            reply
        }
        other @ ConstitutionMsg::Get { .. } => panic!("{other:?}"),
    };
    let found = first().check(&proposal);
    let check = |reply| ConstitutionMsg::Check { proposal, reply };
    assert_eq!(asked::<Constitution, _>(check, open, found.clone()), Ok(found));
    let open = |body| match body {
        ConstitutionMsg::Get { version: Some(7), reply } => reply,
        other => panic!("{other:?}"),
    };
    let signed = signed(DEFAULT_TOML, [0; 32], &[1]);
    let answer = Some(Version { version: 1, hash: [3; 32], signed, root_keys: vec![root(1).0] });
    let get = |reply| ConstitutionMsg::Get { version: Some(7), reply };
    assert_eq!(asked::<Constitution, _>(get, open, answer.clone()), Ok(answer));
}
