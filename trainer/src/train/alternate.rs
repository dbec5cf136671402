//! The whole run: phases in turn, then a last evaluation.

use std::fs;

use super::Trainer;
use crate::TrainError;

impl Trainer {
    /// Trains to the end. Returns the folder of the last checkpoint.
    pub fn run(&mut self) -> Result<std::path::PathBuf, TrainError> {
        for iteration in 1..=self.config.schedule.num_iterations {
            eprintln!("iteration {iteration} of {}", self.config.schedule.num_iterations);
            self.embedder_phase()?;
            if self.lm.is_some() && !self.stopped() {
                self.lm_phase()?;
            }
            if self.stopped() {
                eprintln!("stopped after {} updates, as asked", self.next_update - 1);
                break;
            }
        }
        self.evaluate_now("end")?;
        self.save_final()?;
        let last = self.last_checkpoint.clone();
        Ok(last.unwrap_or_else(|| self.config.run.output.clone()))
    }

    /// The name of a checkpoint before the coming update: the updates done.
    pub(super) fn checkpoint_name(&self) -> String {
        format!("update-{:06}", self.next_update - 1)
    }

    /// Saves both models before the coming update, under a temporary name until whole.
    pub(super) fn save_checkpoint(&mut self) -> Result<(), TrainError> {
        let folder = self.config.run.output.join("checkpoints");
        let name = self.checkpoint_name();
        let (temporary, path) = (folder.join(format!(".{name}.tmp")), folder.join(&name));
        let io = |source| TrainError::io(&temporary, source);
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(io)?;
        }
        fs::create_dir_all(&temporary).map_err(io)?;
        if let Some(lm) = &self.lm {
            lm.model.save(&temporary.join("lm"))?;
        }
        self.embedder.model.save(&temporary.join("embedder"))?;
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|source| TrainError::io(&path, source))?;
        }
        fs::rename(&temporary, &path).map_err(|source| TrainError::io(&path, source))?;
        self.last_checkpoint = Some(path);
        Ok(())
    }

    /// Writes the last models where the published flags `output_dir_lm` and `output_dir_emb` ask for them.
    fn save_final(&self) -> Result<(), TrainError> {
        if let (Some(folder), Some(lm)) = (&self.config.lm.output_dir, &self.lm) {
            lm.model.save(folder)?;
        }
        if let Some(folder) = &self.config.embedder.output_dir {
            self.embedder.model.save(folder)?;
        }
        Ok(())
    }
}
