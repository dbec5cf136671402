//! Log-probabilities of given tokens, with the head applied to the positions that need it alone.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use crate::weights::tensor_to_vec;
use crate::{ModelError, Scores};

/// Log-probability of each scored token and the entropy of the distribution it was drawn from, both `[tokens]`, in nats.
#[derive(Debug, Clone)]
pub(crate) struct TokenScores {
    pub(crate) logprobs: Tensor<1>,
    pub(crate) entropies: Tensor<1>,
}

impl TokenScores {
    /// The scores on the host.
    pub(crate) fn read(self) -> Result<Scores, ModelError> {
        Ok(Scores {
            logprobs: tensor_to_vec(self.logprobs)?,
            entropies: tensor_to_vec(self.entropies)?,
        })
    }
}

/// Scores `tokens` under `logits / temperature`, `logits` being `[tokens, vocabulary]`.
pub(crate) fn token_scores(logits: Tensor<2>, tokens: &[u32], temperature: f64, device: &Device) -> TokenScores {
    let scaled = if temperature == 1.0 {
        logits
    } else {
        logits.div_scalar(temperature)
    };
    let all = activation::log_softmax(scaled, 1);
    let ids: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [tokens.len(), 1]), device);
    let plain = all.clone().inner();
    let entropies = (plain.clone().exp() * plain).sum_dim(1).neg().squeeze_dim(1);
    TokenScores {
        logprobs: all.gather(1, ids).squeeze_dim(1),
        entropies,
    }
}
