//! Which node owns which key: pure functions of names and members, the same on every node.
//!
//! ```text
//! (kind, key) --slot--> 0..256 --rank over the eligible nodes--> owner = rank 0     (kinds without replicated state)
//!                              --group_of--> Raft group 1..=G --> its leader        (replicated kinds)
//! ```
//!
//! Nodes are ranked by weighted rendezvous hashing (Thaler and Ravishankar 1998, weights by the logarithmic method): each
//! node draws a score for each slot, and the scores of others have no part in it. So a node that comes or goes moves the
//! slots that it wins or held, and no others, and its share follows its weight.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::node_id::NodeId;

/// What an operator says about a node, and a kind requires of it.
pub type Labels = BTreeMap<String, String>;

/// Labels that one node or kind may have.
pub const LABELS_MAX: usize = 32;
/// Longest label in bytes, name and value together.
pub const LABEL_MAX: usize = 64;

/// Factor on the weight of a node that carries all preferred labels.
const PREFERENCE: f64 = 4.0;
/// What the voters of a group are ranked by in place of a kind; no kind has the empty name.
const GROUP_KIND: &str = "";
/// A node that runs on a battery: its voice would be missing when it sleeps.
const BATTERY: &str = "battery";
/// `control = "never"`: an operator keeps consensus off the node.
const CONTROL: (&str, &str) = ("control", "never");

/// One of the 256 parts that the keys of a kind fall into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId(pub(crate) u8);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A live node as placement sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub id: NodeId,
    /// Its share relative to others; 0 gets nothing.
    pub weight: u32,
    /// Its labels.
    pub labels: &'a Labels,
}

/// Why no node can own a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Missing {
    /// Nobody is there, or all have weight 0.
    #[error("no live node takes part in placement")]
    Candidate,
    /// No live node carries the label.
    #[error("no live node is labelled {label}")]
    Label {
        /// As `name=value`.
        label: String,
    },
    /// Each label is carried by a live node, but no node carries them all.
    #[error("no live node carries all of {}", labels.join(", "))]
    Together {
        /// Each as `name=value`.
        labels: Vec<String>,
    },
}

/// Too many labels, or one that is too long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BadLabels {
    /// There are more than [`LABELS_MAX`].
    #[error("{count} labels are too many: the limit is {LABELS_MAX}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// One is longer than [`LABEL_MAX`].
    #[error("label {name} is too long: the limit is {LABEL_MAX} bytes for name and value")]
    TooLong {
        /// Its name.
        name: String,
    },
}

/// Checks labels against their limits.
///
/// # Errors
/// The first limit that is exceeded.
pub fn check_labels(labels: &Labels) -> Result<(), BadLabels> {
    if labels.len() > LABELS_MAX {
        return Err(BadLabels::TooMany { count: labels.len() });
    }
    match labels.iter().find(|(name, value)| name.len() + value.len() > LABEL_MAX) {
        // Shown to people: the start is enough to find it.
        Some((name, _)) => Err(BadLabels::TooLong { name: name.chars().take(LABEL_MAX).collect() }),
        None => Ok(()),
    }
}

/// The slot of a key.
#[must_use]
pub fn slot(kind: &str, key: &str) -> SlotId {
    let named = [kind.as_bytes(), &[0], key.as_bytes()].concat();
    let [low, ..] = xxh3_64(&named).to_le_bytes();
    SlotId(low)
}

