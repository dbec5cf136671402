//! The choices that a configuration names, as they are written in flags and in TOML.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A published setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// gemma-2b-it with LoRA.
    Gemma,
    /// Meta-Llama-3-8B-Instruct, last 4 layers.
    Llama,
}

impl Preset {
    /// The name in flags and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemma => "gemma",
            Self::Llama => "llama",
        }
    }
}

/// Where models compute: `cpu`, `cuda`, `cuda:N`, `wgpu` or `wgpu:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU, by its number among those that the process sees; without one each process of a host takes its own. Needs a
    /// build with the feature `engine`.
    Cuda(Option<u16>),
    /// Any GPU through Vulkan, Metal or DirectX 12, in f32, by its number in the list of `langptune doctor`; without one each process
    /// of a host takes its own. Needs a build with the feature `wgpu`.
    Wgpu(Option<u16>),
}

impl Device {
    /// What models compute in here, where `asked` says nothing else: bf16, through wgpu f32.
    ///
    /// # Errors
    /// When the device does not compute in what was asked for.
    pub fn precision(self, asked: Option<Precision>) -> Result<Precision, String> {
        match (self, asked) {
            (Self::Wgpu(_), Some(Precision::Bf16)) => Err(format!(
                "--precision bf16: --device {self} computes in f32; leave --precision out, or give f32"
            )),
            (Self::Wgpu(_), _) => Ok(Precision::F32),
            (Self::Cpu | Self::Cuda(_), asked) => Ok(asked.unwrap_or(Precision::Bf16)),
        }
    }

    /// The number of the GPU of the process with this number on its host, of `visible` GPUs. One that sees a single GPU was given
    /// it by whoever started it.
    pub fn ordinal(self, local_rank: usize, visible: usize) -> usize {
        match self {
            Self::Cuda(Some(number)) | Self::Wgpu(Some(number)) => usize::from(number),
            _ if visible == 1 => 0,
            _ => local_rank,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => out.write_str("cpu"),
            Self::Cuda(None) => out.write_str("cuda"),
            Self::Cuda(Some(number)) => write!(out, "cuda:{number}"),
            Self::Wgpu(None) => out.write_str("wgpu"),
            Self::Wgpu(Some(number)) => write!(out, "wgpu:{number}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number.parse::<u16>().ok())),
            None => (text, None),
        };
        match (name, number) {
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", None) => Ok(Self::Cuda(None)),
            ("wgpu", None) => Ok(Self::Wgpu(None)),
            ("cuda", Some(Some(number))) => Ok(Self::Cuda(Some(number))),
            ("wgpu", Some(Some(number))) => Ok(Self::Wgpu(Some(number))),
            _ => Err(format!(
                "expected cpu, cuda, cuda:N, wgpu or wgpu:N (N counts GPUs from 0), found `{text}`"
            )),
        }
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Device> for String {
    fn from(device: Device) -> Self {
        device.to_string()
    }
}

/// How many users' rollouts go through the language model together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MicroBatch {
    /// On an NVIDIA GPU as many as its memory takes, elsewhere `per_device_train_batch_size`.
    Auto,
    /// So many, at least one.
    Users(usize),
}

impl fmt::Display for MicroBatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => out.write_str("auto"),
            Self::Users(users) => write!(out, "{users}"),
        }
    }
}

impl FromStr for MicroBatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(users)) if users > 0 => Ok(Self::Users(users)),
            _ => Err(format!("expected auto or a number of users from 1, found `{text}`")),
        }
    }
}

impl TryFrom<String> for MicroBatch {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MicroBatch> for String {
    fn from(size: MicroBatch) -> Self {
        size.to_string()
    }
}

/// Whether the language model's blocks run again on the way back, where what they were to keep would not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// In passes for which a GPU has not the memory otherwise.
    Auto,
    /// In none.
    Never,
    /// In all.
    Always,
}

impl Recompute {
    /// Passes of more tokens than this recompute, `fitting` being those for which there is memory without; `None`: not counted.
    pub fn above(self, fitting: Option<usize>) -> usize {
        match self {
            Self::Auto => fitting.unwrap_or(usize::MAX),
            Self::Never => usize::MAX,
            Self::Always => 0,
        }
    }
}

/// What models compute in, what trained parameters are kept in, what gradients travel in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// bfloat16.
    Bf16,
    /// Single precision.
    F32,
}

impl Precision {
    /// The name in flags and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

/// What carries gradients between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Collectives {
    /// NCCL between GPUs, TCP between processors.
    Auto,
    /// NCCL.
    Nccl,
    /// TCP, through rank 0.
    Tcp,
}

