//! The names of scalars: those of the published training code, so that old dashboards work.

/// Mean reward of the update's rollouts, before the KL term and whitening.
pub const REWARDS: &str = "objective/rewards";
/// Mean of what the loss sees: reward − kl_coef · KL, whitened if asked.
pub const TOTAL_REWARDS: &str = "objective/total_rewards";
/// Mean of log π_old − log π_ref over rollouts (nats a response).
pub const KL: &str = "objective/kl";
/// Mean of −kl_coef · KL.
pub const NON_SCORE_REWARD: &str = "objective/non_score_reward";
/// Mean of half the squared log-ratio between the policy and the one that sampled.
pub const APPROX_KL: &str = "objective/approxkl";
/// Mean of −log π_old over rollouts (nats a response).
pub const ENTROPY: &str = "objective/entropy";
/// MRR within the embedder's batch.
pub const IN_BATCH_MRR: &str = "objective/in_batch_mrr";
/// NDCG within the embedder's batch.
pub const IN_BATCH_NDCG: &str = "objective/in_batch_ndcg";
/// Loss of the last optimizer step of an update.
pub const POLICY_LOSS: &str = "dpo/loss/policy";
/// Loss averaged over the update's optimizer steps.
pub const POLICY_LOSS_AVERAGE: &str = "dpo/loss/policy_avg";
/// Entropy of the policy's next token (nats), at the last optimizer step.
pub const POLICY_ENTROPY: &str = "dpo/policy/entropy";
/// The same, averaged over the update's optimizer steps.
pub const POLICY_ENTROPY_AVERAGE: &str = "dpo/policy/entropy_avg";
/// Mean of π / π_old over responses.
pub const RATIO: &str = "dpo/policy/ratio";
/// Variance of the mean ratio over the update's optimizer steps.
pub const RATIO_VARIANCE: &str = "dpo/policy/ratio_var";
/// Responses that ended with an EOS token.
pub const EOS_TOKENS: &str = "dpo/policy/num_eos_tokens";
/// Learning rate of the language model.
pub const LEARNING_RATE: &str = "dpo/lr";

/// Whose profile a ranking came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileKind {
    /// The reference profile.
    Reference,
    /// The generated profile.
    Generated,
}

/// The name of a ranking metric on val users, e.g. `objective/gen_ndcg@20`.
///
/// `metric` is `recall`, `precision`, `mrr` or `ndcg`.
pub fn ranking(profile: ProfileKind, metric: &str, cutoff: usize) -> String {
    let profile = match profile {
        ProfileKind::Reference => "ref",
        ProfileKind::Generated => "gen",
    };
    format!("objective/{profile}_{metric}@{cutoff}")
}

/// Whether a name is one that [`ranking`] gives.
pub fn is_ranking(name: &str) -> bool {
    name.starts_with("objective/gen_") || name.starts_with("objective/ref_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranking_names_are_the_published_ones() {
        assert_eq!(ranking(ProfileKind::Generated, "ndcg", 20), "objective/gen_ndcg@20");
        assert_eq!(ranking(ProfileKind::Reference, "recall", 5), "objective/ref_recall@5");
    }

    #[test]
    fn metrics_of_evaluations_are_told_from_what_updates_log() {
        for profile in [ProfileKind::Generated, ProfileKind::Reference] {
            assert!(is_ranking(&ranking(profile, "mrr", 10)));
        }
        assert!(![REWARDS, IN_BATCH_NDCG, POLICY_LOSS].into_iter().any(is_ranking));
    }
}
