//! AdamW (Loshchilov & Hutter, 2019), as PyTorch computes it.

use burn::tensor::Tensor;

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

/// Moments of one parameter, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: Vec<f32>,
    /// Running mean of its square.
    pub second: Vec<f32>,
    /// Steps that this parameter has seen.
    pub steps: u32,
}

/// [`Moments`] as tensors.
#[derive(Debug, Clone)]
pub(crate) struct TensorMoments {
    pub(crate) first: Tensor<2>,
    pub(crate) second: Tensor<2>,
    pub(crate) steps: u32,
}

/// A parameter's next value; `moments` move on.
pub(crate) fn update(
    config: AdamConfig,
    value: Tensor<2>,
    gradient: Tensor<2>,
    moments: &mut Option<TensorMoments>,
) -> Tensor<2> {
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
    let before = moments.take().unwrap_or_else(|| TensorMoments {
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
    *moments = Some(TensorMoments { first, second, steps });
    value
}
