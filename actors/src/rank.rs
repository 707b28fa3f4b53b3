//! Ranking of short texts by shared terms: BM25 and the cosine of TF-IDF vectors over one small, immutable index.
//!
//! BM25 as in Robertson and Zaragoza 2009 with k1 = 1.2 and b = 0.75; idf = ln(1 + (N - n + 0.5) / (n + 0.5)), never negative.

use std::cmp::Ordering;
use std::collections::HashMap;

const K1: f32 = 1.2;
const B: f32 = 0.75;

/// An index over texts given as term lists.
#[derive(Debug, Clone, Default)]
pub struct Index {
    entries: Vec<Entry>,
    ids: HashMap<String, u32>,
    /// Rarity of each term, at its id.
    idf: Vec<f32>,
    mean_len: f32,
}

#[derive(Debug, Clone)]
struct Entry {
    counts: Counts,
    len: f32,
    norm: f32,
}

/// How often a text has each term, by id.
type Counts = Vec<(u32, f32)>;

impl Index {
    /// Indexes the texts; results of the other methods are in the same order.
    #[must_use]
    pub fn new<T: AsRef<[String]>>(texts: &[T]) -> Self {
        let mut ids: HashMap<String, u32> = HashMap::new();
        let mut holders: Vec<f32> = Vec::new();
        let mut entries = Vec::with_capacity(texts.len());
        for terms in texts {
            let terms = terms.as_ref();
            let counts = counts(terms.iter().map(|term| {
                if let Some(id) = ids.get(term) {
                    return *id;
                }
                let id = u32::try_from(ids.len()).unwrap_or(u32::MAX);
                ids.insert(term.clone(), id);
                holders.push(0.0);
                id
            }));
            for (id, _) in &counts {
                if let Some(held) = holders.get_mut(*id as usize) {
                    *held += 1.0;
                }
            }
            entries.push(Entry { counts, len: size(terms.len()), norm: 0.0 });
        }
        let total: f32 = entries.iter().map(|entry| entry.len).sum();
        let mean_len = (total / size(entries.len()).max(1.0)).max(1.0);
        let idf = holders.into_iter().map(|held| rarity(entries.len(), held)).collect();
        let mut index = Self { entries, ids, idf, mean_len };
        let norms: Vec<f32> = index.entries.iter().map(|entry| index.squares(&entry.counts).sqrt()).collect();
        for (entry, norm) in index.entries.iter_mut().zip(norms) {
            entry.norm = norm;
        }
        index
    }

    /// Rarity of a term; a term that no text holds is the rarest.
    #[must_use]
    pub fn idf(&self, term: &str) -> f32 {
        self.ids.get(term).map_or_else(|| rarity(self.entries.len(), 0.0), |id| self.idf_of(*id))
    }

    /// Okapi BM25 of the query against each text.
    #[must_use]
    pub fn bm25(&self, query: &[String]) -> Vec<f32> {
        let query: Vec<u32> = query.iter().filter_map(|term| self.ids.get(term).copied()).collect();
        self.entries.iter().map(|entry| query.iter().map(|id| self.gain(entry, *id)).sum()).collect()
    }

    fn gain(&self, entry: &Entry, id: u32) -> f32 {
        let Ok(at) = entry.counts.binary_search_by_key(&id, |(id, _)| *id) else { return 0.0 };
        let count = entry.counts.get(at).map_or(0.0, |(_, count)| *count);
        self.idf_of(id) * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * entry.len / self.mean_len))
    }

    /// Cosine between the TF-IDF vectors of the query and of each text, 0 to 1.
    #[must_use]
    pub fn cosine(&self, query: &[String]) -> Vec<f32> {
        // Terms that no text holds meet nothing, but make the query's vector longer.
        let mut unknown: Vec<&String> = query.iter().filter(|term| !self.ids.contains_key(*term)).collect();
        unknown.sort_unstable();
        let unknown: f32 = unknown.chunk_by(|a, b| a == b).map(|alike| size(alike.len()).powi(2)).sum();
        let counts = counts(query.iter().filter_map(|term| self.ids.get(term).copied()));
        let norm = (self.squares(&counts) + unknown * rarity(self.entries.len(), 0.0).powi(2)).sqrt();
        let cosine = |entry: &Entry| self.dot(&counts, &entry.counts) / (norm * entry.norm).max(f32::EPSILON);
        self.entries.iter().map(cosine).collect()
    }

    /// Cosine between two of the texts, 0 to 1.
    #[must_use]
    pub fn between(&self, a: usize, b: usize) -> f32 {
        match (self.entries.get(a), self.entries.get(b)) {
            (Some(a), Some(b)) => self.dot(&a.counts, &b.counts) / (a.norm * b.norm).max(f32::EPSILON),
            _ => 0.0,
        }
    }

    fn dot(&self, a: &Counts, b: &Counts) -> f32 {
        let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
        let mut sum = 0.0;
        while let (Some((x, n)), Some((y, m))) = (a.peek(), b.peek()) {
            match x.cmp(y) {
                Ordering::Less => drop(a.next()),
                Ordering::Greater => drop(b.next()),
                Ordering::Equal => {
                    sum += n * m * self.idf_of(*x).powi(2);
                    a.next();
                    b.next();
                }
            }
        }
        sum
    }

    fn squares(&self, counts: &Counts) -> f32 {
        counts.iter().map(|(id, n)| (n * self.idf_of(*id)).powi(2)).sum()
    }

    fn idf_of(&self, id: u32) -> f32 {
        self.idf.get(id as usize).copied().unwrap_or_default()
    }
}

fn rarity(texts: usize, held: f32) -> f32 {
    (1.0 + (size(texts) - held + 0.5) / (held + 0.5)).ln()
}

fn counts(ids: impl Iterator<Item = u32>) -> Counts {
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    ids.chunk_by(|a, b| a == b).filter_map(|alike| Some((*alike.first()?, size(alike.len())))).collect()
}

/// A count as a weight. Texts here have far fewer than 2^24 terms, the last exact integer of `f32`.
#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^24")]
fn size(n: usize) -> f32 {
    n as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::new(&[
            crate::text::terms("red bees fly"),
            crate::text::terms("blue birds sing"),
            crate::text::terms("red red wine"),
        ])
    }

    #[test]
    fn the_text_that_shares_terms_ranks_first() {
        let scores = index().bm25(&crate::text::terms("bees"));
        assert!(scores[0] > 0.0 && scores[1] == 0.0 && scores[2] == 0.0);
    }

    #[test]
    fn cosine_of_a_text_with_itself_is_one() {
        let cosine = index().cosine(&crate::text::terms("blue birds sing"));
        assert!((cosine[1] - 1.0).abs() < 1e-5 && cosine[0].abs() < 1e-6);
        assert!((index().between(2, 2) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_rare_term_weighs_more() {
        let index = index();
        assert!(index.idf("absent") > index.idf("bee") && index.idf("bee") > index.idf("red"));
    }
}
