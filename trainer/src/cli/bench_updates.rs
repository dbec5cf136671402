//! `langptune bench --updates`: how long training's updates take, alone or as a rank of `langptune launch`.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use models::{Decoder, DecoderOptions, EncoderOptions, LanguageModel, LoraConfig, TrainedPart};
use models::{write_initial_decoder, write_initial_encoder};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::UsageError;
use super::bench::{BenchArgs, Scaling};
use crate::config::{Collectives, Device};
use crate::dist::{self, Communicator, Identity, Solo};
use crate::train::{self, Load, Sharing, Stage, Timed, Timing};

const WATCHDOG: Duration = Duration::from_secs(300);

/// A language model and an embedder that an update takes a moment with on any processor.
const TINY_LM: &str = r#"{"model_type": "gemma", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256}"#;
const TINY_EMBEDDER: &str = r#"{"model_type": "bert", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    "hidden_act": "gelu"}"#;

const TINY: Load = Load {
    updates: 0,
    users: 4,
    prompt_tokens: 48,
    response_tokens: 12,
    epochs: 4,
    pairs: 8,
    text_tokens: 32,
    sweep_users: 8,
    sweep_slots: 4,
    items: 64,
    item_tokens: 12,
    vocabulary: 512,
};

/// The load of the published runs on each GPU.
#[cfg(feature = "engine")]
const PUBLISHED: Load = Load {
    updates: 0,
    users: 16,
    prompt_tokens: 1024,
    response_tokens: 512,
    epochs: 4,
    pairs: 32,
    text_tokens: 512,
    sweep_users: 64,
    sweep_slots: 32,
    items: 8192,
    item_tokens: 180,
    // What all models know.
    vocabulary: 30_000,
};

/// Times `updates` updates; rank 0 prints one JSON object.
pub(super) fn run(arguments: &BenchArgs, updates: usize) -> anyhow::Result<()> {
    let sharing = Sharing {
        shard_optimizer: arguments.shard_optimizer,
        collectives: arguments.collectives.unwrap_or(Collectives::Auto),
        ..Sharing::default()
    };
    let mut comm = join(arguments, updates, sharing)?;
    let outcome = time(comm.as_mut(), arguments, updates, sharing);
    match &outcome {
        Ok(()) => comm.finish()?,
        Err(error) => comm.abort(&format!("{error:#}")),
    }
    outcome
}

fn join(arguments: &BenchArgs, updates: usize, sharing: Sharing) -> anyhow::Result<Box<dyn Communicator>> {
    let variable = |name: &str| std::env::var(name).ok();
    dist::end_with_launcher(variable);
    let identity = Identity {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: Sha256::digest(format!(
            "bench {updates} {sharing:?} {:?} {:?} {:?}",
            arguments.scaling, arguments.stages, arguments.shapes
        ))
        .into(),
        dataset: [0; 32],
    };
    let end = |error: &dist::DistError| {
        eprintln!("error: {error}");
        std::process::exit(1);
    };
    Ok(match dist::join(variable, &identity, WATCHDOG, end)? {
        Some(tcp) => train::join_devices(tcp, arguments.device, sharing)?,
        None => Box::new(Solo),
    })
}

fn time(comm: &mut dyn Communicator, arguments: &BenchArgs, updates: usize, sharing: Sharing) -> anyhow::Result<()> {
    let (shapes, timed) = match arguments.device {
        Device::Cuda(_) => on_gpu(comm, arguments, updates, sharing)?,
        Device::Cpu | Device::Wgpu(_) => through_burn(comm, arguments, updates, sharing)?,
    };
    if comm.rank() > 0 {
        return Ok(());
    }
    let line = json!({
        "ranks": comm.world(),
        "shapes": shapes,
        "device": arguments.device.to_string(),
        "sharded": sharing.shard_optimizer && comm.world() > 1,
        "collectives": if comm.has_device() { "nccl" } else { "tcp" },
        "weak": timed.weak,
        "strong": timed.strong,
        "description": comm.description(),
    });
    super::print(&format!("{line}\n"))
}

/// What was asked for, as far as it differs.
#[derive(Default)]
struct Found {
    weak: Option<Timed>,
    strong: Option<Timed>,
}

