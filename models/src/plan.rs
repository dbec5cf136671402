//! What a model is made of, read from its `config.json`: the single description that the burn module, the sampler and
//! the checkpoint reader follow.

use std::path::Path;

use serde_json::Value;

use crate::ModelError;

/// The gate's non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)` with the error function.
    Gelu,
    /// The tanh form of GELU.
    GeluTanh,
}

/// How rotary angles depend on position.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Changes to the series for contexts longer than the training's.
    pub scaling: RopeScaling,
}

/// The known ways to stretch rotary embeddings.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// All frequencies divided by the factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, those between blended.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Bound of the low band, in wavelengths a context.
        low_freq_factor: f64,
        /// Bound of the high band.
        high_freq_factor: f64,
        /// Tokens of the original context.
        original_context: f64,
    },
}

impl Rope {
    /// Inverse frequencies of a head of `head_dim` (half as many), in radians a position.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f64> {
        (0..head_dim / 2)
            .map(|i| {
                let base = 1.0 / self.theta.powf(2.0 * i as f64 / head_dim as f64);
                self.scaling.apply(base)
            })
            .collect()
    }
}

impl RopeScaling {
    fn apply(&self, frequency: f64) -> f64 {
        match *self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context,
            } => {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                if wavelength < original_context / high_freq_factor {
                    frequency
                } else if wavelength > original_context / low_freq_factor {
                    frequency / factor
                } else {
                    let smooth =
                        (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

/// A causal decoder: Gemma 1 or a Llama.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderPlan {
    /// `gemma` or `llama`, as in the config.
    pub model_type: String,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the gated MLP.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// RMSNorm's epsilon.
    pub norm_eps: f64,
    /// Gemma's norms multiply by `1 + w`.
    pub norm_adds_one: bool,
    /// The gate's non-linearity.
    pub activation: Activation,
    /// Gemma multiplies embeddings by √hidden.
    pub embedding_scale: Option<f32>,
    /// Rotary positions.
    pub rope: Rope,
    /// The head is the embedding.
    pub tied: bool,
    /// Biases on q, k, v and o.
    pub attention_bias: bool,
    /// Biases on gate, up and down.
    pub mlp_bias: bool,
    /// The longest sequence the model was made for, in tokens.
    pub max_positions: usize,
}

/// A BERT encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderPlan {
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Width of the residual stream and of the vectors.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Rows of the position embedding: the longest input in tokens.
    pub max_positions: usize,
    /// Rows of the segment embedding.
    pub segment_types: usize,
    /// LayerNorm's epsilon.
    pub norm_eps: f64,
    /// The MLP's non-linearity.
    pub activation: Activation,
}

impl EncoderPlan {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }
}

/// A parsed `config.json` that knows its path for messages.
pub(crate) struct ConfigFile<'a> {
    path: &'a Path,
    value: Value,
}

