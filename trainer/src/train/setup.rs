//! From a configuration to a run that is ready to go.

use std::fs;
use std::path::{Path, PathBuf};

use eval_core::report::{Manifest, Model};
use models::text::Tokenizer;
use models::{
    AdamConfig, Bert, Decoder, DecoderOptions, Encoder, EncoderOptions, LanguageModel, LoraConfig, TrainedPart,
};

use super::devices::{Sharing, device, own_device};
#[cfg(feature = "engine")]
use super::devices::{element, gpu};
use super::order::EpochOrder;
use super::pace::Pace;
use super::resume;
use super::trace::Trace;
use super::{EmbedderState, LmState, Start, Trainer};
use super::{shard, share};
use crate::TrainError;
use crate::checkpoint::{self, Position, RunLock, State};
use crate::config::{
    Device, OptimizerAlgorithm, OptimizerConfig, Pooling, Precision, Profiles, PromptTemplate, TrainConfig, Trainable,
};
use crate::data::{Dataset, DatasetSource, TemplateForm};
use crate::dist::{Communicator, Solo};
use crate::hub::resolve_model;
use crate::log::Logger;
use crate::report::{ReportWriter, describe_model};
use crate::rollout::RolloutOptions;

/// Streams of the orders of one seed.
const EMBEDDER_ORDER: u32 = 1;
const LM_ORDER: u32 = 2;

impl Trainer {
    /// Opens the dataset, loads both models and starts the run's folder with its resolved configuration. The run ends early
    /// after `stop_after` updates.
    ///
    /// # Errors
    /// When data, models and settings do not go together, or a file cannot be read or written; nothing is written before
    /// everything that can be refused has been checked.
    pub fn new(config: TrainConfig, start: Start, stop_after: Option<u64>) -> Result<Self, TrainError> {
        Self::join(config, start, stop_after, Box::new(Solo), Sharing::default())
    }

    /// [`Trainer::new`] as one of the processes that `comm` connects, which train the same models on users of their own. Rank 0
    /// decides what the run begins with, and writes; the others read from the run's folder what they go on with.
    ///
    /// # Errors
    /// Those of [`Trainer::new`], and when another process fails.
    pub fn join(
        config: TrainConfig,
        start: Start,
        stop_after: Option<u64>,
        mut comm: Box<dyn Communicator>,
        sharing: Sharing,
    ) -> Result<Self, TrainError> {
        let made = Self::set_up(config, start, stop_after, &mut comm, sharing);
        if let Err(error) = &made {
            comm.abort(&error.to_string());
        }
        made
    }

