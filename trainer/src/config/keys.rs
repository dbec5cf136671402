//! Which flag sets which key of the configuration: the one table behind flags, environment and TOML.

/// A flag of `langptune train` and the keys that it sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagKey {
    /// The flag without its leading dashes, e.g. `task.response-length`.
    pub flag: &'static str,
    /// The dotted keys in the TOML file, e.g. `rl.response_length`. More than one where a published flag rules both models.
    pub keys: &'static [&'static str],
}

const fn sets(flag: &'static str, keys: &'static [&'static str]) -> FlagKey {
    FlagKey { flag, keys }
}

/// Every key of the configuration, under the flag that sets it.
pub const KEYS: &[FlagKey] = &[
    sets("preset", &["preset"]),
    sets("dataset", &["run.dataset"]),
    sets("task.item-dataset", &["run.item_dataset"]),
    sets("output", &["run.output"]),
    sets("exp-name", &["run.exp_name"]),
    sets("seed", &["run.seed"]),
    sets("device", &["run.device"]),
    sets("precision", &["run.precision"]),
    sets("profiles", &["run.profiles"]),
    sets("track", &["run.track"]),
    sets("trace", &["run.trace"]),
    sets("num-iterations", &["schedule.num_iterations"]),
    sets("num-emb-updates", &["schedule.num_emb_updates"]),
    sets("num-lm-updates", &["schedule.num_lm_updates"]),
    sets("eta", &["rl.eta"]),
    sets("kl-coef", &["rl.kl_coef"]),
    sets("whiten-rewards", &["rl.whiten_rewards"]),
    sets("global-whitening", &["rl.global_whitening"]),
    sets("noptepochs", &["rl.noptepochs"]),
    sets("reward-type", &["rl.reward_type"]),
    sets("task.penalty-reward-value", &["rl.penalty_reward_value"]),
    sets("task.response-length", &["rl.response_length"]),
    sets("task.temperature", &["rl.temperature"]),
    sets("num-gens", &["rl.num_gens"]),
    sets("loss-reduction", &["rl.loss_reduction"]),
    sets("rollout-batch", &["rl.rollout_batch"]),
    sets(
        "local-rollout-forward-batch-size",
        &["rl.local_rollout_forward_batch_size"],
    ),
    sets("run-eval", &["evaluation.run_eval"]),
    sets("print-sample-output-freq", &["evaluation.print_sample_output_freq"]),
    sets("topk", &["evaluation.topk"]),
    sets("per-device-eval-batch-size", &["evaluation.per_device_eval_batch_size"]),
    sets("score-batch-size", &["evaluation.score_batch_size"]),
    sets("report-embeddings", &["evaluation.report_embeddings"]),
    sets("save-every", &["checkpoint.save_every"]),
    sets("keep-last", &["checkpoint.keep_last"]),
    sets("keep-best", &["checkpoint.keep_best"]),
    sets("lm-model", &["lm.model"]),
    sets("lm-revision", &["lm.revision"]),
    sets("template", &["lm.template"]),
    sets("eos", &["lm.extra_eos"]),
    sets("task.data-max-length", &["lm.data_max_length"]),
    sets("per-device-train-batch-size", &["lm.per_device_train_batch_size"]),
    sets("micro-batch", &["lm.micro_batch"]),
    sets("recompute", &["lm.recompute"]),
    sets("gradient-accumulation-steps", &["lm.gradient_accumulation_steps"]),
    sets("output-dir-lm", &["lm.output_dir"]),
    sets("lr", &["lm.optimizer.lr"]),
    sets("trainable", &["lm.trainable.kind"]),
    sets("lora-rank", &["lm.trainable.lora_rank"]),
    sets("lora-alpha", &["lm.trainable.lora_alpha"]),
    sets("lora-dropout", &["lm.trainable.lora_dropout"]),
    sets("lora-targets", &["lm.trainable.lora_targets"]),
    sets("num-layers-unfrozen", &["lm.trainable.num_layers_unfrozen"]),
    sets("emb-model", &["embedder.model"]),
    sets("emb-revision", &["embedder.revision"]),
    sets("emb-pooling", &["embedder.pooling"]),
    sets("query-prefix", &["embedder.query_prefix"]),
    sets("loss-temp", &["embedder.loss_temp"]),
    sets("global-negatives", &["embedder.global_negatives"]),
    sets(
        "emb-per-device-train-batch-size",
        &["embedder.per_device_train_batch_size"],
    ),
    sets(
        "emb-gradient-accumulation-steps",
        &["embedder.gradient_accumulation_steps"],
    ),
    sets("emb-batch-size", &["embedder.batch_size"]),
    sets("output-dir-emb", &["embedder.output_dir"]),
    sets("emb-lr", &["embedder.optimizer.lr"]),
    sets("optimizer", &["lm.optimizer.algorithm", "embedder.optimizer.algorithm"]),
    sets("betas", &["lm.optimizer.betas", "embedder.optimizer.betas"]),
    sets("eps", &["lm.optimizer.eps", "embedder.optimizer.eps"]),
    sets(
        "weight-decay",
        &["lm.optimizer.weight_decay", "embedder.optimizer.weight_decay"],
    ),
    sets(
        "master-weights",
        &["lm.optimizer.master_weights", "embedder.optimizer.master_weights"],
    ),
];

/// The keys that a flag sets; the flag without leading dashes, dashes or underscores.
pub fn key_of_flag(flag: &str) -> Option<&'static FlagKey> {
    let wanted = flag.replace('_', "-");
    KEYS.iter().find(|entry| entry.flag == wanted)
}

