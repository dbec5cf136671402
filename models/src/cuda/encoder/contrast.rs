//! The contrastive loss on the card, as [`crate::contrastive_loss`] has it on the host.

use crate::cuda::gpu::{Buffer, Element, Gpu};
use crate::cuda::kernels::{CONTRAST, CONTRAST_BACKWARD, UNIT_ROWS};
use crate::cuda::launch::Argument;
use crate::{Contrasted, ModelError};

/// Shorter vectors are treated as this long, as `torch.nn.functional.normalize` does.
const LEAST_LENGTH: f32 = 1e-12;

/// A loss whose slopes are being found.
pub(in crate::cuda) struct Loss {
    pairs: usize,
    /// Of each profile: `[pairs]`.
    losses: Buffer,
    /// `[pairs, pairs]`.
    cosines: Buffer,
    /// Of 1/`parts` of the mean loss in the vectors, `[2 · pairs, width]`.
    slopes: Buffer,
}

impl Loss {
    /// Of `vectors`, f32 `[2 · pairs, width]`: profiles, and then their targets.
    pub(in crate::cuda) fn new(
        gpu: &Gpu,
        vectors: &Buffer,
        width: usize,
        temperature: f64,
        parts: usize,
    ) -> Result<Self, ModelError> {
        let rows = vectors.count(Element::F32) / width;
        let pairs = rows / 2;
        let room = |count: usize| gpu.elements(count, Element::F32);
        let (units, lengths) = (room(rows * width)?, room(rows)?);
        let [losses, cosines, in_cosines] = [room(pairs)?, room(pairs * pairs)?, room(pairs * pairs)?];
        let slopes = room(rows * width)?;
        let launch = |kernel, blocks: usize, arguments: &[Argument]| {
            // SAFETY: all have the rows and columns that are said, as above.
            unsafe { gpu.launch(kernel, Element::F32, [blocks as u32, 1, 1], 256, 0, arguments) }
        };
        let arguments = [
            (&units).into(),
            (&lengths).into(),
            vectors.into(),
            width.into(),
            LEAST_LENGTH.into(),
        ];
        launch(UNIT_ROWS, rows, &arguments)?;
        let share = 1.0 / (temperature * pairs as f64 * parts as f64);
        let arguments = [
            (&cosines).into(),
            (&in_cosines).into(),
            (&losses).into(),
            (&units).into(),
            pairs.into(),
            width.into(),
            ((1.0 / temperature) as f32).into(),
            (share as f32).into(),
        ];
        launch(CONTRAST, pairs, &arguments)?;
        let arguments = [
            (&slopes).into(),
            (&in_cosines).into(),
            (&units).into(),
            (&lengths).into(),
            pairs.into(),
            width.into(),
        ];
        launch(CONTRAST_BACKWARD, rows, &arguments)?;
        Ok(Self {
            pairs,
            losses,
            cosines,
            slopes,
        })
    }

    pub(in crate::cuda) fn slopes(&self) -> &Buffer {
        &self.slopes
    }

    /// Waits for it.
    pub(in crate::cuda) fn read(&self) -> Result<Contrasted, ModelError> {
        let losses: Vec<f32> = self.losses.read(0, self.pairs)?;
        Ok(Contrasted {
            loss: losses.into_iter().map(f64::from).sum::<f64>() / self.pairs as f64,
            similarities: self.cosines.read(0, self.pairs * self.pairs)?,
        })
    }
}
