//! A small training run end to end.

use super::*;
use crate::moderation::Category;

#[test]
fn a_model_is_trained_from_the_grammar_alone_and_the_same_seed_gives_the_same() {
    let options = Options { epochs: 2, bag_epochs: 1, generated: 0.03, rows: 4_000, ..Options::default() };
    let mut said = Vec::new();
    let trained = train(&Sources::default(), &options, |line| said.push(line.to_owned())).unwrap();
    let again = train(&Sources::default(), &options, |_| ()).unwrap();
    assert_eq!(trained.model.encode(), again.model.encode());
    assert_eq!(trained.manifest, again.manifest);
    // The last part alone comes to the same.
    let refitted = refit(trained.model.clone(), &Sources::default(), &options, |_| ()).unwrap();
    assert_eq!((refitted.model.encode(), refitted.manifest), (trained.model.encode(), trained.manifest.clone()));
    assert!(said.iter().any(|line| line.contains("thresholds")));
    // The files fit each other, and the model knows more than chance about what it was not fitted to.
    let engine = Engine::new(&trained.model.encode(), &trained.manifest, HashList::default()).unwrap();
    let metrics = &engine.manifest().metrics;
    let areas: Vec<f64> =
        metrics.iter().filter(|(name, _)| name.starts_with("auroc.")).map(|(_, area)| *area).collect();
    assert!(areas.len() > 15 && areas.iter().filter(|area| **area > 0.8).count() * 2 > areas.len(), "{metrics:?}");
    let silent = trained.model.linear.heads()[Category::Csam.index()];
    assert!(silent.bias < -10.0);
}

#[test]
fn nothing_to_learn_from_is_told() {
    let options = Options { generated: 0.0, ..Options::default() };
    assert!(matches!(train(&Sources::default(), &options, |_| ()), Err(TrainError::TooFew(_))));
}
