//! Model A: one logistic head for each category over hashed n-grams, int8 weights per bucket.

use super::features::{BUCKETS, Features};
use super::taxonomy::CATEGORIES;

/// One number for each category, in the order of [`Category::ALL`](super::Category::ALL).
pub type Heads<T> = [T; CATEGORIES];

/// What belongs to one head besides its weights.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Head {
    /// Added to the weighted sum.
    pub bias: f32,
    /// Platt's A: negative for a head that ranks rightly.
    pub platt_a: f32,
    /// Platt's B.
    pub platt_b: f32,
}

impl Head {
    /// The probability of a logit, `1 / (1 + exp(A z + B))`. Platt 1999.
    #[must_use]
    pub fn probability(self, logit: f32) -> f32 {
        1.0 / (1.0 + (self.platt_a * logit + self.platt_b).exp())
    }
}

/// Weights of one bucket for all heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// The bucket.
    pub id: u32,
    /// What an int8 step is worth.
    pub scale: f32,
    /// The weights in steps.
    pub weights: Heads<i8>,
}

impl Row {
    /// Rounds weights to 255 steps; none if they all are zero.
    #[must_use]
    pub fn quantise(id: u32, weights: &Heads<f32>) -> Option<Self> {
        let most = weights.iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
        let scale = most / 127.0;
        (scale.is_normal()).then(|| Self { id, scale, weights: weights.map(|weight| step(weight / scale)) })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped")]
fn step(steps: f32) -> i8 {
    steps.round().clamp(-127.0, 127.0) as i8
}

/// Model A.
///
/// Rows are found by a bitmap with a rank for each word of it: 150 KiB that stay in the cache, where most n-grams of a
/// text, which have no row, are done with.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    heads: Heads<Head>,
    bitmap: Vec<u64>,
    /// Rows before each word of the bitmap.
    ranks: Vec<u32>,
    rows: Vec<Row>,
}

impl Linear {
    /// Makes a model of rows; `None` unless their ids ascend and are buckets.
    #[must_use]
    pub fn new(heads: Heads<Head>, rows: Vec<Row>) -> Option<Self> {
        let ascends = rows.windows(2).all(|pair| pair[0].id < pair[1].id);
        if !ascends || rows.last().is_some_and(|row| row.id as usize >= BUCKETS) {
            return None;
        }
        let mut bitmap = vec![0_u64; BUCKETS.div_ceil(64)];
        for row in &rows {
            bitmap[row.id as usize / 64] |= 1 << (row.id % 64);
        }
        let before = bitmap.iter().scan(0, |before, word| {
            let rank = *before;
            *before += word.count_ones();
            Some(rank)
        });
        let ranks = before.collect();
        Some(Self { heads, bitmap, ranks, rows })
    }

    /// A model that knows nothing: each head is as likely as not.
    #[must_use]
    pub fn empty() -> Self {
        let words = BUCKETS.div_ceil(64);
        let heads = [Head { bias: 0.0, platt_a: -1.0, platt_b: 0.0 }; CATEGORIES];
        Self { heads, bitmap: vec![0; words], ranks: vec![0; words], rows: Vec::new() }
    }

    /// The heads.
    #[must_use]
    pub fn heads(&self) -> &Heads<Head> {
        &self.heads
    }

    /// The rows, ascending.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The weights of a bucket.
    #[must_use]
    pub fn row(&self, id: u32) -> Option<&Row> {
        let word = id as usize / 64;
        let (bits, rank) = (*self.bitmap.get(word)?, *self.ranks.get(word)?);
        let bit = 1 << (id % 64);
        if bits & bit == 0 {
            return None;
        }
        self.rows.get((rank + (bits & (bit - 1)).count_ones()) as usize)
    }

    /// The logits of a window.
    #[must_use]
    pub fn logits(&self, features: &Features) -> Heads<f32> {
        let mut logits = self.heads.map(|head| head.bias);
        for (id, weight) in &features.sparse {
            if let Some(row) = self.row(*id) {
                let scale = row.scale * weight;
                logits.iter_mut().zip(&row.weights).for_each(|(logit, step)| *logit += scale * f32::from(*step));
            }
        }
        logits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(id: u32, weight: f32) -> Row {
        let mut weights = [0.0; CATEGORIES];
        weights[3] = weight;
        weights[4] = -weight / 2.0;
        Row::quantise(id, &weights).unwrap()
    }

    #[test]
    fn logits_are_bias_and_weights() {
        let mut heads = [Head::default(); CATEGORIES];
        heads[3].bias = 1.0;
        let model = Linear::new(heads, vec![row(5, 2.0), row(64, -1.0)]).unwrap();
        let features = Features { sparse: vec![(5, 0.5), (6, 9.0), (64, 1.0)], bag: Vec::new() };
        let logits = model.logits(&features);
        assert!((logits[3] - 1.0).abs() < 1e-5);
        // Half a step of 2.0 / 127 for each row.
        assert!(logits[4].abs() < 0.02, "{}", logits[4]);
    }

    #[test]
    fn platt_turns_a_logit_into_a_probability() {
        let head = Head { bias: 0.0, platt_a: -1.0, platt_b: 0.0 };
        assert!((head.probability(0.0) - 0.5).abs() < 1e-6);
        assert!(head.probability(4.0) > 0.98 && head.probability(f32::MIN) < 1e-6);
    }

    #[test]
    fn rows_out_of_order_or_range_are_refused() {
        let heads = [Head::default(); CATEGORIES];
        assert!(Linear::new(heads, vec![row(5, 1.0), row(5, 1.0)]).is_none());
        assert!(Linear::new(heads, vec![row(u32::try_from(BUCKETS).unwrap(), 1.0)]).is_none());
        assert_eq!(Row::quantise(1, &[0.0; CATEGORIES]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn each_row_and_no_other_is_found(ids in proptest::collection::btree_set(0_u32..800, 0..60)) {
            let rows = ids.iter().map(|id| row(*id, 1.0)).collect();
            let model = Linear::new([Head::default(); CATEGORIES], rows).unwrap();
            for id in 0..900 {
                prop_assert_eq!(model.row(id).map(|row| row.id), ids.get(&id).copied());
            }
        }
    }
}
