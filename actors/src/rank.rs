//! Ranking of short texts by shared terms: BM25 and the cosine of TF-IDF vectors over one small, immutable index.
//!
//! BM25 as in Robertson and Zaragoza 2009 with k1 = 1.2 and b = 0.75; idf = ln(1 + (N - n + 0.5) / (n + 0.5)), never negative.

use std::collections::HashMap;

const K1: f32 = 1.2;
const B: f32 = 0.75;

/// An index over texts given as term lists.
#[derive(Debug, Clone, Default)]
pub struct Index {
    entries: Vec<Entry>,
    holders: HashMap<String, u32>,
    mean_len: f32,
}

#[derive(Debug, Clone)]
struct Entry {
    counts: HashMap<String, f32>,
    len: f32,
    norm: f32,
}

impl Index {
    /// Indexes the texts; results of the other methods are in the same order.
    #[must_use]
    pub fn new<T: AsRef<[String]>>(texts: &[T]) -> Self {
        let mut holders: HashMap<String, u32> = HashMap::new();
        let mut entries = Vec::with_capacity(texts.len());
        for terms in texts {
            let mut counts: HashMap<String, f32> = HashMap::new();
            for term in terms.as_ref() {
                *counts.entry(term.clone()).or_default() += 1.0;
            }
            for term in counts.keys() {
                *holders.entry(term.clone()).or_default() += 1;
            }
            entries.push(Entry { counts, len: size(terms.as_ref().len()), norm: 0.0 });
        }
        let total: f32 = entries.iter().map(|entry| entry.len).sum();
        let mean_len = (total / size(entries.len()).max(1.0)).max(1.0);
        let mut index = Self { entries, holders, mean_len };
        let norms: Vec<f32> = index.entries.iter().map(|entry| index.norm(&entry.counts)).collect();
        for (entry, norm) in index.entries.iter_mut().zip(norms) {
            entry.norm = norm;
        }
        index
    }

    /// Rarity of a term; a term that no text holds is the rarest.
    #[must_use]
    pub fn idf(&self, term: &str) -> f32 {
        let held = self.holders.get(term).map_or(0.0, |n| size(usize::try_from(*n).unwrap_or(usize::MAX)));
        (1.0 + (size(self.entries.len()) - held + 0.5) / (held + 0.5)).ln()
    }

    /// Okapi BM25 of the query against each text.
    #[must_use]
    pub fn bm25(&self, query: &[String]) -> Vec<f32> {
        self.entries.iter().map(|entry| query.iter().map(|term| self.gain(entry, term)).sum()).collect()
    }

    fn gain(&self, entry: &Entry, term: &str) -> f32 {
        let Some(count) = entry.counts.get(term) else { return 0.0 };
        self.idf(term) * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * entry.len / self.mean_len))
    }

    /// Cosine between the TF-IDF vectors of the query and of each text, 0 to 1.
    #[must_use]
    pub fn cosine(&self, query: &[String]) -> Vec<f32> {
        let mut counts: HashMap<String, f32> = HashMap::new();
        for term in query {
            *counts.entry(term.clone()).or_default() += 1.0;
        }
        let norm = self.norm(&counts);
        self.entries
            .iter()
            .map(|entry| self.dot(&counts, &entry.counts) / (norm * entry.norm).max(f32::EPSILON))
            .collect()
    }

    /// Cosine between two of the texts, 0 to 1.
    #[must_use]
    pub fn between(&self, a: usize, b: usize) -> f32 {
        match (self.entries.get(a), self.entries.get(b)) {
            (Some(a), Some(b)) => self.dot(&a.counts, &b.counts) / (a.norm * b.norm).max(f32::EPSILON),
            _ => 0.0,
        }
    }

    fn dot(&self, a: &HashMap<String, f32>, b: &HashMap<String, f32>) -> f32 {
        a.iter().filter_map(|(term, n)| b.get(term).map(|m| n * m * self.idf(term).powi(2))).sum()
    }

    fn norm(&self, counts: &HashMap<String, f32>) -> f32 {
        counts.iter().map(|(term, n)| (n * self.idf(term)).powi(2)).sum::<f32>().sqrt()
    }
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
