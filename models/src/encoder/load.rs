//! A BERT from a Hugging Face or sentence-transformers folder.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn::tensor::Device;
use serde_json::Value;

use super::{Bert, Pooling};
use crate::ModelError;
use crate::decoder::{check_names, check_vocabulary, read_parameter};
use crate::files::{CheckpointReader, NamedTensor};
use crate::plan::{ConfigFile, EncoderPlan};
use crate::tuned::Tuned;
use crate::weights::{ParameterId, ParameterSpec, Weights};

/// How an encoder is loaded.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    /// Where its parameters live and its work is done.
    pub device: Device,
    /// Overrides the folder's `1_Pooling/config.json`; without either, CLS.
    pub pooling: Option<Pooling>,
    /// Whether training changes it: then all of it.
    pub train: bool,
}

/// A linear layer or a norm: weight and bias.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Affine {
    pub(crate) weight: ParameterId,
    pub(crate) bias: ParameterId,
}

/// One block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncoderLayer {
    pub(crate) query: Affine,
    pub(crate) key: Affine,
    pub(crate) value: Affine,
    pub(crate) output: Affine,
    pub(crate) attention_norm: Affine,
    pub(crate) up: Affine,
    pub(crate) down: Affine,
    pub(crate) mlp_norm: Affine,
}

/// All of a BERT's parameters.
#[derive(Debug, Clone)]
pub(crate) struct EncoderParameters {
    pub(crate) words: ParameterId,
    pub(crate) positions: ParameterId,
    pub(crate) segments: ParameterId,
    pub(crate) norm: Affine,
    pub(crate) layers: Vec<EncoderLayer>,
}

impl EncoderParameters {
    fn lay_out<E>(
        plan: &EncoderPlan,
        add: &mut impl FnMut(ParameterSpec) -> Result<ParameterId, E>,
    ) -> Result<Self, E> {
        let (hidden, inner) = (plan.hidden, plan.intermediate);
        let mut matrix = |name: &str, rows: usize| {
            add(ParameterSpec {
                name: format!("embeddings.{name}.weight"),
                shape: vec![rows, hidden],
            })
        };
        let words = matrix("word_embeddings", plan.vocabulary)?;
        let positions = matrix("position_embeddings", plan.max_positions)?;
        let segments = matrix("token_type_embeddings", plan.segment_types)?;
        let mut affine = |name: &str, shape: &[usize]| {
            let weight = add(ParameterSpec {
                name: format!("{name}.weight"),
                shape: shape.to_vec(),
            })?;
            let bias = add(ParameterSpec {
                name: format!("{name}.bias"),
                shape: vec![shape[0]],
            })?;
            Ok(Affine { weight, bias })
        };
        let norm = affine("embeddings.LayerNorm", &[hidden])?;
        let mut layers = Vec::with_capacity(plan.layers);
        for index in 0..plan.layers {
            let name = |part: &str| format!("encoder.layer.{index}.{part}");
            layers.push(EncoderLayer {
                query: affine(&name("attention.self.query"), &[hidden, hidden])?,
                key: affine(&name("attention.self.key"), &[hidden, hidden])?,
                value: affine(&name("attention.self.value"), &[hidden, hidden])?,
                output: affine(&name("attention.output.dense"), &[hidden, hidden])?,
                attention_norm: affine(&name("attention.output.LayerNorm"), &[hidden])?,
                up: affine(&name("intermediate.dense"), &[inner, hidden])?,
                down: affine(&name("output.dense"), &[hidden, inner])?,
                mlp_norm: affine(&name("output.LayerNorm"), &[hidden])?,
            });
        }
        Ok(Self {
            words,
            positions,
            segments,
            norm,
            layers,
        })
    }
}

/// A BERT's folder, whose files were checked against its description.
#[derive(Debug)]
pub(crate) struct EncoderFolder {
    pub(crate) plan: EncoderPlan,
    pub(crate) pooling: Pooling,
    /// Parameters that are saved again but not computed with, such as a pooler.
    pub(crate) carried: Vec<NamedTensor>,
    pub(crate) path: PathBuf,
    reader: CheckpointReader,
    /// What stands before every name.
    prefix: &'static str,
}