/// The number that stands for a kind on the wire.
#[must_use]
pub fn kind_id(name: &str) -> u32 {
    let [a, b, c, d, ..] = xxh3_64(name.as_bytes()).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The Raft group, 1 to `groups`, that holds a slot of the replicated kinds.
pub(crate) fn group_of(slot: SlotId, groups: u8) -> u8 {
    slot.0 % groups.max(1) + 1
}

/// The node that owns a slot.
///
/// # Errors
/// What is missing when no candidate can own it.
pub(crate) fn owner(
    kind: &str,
    slot: SlotId,
    require: &Labels,
    prefer: &Labels,
    candidates: &[Candidate<'_>],
) -> Result<NodeId, Missing> {
    let first = scores(kind, slot, require, prefer, candidates).min_by(descending);
    first.map(|(id, _)| id).ok_or_else(|| missing(require, candidates))
}

/// All nodes that may own a slot, best first.
#[cfg(test)]
pub(crate) fn rank(
    kind: &str,
    slot: SlotId,
    require: &Labels,
    prefer: &Labels,
    candidates: &[Candidate<'_>],
) -> Vec<NodeId> {
    sorted(scores(kind, slot, require, prefer, candidates))
}

/// Nodes that may vote in a shard group, best first.
pub(crate) fn rank_voters(group: u8, candidates: &[Candidate<'_>]) -> Vec<NodeId> {
    let none = Labels::new();
    let scores = scores(GROUP_KIND, SlotId(group), &none, &none, candidates);
    let votes = |id| candidates.iter().any(|node| node.id == id && may_vote(node.labels));
    sorted(scores.filter(|(id, _)| votes(*id)))
}

/// Whether a node with these labels may be a voter of any group.
pub(crate) fn may_vote(labels: &Labels) -> bool {
    let battery = labels.get(BATTERY).is_some_and(|value| value != "false");
    let never = labels.get(CONTROL.0).is_some_and(|value| value == CONTROL.1);
    !battery && !never
}

fn scores<'a>(
    kind: &str,
    slot: SlotId,
    require: &'a Labels,
    prefer: &'a Labels,
    candidates: &'a [Candidate<'_>],
) -> impl Iterator<Item = (NodeId, f64)> + use<'a> {
    // LE64(id), LE16(slot), kind; the first eight bytes are set for each node.
    let mut named = [&[0; 8][..], &u16::from(slot.0).to_le_bytes()[..], kind.as_bytes()].concat();
    let eligible = candidates.iter().filter(|node| node.weight > 0 && carries(node.labels, require));
    eligible.map(move |node| {
        if let Some((id, _)) = named.split_first_chunk_mut() {
            *id = node.id.0.to_le_bytes();
        }
        let preferred = !prefer.is_empty() && carries(node.labels, prefer);
        let factor = if preferred { PREFERENCE } else { 1.0 };
        (node.id, score(xxh3_64(&named), f64::from(node.weight) * factor))
    })
}

/// `-weight / ln u` with `u = (hash + 0.5) / 2^64`, in (0, inf).
fn score(hash: u64, weight: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "u needs no more than the 53 bits that an f64 has")]
    let u = (hash as f64 + 0.5) / 2_f64.powi(64);
    // The largest hashes round to u = 1, whose logarithm is 0.
    -weight / u.min(1.0 - f64::EPSILON / 2.0).ln()
}

