//! The decoder on a card as training knows a language model.

use std::path::Path;

use super::decoder::{CudaDecoder, CudaPass, CudaTrunk};
use crate::decoder::{ADAPTER_PREFIX, check_vocabulary, decoder_specs, write_adapter};
use crate::files::{CheckpointReader, Dtype, NamedTensor, write_parameters};
use crate::folder::{copy_companions, create, write_config};
use crate::language_model::{TrackedScores, Trunk};
use crate::sample::{Draws, Prompt, Response};
use crate::{Kept, LanguageModel, ModelError, PackedBatch, Pass, Policy, Scores, Trainable, TrainedPart};

impl LanguageModel for CudaDecoder {
    fn sample(&mut self, prompts: &[Prompt<'_>], draws: &Draws) -> Result<Vec<Response>, ModelError> {
        self.sample_responses(prompts, draws)
    }

    fn trunk(&self, batch: &PackedBatch) -> Result<Trunk, ModelError> {
        Ok(Trunk(Kept::new(CudaDecoder::trunk(self, batch)?)))
    }

    fn score(
        &self,
        batch: &PackedBatch,
        trunk: &Trunk,
        policy: Policy,
        temperature: f64,
    ) -> Result<Scores, ModelError> {
        if batch.scored.is_empty() {
            return Ok(Scores::default());
        }
        CudaDecoder::score(self, batch, trunk.0.get::<CudaTrunk>()?, policy, temperature)
    }

    fn score_tracked(
        &mut self,
        batch: &PackedBatch,
        trunk: &Trunk,
        temperature: f64,
    ) -> Result<TrackedScores, ModelError> {
        if batch.scored.is_empty() {
            return Err(ModelError::Input(
                "a batch without response tokens has no loss".to_owned(),
            ));
        }
        let pass = CudaDecoder::score_tracked(self, batch, trunk.0.get::<CudaTrunk>()?, temperature)?;
        Ok(TrackedScores {
            scores: pass.scores.clone(),
            pass: Pass(Kept::new(pass)),
        })
    }

    fn backward(&mut self, tracked: TrackedScores, slopes: &[f32]) -> Result<(), ModelError> {
        let pass: CudaPass = tracked.pass.0.take()?;
        CudaDecoder::backward(self, pass, slopes)
    }

    fn tokens_that_fit(&self, recomputing: bool) -> Result<Option<usize>, ModelError> {
        CudaDecoder::tokens_that_fit(self, recomputing).map(Some)
    }

    fn recompute_above(&mut self, tokens: usize) {
        CudaDecoder::recompute_above(self, tokens);
    }

    fn max_positions(&self) -> usize {
        self.plan.max_positions
    }

    fn trainable(&mut self) -> &mut dyn Trainable {
        &mut self.parameters
    }

    fn save(&self, folder: &Path) -> Result<(), ModelError> {
        if let TrainedPart::Lora(config) = self.part() {
            let tensors = self.parameters.trained().iter().enumerate().map(|(index, spec)| {
                Ok(NamedTensor {
                    name: format!("{ADAPTER_PREFIX}{}", spec.name),
                    shape: spec.shape.clone(),
                    data: self.parameters.values(index)?,
                })
            });
            let tensors = tensors.collect::<Result<Vec<_>, ModelError>>()?;
            return write_adapter(folder, self.source(), config, tensors);
        }
        // What is not trained is as it was loaded.
        let reader = CheckpointReader::open(self.source())?;
        let specs = decoder_specs(&self.plan);
        create(folder)?;
        write_parameters(folder, &specs, Dtype::F32, |place| {
            let spec = &specs[place];
            match self
                .parameters
                .trained()
                .iter()
                .position(|trained| trained.name == spec.name)
            {
                Some(index) => self.parameters.values(index),
                None => Ok(reader.read(&spec.name, &spec.shape)?.0),
            }
        })?;
        copy_companions(self.source(), folder)?;
        write_config(self.source(), folder, Dtype::F32, &[])
    }
}

impl CudaDecoder {
    /// Refuses a tokenizer whose ids the embedding does not cover.
    ///
    /// # Errors
    /// [`ModelError::TokenizerTooLarge`].
    pub fn check_tokenizer(&self, vocabulary_size: usize) -> Result<(), ModelError> {
        check_vocabulary(self.source(), vocabulary_size, self.plan.vocabulary)
    }
}
