//! The decoder on a card as training knows a language model.

use std::any::Any;
use std::ops::Range;
use std::path::Path;

use super::decoder::{CudaDecoder, CudaPass, CudaTrunk};
use super::gpu::Element;
use super::nccl::Nccl;
use super::optimize::{step_over, step_part};
use crate::decoder::{ADAPTER_PREFIX, check_vocabulary, decoder_specs, write_adapter};
use crate::files::{CheckpointReader, Dtype, NamedTensor, write_parameters};
use crate::folder::{copy_companions, create, write_config};
use crate::language_model::{TrackedScores, Trunk};
use crate::sample::{Draws, Prompt, Response};
use crate::trainable::cut_to_parts;
use crate::weights::ParameterSpec;
use crate::{
    AdamConfig, Gradient, Kept, LanguageModel, ModelError, Moments, PackedBatch, Pass, Policy, Scores, Trainable,
    TrainedPart,
};

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

    fn max_positions(&self) -> usize {
        self.plan.max_positions
    }

    fn trainable(&mut self) -> &mut dyn Trainable {
        self
    }

    fn save(&self, folder: &Path) -> Result<(), ModelError> {
        if let TrainedPart::Lora(config) = self.part() {
            let tensors = self.trained().iter().enumerate().map(|(index, spec)| {
                Ok(NamedTensor {
                    name: format!("{ADAPTER_PREFIX}{}", spec.name),
                    shape: spec.shape.clone(),
                    data: CudaDecoder::values(self, index)?,
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
            match self.trained().iter().position(|trained| trained.name == spec.name) {
                Some(index) => CudaDecoder::values(self, index),
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

impl Trainable for CudaDecoder {
    fn trained(&self) -> &[ParameterSpec] {
        CudaDecoder::trained(self)
    }

    fn scalars(&self) -> usize {
        let base: usize = decoder_specs(&self.plan).iter().map(ParameterSpec::scalars).sum();
        match self.part() {
            TrainedPart::Lora(_) => base + self.trained().iter().map(ParameterSpec::scalars).sum::<usize>(),
            _ => base,
        }
    }

    fn values(&self, index: usize) -> Result<Vec<f32>, ModelError> {
        CudaDecoder::values(self, index)
    }

    fn set_values(&mut self, index: usize, values: Vec<f32>) -> Result<(), ModelError> {
        CudaDecoder::set_values(self, index, &values)
    }

    fn gradient(&self, index: usize) -> Result<Option<Gradient>, ModelError> {
        let value = CudaDecoder::gradient(self, index)?;
        Ok(value.map(|value| Gradient { value, rest: None }))
    }

    fn set_gradient(&mut self, index: usize, gradient: Option<Gradient>) -> Result<(), ModelError> {
        let trained = &mut self.trained[index];
        trained.reached = gradient.is_some();
        if let Some(Gradient { mut value, rest }) = gradient {
            if let Some(rest) = rest {
                value.iter_mut().zip(rest).for_each(|(value, rest)| *value += rest);
            }
            trained.gradient.write(0, &value)?;
        }
        Ok(())
    }

    fn step(&mut self, config: &AdamConfig, scale: f64) -> Result<(), ModelError> {
        CudaDecoder::step(self, config, scale)
    }

    fn moments(&self, index: usize) -> Result<Option<Moments>, ModelError> {
        let trained = &self.trained[index];
        let Some([first, second]) = &trained.moments else {
            return Ok(None);
        };
        let count = trained.part().len();
        Ok(Some(Moments {
            first: first.read(0, count)?,
            second: second.read(0, count)?,
            steps: trained.steps,
        }))
    }

    fn set_moments(&mut self, index: usize, moments: Option<Moments>) -> Result<(), ModelError> {
        let gpu = self.gpu.clone();
        let trained = &mut self.trained[index];
        let Some(Moments { first, second, steps }) = moments else {
            trained.moments = None;
            trained.steps = 0;
            return Ok(());
        };
        let count = trained.part().len();
        if first.len() != count || second.len() != count {
            let message = format!("{}: moments of {} values for {count}", trained.spec.name, first.len());
            return Err(ModelError::Input(message));
        }
        let buffers = [gpu.elements(count, Element::F32)?, gpu.elements(count, Element::F32)?];
        buffers[0].write(0, &first)?;
        buffers[1].write(0, &second)?;
        trained.moments = Some(buffers);
        trained.steps = steps;
        Ok(())
    }

    fn has_gradient(&self, index: usize) -> Result<bool, ModelError> {
        Ok(self.trained[index].reached)
    }

    fn part(&self, index: usize) -> Range<usize> {
        self.trained[index].part()
    }

    fn keep_parts(&mut self, parts: &[Range<usize>]) -> Result<bool, ModelError> {
        cut_to_parts(self, parts, |decoder, parts| {
            let trained = decoder.trained.iter_mut().zip(parts);
            trained.for_each(|(trained, part)| trained.kept = Some(part.clone()));
        })?;
        Ok(true)
    }

    fn step_part(
        &mut self,
        index: usize,
        gradient: Vec<f32>,
        config: &AdamConfig,
        scale: f64,
    ) -> Result<(), ModelError> {
        let gpu = self.gpu.clone();
        step_part(&gpu, self.element, &mut self.trained[index], &gradient, config, scale)?;
        self.changed();
        Ok(())
    }

    fn device_memory(&self) -> Result<Option<u64>, ModelError> {
        let (free, all) = self.gpu.memory()?;
        Ok(Some((all - free) as u64))
    }

    fn steps_over_devices(&self) -> bool {
        true
    }

    fn step_over(
        &mut self,
        link: &mut dyn Any,
        reached: &[bool],
        config: &AdamConfig,
        scale: f64,
    ) -> Result<(), ModelError> {
        let nccl = link
            .downcast_mut::<Nccl>()
            .ok_or_else(|| ModelError::Input("a GPU's collectives are NCCL's".to_owned()))?;
        let gpu = self.gpu.clone();
        step_over(&gpu, self.element, &mut self.trained, nccl, reached, config, scale)?;
        self.changed();
        Ok(())
    }
}
