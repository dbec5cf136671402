//! Resolution: preset, file, environment and command line become one checked configuration.

use toml::{Table, Value};

use super::layer::{Layer, get, insert, overlay, remove};
use super::validate::validate;
use super::{ConfigError, Device, Preset, TrainConfig, TrainableKind, variable_name};

const DEFAULTS: &str = include_str!("presets/defaults.toml");
const GEMMA: &str = include_str!("presets/gemma.toml");
const LLAMA: &str = include_str!("presets/llama.toml");

/// The adapter's rank where LoRA is chosen without one: the published one.
const DEFAULT_LORA_RANK: i64 = 1024;
/// The layers that train where the last ones are chosen without a number: the published one.
const DEFAULT_LAYERS_UNFROZEN: i64 = 4;
/// Lays `layers` (weakest first) over the preset that the strongest of them names, and checks the result.
///
/// # Errors
/// A missing model or dataset, settings that exclude each other, a value out of its range; each names the flag.
pub fn resolve(layers: &[Layer]) -> Result<TrainConfig, ConfigError> {
    let preset = named_preset(layers)?;
    let mut table = preset_table(preset)?;
    for layer in layers {
        let mut values = layer.values.clone();
        merge_trainable(&mut table, &mut values, layer)?;
        overlay(&mut table, &values);
    }
    keep_pooling_with_its_model(&mut table, preset, layers)?;
    fill_dependent_defaults(&mut table, preset);
    require_inputs(&table)?;
    let config: TrainConfig = table
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Incomplete {
            reason: error.to_string(),
        })?;
    validate(&config)?;
    Ok(config)
}

/// The strongest layer's preset.
fn named_preset(layers: &[Layer]) -> Result<Option<Preset>, ConfigError> {
    let named = layers.iter().rev().find_map(|layer| layer.values.get("preset"));
    named
        .map(|value| value.clone().try_into())
        .transpose()
        .map_err(|error: toml::de::Error| ConfigError::Value {
            flag: "--preset".to_owned(),
            expected: "gemma or llama".to_owned(),
            found: error.message().to_owned(),
            advice: None,
        })
}

fn preset_table(preset: Option<Preset>) -> Result<Table, ConfigError> {
    let mut table = parse_own(DEFAULTS)?;
    if let Some(preset) = preset {
        let text = match preset {
            Preset::Gemma => GEMMA,
            Preset::Llama => LLAMA,
        };
        let values = parse_own(text)?;
        if get(&values, "lm.trainable").is_some() {
            remove(&mut table, "lm.trainable");
        }
        overlay(&mut table, &values);
        insert(&mut table, "preset", Value::String(preset.name().to_owned()));
    }
    Ok(table)
}

fn parse_own(text: &str) -> Result<Table, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Incomplete {
        reason: error.to_string(),
    })
}

/// Settles what is trained. A layer that names another kind, or a setting of another kind, replaces the choice of the
/// layers below; one that names settings of two kinds is refused.
fn merge_trainable(under: &mut Table, over: &mut Table, layer: &Layer) -> Result<(), ConfigError> {
    let Some(given) = get(over, "lm.trainable").and_then(Value::as_table).cloned() else {
        return Ok(());
    };
    let conflict = |message: String| ConfigError::Conflict {
        source_name: layer.source.to_string(),
        message,
    };
    let named = given.get("kind").and_then(Value::as_str);
    let implied = |key: &str| match key {
        "num_layers_unfrozen" => "last-n",
        _ => "lora",
    };
    let mut kind = named;
    for key in given.keys().filter(|key| *key != "kind") {
        match kind {
            None => kind = Some(implied(key)),
            Some(kind) if kind != implied(key) => {
                let flag = super::flag_name(&format!("lm.trainable.{key}"));
                let other = implied(key);
                return Err(conflict(match named {
                    Some(_) => {
                        format!("{flag} belongs to --trainable {other}, but --trainable {kind} was given: drop one")
                    }
                    None => format!(
                        "{flag} belongs to --trainable {other}, but settings of --trainable {kind} were given too: drop one"
                    ),
                }));
            }
            Some(_) => {}
        }
    }
    let Some(kind) = kind else { return Ok(()) };
    let current = get(under, "lm.trainable.kind").and_then(Value::as_str);
    if current != Some(kind) {
        remove(under, "lm.trainable");
    }
    insert(over, "lm.trainable.kind", Value::String(kind.to_owned()));
    Ok(())
}