    fn set_up(
        config: TrainConfig,
        start: Start,
        stop_after: Option<u64>,
        comm: &mut Box<dyn Communicator>,
        sharing: Sharing,
    ) -> Result<Self, TrainError> {
        let place = [comm.rank(), comm.world()];
        let root = comm.rank() == 0;
        let dataset = DatasetSource::of_config(&config).open()?;
        check_template(&config, &dataset)?;
        check_top(&config, &dataset)?;
        share::check(&config, comm.world(), dataset.train.len())?;
        share::same_dataset(comm.as_mut(), &dataset)?;
        let own = own_device(config.run.device, comm.local_rank());
        let device = device(own)?;
        let mut embedder = load_embedder(&config, own, &device, dataset.train.len(), place)?;
        let mut lm = match config.run.profiles {
            Profiles::Generated => Some(load_lm(&config, own, &device, dataset.train.len(), place)?),
            Profiles::None => None,
        };
        check_items(&dataset, &embedder.tokenizer, embedder.model.max_tokens())?;
        if let Some(lm) = &lm {
            check_prompts(&dataset, lm.model.as_ref(), &lm.tokenizer, config.rl.response_length)?;
        }
        let rollout = RolloutOptions {
            seed: config.run.seed,
            temperature: config.rl.temperature,
            response_length: config.rl.response_length,
            end_tokens: match &lm {
                Some(lm) => end_tokens(&lm.tokenizer, &config.lm.extra_eos)?,
                None => Vec::new(),
            },
            slots: config.rl.rollout_batch,
            query_prefix: config.embedder.query_prefix.clone(),
            embedder_limit: embedder.model.max_tokens(),
        };
        let output = &config.run.output;
        let (mut lock, mut from) = (None, None);
        if root {
            lock = Some(RunLock::acquire(output)?);
            checkpoint::tidy(output)?;
            from = match start {
                Start::Afresh => None,
                Start::Resume => checkpoint::list(output)?.pop(),
            };
        }
        let from = share::from_root(comm.as_mut(), from)?;
        let (mut state, mut profiles, mut report) = (None, None, None);
        if let Some((updates, path)) = &from {
            if root {
                eprintln!("going on after update {updates} with {}", path.display());
            }
            let resumed = resume::restore(path, lm.as_mut(), &mut embedder)?;
            (state, profiles, report) = (Some(resumed.state), resumed.profiles, Some(resumed.report));
        }
        if !root {
            // What a checkpoint holds of them is the sum over all ranks.
            embedder.model.trainable().clear_gradients()?;
        }
        share::same_start(comm.as_mut(), lm.as_mut(), &mut embedder)?;
        if sharing.shard_optimizer {
            if let Some(lm) = &mut lm {
                lm.sharded = shard::keep_parts(comm.as_mut(), lm.model.trainable())?;
            }
            embedder.sharded = shard::keep_parts(comm.as_mut(), embedder.model.trainable())?;
        }
        if root && comm.world() > 1 {
            let mut models = vec![embedder.model.trainable()];
            models.extend(lm.as_mut().map(|lm| lm.model.trainable()));
            let kept: Vec<[usize; 2]> = models.into_iter().map(|model| shard::kept(model)).collect();
            let [kept, all] = [0, 1].map(|of| kept.iter().map(|counts| counts[of]).sum::<usize>());
            eprintln!("each process keeps the optimizer's moments of {kept} of {all} trained values");
        }
        let processes = share::descriptions(comm.as_mut())?;
        let mut written = Written::default();
        if root {
            let models = [
                describe_lm(&config, lm.as_mut())?,
                describe_embedder(&config, &mut embedder)?,
            ];
            written = match (&state, report) {
                (Some(state), Some(report)) => Written::resumed(&config, &dataset, models, state, report)?,
                _ => Written::afresh(&config, &dataset, models)?,
            };
            if let (Some(logger), Some(processes)) = (&mut written.logger, processes) {
                let step = state.as_ref().map_or(0, |state| state.next_update);
                logger.text("processes", step, &processes)?;
            }
        }
        let iterations = config.schedule.num_iterations;
        Ok(Self {
            config,
            dataset,
            lm,
            embedder,
            rollout,
            pace: Pace::start(comm.as_ref()),
            comm: std::mem::replace(comm, Box::new(Solo)),
            logger: written.logger,
            trace: written.trace,
            report: written.report,
            next_update: state.as_ref().map_or(1, |state| state.next_update),
            position: state.as_ref().map_or(Position::START, |state| state.position),
            evaluated: state.as_ref().is_some_and(|state| state.evaluated),
            pending: state.as_ref().map_or(0, |state| state.pending),
            // A run that came to its end goes on where it is given more iterations.
            finished: state
                .as_ref()
                .is_some_and(|state| state.finished && state.position.iteration >= iterations),
            profiles,
            stop_after,
            last_checkpoint: from.map(|(updates, path)| (updates + 1, path)),
            _lock: lock,
        })
    }
}

/// What a run writes, opened; nothing on any rank but 0.
#[derive(Default)]
struct Written {
    logger: Option<Logger>,
    trace: Option<Trace>,
    report: Option<ReportWriter>,
}

impl Written {
    fn afresh(config: &TrainConfig, dataset: &Dataset, models: [Model; 2]) -> Result<Self, TrainError> {
        let output = &config.run.output;
        // Everything that could be refused has been checked: an earlier run's checkpoints, which would pass for this one's,
        // may go. Logs and report are started afresh by those who write them.
        let checkpoints = output.join(checkpoint::FOLDER);
        if checkpoints.is_dir() {
            fs::remove_dir_all(&checkpoints).map_err(|source| TrainError::io(&checkpoints, source))?;
        }
        config.save(output)?;
        let mut logger = Logger::create(output)?;
        logger.text("config", 0, &format!("```toml\n{}```\n", config.to_toml()?))?;
        Ok(Self {
            logger: Some(logger),
            trace: config.run.trace.as_deref().map(Trace::create).transpose()?,
            report: Some(ReportWriter::create(output, config, dataset, models)?),
        })
    }

