//! The two losses, on the autodiff device.

use burn::tensor::{Tensor, activation};

/// What the loss of a pair compares with: sums and rewards of the two responses of one user.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// log π_old of each response, in nats.
    pub old: [f64; 2],
    /// Total reward of each response, whitened where that is asked.
    pub rewards: [f64; 2],
}

/// The pair's squared error, `[1]`: ( [log π(y₁) − log π_old(y₁)] − [log π(y₂) − log π_old(y₂)] − η·(R₁ − R₂) )²
/// (REBEL; Gao et al., 2024), `log_pi` being the sums of log-probabilities of the two responses, `[1]` each.
pub fn pair_loss([first, second]: [Tensor<1>; 2], pair: Pair, eta: f64) -> Tensor<1> {
    let ratio = first.sub_scalar(pair.old[0]) - second.sub_scalar(pair.old[1]);
    ratio.sub_scalar(eta * (pair.rewards[0] - pair.rewards[1])).square()
}

/// The contrastive loss and the similarities it was made of.
#[derive(Debug)]
pub struct Contrastive {
    /// Mean over rows, `[1]`.
    pub loss: Tensor<1>,
    /// Cosines `[profiles, targets]`, plain.
    pub similarities: Tensor<2>,
}

/// Cross-entropy of each row of S/τ with its own target as label, S being the cosines of `profiles` and `targets`, both
/// `[batch, dimension]`: the other targets of the batch are the negatives (van den Oord et al., 2018).
pub fn contrastive_loss(profiles: Tensor<2>, targets: Tensor<2>, temperature: f64) -> Contrastive {
    let batch = profiles.dims()[0];
    let similarities = normalise(profiles).matmul(normalise(targets).transpose());
    let logprobs = activation::log_softmax(similarities.clone().div_scalar(temperature), 1);
    let diagonal = Tensor::<2>::eye(batch, &logprobs.device().inner());
    let loss = (logprobs * diagonal).sum().neg().div_scalar(batch as f64);
    Contrastive {
        loss,
        similarities: similarities.inner(),
    }
}

/// Rows at length 1, as `torch.nn.functional.normalize` makes them.
fn normalise(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
}
