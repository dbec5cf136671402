//! The recommender behind a baseline's name, the same in evaluations and in reports.

use super::plan::Baseline;
use crate::TrainError;
use crate::baselines::{Bm25, Ease, Interactions, ItemKnn, Popular, Random, Recommender};
use crate::data::Dataset;

/// Makes the recommender of `baseline` from the training users and items of `dataset`; `seed` is that of the random one.
/// `None` for a baseline that an embedder ranks.
///
/// # Errors
/// When EASE's matrix has no inverse.
pub fn recommender(
    baseline: Baseline,
    dataset: &Dataset,
    seed: u64,
) -> Result<Option<Box<dyn Recommender>>, TrainError> {
    let (items, train) = (&dataset.items, || Interactions::of_train(dataset));
    Ok(Some(match baseline {
        Baseline::Random => Box::new(Random::new(items.len(), seed)),
        Baseline::Popular => Box::new(Popular::new(items)),
        Baseline::ItemKnn => Box::new(ItemKnn::new(&train(), ItemKnn::NEIGHBOURS, ItemKnn::SHRINKAGE)),
        Baseline::Ease => {
            let ease = Ease::new(&train(), Ease::L2);
            Box::new(ease.map_err(|error| TrainError::Mismatch(format!("ease: {error}")))?)
        }
        Baseline::Bm25 => Box::new(Bm25::new(items.iter().map(|item| item.text.as_str()))),
        Baseline::Reference | Baseline::RawHistory => return Ok(None),
    }))
}
