//! The ranges of values, and what must fit together. Messages name the flag.

use super::{ConfigError, OptimizerConfig, TrainConfig, Trainable, flag_name};

/// Fewest rewards that can be whitened together: below it mean and variance say nothing.
pub(crate) const FEWEST_WHITENED: usize = 8;

/// Checks every value of a resolved configuration.
pub(super) fn validate(config: &TrainConfig) -> Result<(), ConfigError> {
    counts(config)?;
    numbers(config)?;
    optimizer("lm.optimizer", &config.lm.optimizer)?;
    optimizer("embedder.optimizer", &config.embedder.optimizer)?;
    trainable(&config.lm.trainable)?;
    whitening(config)?;
    let (device, precision) = (config.run.device, config.run.precision);
    let expected = format!("f32, which is what --device {device} computes in");
    require(
        "run.precision",
        device.precision(Some(precision)).is_ok(),
        &expected,
        precision.name(),
    )
}

fn counts(config: &TrainConfig) -> Result<(), ConfigError> {
    let at_least_one = [
        ("schedule.num_iterations", config.schedule.num_iterations),
        ("rl.noptepochs", config.rl.noptepochs),
        ("rl.response_length", config.rl.response_length),
        ("rl.rollout_batch", config.rl.rollout_batch),
        (
            "rl.local_rollout_forward_batch_size",
            config.rl.local_rollout_forward_batch_size,
        ),
        (
            "evaluation.print_sample_output_freq",
            config.evaluation.print_sample_output_freq,
        ),
        ("evaluation.topk", config.evaluation.topk),
        (
            "evaluation.per_device_eval_batch_size",
            config.evaluation.per_device_eval_batch_size,
        ),
        ("evaluation.score_batch_size", config.evaluation.score_batch_size),
        ("lm.data_max_length", config.lm.data_max_length),
        ("lm.per_device_train_batch_size", config.lm.per_device_train_batch_size),
        ("lm.gradient_accumulation_steps", config.lm.gradient_accumulation_steps),
        (
            "embedder.gradient_accumulation_steps",
            config.embedder.gradient_accumulation_steps,
        ),
        ("embedder.batch_size", config.embedder.batch_size),
    ];
    for (key, count) in at_least_one {
        require(key, count >= 1, "at least 1", count)?;
    }
    // One row alone has nothing to be contrasted with: its loss is always 0.
    let batch = config.embedder.per_device_train_batch_size;
    require(
        "embedder.per_device_train_batch_size",
        batch >= 2,
        "at least 2 (negatives come from the batch)",
        batch,
    )?;
    let profiles = config.rl.num_gens;
    require("rl.num_gens", profiles == 2, "2 (the loss compares a pair)", profiles)
}

fn numbers(config: &TrainConfig) -> Result<(), ConfigError> {
    let (rl, loss_temp) = (&config.rl, config.embedder.loss_temp);
    require("rl.eta", rl.eta.is_finite(), "a finite number", rl.eta)?;
    require(
        "rl.kl_coef",
        rl.kl_coef.is_finite() && rl.kl_coef >= 0.0,
        "a finite number, 0 or more",
        rl.kl_coef,
    )?;
    require(
        "rl.temperature",
        rl.temperature.is_finite() && rl.temperature > 0.0,
        "a finite number above 0",
        rl.temperature,
    )?;
    require(
        "rl.penalty_reward_value",
        rl.penalty_reward_value.is_finite(),
        "a finite number",
        rl.penalty_reward_value,
    )?;
    require(
        "embedder.loss_temp",
        loss_temp.is_finite() && loss_temp > 0.0,
        "a finite number above 0",
        loss_temp,
    )
}

fn optimizer(section: &str, optimizer: &OptimizerConfig) -> Result<(), ConfigError> {
    let key = |name: &str| format!("{section}.{name}");
    let not_negative = |value: f64| value.is_finite() && value >= 0.0;
    require(
        &key("lr"),
        not_negative(optimizer.lr),
        "a finite number, 0 or more",
        optimizer.lr,
    )?;
    require(
        &key("eps"),
        optimizer.eps.is_finite() && optimizer.eps > 0.0,
        "a finite number above 0",
        optimizer.eps,
    )?;
    let decay = optimizer.weight_decay;
    require(
        &key("weight_decay"),
        not_negative(decay),
        "a finite number, 0 or more",
        decay,
    )?;
    for beta in optimizer.betas {
        require(
            &key("betas"),
            (0.0..1.0).contains(&beta),
            "two numbers from 0 up to, not including, 1",
            beta,
        )?;
    }
    Ok(())
}

fn trainable(trainable: &Trainable) -> Result<(), ConfigError> {
    match trainable {
        Trainable::Lora(lora) => {
            let (rank, alpha, dropout) = (lora.lora_rank, lora.lora_alpha, lora.lora_dropout);
            require("lm.trainable.lora_rank", rank >= 1, "at least 1", rank)?;
            require(
                "lm.trainable.lora_alpha",
                alpha.is_finite() && alpha > 0.0,
                "a finite number above 0",
                alpha,
            )?;
            require(
                "lm.trainable.lora_dropout",
                dropout == 0.0,
                "0 (the published setting; no other is implemented)",
                dropout,
            )?;
            let named = !lora.lora_targets.is_empty() && lora.lora_targets.iter().all(|target| !target.is_empty());
            require(
                "lm.trainable.lora_targets",
                named,
                "names of layers, e.g. q_proj,v_proj",
                lora.lora_targets.join(","),
            )
        }
        Trainable::LastLayers {
            num_layers_unfrozen: layers,
        } => require("lm.trainable.num_layers_unfrozen", *layers >= 1, "at least 1", layers),
        Trainable::Full => Ok(()),
    }
}

fn whitening(config: &TrainConfig) -> Result<(), ConfigError> {
    let (batch, steps) = (
        config.lm.per_device_train_batch_size,
        config.lm.gradient_accumulation_steps,
    );
    let values = config.rl.num_gens * batch * steps;
    let trains_lm = config.schedule.num_lm_updates > 0;
    // Over all devices there are more: training checks them when it knows how many devices there are.
    let over_all = config.rl.global_whitening;
    if !config.rl.whiten_rewards || over_all || !trains_lm || values >= FEWEST_WHITENED {
        return Ok(());
    }
    Err(ConfigError::Value {
        flag: flag_name("rl.whiten_rewards"),
        expected: format!("at least {FEWEST_WHITENED} rewards an update on a device"),
        found: format!(
            "{} profiles × batch {batch} × accumulation {steps} = {values}",
            config.rl.num_gens
        ),
        advice: Some(
            "raise --gradient-accumulation-steps or --per-device-train-batch-size, or pass --no-whiten-rewards"
                .to_owned(),
        ),
    })
}

fn require(key: &str, holds: bool, expected: &str, found: impl std::fmt::Display) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Value {
        flag: flag_name(key),
        expected: expected.to_owned(),
        found: found.to_string(),
        advice: None,
    })
}
