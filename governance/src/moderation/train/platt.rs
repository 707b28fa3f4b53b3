//! Platt scaling: a logit becomes a probability `1 / (1 + exp(A z + B))`. Platt 1999, with the Newton steps and the
//! safe logarithms of Lin, Lin and Weng 2007.

/// Newton steps; ten are usual.
const STEPS: usize = 100;
/// Halvings of a step that does not help.
const HALVINGS: usize = 20;

/// Fits A and B to logits with their truth. Without both kinds of example nothing is scaled: A = -1, B = 0.
pub(super) fn fit(scores: &[(f64, bool)]) -> (f32, f32) {
    let positive = count(scores.iter().filter(|(_, yes)| *yes).count());
    let negative = count(scores.len()) - positive;
    if positive < 1.0 || negative < 1.0 {
        return (-1.0, 0.0);
    }
    // Bayesian targets instead of 1 and 0: the tails stay finite.
    let (high, low) = ((positive + 1.0) / (positive + 2.0), 1.0 / (negative + 2.0));
    let points: Vec<(f64, f64)> = scores.iter().map(|(z, yes)| (*z, if *yes { high } else { low })).collect();
    let mut at = (0.0, ((negative + 1.0) / (positive + 1.0)).ln());
    for _ in 0..STEPS {
        let step = newton(&points, at);
        let before = loss(&points, at);
        let lengths = (0..HALVINGS).map(|n| 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX)));
        let better =
            lengths.map(|len| (at.0 + len * step.0, at.1 + len * step.1)).find(|to| loss(&points, *to) < before);
        match better {
            Some(to) if before - loss(&points, to) > 1e-9 => at = to,
            _ => break,
        }
    }
    // A head that ranks no better than chance must not be turned around.
    if at.0 >= 0.0 { (-1.0, 0.0) } else { (narrow(at.0), narrow(at.1)) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of examples")]
fn count(n: usize) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, reason = "the file holds f32")]
fn narrow(x: f64) -> f32 {
    x as f32
}

/// Cross-entropy of the targets.
fn loss(points: &[(f64, f64)], (a, b): (f64, f64)) -> f64 {
    let one = |(z, t): &(f64, f64)| {
        let f = a * z + b;
        // -(t ln p + (1 - t) ln(1 - p)), without overflow for either sign of f.
        if f >= 0.0 { t * f + (-f).exp().ln_1p() } else { (t - 1.0) * f + f.exp().ln_1p() }
    };
    points.iter().map(one).sum()
}

/// The Newton step at a point.
fn newton(points: &[(f64, f64)], (a, b): (f64, f64)) -> (f64, f64) {
    // A ridge keeps the matrix invertible.
    let (mut h11, mut h22, mut h21, mut g1, mut g2) = (1e-9, 1e-9, 0.0, 0.0, 0.0);
    for (z, t) in points {
        let p = 1.0 / (1.0 + (a * z + b).exp());
        let (d1, d2) = (t - p, p * (1.0 - p));
        h11 += z * z * d2;
        h22 += d2;
        h21 += z * d2;
        g1 += z * d1;
        g2 += d1;
    }
    let det = h11 * h22 - h21 * h21;
    (-(h22 * g1 - h21 * g2) / det, -(h11 * g2 - h21 * g1) / det)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_log_odds_are_found_again() {
        // A logit z is right with probability 1 / (1 + exp(-2 z + 1)).
        let mut scores = Vec::new();
        for step in -30..=30 {
            let z = f64::from(step) / 10.0;
            let p = 1.0 / (1.0 + (-2.0 * z + 1.0).exp());
            scores.extend((0..1000).map(|n| (z, f64::from(n) < p * 1000.0)));
        }
        let (a, b) = fit(&scores);
        assert!((a + 2.0).abs() < 0.02 && (b - 1.0).abs() < 0.02, "{a} {b}");
    }

    #[test]
    fn nothing_to_learn_scales_nothing() {
        assert_eq!(fit(&[(1.0, true), (2.0, true)]), (-1.0, 0.0));
        assert_eq!(fit(&[(-1.0, true), (1.0, false), (-2.0, true), (2.0, false)]), (-1.0, 0.0), "ranked the wrong way");
    }
}
