//! Matrix products that end in what follows them, on cards of compute capability 9.0: what cuBLASLt and a kernel after it would
//! do by way of memory.

use cudarc::driver::sys;

use super::gemm::Factor;
use super::gpu::{Buffer, Element, Gpu, View};
use super::kernels::{
    JOIN_SCORES, Kernel, PRODUCT_ADD, PRODUCT_BIAS, PRODUCT_GATE_GELU, PRODUCT_GATE_GELU_KEPT, PRODUCT_GATE_SILU,
    PRODUCT_GATE_SILU_KEPT, PRODUCT_GELU, PRODUCT_GELU_KEPT, PRODUCT_PLAIN_ADD, PRODUCT_SCORE, PRODUCT_SCORE_BACKWARD,
    PRODUCT_TIMES, PRODUCT_TIMES_TWO,
};
use super::launch::Argument;
use crate::ModelError;
use crate::plan::Activation;

/// Rows below which cuBLASLt, which has smaller tiles, is the better choice.
const FEWEST_ROWS: usize = 256;
/// Rows and columns of a tile, and what is fetched of the summed dimension at a time.
const TILE: [usize; 2] = [128, 256];
const DEPTH: u32 = 64;
const SHARED: u32 = 213_072;
/// Warps that leave a row of sums each, of a tile's rows.
const WRITERS: usize = 3;

