//! Inference on the host: products, attention and elementwise functions on slices, for the sampler and the encoder.
//! Every output is summed in one order, whatever else is in its batch.

mod attention;
mod elementwise;
mod matrix;
mod panels;

pub(crate) use attention::{Heads, KeyValues, attend_token};
pub(crate) use elementwise::{activate, add, gated, layer_norm, ln, log_sum_exp, rms_norm};
pub use matrix::products;
pub(crate) use matrix::{Matrix, Projection};

/// Whether the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Runs `f` compiled for AVX2 where the processor has it: loops inside are vectorised wider.
#[inline(always)]
pub(crate) fn vectorised<T>(f: impl FnOnce() -> T) -> T {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        unsafe fn wide<T>(f: impl FnOnce() -> T) -> T {
            f()
        }
        if has_avx2() {
            // SAFETY: the processor has AVX2.
            return unsafe { wide(f) };
        }
    }
    f()
}

/// Values as bytes, for tests of bit equality.
#[cfg(test)]
pub(crate) fn bits(values: &[f32]) -> &[u32] {
    bytemuck::cast_slice(values)
}