impl EncoderFolder {
    /// Reads `config.json`, the names, shapes and types of the parameters (with or without the prefix `bert.`), and the pooling,
    /// where it is not given.
    pub(crate) fn open(folder: &Path, pooling: Option<Pooling>) -> Result<Self, ModelError> {
        let plan = ConfigFile::open(&folder.join("config.json"))?.encoder()?;
        let reader = CheckpointReader::open(folder)?;
        let prefix = if reader.names().any(|name| name.starts_with("bert.")) {
            "bert."
        } else {
            ""
        };
        let mut specs = encoder_specs(&plan);
        for spec in &mut specs {
            spec.name.insert_str(0, prefix);
        }
        check_names(&reader, &specs, |name| is_extra(name.trim_start_matches("bert.")))?;
        let pooling = match pooling {
            Some(pooling) => pooling,
            None => read_pooling(folder)?,
        };
        Ok(Self {
            carried: carried(&reader, prefix, plan.hidden)?,
            plan,
            pooling,
            path: folder.to_owned(),
            reader,
            prefix,
        })
    }

    /// A parameter's values, row by row.
    #[cfg(feature = "engine")]
    pub(crate) fn read(&self, spec: &ParameterSpec) -> Result<Vec<f32>, ModelError> {
        let (values, _) = self
            .reader
            .read(&format!("{}{}", self.prefix, spec.name), &spec.shape)?;
        Ok(values)
    }
}

impl Bert {
    /// Loads `config.json`, the parameters (with or without the prefix `bert.`, all checked for name, shape and type) and
    /// the pooling of `folder`.
    pub fn load(folder: &Path, options: &EncoderOptions) -> Result<Self, ModelError> {
        let files = EncoderFolder::open(folder, options.pooling)?;
        let mut weights = Weights::default();
        let parameters = EncoderParameters::lay_out(&files.plan, &mut |spec| {
            let name = format!("{}{}", files.prefix, spec.name);
            read_parameter(&files.reader, &name, spec, &mut weights, &options.device)
        })?;
        let trained = if options.train {
            weights.ids().collect()
        } else {
            Vec::new()
        };
        Ok(Self {
            plan: files.plan,
            parameters,
            tuned: Tuned::new(weights, trained),
            pooling: files.pooling,
            device: options.device.clone(),
            host: Mutex::new(None),
            carried: files.carried,
            source: files.path,
        })
    }

    /// Refuses a tokenizer whose ids the embedding does not cover.
    pub fn check_tokenizer(&self, vocabulary_size: usize) -> Result<(), ModelError> {
        check_vocabulary(&self.source, vocabulary_size, self.plan.vocabulary)
    }
}

/// Every parameter of the plan, without a prefix.
pub(crate) fn encoder_specs(plan: &EncoderPlan) -> Vec<ParameterSpec> {
    let mut specs = Vec::new();
    let laid_out = EncoderParameters::lay_out::<Infallible>(plan, &mut |spec| {
        specs.push(spec);
        Ok(ParameterId(specs.len() - 1))
    });
    match laid_out {
        Ok(_) => specs,
    }
}

/// Parameters and buffers of BERT files that no vector depends on: the pooler, position ids, the pretraining heads.
fn is_extra(name: &str) -> bool {
    name == "embeddings.position_ids" || name.starts_with("pooler.") || name.starts_with("cls.")
}

/// The pooler, so that a saved folder is as whole as the one that was read.
fn carried(reader: &CheckpointReader, prefix: &str, hidden: usize) -> Result<Vec<NamedTensor>, ModelError> {
    let shapes = [
        ("pooler.dense.weight", vec![hidden, hidden]),
        ("pooler.dense.bias", vec![hidden]),
    ];
    let present = shapes
        .into_iter()
        .filter(|(name, _)| reader.contains(&format!("{prefix}{name}")));
    present
        .map(|(name, shape)| {
            let (data, _) = reader.read(&format!("{prefix}{name}"), &shape)?;
            Ok(NamedTensor {
                name: name.to_owned(),
                shape,
                data,
            })
        })
        .collect()
}

/// The pooling that sentence-transformers recorded; CLS where nothing is recorded.
fn read_pooling(folder: &Path) -> Result<Pooling, ModelError> {
    let path = folder.join("1_Pooling").join("config.json");
    if !path.is_file() {
        return Ok(Pooling::Cls);
    }
    let text = std::fs::read_to_string(&path).map_err(|source| ModelError::io(&path, source))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| ModelError::config(&path, error.to_string()))?;
    let on = |mode: &str| value[format!("pooling_mode_{mode}")].as_bool() == Some(true);
    match (on("cls_token"), on("mean_tokens"), value["pooling_mode"].as_str()) {
        (true, false, _) | (false, false, Some("cls")) => Ok(Pooling::Cls),
        (false, true, _) | (false, false, Some("mean")) => Ok(Pooling::Mean),
        _ => Err(ModelError::config(
            path,
            "expected CLS or mean pooling alone; name one with --pooling",
        )),
    }
}
