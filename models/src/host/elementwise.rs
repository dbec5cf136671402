//! Functions of single numbers and of rows, written so that they vectorise.

use rayon::prelude::*;

use super::vectorised;
use crate::plan::Activation;

const LANES: usize = 8;
/// Numbers that one task handles.
const TASK: usize = 1 << 14;

/// eˣ to 2 units in the last place, without branches (Cephes' expf); 0 below −87.3.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to a whole number
    let clamped = x.clamp(-87.3, 88.0);
    let n = (clamped * std::f32::consts::LOG2_E + MAGIC) - MAGIC;
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + coefficient;
    }
    let power = f32::from_bits(((n as i32 + 127) << 23) as u32);
    let value = (p * r * r + r + 1.0) * power;
    if x < -87.3 { 0.0 } else { value }
}

/// ln x of a positive normal number to 2 units in the last place, without branches (Cephes' logf).
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    let bits = x.to_bits() as i32;
    // The mantissa within [√½, √2) and the exponent that goes with it.
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = (shifted >> 23) as f32;
    let mantissa = f32::from_bits((bits - (shifted & !0x7f_ffff)) as u32);
    let m = mantissa - 1.0;
    let mut p = 7.037_683_6e-2;
    for coefficient in [
        -0.115_146_1,
        0.116_769_99,
        -0.124_201_41,
        0.142_493_23,
        -0.166_680_57,
        0.200_007_15,
        -0.249_999_94,
        0.333_333_3,
    ] {
        p = p * m + coefficient;
    }
    let square = m * m;
    let value = p * m * square + exponent * -2.121_944_4e-4 - 0.5 * square;
    (m + value) + exponent * 0.693_359_4
}

/// The error function to 4e-7, without branches: a rational minimax approximation on [−3.83, 3.83], beyond which it is ±1
/// in `f32`. Its coefficients are those that XLA uses.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-3.832_507, 3.832_507);
    let square = x * x;
    let mut p = -2.726_142_3e-10;
    for coefficient in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_3e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        p = p * square + coefficient;
    }
    let mut q = -1.456_607_2e-5;
    for coefficient in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2] {
        q = q * square + coefficient;
    }
    x * p / q
}

/// x · Φ(x) (Hendrycks & Gimpel, 2016).
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The tanh form of GELU (Hendrycks & Gimpel, 2016).
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    // tanh(y) = 1 − 2 / (e²ʸ + 1)
    0.5 * x * (2.0 - 2.0 / (exp(2.0 * inner) + 1.0))
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The sum of `f` over eight interleaved lanes, then their tree.
#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut s = [0.0f32; LANES];
    for chunk in whole {
        for (sum, &value) in s.iter_mut().zip(chunk) {
            *sum += f(value);
        }
    }
    let rest: f32 = rest.iter().map(|&value| f(value)).sum();
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])) + rest
}

/// Softmax of `scale · values` in place, for a positive `scale`.
pub(crate) fn softmax(values: &mut [f32], scale: f32) {
    vectorised(|| {
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for value in values.iter_mut() {
            *value = exp((*value - most) * scale);
        }
        let factor = 1.0 / sum(values, |value| value);
        for value in values.iter_mut() {
            *value *= factor;
        }
    });
}

/// ln Σ eˣ, stably.
pub(crate) fn log_sum_exp(values: &[f32]) -> f32 {
    vectorised(|| {
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        most + sum(values, |value| exp(value - most)).ln()
    })
}

/// Root-mean-square norm of every row (Zhang & Sennrich, 2019).
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut Vec<f32>) {
    out.resize(x.len(), 0.0);
    let width = weight.len();
    vectorised(|| {
        for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let factor = 1.0 / (sum(row, |value| value * value) / width as f32 + eps).sqrt();
            for ((out, value), weight) in out.iter_mut().zip(row).zip(weight) {
                *out = value * factor * weight;
            }
        }
    });
}

