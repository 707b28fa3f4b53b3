//! Fits model B by plain backpropagation with Adagrad; words are dropped at random, so that it does not learn by heart.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::sgd::{balance, known, pull, sigmoid, taught};
use super::{Options, Sample, platt};
use crate::moderation::bag::{Bag, HIDDEN, SHAPES, WIDTH, divisor, hidden, mean, output};
use crate::moderation::linear::Heads;
use crate::moderation::taxonomy::CATEGORIES;

/// Length of a first step. Chosen among 0.01, 0.03 and 0.1 by the loss on the tuning split.
const RATE: f32 = 0.03;
/// How often a word is left out.
const DROP: f64 = 0.15;
/// Bias of a head without examples.
const SILENT: f32 = -12.0;

/// Weights with the squares of their slopes. The net is trained in f32 and rounded to f16 at the end.
struct Net {
    arrays: [Vec<f32>; 5],
    squares: [Vec<f32>; 5],
}

impl Net {
    fn new(rng: &mut StdRng) -> Self {
        let mut arrays = SHAPES.map(|len| vec![0.0; len]);
        // He et al. 2015 for W1; the mean of some 20 embeddings of spread 0.5 has a spread near 0.1.
        for (array, spread) in [(0, 0.5_f32), (1, 0.25), (3, 0.12)] {
            arrays[array].fill_with(|| rng.random_range(-spread..spread));
        }
        Self { arrays, squares: SHAPES.map(|len| vec![1e-6; len]) }
    }

    fn step(&mut self, array: usize, at: usize, slope: f32) {
        let (Some(x), Some(square)) = (self.arrays[array].get_mut(at), self.squares[array].get_mut(at)) else { return };
        *square += slope * slope;
        *x -= RATE * slope / square.sqrt();
    }

    fn learn(&mut self, bag: &[u16], sample: &Sample, pull: &Heads<f32>) {
        let mean = mean(&self.arrays[0], bag);
        let hidden = hidden(&self.arrays, &mean);
        let logits = output(&self.arrays, &hidden);
        let mut errors = [0.0; CATEGORIES];
        for (head, error) in errors.iter_mut().enumerate() {
            let target = if sample.truth.head(head) == Some(true) { 1.0 } else { 0.0 };
            *error = (sigmoid(logits[head]) - target) * pull[head];
        }
        let mut back = [0.0; HIDDEN];
        for (unit, h) in hidden.iter().enumerate().filter(|(_, h)| **h > 0.0) {
            let at = unit * CATEGORIES;
            let row = &self.arrays[3][at..at + CATEGORIES];
            back[unit] = row.iter().zip(&errors).map(|(w, e)| w * e).sum();
            errors.iter().enumerate().for_each(|(head, error)| self.step(3, at + head, h * error));
        }
        errors.iter().enumerate().for_each(|(head, error)| self.step(4, head, *error));
        let mut down = [0.0; WIDTH];
        for (n, x) in mean.iter().enumerate() {
            let at = n * HIDDEN;
            let row = &self.arrays[1][at..at + HIDDEN];
            down[n] = row.iter().zip(&back).map(|(w, b)| w * b).sum();
            for (unit, b) in back.iter().enumerate().filter(|(_, b)| **b != 0.0) {
                self.step(1, at + unit, x * b);
            }
        }
        back.iter().enumerate().for_each(|(unit, b)| self.step(2, unit, *b));
        let count = divisor(bag);
        for bucket in bag {
            let at = usize::from(*bucket) * WIDTH;
            down.iter().enumerate().for_each(|(n, d)| self.step(0, at + n, d / count));
        }
    }
}

pub(super) fn fit(fit: &[Sample], tune: &[Sample], options: &Options, progress: &mut impl FnMut(&str)) -> Bag {
    let mut rng = StdRng::seed_from_u64(options.seed ^ 0xb);
    let mut net = Net::new(&mut rng);
    let balance = balance(fit);
    let mut order: Vec<usize> = (0..fit.len()).collect();
    for epoch in 0..options.bag_epochs {
        order.shuffle(&mut rng);
        for sample in order.iter().map(|n| &fit[*n]) {
            let kept: Vec<u16> = sample.features.bag.iter().copied().filter(|_| !rng.random_bool(DROP)).collect();
            net.learn(&kept, sample, &pull(sample.truth, &balance, sample.weight));
        }
        progress(&format!("model B: pass {} of {}", epoch + 1, options.bag_epochs));
    }
    calibrate(net, taught(fit), tune)
}

/// Folds Platt's A and B into the output layer, so that its logits are calibrated log-odds.
fn calibrate(mut net: Net, taught: [bool; CATEGORIES], tune: &[Sample]) -> Bag {
    let logits_of = |bag: &[u16]| output(&net.arrays, &hidden(&net.arrays, &mean(&net.arrays[0], bag)));
    let logits: Vec<Heads<f32>> = tune.iter().map(|sample| logits_of(&sample.features.bag)).collect();
    for (head, taught) in taught.into_iter().enumerate() {
        let (a, b) = if taught { platt::fit(&known(tune, &logits, head)) } else { (0.0, -SILENT) };
        net.arrays[3].iter_mut().skip(head).step_by(CATEGORIES).for_each(|w| *w *= -a);
        let bias = &mut net.arrays[4][head];
        *bias = -a * *bias - b;
    }
    Bag::new(net.arrays).expect("the arrays were made with these shapes")
}