/// What the embedder reads about a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Profiles {
    /// The profile that the language model writes.
    Generated,
    /// The raw history: the embedder phase alone is trained (a baseline).
    None,
}

/// The form in which a prompt was rendered by `langptune prepare`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PromptTemplate {
    /// Gemma's turn markers, without a newline at the end.
    Gemma,
    /// The model's own chat template.
    Chat,
}

/// How token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The first token's vector.
    Cls,
    /// The mean over the tokens.
    Mean,
}

/// The ranking metric that is the reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RewardType {
    /// NDCG over the whole catalogue.
    Ndcg,
    /// Reciprocal ranks summed over the targets.
    Mrr,
}

/// Whether the loss is the mean or the sum over pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LossReduction {
    /// Mean over pairs.
    Mean,
    /// Sum over pairs.
    Sum,
}

/// An optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerAlgorithm {
    /// Adam, weight decay added to the gradient (Kingma & Ba, 2015).
    Adam,
    /// Adam with decoupled weight decay (Loshchilov & Hutter, 2019).
    Adamw,
}

/// What is trained in the language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Trainable {
    /// Low-rank adapters on the named linear layers; the model itself is frozen.
    Lora(LoraConfig),
    /// The last blocks, the final norm and an untied head; the rest is frozen.
    #[serde(rename = "last-n")]
    LastLayers {
        /// Number of blocks that train, counted from the top; default 4.
        num_layers_unfrozen: usize,
    },
    /// Every weight.
    Full,
}

/// The name of a [`Trainable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TrainableKind {
    /// Low-rank adapters.
    Lora,
    /// The last layers.
    LastN,
    /// Every weight.
    Full,
}

impl TrainableKind {
    /// The name in flags and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "lora",
            Self::LastN => "last-n",
            Self::Full => "full",
        }
    }
}

/// Low-rank adapters: y = Wx + (α/r)·B·A·x (Hu et al., 2022).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Rank r; default 1024.
    pub lora_rank: usize,
    /// Numerator α of the scale α/r; default twice the rank.
    pub lora_alpha: f64,
    /// Share of the adapter's input that is dropped; 0, the published setting, is the only one there is.
    pub lora_dropout: f64,
    /// The linear layers that get an adapter, by the last part of their name; default all seven of a block and `lm_head`.
    pub lora_targets: Vec<String>,
}

impl LoraConfig {
    /// The factor α/r of the adapter's product.
    pub fn scale(&self) -> f64 {
        self.lora_alpha / self.lora_rank as f64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in ["cpu", "cuda", "cuda:0", "cuda:13", "wgpu", "wgpu:0", "wgpu:2"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        for text in [
            "gpu",
            "cuda:",
            "cuda:-1",
            "cuda:x",
            "CUDA",
            "wgpu:",
            "wgpu:99999",
            "cpu:0",
        ] {
            let error = text.parse::<Device>().unwrap_err();
            assert!(
                error.contains("expected cpu, cuda, cuda:N") && error.contains(text),
                "{error}"
            );
        }
    }

    #[test]
    fn passes_recompute_where_they_would_not_fit_or_as_they_are_told() {
        let above = |text: &str, fitting| Recompute::from_str(text, false).unwrap().above(fitting);
        assert_eq!(above("auto", Some(4096)), 4096);
        // Where no memory is counted, nothing is known to be too long.
        assert_eq!(above("auto", None), usize::MAX);
        assert_eq!(above("never", Some(4096)), usize::MAX);
        assert_eq!(above("always", Some(4096)), 0);
    }

    #[test]
    fn only_bf16_through_wgpu_is_refused() {
        let wgpu = Device::Wgpu(Some(1));
        for asked in [None, Some(Precision::F32)] {
            assert_eq!(wgpu.precision(asked), Ok(Precision::F32));
            assert_eq!(Device::Cpu.precision(asked), Ok(asked.unwrap_or(Precision::Bf16)));
        }
        let error = wgpu.precision(Some(Precision::Bf16)).unwrap_err();
        assert!(error.contains("--device wgpu:1 computes in f32"), "{error}");
        assert_eq!(Device::Cuda(None).precision(Some(Precision::Bf16)), Ok(Precision::Bf16));
    }

    #[test]
    fn each_process_of_a_host_has_a_gpu_of_its_own() {
        assert_eq!(Device::Cuda(None).ordinal(3, 8), 3);
        // The one that it was given.
        assert_eq!(Device::Cuda(None).ordinal(3, 1), 0);
        assert_eq!(Device::Cuda(Some(5)).ordinal(3, 8), 5);
    }
}
