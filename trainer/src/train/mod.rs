//! Alternating training: the embedder on profiles, then the language model on the ranking that its profiles yield.

mod alternate;
pub mod deal;
mod devices;
mod embedder;
mod evaluate;
mod identity;
mod lm;
pub mod loss;
pub mod order;
mod pace;
mod resume;
mod setup;
mod shard;
mod share;
mod small_updates;
mod timing;
mod timing_sweeps;
mod trace;

use std::path::PathBuf;
use std::sync::Arc;

use eval_core::retrieval::Query;
use models::text::Tokenizer;
use models::{AdamConfig, Encoder, LanguageModel};

use crate::TrainError;
use crate::checkpoint::{Position, RunLock};
use crate::config::TrainConfig;
use crate::data::{Dataset, User};
use crate::dist::Communicator;
use crate::log::Logger;
use crate::report::ReportWriter;
use crate::rollout::{Profile, Request, RolloutOptions, Tokenizers, write_profiles};
use deal::Deal;
#[cfg(feature = "wgpu")]
pub use devices::adapter;
#[cfg(feature = "engine")]
pub(crate) use devices::element;
#[cfg(feature = "engine")]
pub use devices::gpu;
pub(crate) use devices::own_device;
pub use devices::{Sharing, device, join_devices};
pub(crate) use evaluate::reference_rows;
pub use identity::identity;
use order::EpochOrder;
use pace::Pace;
pub(crate) use pace::peak_memory;
pub(crate) use setup::{check_items, check_prompts};
pub use setup::{end_tokens, open_any_encoder, open_decoder, open_encoder, open_language_model, pooling};
pub use small_updates::{LogprobsAfter, SlopedRollouts, read_sloped_rollouts, small_updates};
pub use timing::{Load, PUBLISHED_ADAM, Part, Stage, Timed, Timing};
use trace::Trace;

/// A run: models, data, optimizers and logs.
#[derive(Debug)]
pub struct Trainer {
    config: TrainConfig,
    dataset: Dataset,
    /// `None` where the embedder is trained on raw histories.
    lm: Option<LmState>,
    embedder: EmbedderState,
    rollout: RolloutOptions,
    /// What connects this process to the others that train the same models.
    comm: Box<dyn Communicator>,
    pace: Pace,
    /// Rank 0 alone writes: `None` elsewhere.
    logger: Option<Logger>,
    trace: Option<Trace>,
    report: Option<ReportWriter>,
    /// The global update that comes next, from 1, through both phases and all iterations.
    next_update: u64,
    /// Where the schedule stands.
    position: Position,
    /// Whether the evaluation that is due before the next update has been made.
    evaluated: bool,
    /// Embedder batches since its last optimizer step.
    pending: usize,
    /// Within an embedder phase: what it trains and is evaluated on.
    profiles: Option<Arc<PhaseProfiles>>,
    /// Updates after which the run ends early.
    stop_after: Option<u64>,
    /// The last checkpoint, and the update that came next when it was written.
    last_checkpoint: Option<(u64, PathBuf)>,
    /// Whether the run has come to its end.
    finished: bool,
    _lock: Option<RunLock>,
}

/// The files and folders that a run writes into its folder.
pub const OUTPUTS: [&str; 6] = [
    "checkpoints",
    "config.toml",
    "events",
    "metrics.jsonl",
    "report",
    "samples",
];

/// What a run begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From the models as configured, in place of an earlier run in the folder.
    Afresh,
    /// From the last checkpoint in the run's folder; afresh where there is none yet.
    Resume,
}

/// Why a run ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The schedule is over.
    Finished,
    /// It had the updates it was asked for.
    Stopped,
    /// A signal asked for it.
    Interrupted,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub end: End,
    /// The last checkpoint.
    pub checkpoint: Option<PathBuf>,
}

/// Profiles that the language model wrote when an embedder phase began.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
struct PhaseProfiles {
    /// One of each train user.
    train: Vec<Profile>,
    /// One of each val user; none where nothing is evaluated.
    val: Vec<Profile>,
}

/// The language model and what trains it.
#[derive(Debug)]
struct LmState {
    model: Box<dyn LanguageModel>,
    tokenizer: Tokenizer,
    optimizer: AdamConfig,
    order: EpochOrder,
    /// Whether each rank keeps a part of the optimizer's moments.
    sharded: bool,
    /// Tokens that go through the model together, once a GPU's memory has decided it.
    fitting: Option<u64>,
    /// Whether this process has told the model which passes recompute.
    settled: bool,
}

/// The embedder and what trains it.
#[derive(Debug)]
struct EmbedderState {
    model: Box<dyn Encoder>,
    tokenizer: Tokenizer,
    optimizer: AdamConfig,
    order: EpochOrder,
    /// Whether each rank keeps a part of the optimizer's moments.
    sharded: bool,
}

