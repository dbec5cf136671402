//! Saving where a run stands, and going on from there.

use std::path::Path;
use std::sync::Arc;

use eval_core::report::Manifest;
use models::{
    CheckpointReader, Dtype, NamedTensor, Trainable, gradient_state, restore_gradients, restore_optimizer,
    restore_parameters, write_safetensors,
};

use super::{EmbedderState, LmState, PhaseProfiles, Trainer, shard};
use crate::TrainError;
use crate::checkpoint::{self, STATE_FOLDER, State, read_cbor, read_json, write_cbor, write_json};

const LM: &str = "lm";
const EMBEDDER: &str = "embedder";
const GRADIENTS: &str = "embedder-gradients.safetensors";
const PROFILES: &str = "profiles.json";
const REPORT: &str = "report.cbor";
/// PEFT's prefix of a parameter's name.
const ADAPTER_PREFIX: &str = "base_model.model.";

impl Trainer {
    /// Saves unless nothing has been done since the last checkpoint.
    pub(super) fn save_if_new(&mut self) -> Result<(), TrainError> {
        match self.last_checkpoint {
            Some((next_update, _)) if next_update == self.next_update => Ok(()),
            _ => self.save_checkpoint(),
        }
    }

    /// Saves the run as it stands before the coming update; then drops what is not kept any longer.
    pub(super) fn save_checkpoint(&mut self) -> Result<(), TrainError> {
        let run = self.config.run.output.clone();
        if self.pending > 0 {
            shard::collect_gradients(self.comm.as_mut(), self.embedder.model.trainable())?;
        }
        let comm = self.comm.as_mut();
        let mut optimizers = Optimizers::default();
        if let Some(lm) = &mut self.lm {
            optimizers.lm = shard::optimizer_state(comm, lm.model.trainable(), lm.sharded)?;
        }
        let embedder = &mut self.embedder;
        optimizers.embedder = shard::optimizer_state(comm, embedder.model.trainable(), embedder.sharded)?;
        if !self.is_root() {
            let path = run
                .join(checkpoint::FOLDER)
                .join(checkpoint::name(self.next_update - 1));
            self.last_checkpoint = Some((self.next_update, path));
            return Ok(());
        }
        let state = State {
            version: State::VERSION,
            next_update: self.next_update,
            position: self.position,
            evaluated: self.evaluated,
            finished: self.finished,
            pending: self.pending,
            embedder_batches: self.embedder.order.taken(),
            lm_batches: self.lm.as_ref().map_or(0, |lm| lm.order.taken()),
            micro_batch_tokens: self.lm.as_ref().and_then(|lm| lm.fitting),
            logs: match &self.logger {
                Some(logger) => logger.position()?,
                None => Default::default(),
            },
            trace: self.trace.as_ref().map(|trace| trace.position()).transpose()?,
        };
        let path = checkpoint::write(&run, self.next_update - 1, |folder| {
            self.fill_checkpoint(folder, &state, optimizers)
        })?;
        self.last_checkpoint = Some((self.next_update, path));
        let kept = &self.config.checkpoint;
        let mut best = Default::default();
        if let Some(report) = &mut self.report {
            report.sweep()?;
            best = report.best_names(kept.keep_best);
        }
        checkpoint::prune(&run, (kept.keep_last > 0).then_some(kept.keep_last), &best)
    }

    fn fill_checkpoint(&mut self, folder: &Path, state: &State, optimizers: Optimizers) -> Result<(), TrainError> {
        let own = folder.join(STATE_FOLDER);
        if let Some(lm) = &mut self.lm {
            lm.model.save(&folder.join(LM))?;
            write_safetensors(&optimizer_file(&own, LM), optimizers.lm, Dtype::F32)?;
        }
        let embedder = &mut self.embedder;
        embedder.model.save(&folder.join(EMBEDDER))?;
        write_safetensors(&optimizer_file(&own, EMBEDDER), optimizers.embedder, Dtype::F32)?;
        if self.pending > 0 {
            let gradients = gradient_state(embedder.model.trainable())?;
            write_safetensors(&own.join(GRADIENTS), gradients, Dtype::F32)?;
        }
        if let Some(profiles) = &self.profiles {
            write_json(&own.join(PROFILES), &**profiles)?;
        }
        if let Some(report) = &self.report {
            write_cbor(&own.join(REPORT), report.manifest())?;
        }
        state.write(&own)
    }
}

/// The optimizers' whole states.
#[derive(Default)]
struct Optimizers {
    lm: Vec<NamedTensor>,
    embedder: Vec<NamedTensor>,
}

/// What a checkpoint says beside the models.
pub(super) struct Resumed {
    pub(super) state: State,
    pub(super) profiles: Option<Arc<PhaseProfiles>>,
    pub(super) report: Manifest,
}

/// Brings models, optimizers and orders to where `path` was saved.
pub(super) fn restore(
    path: &Path,
    lm: Option<&mut LmState>,
    embedder: &mut EmbedderState,
) -> Result<Resumed, TrainError> {
    let state = State::read(path)?;
    let own = path.join(STATE_FOLDER);
    if let Some(lm) = lm {
        let (reader, prefix) = open_model(&path.join(LM))?;
        restore_parameters(lm.model.trainable(), &reader, prefix)?;
        read_optimizer(&own, LM, lm.model.trainable())?;
        lm.order.go_to(state.lm_batches);
        lm.fitting = state.micro_batch_tokens;
    }
    let (reader, prefix) = open_model(&path.join(EMBEDDER))?;
    restore_parameters(embedder.model.trainable(), &reader, prefix)?;
    read_optimizer(&own, EMBEDDER, embedder.model.trainable())?;
    embedder.order.go_to(state.embedder_batches);
    if state.pending > 0 {
        let gradients = CheckpointReader::open_file(&own.join(GRADIENTS))?;
        restore_gradients(embedder.model.trainable(), &gradients)?;
    }
    let profiles = own.join(PROFILES);
    Ok(Resumed {
        profiles: if profiles.is_file() {
            Some(Arc::new(read_json(&profiles)?))
        } else {
            None
        },
        report: read_cbor(&own.join(REPORT))?,
        state,
    })
}

/// The parameters that training changed, and what stands before their names.
fn open_model(folder: &Path) -> Result<(CheckpointReader, &'static str), TrainError> {
    let adapter = folder.join("adapter_model.safetensors");
    Ok(if adapter.is_file() {
        (CheckpointReader::open_file(&adapter)?, ADAPTER_PREFIX)
    } else {
        (CheckpointReader::open(folder)?, "")
    })
}

fn optimizer_file(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join(format!("{name}-optimizer.safetensors"))
}

fn read_optimizer(folder: &Path, name: &str, model: &mut dyn Trainable) -> Result<(), TrainError> {
    let state = CheckpointReader::open_file(&optimizer_file(folder, name))?;
    Ok(restore_optimizer(model, &state)?)
}