/// A preset's pooling is its embedder's: with another model it gives way to what that model's folder says.
fn keep_pooling_with_its_model(table: &mut Table, preset: Option<Preset>, layers: &[Layer]) -> Result<(), ConfigError> {
    let key = "embedder.pooling";
    let chosen = layers.iter().any(|layer| get(&layer.values, key).is_some());
    let own_model = get(&preset_table(preset)?, "embedder.model") == get(table, "embedder.model");
    if !chosen && !own_model {
        remove(table, key);
    }
    Ok(())
}

/// Defaults that depend on other settings.
fn fill_dependent_defaults(table: &mut Table, preset: Option<Preset>) {
    fill(
        table,
        "run.exp_name",
        Value::String(preset.map_or("langptune", Preset::name).to_owned()),
    );
    let device = text(table, "run.device").and_then(|device| device.parse::<Device>().ok());
    if let Some(precision) = device.and_then(|device| device.precision(None).ok()) {
        fill(table, "run.precision", Value::String(precision.name().to_owned()));
    }
    let name = text(table, "run.exp_name").unwrap_or_default();
    fill(table, "run.output", Value::String(format!("runs/{name}")));
    if let Some(steps) = get(table, "lm.gradient_accumulation_steps").cloned() {
        fill(table, "embedder.gradient_accumulation_steps", steps);
    }
    let kind = text(table, "lm.trainable.kind");
    if kind.as_deref() == Some(TrainableKind::LastN.name()) {
        fill(
            table,
            "lm.trainable.num_layers_unfrozen",
            Value::Integer(DEFAULT_LAYERS_UNFROZEN),
        );
    }
    if kind.as_deref() == Some(TrainableKind::Lora.name()) {
        fill_lora(table);
    }
    if text(table, "run.profiles").as_deref() == Some("none") {
        // The raw history needs no language model: its phase has nothing to train.
        insert(table, "schedule.num_lm_updates", Value::Integer(0));
        fill(table, "lm.model", Value::String(String::new()));
    }
}

fn fill_lora(table: &mut Table) {
    fill(table, "lm.trainable.lora_rank", Value::Integer(DEFAULT_LORA_RANK));
    fill(table, "lm.trainable.lora_dropout", Value::Float(0.0));
    let targets = models::LoraConfig::ALL_TARGETS
        .iter()
        .map(|target| Value::String((*target).to_owned()));
    fill(table, "lm.trainable.lora_targets", Value::Array(targets.collect()));
    // The published ratio: a rank given alone keeps the adapter's scale.
    if let Some(rank) = get(table, "lm.trainable.lora_rank").and_then(Value::as_integer) {
        fill(table, "lm.trainable.lora_alpha", Value::Float(2.0 * rank as f64));
    }
}

fn fill(table: &mut Table, key: &str, value: Value) {
    if get(table, key).is_none() {
        insert(table, key, value);
    }
}

fn text(table: &Table, key: &str) -> Option<String> {
    get(table, key).and_then(Value::as_str).map(str::to_owned)
}

fn require_inputs(table: &Table) -> Result<(), ConfigError> {
    let required = [
        ("prepared dataset", "dataset", "run.dataset"),
        ("language model", "lm-model", "lm.model"),
        ("embedder", "emb-model", "embedder.model"),
    ];
    for (what, flag, key) in required {
        if get(table, key).is_none() {
            return Err(ConfigError::Missing {
                what,
                flag,
                variable: variable_name(flag),
                key,
            });
        }
    }
    Ok(())
}

/// A table that decodes, for trying single values in. Never a run's configuration.
pub(super) fn complete_example() -> Table {
    let mut table = preset_table(Some(Preset::Gemma)).unwrap_or_default();
    insert(&mut table, "run.dataset", Value::String("dataset".to_owned()));
    fill_dependent_defaults(&mut table, Some(Preset::Gemma));
    table
}