/// Layer norm of every row, in place (Ba et al., 2016).
pub(crate) fn layer_norm(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let width = weight.len();
    vectorised(|| {
        for row in x.chunks_exact_mut(width) {
            let mean = sum(row, |value| value) / width as f32;
            let variance = sum(row, |value| (value - mean) * (value - mean)) / width as f32;
            let factor = 1.0 / (variance + eps).sqrt();
            for ((value, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                *value = (*value - mean) * factor * weight + bias;
            }
        }
    });
}

/// `x += delta`.
pub(crate) fn add(x: &mut [f32], delta: &[f32]) {
    vectorised(|| x.iter_mut().zip(delta).for_each(|(x, delta)| *x += delta));
}

/// Adds `bias` to every row.
pub(crate) fn add_bias(x: &mut [f32], bias: &[f32]) {
    vectorised(|| {
        for row in x.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    });
}

/// The non-linearity in place, on this thread.
pub(crate) fn activate(kind: Activation, x: &mut [f32]) {
    vectorised(|| match kind {
        Activation::Silu => x.iter_mut().for_each(|x| *x = silu(*x)),
        Activation::Gelu => x.iter_mut().for_each(|x| *x = gelu(*x)),
        Activation::GeluTanh => x.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
    });
}

/// `gate = activation(gate) · up`, on all threads.
pub(crate) fn gated(kind: Activation, gate: &mut [f32], up: &[f32]) {
    gate.par_chunks_mut(TASK)
        .zip(up.par_chunks(TASK))
        .for_each(|(gate, up)| {
            activate(kind, gate);
            vectorised(|| gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up));
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its Taylor series in `f64`: good to 1e-9 up to 4.
    fn exact_erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn exp_and_ln_are_close_to_the_exact_ones() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let relative = (f64::from(exp(x)) / exact - 1.0).abs();
            assert!(relative < 3e-7, "exp {x}: {} {exact}", exp(x));
            let y = exact as f32;
            if y.is_normal() {
                let exact = f64::from(y).ln();
                let error = (f64::from(ln(y)) - exact).abs();
                assert!(error <= 3e-7 * exact.abs().max(1.0), "ln {y}: {} {exact}", ln(y));
            }
        }
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn activations_are_close_to_the_exact_ones() {
        for i in -6000..6000 {
            let x = i as f32 / 1000.0;
            let wide = f64::from(x);
            let beyond = (wide / std::f64::consts::SQRT_2).clamp(-4.0, 4.0);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            for (kind, exact) in [
                (Activation::Gelu, 0.5 * wide * (1.0 + exact_erf(beyond))),
                (Activation::GeluTanh, 0.5 * wide * (1.0 + inner.tanh())),
                (Activation::Silu, wide / (1.0 + (-wide).exp())),
            ] {
                let mut value = [x];
                activate(kind, &mut value);
                let error = (f64::from(value[0]) - exact).abs();
                assert!(error < 4e-7 * wide.abs().max(1.0), "{kind:?} {x}: {} {exact}", value[0]);
            }
        }
    }

    #[test]
    fn norms_and_softmax_follow_their_formulas() {
        let x: Vec<f32> = (0..26).map(|i| ((i * i) % 17) as f32 - 5.0).collect();
        let (weight, bias): (Vec<f32>, Vec<f32>) = (0..13).map(|i| (1.0 + i as f32 / 9.0, i as f32 / 7.0)).unzip();
        let mut layer = x.clone();
        layer_norm(&mut layer, &weight, &bias, 1e-5);
        let mut root = Vec::new();
        rms_norm(&x, &weight, 1e-5, &mut root);
        let mut share = x.clone();
        share.chunks_exact_mut(13).for_each(|row| softmax(row, 0.5));
        for (row, x) in x.chunks_exact(13).enumerate() {
            let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
            let mean = wide.iter().sum::<f64>() / 13.0;
            let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 13.0;
            let square = wide.iter().map(|x| x * x).sum::<f64>() / 13.0;
            let total: f64 = wide.iter().map(|x| (0.5 * x).exp()).sum();
            assert!((f64::from(log_sum_exp(x)) - wide.iter().map(|x| x.exp()).sum::<f64>().ln()).abs() < 1e-6);
            for (i, x) in wide.iter().enumerate() {
                let at = row * 13 + i;
                let (w, b) = (f64::from(weight[i]), f64::from(bias[i]));
                assert!((f64::from(layer[at]) - ((x - mean) / (variance + 1e-5).sqrt() * w + b)).abs() < 1e-6);
                assert!((f64::from(root[at]) - x / (square + 1e-5).sqrt() * w).abs() < 1e-6);
                assert!((f64::from(share[at]) - (0.5 * x).exp() / total).abs() < 1e-6);
            }
        }
    }
}
