//! Fits model A: logistic regression for each head by Adagrad (Duchi et al. 2011), one example at a time.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{Options, Sample, Truth, platt};
use crate::moderation::features::BUCKETS;
use crate::moderation::linear::{Head, Heads, Linear, Row};
use crate::moderation::taxonomy::{CATEGORIES, Category};

/// Length of a first step. Chosen among 0.1, 0.3 and 1 by the loss on the tuning split.
const RATE: f32 = 0.3;
/// Pull of weights to zero at each touch.
const DECAY: f32 = 2e-6;
/// Bias of a head without examples: it never speaks.
const SILENT: f32 = -12.0;
/// Heads that share their words: each other's examples are weak counter-examples.
const KIN: [(Category, Category); 4] = [
    (Category::Hate, Category::Harassment),
    (Category::FraudPhishing, Category::Spam),
    (Category::PromptInjection, Category::MalwareIntrusion),
    (Category::ViolentThreat, Category::Extortion),
];
/// What a counter-example of a kin head weighs.
const KIN_WEIGHT: f32 = 0.3;

/// How much an example counts for each head; zero where the truth is not known.
pub(super) fn pull(truth: Truth, balance: &Heads<f32>, weight: f32) -> Heads<f32> {
    let mut pull = [0.0; CATEGORIES];
    for (head, pull) in pull.iter_mut().enumerate() {
        *pull = match truth.head(head) {
            Some(true) => weight * balance[head],
            Some(false) => weight,
            None => 0.0,
        };
    }
    for (a, b) in KIN.iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
        if truth.head(a.index()) == Some(true) && truth.head(b.index()) == Some(false) {
            pull[b.index()] *= KIN_WEIGHT;
        }
    }
    pull
}

/// What a positive example counts, so that rare heads are learnt: the root of the ratio, at most 12.
pub(super) fn balance(samples: &[Sample]) -> Heads<f32> {
    let mut balance = [1.0; CATEGORIES];
    for (head, balance) in balance.iter_mut().enumerate() {
        let count = |yes| samples.iter().filter(|sample| sample.truth.head(head) == Some(yes)).count();
        let (yes, no) = (count(true), count(false));
        let ratio = u32::try_from(no / yes.max(1)).unwrap_or(u32::MAX);
        *balance = f32::from(u16::try_from(ratio).unwrap_or(u16::MAX)).sqrt().clamp(1.0, 12.0);
    }
    balance
}

/// Heads that have a positive example.
pub(super) fn taught(samples: &[Sample]) -> [bool; CATEGORIES] {
    std::array::from_fn(|head| samples.iter().any(|sample| sample.truth.head(head) == Some(true)))
}

pub(super) fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

struct Weights {
    rows: Vec<Heads<f32>>,
    squares: Vec<Heads<f32>>,
    bias: Heads<f32>,
    bias_squares: Heads<f32>,
}

impl Weights {
    fn learn(&mut self, sample: &Sample, pull: &Heads<f32>) {
        let mut logits = self.bias;
        for (id, x) in &sample.features.sparse {
            let row = &self.rows[*id as usize];
            logits.iter_mut().zip(row).for_each(|(z, w)| *z += x * w);
        }
        let mut errors = [0.0; CATEGORIES];
        for (head, error) in errors.iter_mut().enumerate() {
            let target = if sample.truth.head(head) == Some(true) { 1.0 } else { 0.0 };
            *error = (sigmoid(logits[head]) - target) * pull[head];
        }
        for ((bias, square), error) in self.bias.iter_mut().zip(&mut self.bias_squares).zip(&errors) {
            *square += error * error;
            *bias -= RATE * error / (square.sqrt() + 1e-6);
        }
        for (id, x) in &sample.features.sparse {
            let (row, squares) = (&mut self.rows[*id as usize], &mut self.squares[*id as usize]);
            for ((w, square), error) in row.iter_mut().zip(squares).zip(&errors) {
                let slope = error * x + DECAY * *w;
                *square += slope * slope;
                *w -= RATE * slope / (square.sqrt() + 1e-6);
            }
        }
    }
}

pub(super) fn fit(fit: &[Sample], tune: &[Sample], options: &Options, progress: &mut impl FnMut(&str)) -> Linear {
    let mut rng = StdRng::seed_from_u64(options.seed);
    let balance = balance(fit);
    let pulls: Vec<Heads<f32>> = fit.iter().map(|sample| pull(sample.truth, &balance, sample.weight)).collect();
    let zero = [0.0; CATEGORIES];
    let mut model = Weights { rows: vec![zero; BUCKETS], squares: vec![zero; BUCKETS], bias: zero, bias_squares: zero };
    let mut order: Vec<usize> = (0..fit.len()).collect();
    for epoch in 0..options.epochs {
        order.shuffle(&mut rng);
        for n in &order {
            model.learn(&fit[*n], &pulls[*n]);
        }
        progress(&format!("model A: pass {} of {}", epoch + 1, options.epochs));
    }
    finish(model, taught(fit), tune, options.rows)
}

/// Prunes, rounds and calibrates.
fn finish(mut model: Weights, taught: [bool; CATEGORIES], tune: &[Sample], most: usize) -> Linear {
    let size = |row: &Heads<f32>| row.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
    let mut heaviest: Vec<usize> = (0..BUCKETS).filter(|id| size(&model.rows[*id]) > 0.0).collect();
    heaviest.sort_by(|a, b| size(&model.rows[*b]).total_cmp(&size(&model.rows[*a])).then(a.cmp(b)));
    heaviest.truncate(most);
    heaviest.sort_unstable();
    for (head, taught) in taught.into_iter().enumerate() {
        if !taught {
            model.bias[head] = SILENT;
            for id in &heaviest {
                model.rows[*id][head] = 0.0;
            }
        }
    }
    let rows = heaviest.into_iter().filter_map(|id| Row::quantise(u32::try_from(id).ok()?, &model.rows[id]));
    let heads = model.bias.map(|bias| Head { bias, platt_a: -1.0, platt_b: 0.0 });
    let Some(raw) = Linear::new(heads, rows.collect()) else { return Linear::empty() };
    let logits: Vec<Heads<f32>> = tune.iter().map(|sample| raw.logits(&sample.features)).collect();
    let mut heads = *raw.heads();
    for (n, head) in heads.iter_mut().enumerate().filter(|(n, _)| taught[*n]) {
        (head.platt_a, head.platt_b) = platt::fit(&known(tune, &logits, n));
    }
    Linear::new(heads, raw.rows().to_vec()).unwrap_or(raw)
}

/// The logits of one head with their truth, where that is known.
pub(super) fn known(samples: &[Sample], logits: &[Heads<f32>], head: usize) -> Vec<(f64, bool)> {
    let pairs = samples.iter().zip(logits);
    pairs.filter_map(|(sample, logits)| Some((f64::from(logits[head]), sample.truth.head(head)?))).collect()
}
