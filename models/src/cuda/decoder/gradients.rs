//! Gradients of parameters, added to the sums that are kept. Sums over rows are taken in parts that depend on nothing but the card
//! and the number of rows: the same input gives the same bits.

use super::Norm;
use crate::ModelError;
use crate::cuda::batch::Grouped;
use crate::cuda::gemm::Factor;
use crate::cuda::gpu::{Buffer, Element, Gpu, View};
use crate::cuda::kernels::{ADD_PARTS, COLUMN_PARTS, COLUMN_PARTS_8, EMBED_GRADIENT, NORM_WEIGHT_PARTS};
use crate::cuda::launch::Argument;
use crate::cuda::layers::{Stack, blocks};
use crate::cuda::parameters::Parameters;

/// Adds the gradients of a stack's parameters: `x` are the inputs of its parts (one for all without adapters), `dy` the gradients
/// of its outputs, with those of the adapters' inner values behind each.
pub(super) fn add_gradients(
    gpu: &Gpu,
    element: Element,
    parameters: &mut Parameters,
    stack: &Stack,
    x: &[View],
    dy: View,
) -> Result<(), ModelError> {
    let mut add = |slot: Option<usize>, left: View, right: View| -> Result<(), ModelError> {
        let Some(slot) = slot else { return Ok(()) };
        let (slope, scale) = parameters.slope(slot);
        let (left, right) = (Factor::Transposed(left), Factor::Plain(right));
        gpu.multiply((slope, Element::F32), left, right, element, scale)
    };
    for (index, part) in stack.parts.iter().enumerate() {
        let x = x.get(index).copied().unwrap_or(x[0]);
        let plain = x.columns(0, stack.inputs, element);
        let start = stack.gradient_start(index);
        let own = dy.columns(start, part.outputs, element);
        let [weight, a, b] = part.slots;
        add(weight, own, plain)?;
        if part.rank > 0 {
            let inner = dy.columns(start + part.outputs, part.rank, element);
            add(a, inner, plain)?;
            add(b, own, x.columns(stack.inputs, part.rank, element))?;
        }
    }
    match stack.parts.iter().any(|part| part.bias_slot.is_some()) {
        true => bias_gradients(gpu, element, parameters, stack, dy),
        false => Ok(()),
    }
}

/// Those of a stack's biases: sums of the columns of `dy`, whose rows follow each other.
fn bias_gradients(
    gpu: &Gpu,
    element: Element,
    parameters: &mut Parameters,
    stack: &Stack,
    dy: View,
) -> Result<(), ModelError> {
    let (width, count) = (dy.columns, dy.rows);
    assert_eq!(
        dy.stride, width,
        "biases train without adapters, whose gradients stand between theirs"
    );
    let eight = width.is_multiple_of(8);
    let kernel = if eight { COLUMN_PARTS_8 } else { COLUMN_PARTS };
    let parts = Parts::new(gpu, element, count, width, if eight { 8 } else { 1 })?;
    // SAFETY: dy has `count` rows of `width`; parts has a row for each block.
    unsafe {
        let arguments = [(&parts.buffer).into(), dy.into(), count.into(), width.into()];
        gpu.launch(kernel, element, parts.grid(), 256, 0, &arguments)?;
    }
    for (index, part) in stack.parts.iter().enumerate() {
        let Some(slot) = part.bias_slot else { continue };
        let gradient = parameters.zeroed_slope(slot)?;
        parts.add_to(gpu, gradient, stack.gradient_start(index))?;
    }
    Ok(())
}

/// That of a norm's weight: `slope` is the gradient of what came out, `hidden` what went in, f32, and `inverse` its 1/rms.
pub(super) fn norm_gradient(
    gpu: &Gpu,
    element: Element,
    parameters: &mut Parameters,
    norm: &Norm,
    slope: View,
    (hidden, inverse): (&Buffer, &Buffer),
) -> Result<(), ModelError> {
    let Some(slot) = norm.slot else { return Ok(()) };
    let gradient = parameters.zeroed_slope(slot)?;
    let (count, width) = (slope.rows, slope.columns);
    let parts = Parts::new(gpu, element, count, width, 1)?;
    // SAFETY: all have `count` rows of `width`; parts has a row for each block.
    unsafe {
        let arguments = [
            (&parts.buffer).into(),
            slope.into(),
            slope.stride.into(),
            hidden.into(),
            inverse.into(),
            count.into(),
            width.into(),
        ];
        gpu.launch(NORM_WEIGHT_PARTS, element, parts.grid(), 256, 0, &arguments)?;
    }
    parts.add_to(gpu, gradient, 0)
}

/// That of an embedding: `slope` is the gradient of its rows, f32, times `scale` those of the table.
pub(super) fn embedding_gradient(
    gpu: &Gpu,
    element: Element,
    parameters: &mut Parameters,
    slot: usize,
    tokens: &Grouped,
    (slope, width): (&Buffer, usize),
    scale: f32,
) -> Result<(), ModelError> {
    let table = parameters.zeroed_slope(slot)?;
    // SAFETY: ids are rows of the table, the order's entries rows of `slope`.
    unsafe {
        let arguments = [
            table.into(),
            slope.into(),
            (&tokens.order).into(),
            (&tokens.starts).into(),
            (&tokens.ids).into(),
            width.into(),
            scale.into(),
        ];
        let grid = [tokens.count as u32, blocks(width), 1];
        gpu.launch(EMBED_GRADIENT, element, grid, 256, 0, &arguments)
    }
}

/// Sums over some of the rows each, f32, which are added up in their order.
struct Parts {
    buffer: Buffer,
    /// Whose kernels add them up; the sums are f32 in either.
    element: Element,
    rows: u32,
    width: usize,
    /// Blocks that a row takes.
    across: u32,
}

impl Parts {
    /// Room for sums over `count` rows of `width`, of which a thread takes `each` columns.
    fn new(gpu: &Gpu, element: Element, count: usize, width: usize, each: usize) -> Result<Self, ModelError> {
        let across = width.div_ceil(256 * each) as u32;
        let rows = (8 * gpu.multiprocessors()).div_ceil(across).min(count as u32).max(1);
        Ok(Self {
            buffer: gpu.elements(rows as usize * width, Element::F32)?,
            element,
            rows,
            width,
            across,
        })
    }

    fn grid(&self) -> [u32; 3] {
        [self.rows, self.across, 1]
    }

    /// Adds the sums of the columns from `first` on to a gradient, which has as many values as it takes of them.
    fn add_to(&self, gpu: &Gpu, gradient: View, first: usize) -> Result<(), ModelError> {
        let width = gradient.columns;
        // SAFETY: every row of parts has `width` values from `first` on.
        unsafe {
            let arguments = [
                gradient.into(),
                Argument::Address(0),
                Argument::Address(0),
                Argument::Address(self.buffer.pointer() + 4 * first as u64),
                Argument::Word(self.rows),
                width.into(),
                self.width.into(),
                Argument::Int(0),
                Argument::Int(0),
            ];
            let grid = [width.div_ceil(32) as u32, 1, 1];
            gpu.launch(ADD_PARTS, self.element, grid, 512, 0, &arguments)
        }
    }
}