    /// Everything that was written after the checkpoint is cut away: it will be written again.
    fn resumed(
        config: &TrainConfig,
        dataset: &Dataset,
        models: [Model; 2],
        state: &State,
        report: Manifest,
    ) -> Result<Self, TrainError> {
        let output = &config.run.output;
        config.save(output)?;
        let last_step = state.next_update - u64::from(!state.evaluated);
        let trace = config.run.trace.as_deref();
        Ok(Self {
            logger: Some(Logger::resume(output, &state.logs, last_step)?),
            trace: trace
                .map(|path| Trace::resume(path, state.trace.unwrap_or(0)))
                .transpose()?,
            report: Some(ReportWriter::resume(output, config, dataset, models, report)?),
        })
    }
}

/// The language model as the report shows it; empty where there is none.
fn describe_lm(config: &TrainConfig, lm: Option<&mut LmState>) -> Result<Model, TrainError> {
    let Some(lm) = lm else { return Ok(Model::default()) };
    let folder = resolve(&config.lm.model, config.lm.revision.as_deref())?;
    Ok(describe_model(&config.lm.model, &folder, lm.model.trainable()))
}

fn describe_embedder(config: &TrainConfig, embedder: &mut EmbedderState) -> Result<Model, TrainError> {
    let folder = resolve(&config.embedder.model, config.embedder.revision.as_deref())?;
    Ok(describe_model(
        &config.embedder.model,
        &folder,
        embedder.model.trainable(),
    ))
}

/// The ids that end a profile: the tokenizer's EOS, and those that are named.
pub fn end_tokens(tokenizer: &Tokenizer, extra: &[String]) -> Result<Vec<u32>, TrainError> {
    let mut tokens: Vec<u32> = tokenizer.eos().into_iter().collect();
    for name in extra {
        let unknown = || TrainError::Mismatch(format!("eos: the tokenizer has no token `{name}`"));
        tokens.push(tokenizer.token_id(name).ok_or_else(unknown)?);
    }
    Ok(tokens)
}

fn load_lm(
    config: &TrainConfig,
    own: Device,
    device: &models::Device,
    users: usize,
    place: [usize; 2],
) -> Result<LmState, TrainError> {
    let folder = resolve(&config.lm.model, config.lm.revision.as_deref())?;
    let options = DecoderOptions {
        device: device.clone(),
        part: trained_part(&config.lm.trainable),
        seed: config.run.seed,
    };
    let (mut model, tokenizer) = open_language_model(&folder, &options, own, config.run.precision)?;
    keep_masters(&config.lm.optimizer, config.run.seed, model.trainable())?;
    Ok(LmState {
        model,
        tokenizer,
        optimizer: optimizer(&config.lm.optimizer),
        order: EpochOrder::new(users, config.users_per_update(), config.run.seed, LM_ORDER, place),
        sharded: false,
        fitting: None,
        settled: false,
    })
}

/// Loads a language model and its tokenizer where it is to compute: on an NVIDIA GPU by our own engine, elsewhere through burn.
///
/// # Errors
/// As [`open_decoder`]; where there is no such GPU.
pub fn open_language_model(
    folder: &Path,
    options: &DecoderOptions,
    device: Device,
    precision: Precision,
) -> Result<(Box<dyn LanguageModel>, Tokenizer), TrainError> {
    #[cfg(feature = "engine")]
    if let Device::Cuda(_) = device {
        return open_cuda_decoder(folder, options, &gpu(device)?, precision);
    }
    let _ = (device, precision);
    let (decoder, tokenizer) = open_decoder(folder, options)?;
    Ok((Box::new(decoder), tokenizer))
}

#[cfg(feature = "engine")]
fn open_cuda_decoder(
    folder: &Path,
    options: &DecoderOptions,
    gpu: &models::cuda::Gpu,
    precision: Precision,
) -> Result<(Box<dyn LanguageModel>, Tokenizer), TrainError> {
    use models::cuda::{CudaDecoder, CudaDecoderOptions};
    let adapter = folder.join("adapter_config.json").is_file();
    let base = if adapter { base_of(folder)? } else { folder.to_owned() };
    let options = CudaDecoderOptions {
        gpu: gpu.clone(),
        element: element(precision),
        part: options.part.clone(),
        seed: options.seed,
    };
    let decoder = match adapter {
        true => CudaDecoder::load_with_adapter(&base, folder, &options)?,
        false => CudaDecoder::load(&base, &options)?,
    };
    let tokenizer = open_tokenizer(folder, &base)?;
    decoder.check_tokenizer(tokenizer.vocabulary_size())?;
    Ok((Box::new(decoder), tokenizer))
}

/// The tokenizer beside an adapter, or else that of its base.
fn open_tokenizer(folder: &Path, base: &Path) -> Result<Tokenizer, TrainError> {
    let own = folder.join("tokenizer.json").is_file();
    Ok(Tokenizer::open(if own { folder } else { base })?)
}

