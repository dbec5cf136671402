//! The whole run: phases in turn, then a last evaluation.

use super::{End, Outcome, Trainer};
use crate::TrainError;
use crate::checkpoint::Phase;

impl Trainer {
    /// Trains to the end, or to where it is asked to end; then a checkpoint holds everything that was done.
    ///
    /// # Errors
    /// When something fails; what the last checkpoint holds is safe.
    pub fn run(&mut self) -> Result<Outcome, TrainError> {
        let ended = self.run_to_an_end().and_then(|outcome| {
            self.comm.finish()?;
            Ok(outcome)
        });
        if let Err(error) = &ended {
            self.comm.abort(&error.to_string());
        }
        ended
    }

    fn run_to_an_end(&mut self) -> Result<Outcome, TrainError> {
        if self.finished {
            eprintln!("the run has come to its end already");
            return Ok(self.outcome(End::Finished));
        }
        match self.train() {
            Ok(()) => Ok(self.outcome(End::Finished)),
            Err(TrainError::Interrupted) => {
                self.save_if_new()?;
                let end = if self.stopped() { End::Stopped } else { End::Interrupted };
                Ok(self.outcome(end))
            }
            Err(error) => Err(error),
        }
    }

    fn outcome(&self, end: End) -> Outcome {
        Outcome {
            end,
            checkpoint: self.last_checkpoint.as_ref().map(|(_, path)| path.clone()),
        }
    }

    fn train(&mut self) -> Result<(), TrainError> {
        let iterations = self.config.schedule.num_iterations;
        while self.position.iteration < iterations {
            if self.position.phase == Phase::Embedder {
                if self.is_root() {
                    eprintln!("iteration {} of {iterations}", self.position.iteration + 1);
                }
                self.embedder_phase()?;
                self.position.phase = Phase::Lm;
                self.position.done = 0;
            }
            if self.lm.is_some() {
                self.lm_phase()?;
            }
            self.position.phase = Phase::Embedder;
            self.position.done = 0;
            self.position.iteration += 1;
        }
        self.finished = true;
        let evaluated = self.evaluate_now("end");
        self.finished = evaluated.is_ok();
        evaluated?;
        self.save_final()
    }

    /// Writes the last models where the published flags `output_dir_lm` and `output_dir_emb` ask for them.
    fn save_final(&self) -> Result<(), TrainError> {
        if !self.is_root() {
            return Ok(());
        }
        if let (Some(folder), Some(lm)) = (&self.config.lm.output_dir, &self.lm) {
            lm.model.save(folder)?;
        }
        if let Some(folder) = &self.config.embedder.output_dir {
            self.embedder.model.save(folder)?;
        }
        Ok(())
    }
}