impl<'a> ConfigFile<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(|source| ModelError::io(path, source))?;
        let value = serde_json::from_str(&text).map_err(|error| ModelError::config(path, error.to_string()))?;
        Ok(Self { path, value })
    }

    pub(crate) fn model_type(&self) -> Result<&str, ModelError> {
        self.value["model_type"]
            .as_str()
            .ok_or_else(|| self.missing("model_type", "a string"))
    }

    fn missing(&self, field: &str, expected: &str) -> ModelError {
        let found = match self.value.get(field) {
            None => "nothing".to_owned(),
            Some(value) => value.to_string(),
        };
        ModelError::config(
            self.path,
            format!("field `{field}`: expected {expected}, found {found}"),
        )
    }

    fn size(&self, field: &str) -> Result<usize, ModelError> {
        match self.value[field].as_u64() {
            Some(size) if size > 0 => Ok(size as usize),
            _ => Err(self.missing(field, "a positive whole number")),
        }
    }

    fn size_or(&self, field: &str, default: usize) -> Result<usize, ModelError> {
        if self.value[field].is_null() {
            Ok(default)
        } else {
            self.size(field)
        }
    }

    fn number(&self, field: &str) -> Result<f64, ModelError> {
        self.value[field]
            .as_f64()
            .ok_or_else(|| self.missing(field, "a number"))
    }

    fn flag_or(&self, field: &str, default: bool) -> bool {
        self.value[field].as_bool().unwrap_or(default)
    }

    fn activation(&self, field: &str, default: Option<Activation>) -> Result<Activation, ModelError> {
        match self.value[field].as_str() {
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
            None if default.is_some() => default.ok_or_else(|| self.missing(field, "an activation")),
            _ => Err(self.missing(field, "one of silu, gelu, gelu_pytorch_tanh")),
        }
    }

    /// `rope_parameters` of newer configs, or `rope_theta` and `rope_scaling` of older ones.
    fn rope(&self) -> Result<Rope, ModelError> {
        let scaling = [&self.value["rope_parameters"], &self.value["rope_scaling"]]
            .into_iter()
            .find(|value| value.is_object())
            .cloned()
            .unwrap_or(Value::Null);
        let theta = scaling["rope_theta"]
            .as_f64()
            .or(self.value["rope_theta"].as_f64())
            .unwrap_or(10_000.0);
        let number = |field: &str| {
            scaling[field]
                .as_f64()
                .ok_or_else(|| ModelError::config(self.path, format!("rope scaling: field `{field}` must be a number")))
        };
        let kind = scaling["rope_type"]
            .as_str()
            .or(scaling["type"].as_str())
            .unwrap_or("default");
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear {
                factor: number("factor")?,
            },
            "llama3" => RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_context: number("original_max_position_embeddings")?,
            },
            other => {
                let message = format!("rope scaling `{other}` is not supported; default, linear and llama3 are");
                return Err(ModelError::config(self.path, message));
            }
        };
        Ok(Rope { theta, scaling })
    }

    /// Reads a Gemma or Llama plan.
    pub(crate) fn decoder(&self) -> Result<DecoderPlan, ModelError> {
        let model_type = self.model_type()?.to_owned();
        let gemma = match model_type.as_str() {
            "gemma" => true,
            "llama" => false,
            _ => {
                return Err(ModelError::UnknownArchitecture {
                    path: self.path.to_owned(),
                    found: model_type,
                    supported: "gemma and llama (causal language models)",
                });
            }
        };
        let (hidden, heads) = (self.size("hidden_size")?, self.size("num_attention_heads")?);
        let kv_heads = self.size_or("num_key_value_heads", heads)?;
        let head_dim = self.size_or("head_dim", hidden / heads)?;
        if heads % kv_heads != 0 || head_dim % 2 != 0 {
            let message = format!("{heads} heads of {head_dim} over {kv_heads} key/value heads do not divide");
            return Err(ModelError::config(self.path, message));
        }
        // Gemma's `hidden_act` says "gelu" in old configs and means the tanh form all the same.
        let activation = if gemma {
            Activation::GeluTanh
        } else {
            self.activation("hidden_act", None)?
        };
        Ok(DecoderPlan {
            vocabulary: self.size("vocab_size")?,
            hidden,
            intermediate: self.size("intermediate_size")?,
            layers: self.size("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            norm_eps: self.number("rms_norm_eps")?,
            norm_adds_one: gemma,
            activation,
            embedding_scale: gemma.then(|| (hidden as f32).sqrt()),
            rope: self.rope()?,
            tied: self.flag_or("tie_word_embeddings", gemma),
            attention_bias: self.flag_or("attention_bias", false),
            mlp_bias: self.flag_or("mlp_bias", false),
            max_positions: self.size_or("max_position_embeddings", 8192)?,
            model_type,
        })
    }

    /// Reads a BERT plan.
    pub(crate) fn encoder(&self) -> Result<EncoderPlan, ModelError> {
        let model_type = self.model_type()?;
        if model_type != "bert" {
            return Err(ModelError::UnknownArchitecture {
                path: self.path.to_owned(),
                found: model_type.to_owned(),
                supported: "bert (text encoders)",
            });
        }
        let positions = self.value["position_embedding_type"].as_str().unwrap_or("absolute");
        if positions != "absolute" {
            let message = format!("field `position_embedding_type`: expected absolute, found {positions}");
            return Err(ModelError::config(self.path, message));
        }
        let (hidden, heads) = (self.size("hidden_size")?, self.size("num_attention_heads")?);
        if hidden % heads != 0 {
            return Err(ModelError::config(
                self.path,
                format!("{heads} heads do not divide hidden_size {hidden}"),
            ));
        }
        Ok(EncoderPlan {
            vocabulary: self.size("vocab_size")?,
            hidden,
            intermediate: self.size("intermediate_size")?,
            layers: self.size("num_hidden_layers")?,
            heads,
            max_positions: self.size("max_position_embeddings")?,
            segment_types: self.size_or("type_vocab_size", 2)?,
            norm_eps: self.value["layer_norm_eps"].as_f64().unwrap_or(1e-12),
            activation: self.activation("hidden_act", Some(Activation::Gelu))?,
        })
    }
}