/// The higher score first; of equal ones the smaller node, so that the order of the candidates never matters.
fn descending(a: &(NodeId, f64), b: &(NodeId, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn sorted(scores: impl Iterator<Item = (NodeId, f64)>) -> Vec<NodeId> {
    let mut scores: Vec<_> = scores.collect();
    scores.sort_unstable_by(descending);
    scores.into_iter().map(|(id, _)| id).collect()
}

fn carries(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn missing(require: &Labels, candidates: &[Candidate<'_>]) -> Missing {
    let mut taking_part = candidates.iter().filter(|node| node.weight > 0).peekable();
    if taking_part.peek().is_none() {
        return Missing::Candidate;
    }
    let live: Vec<&Labels> = taking_part.map(|node| node.labels).collect();
    let shown = |(name, value): (&String, &String)| format!("{name}={value}");
    let nowhere = |(name, value): &(&String, &String)| live.iter().all(|labels| labels.get(*name) != Some(*value));
    match require.iter().find(nowhere) {
        Some(label) => Missing::Label { label: shown(label) },
        None => Missing::Together { labels: require.iter().map(shown).collect() },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const ONES: NodeId = NodeId(0x1111_1111_1111_1111);
    const TWOS: NodeId = NodeId(0x2222_2222_2222_2222);
    const THREES: NodeId = NodeId(0x3333_3333_3333_3333);
    const FOURS: NodeId = NodeId(0x4444_4444_4444_4444);
    static NONE: Labels = Labels::new();

    fn node(id: NodeId, weight: u32) -> Candidate<'static> {
        Candidate { id, weight, labels: &NONE }
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn owners(kind: &str, candidates: &[Candidate<'_>]) -> Vec<NodeId> {
        (0..=255).map(|slot| owner(kind, SlotId(slot), &NONE, &NONE, candidates).unwrap()).collect()
    }

    #[test]
    fn slots_are_those_of_the_published_vectors() {
        assert_eq!(slot("counter", "visits"), SlotId(189));
        assert_eq!(slot("agent", "king"), SlotId(84));
        assert_eq!(slot("agent", "oracle"), SlotId(47));
        assert_eq!(slot("fog.job", ""), SlotId(1));
    }

    #[test]
    fn scores_are_those_of_the_published_vector() {
        let nodes = [node(ONES, 1), node(TWOS, 1), node(THREES, 2)];
        let king = slot("agent", "king");
        assert_eq!(rank("agent", king, &NONE, &NONE, &nodes), [TWOS, ONES, THREES]);
        assert_eq!(owner("agent", king, &NONE, &NONE, &nodes), Ok(TWOS));
        let expected = [(ONES, 5.445_910), (TWOS, 6.890_317), (THREES, 3.026_848)];
        for ((id, score), (expected_id, expected)) in scores("agent", king, &NONE, &NONE, &nodes).zip(expected) {
            assert_eq!(id, expected_id);
            // The vectors have six digits.
            assert!((score - expected).abs() < 5e-7, "{id}: {score}");
        }
    }

    #[test]
    fn shares_and_moves_are_those_of_the_published_vector() {
        let mut nodes = vec![node(ONES, 1), node(TWOS, 1), node(THREES, 2)];
        let before = owners("agent", &nodes);
        let share = |id| before.iter().filter(|owner| **owner == id).count();
        assert_eq!([ONES, TWOS, THREES].map(share), [57, 66, 133]);
        nodes.push(node(FOURS, 1));
        let after = owners("agent", &nodes);
        let moved: Vec<NodeId> =
            before.iter().zip(after).filter(|(old, new)| *old != new).map(|(_, new)| new).collect();
        assert_eq!(moved, [FOURS; 42]);
    }

    #[test]
    fn kind_id_is_the_low_half_of_the_hash() {
        assert_eq!(u64::from(kind_id("agent")), xxh3_64(b"agent") & 0xffff_ffff);
    }

    #[test]
    fn groups_are_numbered_from_one() {
        assert_eq!([0, 7, 8, 255].map(|slot| group_of(SlotId(slot), 8)), [1, 8, 1, 8]);
        assert_eq!(group_of(SlotId(3), 0), 1);
    }

    #[test]
    fn the_largest_hash_has_a_finite_score() {
        assert!(score(u64::MAX, 1.0).is_finite() && score(u64::MAX, 1.0) > score(u64::MAX - 1_000_000, 1.0));
        assert!(score(0, 1.0) > 0.0);
    }

    #[test]
    fn a_required_label_excludes_the_nodes_without_it() {
        let (plain, gpu) = (Labels::new(), labels(&[("gpu", "h100")]));
        let nodes = [
            Candidate { id: ONES, weight: 9, labels: &plain },
            Candidate { id: TWOS, weight: 1, labels: &gpu },
            Candidate { id: THREES, weight: 0, labels: &gpu },
        ];
        assert!((0..=255).all(|slot| rank("fog", SlotId(slot), &gpu, &NONE, &nodes) == [TWOS]));
    }

    #[test]
    fn what_is_missing_is_named() {
        let (a, b) = (labels(&[("zone", "a"), ("gpu", "yes")]), labels(&[("zone", "b")]));
        let nodes = [Candidate { id: ONES, weight: 1, labels: &a }, Candidate { id: TWOS, weight: 1, labels: &b }];
        let place = |require: &Labels, nodes: &[Candidate<'_>]| owner("fog", SlotId(0), require, &NONE, nodes);
        let zone_c = place(&labels(&[("zone", "c")]), &nodes).unwrap_err();
        assert_eq!(zone_c.to_string(), "no live node is labelled zone=c");
        let both = place(&labels(&[("gpu", "yes"), ("zone", "b")]), &nodes).unwrap_err();
        assert_eq!(both, Missing::Together { labels: vec!["gpu=yes".into(), "zone=b".into()] });
        assert_eq!(place(&NONE, &[]), Err(Missing::Candidate));
        assert_eq!(place(&NONE, &[node(ONES, 0)]), Err(Missing::Candidate));
    }

    #[test]
    fn a_preferred_label_counts_as_four_times_the_weight() {
        let (plain, ssd) = (Labels::new(), labels(&[("disk", "ssd")]));
        let at = |weight, labels| Candidate { id: ONES, weight, labels };
        let other = node(TWOS, 3);
        for slot in (0..=255).map(SlotId) {
            let preferred = rank("k", slot, &NONE, &ssd, &[at(1, &ssd), other]);
            assert_eq!(preferred, rank("k", slot, &NONE, &NONE, &[at(4, &plain), other]));
        }
    }

    #[test]
    fn batteries_and_nodes_without_control_do_not_vote() {
        let battery = labels(&[("battery", "true")]);
        let never = labels(&[("control", "never")]);
        let mains = labels(&[("battery", "false"), ("control", "always")]);
        let nodes = [(ONES, &battery), (TWOS, &never), (THREES, &mains), (FOURS, &NONE)];
        let nodes = nodes.map(|(id, labels)| Candidate { id, weight: 1, labels });
        let voters: BTreeSet<NodeId> = rank_voters(1, &nodes).into_iter().collect();
        assert_eq!(voters, BTreeSet::from([THREES, FOURS]));
    }

    #[test]
    fn labels_over_the_limits_are_refused() {
        let many: Labels = (0..=LABELS_MAX).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(check_labels(&many), Err(BadLabels::TooMany { count: 33 }));
        let (value, longer) = ("x".repeat(LABEL_MAX - 1), "x".repeat(LABEL_MAX));
        assert_eq!(check_labels(&labels(&[("n", &value)])), Ok(()));
        assert_eq!(check_labels(&labels(&[("n", &longer)])), Err(BadLabels::TooLong { name: "n".into() }));
    }

    /// Fixed seeds: of many shares a few are outside three sigma by right (0.27 %).
    #[test]
    fn shares_are_within_three_sigma_of_the_weights() {
        const KINDS: u32 = 16;
        let mut rng = SmallRng::seed_from_u64(7);
        let (mut shares, mut outside) = (0_u32, 0_u32);
        for _ in 0..40 {
            let nodes: Vec<_> =
                (0..rng.random_range(2..9)).map(|_| node(NodeId(rng.random()), rng.random_range(1..17))).collect();
            let total: u32 = nodes.iter().map(|node| node.weight).sum();
            let owners: Vec<NodeId> = (0..KINDS).flat_map(|kind| owners(&format!("kind{kind}"), &nodes)).collect();
            for node in &nodes {
                let p = f64::from(node.weight) / f64::from(total);
                let draws = f64::from(KINDS * 256);
                let held = u32::try_from(owners.iter().filter(|owner| **owner == node.id).count()).unwrap();
                let sigma = (draws * p * (1.0 - p)).sqrt();
                shares += 1;
                outside += u32::from((f64::from(held) - draws * p).abs() > 3.0 * sigma);
            }
        }
        assert!(shares > 150 && outside * 100 <= shares, "{outside} of {shares}");
    }

    fn some_nodes() -> impl Strategy<Value = Vec<(u64, u32)>> {
        prop::collection::btree_map(any::<u64>(), 1_u32..64, 2..12).prop_map(|nodes| nodes.into_iter().collect())
    }

    fn candidates(nodes: &[(u64, u32)]) -> Vec<Candidate<'static>> {
        nodes.iter().map(|(id, weight)| node(NodeId(*id), *weight)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_order_of_the_candidates_does_not_matter(
            (nodes, shuffled) in some_nodes().prop_flat_map(|nodes| (Just(nodes.clone()), Just(nodes).prop_shuffle())),
            kind in "[a-z.]{1,20}", slot: u8,
        ) {
            let ranked = rank(&kind, SlotId(slot), &NONE, &NONE, &candidates(&nodes));
            let again = rank(&kind, SlotId(slot), &NONE, &NONE, &candidates(&shuffled));
            prop_assert_eq!(&ranked, &again);
            let first = owner(&kind, SlotId(slot), &NONE, &NONE, &candidates(&shuffled));
            prop_assert_eq!(first.ok(), ranked.first().copied());
            let voters = rank_voters(slot, &candidates(&nodes));
            prop_assert_eq!(voters, rank_voters(slot, &candidates(&shuffled)));
        }

        /// A node that leaves loses its slots, one that gains weight wins some; no other slot moves.
        #[test]
        fn slots_move_only_to_or_from_the_changed_node(
            nodes in some_nodes(), changed: prop::sample::Index, more in 1_u32..64, kind in "[a-z.]{1,20}",
        ) {
            let all = candidates(&nodes);
            let at = changed.index(all.len());
            let id = all[at].id;
            let before = owners(&kind, &all);

            let mut rest = all.clone();
            rest.remove(at);
            for (old, new) in before.iter().zip(owners(&kind, &rest)) {
                prop_assert!(*old == new || *old == id);
            }
            let mut heavier = all;
            heavier[at].weight += more;
            for (old, new) in before.iter().zip(owners(&kind, &heavier)) {
                prop_assert!(*old == new || new == id);
            }
        }
    }
}
