//! The one place that knows whether there are threads: rayon natively, none in wasm.

/// `f(0)`, …, `f(count − 1)` in this order, computed on all threads where there are any.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn map<T: Send>(count: usize, f: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    use rayon::prelude::*;
    (0..count).into_par_iter().map(f).collect()
}

/// `f(0)`, …, `f(count − 1)` in this order.
#[cfg(target_arch = "wasm32")]
pub(crate) fn map<T>(count: usize, f: impl Fn(usize) -> T) -> Vec<T> {
    (0..count).map(f).collect()
}