/// What is done to a product of a matrix and a transposed one, `x · Wᵀ`. All matrices but sums have elements of bf16.
#[derive(Debug, Clone, Copy)]
pub(super) enum After<'a> {
    /// A row, bf16, is added to every row.
    Bias(View),
    /// The same, and GELU taken in its tanh form.
    Gelu(&'a Buffer),
    /// The same; its derivative goes to the matrix.
    GeluKept(&'a Buffer, View),
    /// A row of f32, and a matrix.
    Add(&'a Buffer, View),
    /// The non-linearity is taken and multiplied by a matrix.
    Gate(Activation, View),
    /// The same; the derivative by the product goes to the second matrix, that by the first matrix, which is the non-linearity,
    /// in its place.
    GateKept(Activation, View, View),
}

/// What is done to a product of two matrices as they stand, `dy · W`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then<'a> {
    /// A matrix is added.
    Add(View),
    /// It is multiplied by a matrix; sums over rows of what comes out go to [`Gpu::rows_of_sums`] rows of f32.
    Times(View, &'a Buffer),
    /// It is multiplied by the first matrix, and, into the third, by the second.
    TimesTwo(View, View, View),
}

/// What scores are of, and where they go: each a value a row.
pub(super) struct ScoreProduct<'a> {
    pub(super) tokens: &'a Buffer,
    /// Of the temperature.
    pub(super) inverse: f32,
    /// Log-probabilities, entropies, and ln Σ e^logit.
    pub(super) into: [&'a Buffer; 3],
}

/// What the way back of scores takes, a value a row from `row` on.
pub(super) struct SlopesOf<'a> {
    pub(super) row: usize,
    pub(super) tokens: &'a Buffer,
    pub(super) lse: &'a Buffer,
    pub(super) slopes: &'a Buffer,
    pub(super) inverse: f32,
}

/// What a kernel takes besides its factors.
#[derive(Default)]
struct Ends {
    second: Option<View>,
    third: Option<View>,
    bias: Option<u64>,
    with: Option<View>,
    also: Option<View>,
    sums: Option<u64>,
}

impl Gpu {
    /// Whether products with these matrices, `rows` high, can end in more.
    pub(super) fn fuses(&self, element: Element, rows: usize, matrices: &[View]) -> bool {
        let fits = |view: &View| {
            view.pointer.is_multiple_of(16) && view.stride.is_multiple_of(8) && view.columns.is_multiple_of(8)
        };
        self.capability() == (9, 0) && element == Element::Bf16 && rows >= FEWEST_ROWS && matrices.iter().all(fits)
    }

    /// Rows that [`Then::Times`] leaves its sums in.
    pub(super) fn rows_of_sums(rows: usize) -> usize {
        WRITERS * rows.div_ceil(TILE[0])
    }

    /// `out` = `x · weightᵀ`, and `after` done to it. All fit as [`Gpu::fuses`] says.
    pub(super) fn forward_then(&self, out: View, x: View, weight: View, after: After<'_>) -> Result<(), ModelError> {
        let silu = |activation| activation == Activation::Silu;
        let (kernel, ends) = match after {
            After::Bias(bias) => (PRODUCT_BIAS, Ends::biased(bias.pointer)),
            After::Gelu(bias) => (PRODUCT_GELU, Ends::biased(bias.pointer())),
            After::GeluKept(bias, slope) => {
                let second = Some(slope);
                (
                    PRODUCT_GELU_KEPT,
                    Ends {
                        second,
                        ..Ends::biased(bias.pointer())
                    },
                )
            }
            After::Add(bias, other) => {
                let with = Some(other);
                (
                    PRODUCT_ADD,
                    Ends {
                        with,
                        ..Ends::biased(bias.pointer())
                    },
                )
            }
            After::Gate(activation, other) => {
                let kernel = if silu(activation) {
                    PRODUCT_GATE_SILU
                } else {
                    PRODUCT_GATE_GELU
                };
                (
                    kernel,
                    Ends {
                        with: Some(other),
                        ..Ends::default()
                    },
                )
            }
            After::GateKept(activation, other, slope) => {
                let kernel = match silu(activation) {
                    true => PRODUCT_GATE_SILU_KEPT,
                    false => PRODUCT_GATE_GELU_KEPT,
                };
                let ends = Ends {
                    second: Some(slope),
                    third: Some(other),
                    with: Some(other),
                    ..Ends::default()
                };
                (kernel, ends)
            }
        };
        self.fused(kernel, out, x, Factor::Transposed(weight), &ends)
    }

    /// `out` = `dy · weight`, and `then` done to it. All fit as [`Gpu::fuses`] says.
    pub(super) fn backward_then(&self, out: View, dy: View, weight: View, then: Then<'_>) -> Result<(), ModelError> {
        let (kernel, ends) = match then {
            Then::Add(other) => (
                PRODUCT_PLAIN_ADD,
                Ends {
                    with: Some(other),
                    ..Ends::default()
                },
            ),
            Then::Times(other, sums) => {
                let ends = Ends {
                    with: Some(other),
                    sums: Some(sums.pointer()),
                    ..Ends::default()
                };
                (PRODUCT_TIMES, ends)
            }
            Then::TimesTwo(first, second, out) => {
                let ends = Ends {
                    second: Some(out),
                    with: Some(first),
                    also: Some(second),
                    ..Ends::default()
                };
                (PRODUCT_TIMES_TWO, ends)
            }
        };
        self.fused(kernel, out, dy, Factor::Plain(weight), &ends)
    }

    fn fused(&self, kernel: Kernel, out: View, left: View, right: Factor, ends: &Ends) -> Result<(), ModelError> {
        let others = [ends.second, ends.third, ends.with, ends.also];
        let alike = |view: &View| (view.rows, view.columns) == (out.rows, out.columns);
        assert!(
            others.iter().flatten().all(alike),
            "matrices of other shapes than {}×{}",
            out.rows,
            out.columns
        );
        let place = |view: Option<View>| Argument::Address(view.map_or(0, |view| view.pointer));
        let stride = |view: Option<View>| Argument::from(view.map_or(0, |view| view.stride));
        let address = |pointer: Option<u64>| Argument::Address(pointer.unwrap_or(0));
        let arguments = [
            out.into(),
            place(ends.second),
            place(ends.third),
            address(ends.bias),
            place(ends.with),
            place(ends.also),
            address(ends.sums),
            out.stride.into(),
            stride(ends.second),
            stride(ends.third),
            stride(ends.with),
            stride(ends.also),
        ];
        self.launch_product(kernel, [out.rows, out.columns], left, right, &arguments)
    }

    /// Log-probabilities of each row's token, entropies and ln Σ e^logit, f32, where logits are `x · weightᵀ` times `inverse`; they
    /// are not written.
    pub(super) fn score_product(&self, x: View, weight: View, of: &ScoreProduct<'_>) -> Result<(), ModelError> {
        let (rows, tiles) = (x.rows, weight.rows.div_ceil(TILE[1]));
        let parts = self.elements(4 * tiles * rows, Element::F32)?;
        let chosen = self.elements(rows, Element::F32)?;
        let arguments = [(&parts).into(), (&chosen).into(), of.tokens.into(), of.inverse.into()];
        let shape = [rows, weight.rows];
        self.launch_product(PRODUCT_SCORE, shape, x, Factor::Transposed(weight), &arguments)?;
        let [logprobs, entropies, lse] = of.into;
        // SAFETY: each has a number for each row, parts a row for each tile.
        unsafe {
            let arguments = [
                logprobs.into(),
                entropies.into(),
                lse.into(),
                (&parts).into(),
                (&chosen).into(),
                tiles.into(),
                rows.into(),
            ];
            let grid = [rows as u32, 1, 1];
            self.launch(JOIN_SCORES, Element::Bf16, grid, 128, 0, &arguments)
        }
    }

    /// The gradient by logits of Σ slope · log-probability into `out`, where logits are as [`Gpu::score_product`] has them. `row` is the
    /// first of these among the rows that it had.
    pub(super) fn score_product_backward(
        &self,
        out: View,
        x: View,
        weight: View,
        of: &SlopesOf<'_>,
    ) -> Result<(), ModelError> {
        let at = |buffer: &Buffer| Argument::Address(buffer.pointer() + 4 * of.row as u64);
        let arguments = [
            out.into(),
            out.stride.into(),
            at(of.lse),
            at(of.tokens),
            at(of.slopes),
            of.inverse.into(),
        ];
        let shape = [x.rows, weight.rows];
        self.launch_product(PRODUCT_SCORE_BACKWARD, shape, x, Factor::Transposed(weight), &arguments)
    }

    /// Starts a kernel of products, which takes maps of the factors, `arguments` and the sizes.
    fn launch_product(
        &self,
        kernel: Kernel,
        [rows, columns]: [usize; 2],
        left: View,
        right: Factor,
        arguments: &[Argument],
    ) -> Result<(), ModelError> {
        let inner = left.columns;
        let (right, box_of_right, shape) = match right {
            Factor::Plain(view) => (view, [DEPTH, DEPTH], (view.columns, view.rows)),
            Factor::Transposed(view) => (view, [DEPTH, TILE[1] as u32 / 2], (view.rows, view.columns)),
        };
        assert!(
            left.rows == rows && shape == (columns, inner),
            "shapes of a product: {}×{inner} · {shape:?} into {rows}×{columns}",
            left.rows
        );
        let mut all = vec![
            Argument::Map(tensor_map(left, [DEPTH, TILE[0] as u32])?),
            Argument::Map(tensor_map(right, box_of_right)?),
        ];
        all.extend(arguments);
        all.extend([rows, columns, inner].map(Argument::from));
        // Pairs of blocks, each one of which has two tiles of rows at a time.
        let tiles = rows.div_ceil(2 * TILE[0]) * columns.div_ceil(TILE[1]);
        let pairs = tiles.min(self.multiprocessors() as usize / 2) as u32;
        let name = || format!("{} {rows}×{inner}×{columns}", kernel.name);
        // SAFETY: maps say where the factors end; all else has the result's shape, a row or a column of it, as callers see to.
        unsafe { self.launch_called(name, kernel, Element::Bf16, [2 * pairs, 1, 1], 384, SHARED, &all) }
    }
}

impl Ends {
    fn biased(bias: u64) -> Self {
        Self {
            bias: Some(bias),
            ..Self::default()
        }
    }
}

/// Describes a bf16 matrix to the copy engine, of which boxes of `columns × rows` are fetched, in 128-byte swizzle; what lies beyond it
/// is zero.
pub(super) fn tensor_map(view: View, box_of: [u32; 2]) -> Result<[u64; 16], ModelError> {
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let sizes = [view.columns as u64, view.rows as u64];
    let strides = [2 * view.stride as u64];
    let steps = [1_u32; 2];
    // SAFETY: all arrays have two dimensions, strides one less; the map is written.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            2,
            view.pointer as *mut std::ffi::c_void,
            sizes.as_ptr(),
            strides.as_ptr(),
            box_of.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()
    .map_err(|error| ModelError::Gpu {
        what: format!("describing a matrix of {}×{}", view.rows, view.columns),
        message: format!("{error:?}"),
    })?;
    Ok(map.opaque)
}