/// The flag, with its dashes, that sets `key`.
pub fn flag_name(key: &str) -> String {
    let flag = KEYS.iter().find(|entry| entry.keys.contains(&key));
    flag.map_or_else(|| key.to_owned(), |entry| format!("--{}", entry.flag))
}

/// The environment variable of a flag: `task.response-length` is `LANGPTUNE_TASK_RESPONSE_LENGTH`.
pub fn variable_name(flag: &str) -> String {
    format!("LANGPTUNE_{}", flag.to_uppercase().replace(['.', '-'], "_"))
}

/// Whether `key` is one that a configuration has.
pub(super) fn is_known(key: &str) -> bool {
    KEYS.iter().any(|entry| entry.keys.contains(&key))
}

/// The known key that an unknown one most likely meant: a published flag's name first, then the nearest spelling.
pub(super) fn closest_key(unknown: &str) -> Option<&'static str> {
    let last = unknown.rsplit('.').next().unwrap_or(unknown);
    let flag = last.replace('_', "-");
    let named = |entry: &&FlagKey| entry.flag == flag || entry.flag.strip_prefix("task.") == Some(&flag);
    if let Some(entry) = KEYS.iter().find(named) {
        return entry.keys.first().copied();
    }
    let likeness = |key: &str| {
        let key_last = key.rsplit('.').next().unwrap_or(key);
        strsim::jaro_winkler(unknown, key).max(strsim::jaro_winkler(last, key_last))
    };
    let keys = KEYS.iter().flat_map(|entry| entry.keys).copied();
    keys.map(|key| (likeness(key), key))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_neighbour() {
        assert_eq!(closest_key("rl.kl_coeff"), Some("rl.kl_coef"));
        assert_eq!(closest_key("schedule.num_iteration"), Some("schedule.num_iterations"));
        assert_eq!(closest_key("evaluation.top_k"), Some("evaluation.topk"));
        assert_eq!(closest_key("zzzz"), None);
    }

    #[test]
    fn a_published_flag_name_finds_its_key() {
        assert_eq!(closest_key("emb_lr"), Some("embedder.optimizer.lr"));
        assert_eq!(closest_key("lr"), Some("lm.optimizer.lr"));
        assert_eq!(closest_key("task.response_length"), Some("rl.response_length"));
    }

    #[test]
    fn no_flag_and_no_key_stands_twice() {
        let mut flags: Vec<_> = KEYS.iter().map(|entry| entry.flag).collect();
        let mut keys: Vec<_> = KEYS.iter().flat_map(|entry| entry.keys).collect();
        let (flag_count, key_count) = (flags.len(), keys.len());
        flags.sort_unstable();
        flags.dedup();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((flags.len(), keys.len()), (flag_count, key_count));
    }
}
