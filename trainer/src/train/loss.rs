//! The loss of a pair of rollouts and its slopes, on the host: what a model gave, its gradients are found from.

use std::ops::Range;

/// What the loss of a pair compares with: sums and rewards of the two responses of one user.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// log π_old of each response, in nats.
    pub old: [f64; 2],
    /// Total reward of each response, whitened where that is asked.
    pub rewards: [f64; 2],
}

/// The loss of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairLoss {
    /// The squared error.
    pub value: f64,
    /// Its slope in the first response's log-probability; in the second's it is the opposite.
    pub slope: f64,
}

/// The pair's squared error: ( [log π(y₁) − log π_old(y₁)] − [log π(y₂) − log π_old(y₂)] − η·(R₁ − R₂) )² (REBEL; Gao et al.,
/// 2024), `log_pi` being the sums of log-probabilities of the two responses.
pub fn pair_loss(log_pi: [f64; 2], pair: Pair, eta: f64) -> PairLoss {
    let ratio = (log_pi[0] - pair.old[0]) - (log_pi[1] - pair.old[1]);
    let error = ratio - eta * (pair.rewards[0] - pair.rewards[1]);
    PairLoss {
        value: error * error,
        slope: 2.0 * error,
    }
}

impl PairLoss {
    /// Writes the slopes of `weight` times the loss into those of the tokens, all of which count alike in their response.
    pub fn spread(&self, weight: f64, responses: [&Range<usize>; 2], slopes: &mut [f32]) {
        let slope = self.slope * weight;
        slopes[responses[0].clone()].fill(slope as f32);
        slopes[responses[1].clone()].fill(-slope as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_pulled_apart_by_what_it_lacks() {
        let pair = Pair {
            old: [-10.0, -12.0],
            rewards: [1.0, 0.0],
        };
        // As under π_old: the whole of η·(R₁ − R₂) is lacking.
        let loss = pair_loss(pair.old, pair, 0.5);
        assert_eq!((loss.value, loss.slope), (0.25, -1.0));
        let mut slopes = [0.0; 5];
        loss.spread(0.25, [&(0..2), &(2..5)], &mut slopes);
        assert_eq!(slopes, [-0.25, -0.25, 0.25, 0.25, 0.25]);
        assert_eq!(pair_loss([-9.75, -12.25], pair, 0.5).value, 0.0);
    }
}