/// Loads a decoder and its tokenizer, which must belong together. A PEFT adapter folder is put on its base model.
pub fn open_decoder(folder: &Path, options: &DecoderOptions) -> Result<(Decoder, Tokenizer), TrainError> {
    let adapter = folder.join("adapter_config.json").is_file();
    let base = if adapter { base_of(folder)? } else { folder.to_owned() };
    let mut decoder = Decoder::load(&base, options)?;
    if adapter {
        decoder.load_adapter(folder)?;
    }
    let tokenizer = open_tokenizer(folder, &base)?;
    decoder.check_tokenizer(tokenizer.vocabulary_size())?;
    Ok((decoder, tokenizer))
}

/// The model that an adapter was trained on.
fn base_of(folder: &Path) -> Result<PathBuf, TrainError> {
    let path = folder.join("adapter_config.json");
    let text = fs::read_to_string(&path).map_err(|source| TrainError::io(&path, source))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| TrainError::Mismatch(format!("{}: {error}", path.display())))?;
    let base = value["base_model_name_or_path"].as_str().ok_or_else(|| {
        let message = format!(
            "{}: field `base_model_name_or_path`: expected a folder or hub id",
            path.display()
        );
        TrainError::Mismatch(message)
    })?;
    resolve(base, None)
}

fn load_embedder(
    config: &TrainConfig,
    own: Device,
    device: &models::Device,
    users: usize,
    place: [usize; 2],
) -> Result<EmbedderState, TrainError> {
    let folder = resolve(&config.embedder.model, config.embedder.revision.as_deref())?;
    let options = EncoderOptions {
        device: device.clone(),
        pooling: config.embedder.pooling.map(pooling),
        train: true,
    };
    let (mut model, tokenizer) = open_any_encoder(&folder, &options, own, config.run.precision)?;
    keep_masters(&config.embedder.optimizer, config.run.seed, model.trainable())?;
    let batch = config.embedder.per_device_train_batch_size;
    Ok(EmbedderState {
        model,
        tokenizer,
        optimizer: optimizer(&config.embedder.optimizer),
        order: EpochOrder::new(users, batch, config.run.seed, EMBEDDER_ORDER, place),
        sharded: false,
    })
}

/// Loads an encoder and its tokenizer where it is to compute: on an NVIDIA GPU by our own engine, elsewhere through burn.
///
/// # Errors
/// As [`open_encoder`]; where there is no such GPU.
pub fn open_any_encoder(
    folder: &Path,
    options: &EncoderOptions,
    device: Device,
    precision: Precision,
) -> Result<(Box<dyn Encoder>, Tokenizer), TrainError> {
    #[cfg(feature = "engine")]
    if let Device::Cuda(_) = device {
        use models::cuda::{CudaEncoder, CudaEncoderOptions};
        let options = CudaEncoderOptions {
            gpu: gpu(device)?,
            element: element(precision),
            pooling: options.pooling,
            train: options.train,
        };
        let model = CudaEncoder::load(folder, &options)?;
        let tokenizer = Tokenizer::open(folder)?;
        model.check_tokenizer(tokenizer.vocabulary_size())?;
        return Ok((Box::new(model), tokenizer));
    }
    let _ = (device, precision);
    let (model, tokenizer) = open_encoder(folder, options)?;
    Ok((Box::new(model), tokenizer))
}

/// Loads an encoder and its tokenizer, which must belong together.
pub fn open_encoder(folder: &Path, options: &EncoderOptions) -> Result<(Bert, Tokenizer), TrainError> {
    let model = Bert::load(folder, options)?;
    let tokenizer = Tokenizer::open(folder)?;
    model.check_tokenizer(tokenizer.vocabulary_size())?;
    Ok((model, tokenizer))
}

fn resolve(model: &str, revision: Option<&str>) -> Result<PathBuf, TrainError> {
    Ok(resolve_model(model, revision)?)
}

/// The models' word for a configured pooling.
pub fn pooling(pooling: Pooling) -> models::Pooling {
    match pooling {
        Pooling::Cls => models::Pooling::Cls,
        Pooling::Mean => models::Pooling::Mean,
    }
}

fn trained_part(trainable: &Trainable) -> TrainedPart {
    match trainable {
        Trainable::Lora(config) => TrainedPart::Lora(LoraConfig {
            rank: config.lora_rank,
            alpha: config.lora_alpha,
            targets: config.lora_targets.clone(),
        }),
        Trainable::LastLayers { num_layers_unfrozen } => TrainedPart::LastLayers(*num_layers_unfrozen),
        Trainable::Full => TrainedPart::Full,
    }
}

