use proptest::prelude::*;

use super::*;

/// Leaves of the reference implementation of RFC 6962 (certificate-transparency, `merkle_tree_test`).
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
/// Roots over the first n of them, from the same tests.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];
/// Inclusion proofs from the same tests: index, size, path.
const PATHS: [(u64, u64, &[&str]); 5] = [
    (0, 1, &[]),
    (
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        &[
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];
/// Consistency proofs from the same tests: old size, size, path.
const CONSISTENCY: [(u64, u64, &[&str]); 4] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

/// All leaves of a small tree.
struct Small(Vec<Hash>);

impl Nodes for Small {
    fn node(&self, level: u8, index: u64) -> Result<Hash, LogError> {
        let (from, to) = (index << level, (index + 1) << level);
        let row = self.0.get(usize::try_from(from).unwrap()..usize::try_from(to).unwrap());
        row.map(Hash::subtree).ok_or(LogError::OutOfRange { asked: to, size: self.0.len() as u64 })
    }
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn hash(text: &str) -> Hash {
    Hash(hex(text).try_into().unwrap())
}

fn hashes(texts: &[&str]) -> Vec<Hash> {
    texts.iter().map(|text| hash(text)).collect()
}

fn reference() -> Small {
    Small(LEAVES.iter().map(|leaf| Hash::leaf(&hex(leaf))).collect())
}

fn root_of(nodes: &Small, size: u64) -> Hash {
    let mut frontier = Frontier::default();
    nodes.0.iter().take(usize::try_from(size).unwrap()).for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}

#[test]
fn roots_are_those_of_the_reference() {
    let tree = reference();
    for (size, wanted) in (0..).zip(ROOTS) {
        assert_eq!(root_of(&tree, size), hash(wanted), "of {size}");
        assert_eq!(root(size, &tree).unwrap(), hash(wanted), "of {size} from nodes");
    }
}

#[test]
fn proofs_are_those_of_the_reference() {
    let tree = reference();
    for (index, size, path) in PATHS {
        assert_eq!(prove_inclusion(index, size, &tree).unwrap(), hashes(path), "{index} in {size}");
    }
    for (old, size, path) in CONSISTENCY {
        assert_eq!(prove_consistency(old, size, &tree).unwrap(), hashes(path), "{old} to {size}");
    }
}

#[test]
fn what_is_not_in_the_tree_has_no_proof() {
    let tree = reference();
    assert_eq!(prove_inclusion(8, 8, &tree), Err(LogError::OutOfRange { asked: 8, size: 8 }));
    assert_eq!(prove_consistency(9, 8, &tree), Err(LogError::OutOfRange { asked: 9, size: 8 }));
    // The tree has fewer nodes than it says: their reader's error comes out.
    assert_eq!(prove_inclusion(3, 16, &tree), Err(LogError::OutOfRange { asked: 16, size: 8 }));
}

#[test]
fn every_tree_begins_with_the_empty_one() {
    let root = hash(ROOTS[5]);
    assert_eq!(verify_consistency(&[], 0, Hash::empty(), 5, root), Ok(()));
    assert_eq!(verify_consistency(&[], 0, root, 5, root), Err(BadProof));
    assert_eq!(verify_consistency(&[root], 0, Hash::empty(), 5, root), Err(BadProof));
}

#[test]
fn endless_proofs_and_sizes_are_refused() {
    let leaf = Hash::leaf(b"");
    assert_eq!(verify_inclusion(&[leaf; 64], 0, leaf, 1, leaf), Err(BadProof));
    assert_eq!(verify_inclusion(&[], u64::MAX, leaf, u64::MAX, leaf), Err(BadProof));
    assert_eq!(verify_inclusion(&[], 1, leaf, 1, leaf), Err(BadProof));
    assert_eq!(verify_consistency(&[leaf; 64], 1, leaf, 2, leaf), Err(BadProof));
    assert_eq!(verify_consistency(&[], u64::MAX, leaf, u64::MAX, leaf), Err(BadProof));
    assert_eq!(verify_consistency(&[], 2, leaf, 1, leaf), Err(BadProof));
}

fn flipped(hash: Hash, bit: usize) -> Hash {
    let mut bytes = hash.0;
    bytes[bit / 8 % 32] ^= 1 << (bit % 8);
    Hash(bytes)
}

/// All proofs of all trees up to this size are checked; `TLOG_SIZES=1000` looks further.
fn largest() -> u64 {
    std::env::var("TLOG_SIZES").ok().and_then(|size| size.parse().ok()).unwrap_or(200)
}

fn tree(size: u64) -> (Small, Vec<Hash>) {
    let nodes = Small((0..size).map(|n| Hash::leaf(&n.to_be_bytes())).collect());
    let mut frontier = Frontier::default();
    let mut roots = vec![frontier.root()];
    roots.extend(nodes.0.iter().map(|leaf| {
        frontier.push(*leaf);
        frontier.root()
    }));
    (nodes, roots)
}

#[test]
fn inclusion_verifies_for_every_entry_of_every_tree_and_no_other() {
    let (nodes, roots) = tree(largest());
    for size in 1..=largest() {
        let root = roots[usize::try_from(size).unwrap()];
        for index in 0..size {
            let leaf = nodes.0[usize::try_from(index).unwrap()];
            let proof = prove_inclusion(index, size, &nodes).unwrap();
            let check = |proof: &[Hash], index, leaf, root| verify_inclusion(proof, index, leaf, size, root);
            assert_eq!(check(&proof, index, leaf, root), Ok(()), "{index} of {size}");
            let bit = usize::try_from(index * 31 + size * 7).unwrap() % 256;
            assert_eq!(check(&proof, index, flipped(leaf, bit), root), Err(BadProof), "leaf {index} of {size}");
            assert_eq!(check(&proof, index, leaf, flipped(root, bit)), Err(BadProof), "root {index} of {size}");
            assert_eq!(check(&proof, index ^ 1 << (bit % 8), leaf, root), Err(BadProof), "index {index} of {size}");
            let mut bad = proof.clone();
            let Some(last) = bad.len().checked_sub(1) else { continue };
            bad[bit % (last + 1)] = flipped(bad[bit % (last + 1)], bit);
            assert_eq!(check(&bad, index, leaf, root), Err(BadProof), "proof {index} of {size}");
            assert_eq!(check(&proof[..last], index, leaf, root), Err(BadProof), "cut {index} of {size}");
        }
    }
}

#[test]
fn consistency_verifies_for_every_pair_of_trees_and_no_other() {
    let (nodes, roots) = tree(largest());
    for size in 1..=largest() {
        for old in 1..=size {
            let (old_root, root) = (roots[usize::try_from(old).unwrap()], roots[usize::try_from(size).unwrap()]);
            let proof = prove_consistency(old, size, &nodes).unwrap();
            let check = |proof: &[Hash], old_root, root| verify_consistency(proof, old, old_root, size, root);
            assert_eq!(check(&proof, old_root, root), Ok(()), "{old} to {size}");
            let bit = usize::try_from(old * 31 + size * 7).unwrap() % 256;
            assert_eq!(check(&proof, flipped(old_root, bit), root), Err(BadProof), "old root {old} to {size}");
            assert_eq!(check(&proof, old_root, flipped(root, bit)), Err(BadProof), "root {old} to {size}");
            let mut bad = proof.clone();
            let Some(last) = bad.len().checked_sub(1) else { continue };
            bad[bit % (last + 1)] = flipped(bad[bit % (last + 1)], bit);
            assert_eq!(check(&bad, old_root, root), Err(BadProof), "proof {old} to {size}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_bit_of_a_proof_counts(size in 2..200_u64, at in 0..200_u64, bit in 0..4096_usize) {
        let (nodes, roots) = tree(size);
        let index = at % size;
        let mut proof = prove_inclusion(index, size, &nodes).unwrap();
        let hit = bit / 256 % proof.len();
        proof[hit] = flipped(proof[hit], bit % 256);
        let leaf = nodes.0[usize::try_from(index).unwrap()];
        prop_assert_eq!(verify_inclusion(&proof, index, leaf, size, *roots.last().unwrap()), Err(BadProof));
    }
}