/// Times weak scaling, then strong, of the same models.
fn scaled(
    mut timing: Timing<'_>,
    arguments: &BenchArgs,
    (load, world): (Load, usize),
    memory: &dyn Fn() -> u64,
) -> anyhow::Result<Found> {
    let stages = match &arguments.stages[..] {
        [] => Stage::value_variants(),
        stages => stages,
    };
    let wanted = |scaling| arguments.scaling.is_empty() || arguments.scaling.contains(&scaling);
    let mut found = Found::default();
    // Alone both are the same.
    if wanted(Scaling::Weak) || world == 1 {
        found.weak = Some(timing.time(load, stages, memory)?);
    }
    if wanted(Scaling::Strong) && world > 1 {
        found.strong = Some(timing.time(load.dealt(world)?, stages, memory)?);
    }
    Ok(found)
}

type Outcome = (&'static str, Found);

fn through_burn(
    comm: &mut dyn Communicator,
    arguments: &BenchArgs,
    updates: usize,
    sharing: Sharing,
) -> anyhow::Result<Outcome> {
    if arguments.shapes.is_some() {
        return Err(UsageError::new("--shapes: only --device cuda has these; others time tiny models").into());
    }
    let device = train::device(train::own_device(arguments.device, comm.local_rank()))?;
    let folder = tempfile::tempdir()?;
    let write = |name: &str, config: &str, write: &dyn Fn(&Path) -> Result<(), models::ModelError>| {
        let folder = folder.path().join(name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        std::fs::write(folder.join("config.json"), config)?;
        write(&folder)?;
        anyhow::Ok(folder)
    };
    let lm = write("lm", TINY_LM, &|folder| write_initial_decoder(folder, 1, 0.02))?;
    let embedder = write("embedder", TINY_EMBEDDER, &|folder| {
        write_initial_encoder(folder, 2, 0.02)
    })?;
    let targets = LoraConfig::ALL_TARGETS.iter().map(|&name| name.to_owned()).collect();
    let options = DecoderOptions {
        device: device.clone(),
        part: TrainedPart::Lora(LoraConfig {
            rank: 8,
            alpha: 16.0,
            targets,
        }),
        seed: 3,
    };
    let mut lm: Box<dyn LanguageModel> = Box::new(Decoder::load(&lm, &options)?);
    let options = EncoderOptions {
        device,
        pooling: None,
        train: true,
    };
    let mut embedder = models::Bert::load(&embedder, &options)?;
    let load = Load { updates, ..TINY };
    let memory = || train::peak_memory().unwrap_or(0);
    let world = comm.world();
    let timing = Timing::new(comm, lm.as_mut(), &mut embedder, sharing)?;
    Ok(("tiny", scaled(timing, arguments, (load, world), &memory)?))
}

#[cfg(feature = "engine")]
fn on_gpu(
    comm: &mut dyn Communicator,
    arguments: &BenchArgs,
    updates: usize,
    sharing: Sharing,
) -> anyhow::Result<Outcome> {
    use models::cuda::{
        CudaDecoder, CudaDecoderOptions, CudaEncoder, CudaEncoderOptions, Element, Shapes, embedder_plan,
    };

    use super::bench::LmShapes;
    let shapes = match arguments.shapes {
        None | Some(LmShapes::Gemma2b) => Shapes::Gemma2b,
        Some(LmShapes::Llama8b) => Shapes::Llama8b,
    };
    let gpu = train::gpu(train::own_device(arguments.device, comm.local_rank()))?;
    let options = CudaDecoderOptions {
        gpu: gpu.clone(),
        element: Element::Bf16,
        part: shapes.part(),
        seed: 3,
    };
    let mut lm = CudaDecoder::random(shapes.plan(), &options)?;
    let options = CudaEncoderOptions {
        gpu: gpu.clone(),
        element: Element::Bf16,
        pooling: None,
        train: true,
    };
    let mut embedder = CudaEncoder::random(embedder_plan(), &options)?;
    let load = Load { updates, ..PUBLISHED };
    let memory = || gpu.memory().map_or(0, |(free, all)| (all - free) as u64);
    let world = comm.world();
    let timing = Timing::new(comm, &mut lm, &mut embedder, sharing)?;
    Ok((shapes.name(), scaled(timing, arguments, (load, world), &memory)?))
}

#[cfg(not(feature = "engine"))]
fn on_gpu(_: &mut dyn Communicator, _: &BenchArgs, _: usize, _: Sharing) -> anyhow::Result<Outcome> {
    anyhow::bail!(
        "this langptune was built without CUDA; build it with `cargo build --release --package trainer --features engine`"
    )
}
