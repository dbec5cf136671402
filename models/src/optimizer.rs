//! AdamW (Loshchilov & Hutter, 2019), as PyTorch computes it.

use burn::tensor::Tensor;

use crate::ModelError;
use crate::files::{CheckpointReader, NamedTensor};
use crate::trainable::{Trainable, named};
use crate::weights::matrix;

/// Settings of the optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamConfig {
    /// The rate.
    pub lr: f64,
    /// Decay of the first and second moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of the parameters a step, times the rate.
    pub weight_decay: f64,
    /// AdamW shrinks parameters apart from the gradient; Adam adds the decay to it.
    pub decoupled: bool,
}

/// Moments of one parameter.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Tensor<2>,
    /// Running mean of its square.
    pub second: Tensor<2>,
    /// Steps that this parameter has seen.
    pub steps: u32,
}

/// An optimizer and its state; the state follows [`Trainable::trained`].
#[derive(Debug)]
pub struct Adam {
    /// The settings.
    pub config: AdamConfig,
    moments: Vec<Option<Moments>>,
}

impl Adam {
    /// A fresh optimizer.
    pub fn new(config: AdamConfig) -> Self {
        Self {
            config,
            moments: Vec::new(),
        }
    }

    /// Moves the parameters along the summed gradients times `scale` and clears the sums. A parameter without a gradient
    /// stays as it is, like PyTorch's with `grad` None.
    pub fn step(&mut self, model: &mut dyn Trainable, scale: f64) {
        let ids = model.trained().to_vec();
        self.moments.resize(ids.len(), None);
        for ((gradient, moments), id) in model.take_gradients().into_iter().zip(&mut self.moments).zip(ids) {
            if let Some(gradient) = gradient {
                let gradient = if scale == 1.0 {
                    gradient.value
                } else {
                    gradient.value.mul_scalar(scale)
                };
                let value = update(self.config, model.parameters().get(id), gradient, moments);
                model.set_parameter(id, value);
            }
        }
    }

    /// The state, in the order of [`Trainable::trained`].
    pub fn moments(&self) -> &[Option<Moments>] {
        &self.moments
    }

    /// The state as tensors, to be written beside a checkpoint: `NAME.first`, `NAME.second` and `NAME.steps` for every
    /// parameter that has been moved.
    ///
    /// # Errors
    /// When a tensor cannot be read back from its device.
    pub fn state(&self, model: &dyn Trainable) -> Result<Vec<NamedTensor>, ModelError> {
        let mut tensors = Vec::new();
        for (moments, &id) in self.moments.iter().zip(model.trained()) {
            let Some(moments) = moments else { continue };
            let name = &model.parameters().spec(id).name;
            tensors.push(named(format!("{name}.first"), moments.first.clone())?);
            tensors.push(named(format!("{name}.second"), moments.second.clone())?);
            tensors.push(NamedTensor {
                name: format!("{name}.steps"),
                shape: vec![1],
                // Exact up to 2²⁴ steps.
                data: vec![moments.steps as f32],
            });
        }
        Ok(tensors)
    }

    /// Takes up the state that [`Adam::state`] gave.
    ///
    /// # Errors
    /// When a tensor has not the shape of its parameter.
    pub fn restore(&mut self, model: &dyn Trainable, state: &CheckpointReader) -> Result<(), ModelError> {
        self.moments.clear();
        for &id in model.trained() {
            let name = &model.parameters().spec(id).name;
            if !state.contains(&format!("{name}.steps")) {
                self.moments.push(None);
                continue;
            }
            let value = model.parameters().get(id);
            let [rows, columns] = value.dims();
            let read = |part: &str| {
                let (data, _) = state.read(&format!("{name}.{part}"), &[rows, columns])?;
                Ok::<_, ModelError>(matrix(data, rows, columns, &value.device()))
            };
            let (steps, _) = state.read(&format!("{name}.steps"), &[1])?;
            self.moments.push(Some(Moments {
                first: read("first")?,
                second: read("second")?,
                steps: steps[0] as u32,
            }));
        }
        Ok(())
    }
}

fn update(config: AdamConfig, value: Tensor<2>, gradient: Tensor<2>, moments: &mut Option<Moments>) -> Tensor<2> {
    let AdamConfig {
        lr,
        betas: (beta1, beta2),
        eps,
        weight_decay,
        decoupled,
    } = config;
    let (value, gradient) = if decoupled {
        (value.mul_scalar(1.0 - lr * weight_decay), gradient)
    } else if weight_decay != 0.0 {
        (value.clone(), gradient + value.mul_scalar(weight_decay))
    } else {
        (value, gradient)
    };
    let before = moments.take().unwrap_or_else(|| Moments {
        first: gradient.zeros_like(),
        second: gradient.zeros_like(),
        steps: 0,
    });
    let first = before.first.mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
    let second = before.second.mul_scalar(beta2) + gradient.square().mul_scalar(1.0 - beta2);
    let steps = before.steps + 1;
    let correction = |beta: f64| 1.0 - beta.powi(steps as i32);
    let denominator = second
        .clone()
        .sqrt()
        .div_scalar(correction(beta2).sqrt())
        .add_scalar(eps);
    let value = value - (first.clone() / denominator).mul_scalar(lr / correction(beta1));
    *moments = Some(Moments { first, second, steps });
    value
}