/// One of the dataset's three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// To train on.
    Train,
    /// To watch.
    Val,
    /// Sealed until the end.
    Test,
}

impl Split {
    /// Its users.
    pub fn users(self, dataset: &Dataset) -> &[User] {
        match self {
            Self::Train => &dataset.train,
            Self::Val => &dataset.val,
            Self::Test => &dataset.test,
        }
    }

    /// The number of its first user when train, val and test are counted through: draws are keyed by it.
    pub fn first_user(self, dataset: &Dataset) -> u32 {
        let before = match self {
            Self::Train => 0,
            Self::Val => dataset.train.len(),
            Self::Test => dataset.train.len() + dataset.val.len(),
        };
        before as u32
    }
}

impl Trainer {
    /// Samples `samples` profiles for each user of `split` at global update `update`, user by user; each rank its part, dealt out
    /// by the length of prompts.
    fn profiles_of(&mut self, split: Split, samples: u32, update: u64) -> Result<Vec<Profile>, TrainError> {
        let first = split.first_user(&self.dataset);
        let users = split.users(&self.dataset);
        let requests: Vec<Request<'_>> = users
            .iter()
            .zip(first..)
            .flat_map(|(user, number)| requests(user, number, samples))
            .collect();
        match &mut self.lm {
            Some(lm) => {
                let tokenizers = Tokenizers {
                    lm: &lm.tokenizer,
                    embedder: &self.embedder.tokenizer,
                };
                let comm = self.comm.as_mut();
                let lengths: Vec<usize> = requests.iter().map(|request| request.prompt.len()).collect();
                let deal = Deal::by_length(&lengths, comm.world());
                let own = deal.own(&requests, comm.rank());
                let own = write_profiles(lm.model.as_mut(), tokenizers, &self.rollout, &own, update as u32);
                share::gather(comm, &deal, own)
            }
            None => raw_histories(users, &self.dataset, &self.embedder.tokenizer, &self.rollout),
        }
    }

    /// Whether the run has had the updates it was asked for.
    fn stopped(&self) -> bool {
        self.stop_after.is_some_and(|updates| self.next_update > updates)
    }

    /// Counts an update as done.
    fn advance(&mut self) {
        self.next_update += 1;
        self.position.done += 1;
        self.evaluated = false;
    }

    /// An error where the run is to end before the coming update, which [`Trainer::run`] turns into an orderly end.
    /// Where any rank is to end, all do.
    fn go_on(&mut self) -> Result<(), TrainError> {
        let end = self.stopped() || crate::interrupt::requested();
        if share::any(self.comm.as_mut(), end)? {
            return Err(TrainError::Interrupted);
        }
        Ok(())
    }

    /// Whether this process is the one that writes.
    fn is_root(&self) -> bool {
        self.comm.rank() == 0
    }

    /// Logs values at the coming update.
    fn log(&mut self, values: &[(&str, f64)]) -> Result<(), TrainError> {
        if let Some(logger) = &mut self.logger {
            logger.scalars(self.next_update, values)?;
        }
        Ok(())
    }
}

/// The embedder's tokens of the items, whole: [`check_items`] has refused what the embedder does not take.
pub(crate) fn item_texts(dataset: &Dataset) -> Vec<&[u32]> {
    dataset.items.iter().map(|item| item.tokens.as_slice()).collect()
}

/// `samples` requests for one user.
pub(crate) fn requests(user: &User, number: u32, samples: u32) -> impl Iterator<Item = Request<'_>> {
    (0..samples).map(move |sample| Request {
        prompt: &user.prompt_tokens,
        user: number,
        sample,
    })
}

/// What a user's ranking leaves out and looks for.
pub(crate) fn query(user: &User) -> Query<'_> {
    Query {
        masked: &user.history,
        targets: &user.targets,
    }
}

/// The baseline without a language model: the history itself, instruction left out, its last tokens where it is long.
pub(crate) fn raw_histories(
    users: &[User],
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    rollout: &RolloutOptions,
) -> Result<Vec<Profile>, TrainError> {
    let limit = rollout.response_length.min(rollout.embedder_limit);
    let instruction = &dataset.manifest.rules.instruction;
    users
        .iter()
        .map(|user| {
            let history = user
                .prompt
                .strip_prefix(instruction.as_str())
                .unwrap_or(&user.prompt)
                .trim_start();
            let text = format!("{}{history}", rollout.query_prefix);
            let tokens = tokenizer.encode_limited_to_end(&text, limit)?;
            let response = models::Response {
                tokens: Vec::new(),
                logprobs: Vec::new(),
                ended: true,
            };
            Ok(Profile { response, text, tokens })
        })
        .collect()
}
