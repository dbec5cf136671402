//! What a profile earns: the worth of the ranking that it yields.

use eval_core::TargetRanks;
use eval_core::metrics;
use eval_core::retrieval::{EmbeddingStore, Query, Retriever, Similarity};
use eval_core::scores::RankedTarget;
use models::Encoder;

use crate::TrainError;
use crate::config::{Device, Precision, RewardType};

/// The reward of a ranking, over the whole catalogue: NDCG, or the sum of reciprocal ranks.
pub fn ranking_reward(kind: RewardType, ranks: &TargetRanks) -> f64 {
    let reward = match kind {
        RewardType::Ndcg => metrics::ndcg(ranks, None),
        RewardType::Mrr => metrics::mrr(ranks, None),
    };
    // A user without a target does not get this far: `prepare` drops them.
    reward.unwrap_or(0.0)
}

/// The reward of a profile: `penalty` where it fills all of the embedder's `limit` tokens, else that of its ranking.
pub fn profile_reward(kind: RewardType, ranks: &TargetRanks, tokens: usize, limit: usize, penalty: f64) -> f64 {
    if tokens >= limit {
        penalty
    } else {
        ranking_reward(kind, ranks)
    }
}

/// R = reward − kl_coef · (log π_old − log π_ref).
pub fn total_reward(reward: f64, kl_coef: f64, old: f64, reference: f64) -> f64 {
    reward - kl_coef * (old - reference)
}

/// Shifts and scales to mean 0 and population variance 1: (R − mean) / √(var + 1e-8).
pub fn whiten(rewards: &mut [f64]) {
    let count = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / count;
    let variance = rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / count;
    let factor = 1.0 / (variance + 1e-8).sqrt();
    rewards
        .iter_mut()
        .for_each(|reward| *reward = (*reward - mean) * factor);
}

/// Embeds `texts` and puts them into a store, `[texts, dimension]`.
pub fn embed(encoder: &dyn Encoder, texts: &[&[u32]]) -> Result<EmbeddingStore, TrainError> {
    Ok(EmbeddingStore::from_f32(encoder.embed(texts)?, encoder.dimension())?)
}

/// A retriever over the items' vectors by cosine.
pub fn retriever(items: EmbeddingStore) -> Result<Retriever, TrainError> {
    Ok(Retriever::new(items, Similarity::Cosine)?)
}

/// The items that rewards are ranked among.
#[derive(Debug)]
pub enum Catalogue {
    /// Ranked by the processor.
    Host(Retriever),
    /// Ranked by an NVIDIA GPU.
    #[cfg(feature = "engine")]
    Card(models::cuda::CudaCatalogue),
}

impl Catalogue {
    /// Items of these vectors, ranked where models compute.
    ///
    /// # Errors
    /// A vector of zeros; too little memory on a GPU.
    pub fn new(items: EmbeddingStore, device: Device, precision: Precision) -> Result<Self, TrainError> {
        #[cfg(feature = "engine")]
        if let Device::Cuda(_) = device {
            let width = items.dims();
            let vectors = flat(&items);
            let gpu = crate::train::gpu(device)?;
            let element = crate::train::element(precision);
            let catalogue = models::cuda::CudaCatalogue::new(&gpu, &vectors, width, element)?;
            return Ok(Self::Card(catalogue));
        }
        let _ = (device, precision);
        Ok(Self::Host(retriever(items)?))
    }

    /// Ranks each profile's targets among all items but its history.
    ///
    /// # Errors
    /// A profile whose vector is zero.
    pub fn rank(&self, profiles: &EmbeddingStore, wanted: &[Query<'_>]) -> Result<Vec<Vec<RankedTarget>>, TrainError> {
        match self {
            Self::Host(retriever) => Ok(retriever.rank(profiles, wanted)?),
            #[cfg(feature = "engine")]
            Self::Card(catalogue) => {
                let queries = flat(profiles);
                let wanted: Vec<models::cuda::Wanted<'_>> = wanted
                    .iter()
                    .map(|query| models::cuda::Wanted {
                        masked: query.masked,
                        targets: query.targets,
                    })
                    .collect();
                let counted = catalogue.rank(&queries, &wanted)?;
                let ranked = |counts: models::cuda::Counts| {
                    RankedTarget::from_counts(counts.item, counts.above, counts.tied_before, counts.tied)
                };
                Ok(counted
                    .into_iter()
                    .map(|counts| counts.into_iter().map(ranked).collect())
                    .collect())
            }
        }
    }
}

/// All values, row by row.
#[cfg(feature = "engine")]
fn flat(store: &EmbeddingStore) -> Vec<f32> {
    let mut values = Vec::with_capacity(store.rows() * store.dims());
    (0..store.rows()).for_each(|row| values.extend_from_slice(&store.row(row)));
    values
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_profile_that_fills_the_limit_earns_the_penalty() {
        let ranks = TargetRanks::new(&[1]).unwrap();
        assert_eq!(profile_reward(RewardType::Ndcg, &ranks, 511, 512, 0.0), 1.0);
        assert_eq!(profile_reward(RewardType::Ndcg, &ranks, 512, 512, -0.5), -0.5);
    }

    #[test]
    fn rewards_are_over_the_whole_catalogue() {
        let ranks = TargetRanks::new(&[1000]).unwrap();
        assert!((ranking_reward(RewardType::Ndcg, &ranks) - 1.0 / 1001f64.log2()).abs() < 1e-12);
        assert!((ranking_reward(RewardType::Mrr, &ranks) - 1e-3).abs() < 1e-15);
    }
}