fn optimizer(config: &OptimizerConfig) -> AdamConfig {
    AdamConfig {
        lr: config.lr,
        betas: (config.betas[0], config.betas[1]),
        eps: config.eps,
        weight_decay: config.weight_decay,
        decoupled: config.algorithm == OptimizerAlgorithm::Adamw,
    }
}

/// Keeps the parameters that are trained in what they are to be kept in. All ranks round alike: the seed is the run's.
fn keep_masters(config: &OptimizerConfig, seed: u64, model: &mut dyn models::Trainable) -> Result<(), TrainError> {
    match config.master_weights {
        Precision::F32 => Ok(()),
        Precision::Bf16 => Ok(model.keep_bf16(seed)?),
    }
}

/// The dataset's prompts must have the form that the configuration asks for.
fn check_template(config: &TrainConfig, dataset: &Dataset) -> Result<(), TrainError> {
    let Some(asked) = config.lm.template else { return Ok(()) };
    let asked = match asked {
        PromptTemplate::Gemma => "gemma",
        PromptTemplate::Chat => "chat",
    };
    let found = match dataset.manifest.rules.template {
        TemplateForm::Gemma => "gemma",
        TemplateForm::Chat => "chat",
    };
    if found != asked {
        let message = format!(
            "{}: prompts were prepared with the template {found}, the run asks for {asked}; prepare again with --template {asked} or train with --template {found}",
            config.run.dataset.display()
        );
        return Err(TrainError::Mismatch(message));
    }
    Ok(())
}

fn check_top(config: &TrainConfig, dataset: &Dataset) -> Result<(), TrainError> {
    let (top, items) = (config.evaluation.topk, dataset.items.len());
    if top > items {
        let message = format!("topk: {top} is above the catalogue's {items} items; give at most {items}");
        return Err(TrainError::Mismatch(message));
    }
    if dataset.train.is_empty() {
        let message = format!("{}: there are no train users", config.run.dataset.display());
        return Err(TrainError::Mismatch(message));
    }
    Ok(())
}

/// How many items tell whether a tokenizer is the dataset's.
const COMPARED: usize = 4;

/// The items' token ids must be those of the embedder (the first items tell), and no more than the `most` it takes.
pub(crate) fn check_items(dataset: &Dataset, tokenizer: &Tokenizer, most: usize) -> Result<(), TrainError> {
    if let Some(item) = dataset.items.iter().find(|item| item.tokens.len() > most) {
        let message = format!(
            "item {} has {} tokens, the embedder takes {most}; prepare the dataset again with --max-item-tokens {most}",
            item.id,
            item.tokens.len()
        );
        return Err(TrainError::Mismatch(message));
    }
    for item in dataset.items.iter().take(COMPARED) {
        if tokenizer.encode(&item.text, models::text::SpecialTokens::Add)? != item.tokens {
            let message = format!(
                "the dataset was prepared with another embedder tokenizer (item {} has other tokens under this one); prepare it again with --embedder of this run",
                item.id
            );
            return Err(TrainError::Mismatch(message));
        }
    }
    Ok(())
}

/// The prompts' token ids must be those of the language model (the first prompt tells), and with `response_length` new
/// tokens within its positions.
pub(crate) fn check_prompts(
    dataset: &Dataset,
    model: &dyn LanguageModel,
    tokenizer: &Tokenizer,
    response_length: usize,
) -> Result<(), TrainError> {
    let Some(user) = dataset.train.first() else {
        return Ok(());
    };
    let text = tokenizer.decode(&user.prompt_tokens)?;
    let head: String = user.prompt.chars().take(40).collect();
    if !text.contains(head.trim()) {
        let message =
            "the dataset was prepared with another language model's tokenizer; prepare it again with --lm of this run";
        return Err(TrainError::Mismatch(message.to_owned()));
    }
    let users = dataset.train.iter().chain(&dataset.val).chain(&dataset.test);
    let longest = users.map(|user| user.prompt_tokens.len()).max().unwrap_or(0);
    let most = model.max_positions();
    if longest + response_length > most {
        let message = format!(
            "the longest prompt has {longest} tokens: with {response_length} of a profile that is beyond the language model's {most} positions; prepare the dataset again with a smaller --max-prompt-tokens, or lower response_length"
        );
        return Err(TrainError::Mismatch(message));
    }
    Ok(())
}
