//! `langptune export`: models of a run as other programs load them.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use models::{DecoderOptions, Dtype, EncoderOptions, Merged};
use serde::Serialize;

use super::UsageError;
use crate::config::{Device, Profiles, TrainConfig};
use crate::data::UnfinishedFolder;
use crate::evaluation::{CheckpointChoice, checkpoint_folder};
use crate::hub::resolve_model;
use crate::train;

const EXAMPLES: &str = "\
Examples:
  langptune export --run runs/gemma --checkpoint best --output exported
  langptune export --lm runs/gemma/checkpoints/update-000100/lm --dtype bf16 --output merged

A run gives OUTPUT/lm and OUTPUT/embedder, --lm gives a model in OUTPUT itself.";

/// Write trained models as whole models that transformers loads.
///
/// An adapter is merged into its base model. Where it changes the head of a model whose head is its embedding, the two are
/// untied: the head gets weights of its own, and the embedding stays as it was.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// Folder of a training run.
    #[arg(long, value_name = "RUN", conflicts_with = "lm", required_unless_present = "lm")]
    run: Option<PathBuf>,
    /// The run's checkpoint: last, best, or a name such as update-000100.
    #[arg(long, value_name = "NAME", requires = "run", default_value = "last")]
    checkpoint: CheckpointChoice,
    /// A language model alone: an adapter's or a model's folder, or a hub id.
    #[arg(long, value_name = "DIR")]
    lm: Option<String>,
    /// Folder to write; it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// How parameters are stored. They are trained in f32; the others round them, by which small changes are lost.
    #[arg(long, value_enum, default_value_t = Stored::F32)]
    dtype: Stored,
    /// Replace an earlier export in --output.
    #[arg(long)]
    overwrite: bool,
}

/// Element types of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stored {
    /// Exact.
    F32,
    /// Half the size, 8 bits of precision.
    Bf16,
    /// Half the size, 11 bits of precision, values up to 65,504.
    F16,
}

impl Stored {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::Bf16,
            Self::F16 => Dtype::F16,
        }
    }
}

/// The file that tells where an export is from; `--overwrite` replaces no folder without it.
const ORIGIN_FILE: &str = "langptune_export.json";

/// Content of [`ORIGIN_FILE`].
#[derive(Debug, Serialize)]
struct Origin {
    generator: &'static str,
    from: PathBuf,
    adapters_merged: usize,
    head_untied: bool,
}

/// Writes the models.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let dtype = args.dtype.dtype();
    let output = UnfinishedFolder::begin(&args.output, args.overwrite, ORIGIN_FILE)?;
    let (from, merged) = match (&args.lm, &args.run) {
        (Some(lm), _) => {
            let folder = resolve_model(lm, None)?;
            let merged = export_lm(&folder, output.path(), dtype)?;
            (folder, merged)
        }
        (None, Some(run)) => {
            let checkpoint = checkpoint_folder(run, &args.checkpoint)?;
            let merged = export_run(run, &checkpoint, output.path(), dtype)?;
            (checkpoint, merged)
        }
        (None, None) => return Err(UsageError::new("give --run or --lm").into()),
    };
    let origin = Origin {
        generator: concat!("langptune ", env!("CARGO_PKG_VERSION")),
        from,
        adapters_merged: merged.adapters,
        head_untied: merged.untied,
    };
    models::write_atomically(&output.path().join(ORIGIN_FILE), |out| {
        serde_json::to_writer_pretty(&mut *out, &origin)?;
        out.write_all(b"\n")
    })?;
    output.publish()?;
    super::print(&format!("{}\n", args.output.display()))
}

fn export_run(run: &Path, checkpoint: &Path, output: &Path, dtype: Dtype) -> anyhow::Result<Merged> {
    let config = TrainConfig::load(&run.join(TrainConfig::FILE_NAME))?;
    let merged = match config.run.profiles {
        Profiles::Generated => export_lm(&checkpoint.join("lm"), &output.join("lm"), dtype)?,
        Profiles::None => Merged {
            adapters: 0,
            untied: false,
        },
    };
    let options = EncoderOptions {
        device: train::device(Device::Cpu)?,
        pooling: None,
        train: false,
    };
    let (bert, _) = train::open_encoder(&checkpoint.join("embedder"), &options)?;
    bert.save_as(&output.join("embedder"), dtype)?;
    Ok(merged)
}

fn export_lm(folder: &Path, output: &Path, dtype: Dtype) -> anyhow::Result<Merged> {
    let options = DecoderOptions::inference(train::device(Device::Cpu)?);
    let (decoder, _) = train::open_decoder(folder, &options)?;
    let merged = decoder.save_merged(output, dtype)?;
    let done = match merged.adapters {
        0 => "the language model as it was: it has no adapter".to_owned(),
        count => format!("adapters of {count} layers merged"),
    };
    eprintln!("{}: {done}", folder.display());
    if merged.untied {
        eprintln!(
            "note: the head had an adapter and shared its weights with the embedding; it has weights of its own now \
             (tie_word_embeddings is false)"
        );
    }
    Ok(merged)
}
