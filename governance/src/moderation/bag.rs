//! Model B: the mean of hashed embeddings and one `ReLU` layer. It sees words together where model A sums them apart.
//!
//! `h = relu(W1 mean(E) + b1)`, `z = W2 h + b2`; E `[8192, 64]`, W1 `[128, 64]`, W2 `[27, 128]`, all f16 in the file.
//! W1 and W2 are stored by input, so that a layer adds whole rows: W1 `[64, 128]`, W2 `[128, 27]`.

use half::f16;

use super::features::BAG_BITS;
use super::linear::Heads;
use super::taxonomy::CATEGORIES;

/// Numbers of one embedding.
pub const WIDTH: usize = 64;
/// Units of the hidden layer.
pub const HIDDEN: usize = 128;
/// Embeddings.
pub const BAGS: usize = 1 << BAG_BITS;
/// The length of each array of the model: embeddings, W1, b1, W2, b2.
pub const SHAPES: [usize; 5] = [BAGS * WIDTH, WIDTH * HIDDEN, HIDDEN, HIDDEN * CATEGORIES, CATEGORIES];

/// Model B. Invariant: its arrays have the lengths of [`SHAPES`].
#[derive(Clone, PartialEq)]
pub struct Bag {
    arrays: [Vec<f32>; 5],
}

impl std::fmt::Debug for Bag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bag")
    }
}

impl Bag {
    /// Makes a model of its arrays; `None` if a length is off. What f16 cannot hold is rounded, as in the file.
    #[must_use]
    pub fn new(arrays: [Vec<f32>; 5]) -> Option<Self> {
        if arrays.iter().zip(SHAPES).any(|(array, len)| array.len() != len) {
            return None;
        }
        Some(Self { arrays: arrays.map(|array| array.into_iter().map(|x| f16::from_f32(x).to_f32()).collect()) })
    }

    /// The arrays, in the order of [`SHAPES`].
    #[must_use]
    pub fn arrays(&self) -> &[Vec<f32>; 5] {
        &self.arrays
    }

    /// The logits of a window's buckets.
    #[must_use]
    pub fn logits(&self, bag: &[u16]) -> Heads<f32> {
        output(&self.arrays, &hidden(&self.arrays, &mean(&self.arrays[0], bag)))
    }
}

/// The hidden layer after its `ReLU`.
pub(super) fn hidden([_, w1, b1, ..]: &[Vec<f32>; 5], mean: &[f32; WIDTH]) -> [f32; HIDDEN] {
    let mut hidden = [0.0; HIDDEN];
    hidden.copy_from_slice(b1);
    for (x, row) in mean.iter().zip(w1.chunks_exact(HIDDEN)) {
        hidden.iter_mut().zip(row).for_each(|(h, w)| *h += x * w);
    }
    hidden.map(|h| h.max(0.0))
}

/// The output layer.
pub(super) fn output([.., w2, b2]: &[Vec<f32>; 5], hidden: &[f32; HIDDEN]) -> Heads<f32> {
    let mut logits = [0.0; CATEGORIES];
    logits.copy_from_slice(b2);
    for (h, row) in hidden.iter().zip(w2.chunks_exact(CATEGORIES)).filter(|(h, _)| **h > 0.0) {
        logits.iter_mut().zip(row).for_each(|(z, w)| *z += h * w);
    }
    logits
}

/// Buckets that a short text is filled up to with zeros: one word alone must not have the weight of a sentence.
const SHORT: u16 = 6;

/// What the sum of embeddings is divided by: how many there are.
pub(super) fn divisor(bag: &[u16]) -> f32 {
    // A window has fewer words than u16 counts.
    f32::from(u16::try_from(bag.len()).unwrap_or(u16::MAX).max(SHORT))
}

/// The mean of the buckets' embeddings, zero for none.
pub(super) fn mean(embeddings: &[f32], bag: &[u16]) -> [f32; WIDTH] {
    let mut mean = [0.0; WIDTH];
    for bucket in bag {
        let at = usize::from(*bucket) * WIDTH;
        if let Some(row) = embeddings.get(at..at + WIDTH) {
            mean.iter_mut().zip(row).for_each(|(m, e)| *m += e);
        }
    }
    let count = divisor(bag);
    mean.map(|m| m / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant() -> [Vec<f32>; 5] {
        SHAPES.map(|len| vec![0.5; len])
    }

    #[test]
    fn layers_add_up() {
        let bag = Bag::new(constant()).unwrap();
        // three of six: h = 64 * 0.25 * 0.5 + 0.5 = 8.5; z = 128 * 8.5 * 0.5 + 0.5
        assert!(bag.logits(&[1, 2, 2]).iter().all(|z| (z - 544.5).abs() < 1e-3));
        // Without words only the biases speak: h = 0.5; z = 128 * 0.5 * 0.5 + 0.5
        assert!(bag.logits(&[]).iter().all(|z| (z - 32.5).abs() < 1e-3));
    }

    #[test]
    fn negative_units_are_silent() {
        let mut arrays = constant();
        arrays[2] = vec![-100.0; HIDDEN];
        assert!(Bag::new(arrays).unwrap().logits(&[7]).iter().all(|z| (z - 0.5).abs() < 1e-6));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut arrays = constant();
        arrays[4].pop();
        assert!(Bag::new(arrays).is_none());
    }
}
