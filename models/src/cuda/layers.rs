//! Parameters on the card: linear layers with their adapters in one matrix, and blocks of them.

use std::sync::Arc;

use super::fused::{After, Then};
use super::gemm::{Epilogue, Factor, Scale};
use super::gpu::{Buffer, Element, Gpu, View};
use super::kernels::{ADD_ROW, MERGE, NOISE, PLACE, WIDEN};
use super::launch::Argument;
use crate::ModelError;
use crate::plan::Activation;

/// A linear layer of a [`Stack`].
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its name in files, without `.weight`.
    pub(super) name: String,
    pub(super) outputs: usize,
    /// Inner width of its adapter; 0: none.
    pub(super) rank: usize,
    /// First of its rows in the stack.
    first: usize,
    /// First of its outputs among those of the stack.
    first_output: usize,
    /// Which trained parameters W, A and B are.
    pub(super) slots: [Option<usize>; 3],
    /// Which trained parameter its bias is.
    pub(super) bias_slot: Option<usize>,
}

impl Part {
    /// Rows in the stack, and columns of a gradient that goes backwards through it: outputs, then the adapter's inner width.
    pub(super) fn height(&self) -> usize {
        self.outputs + self.rank
    }
}

/// Linear layers over one input. For each, its rows hold `[W | B]` and below them `[A | ·]`: then
/// `y = [x | s·xAᵀ] · [W | B]ᵀ` and `dx = [dy | s·dyB] · [W ; A]` are one product each over a longer inner dimension, summed in
/// f32 and rounded once, and the layers without their adapters are the same memory, narrower. A bias, where there is one, is added
/// by the product that makes y.
#[derive(Debug)]
pub(super) struct Stack {
    matrix: Buffer,
    /// One for each output of all parts, of what the model computes in. Adapters leave it alone: merged weights share it.
    bias: Option<Arc<Buffer>>,
    pub(super) inputs: usize,
    /// The largest rank of its parts.
    rank: usize,
    pub(super) parts: Vec<Part>,
    /// `alpha / rank` of the adapters.
    scale: f32,
    element: Element,
}

impl Stack {
    /// Room for layers of these names, outputs and ranks; adapters are zero.
    pub(super) fn new(
        gpu: &Gpu,
        element: Element,
        inputs: usize,
        layers: &[(String, usize, usize)],
        scale: f32,
    ) -> Result<Self, ModelError> {
        let rank = layers.iter().map(|layer| layer.2).max().unwrap_or(0);
        let (mut first, mut first_output) = (0, 0);
        let mut parts = Vec::with_capacity(layers.len());
        for (name, outputs, rank) in layers {
            let part = Part {
                name: name.clone(),
                outputs: *outputs,
                rank: *rank,
                first,
                first_output,
                slots: [None; 3],
                bias_slot: None,
            };
            first += part.height();
            first_output += part.outputs;
            parts.push(part);
        }
        let matrix = if rank > 0 {
            gpu.zeros(first * (inputs + rank), element)?
        } else {
            gpu.elements(first * inputs, element)?
        };
        Ok(Self {
            matrix,
            bias: None,
            inputs,
            rank,
            parts,
            scale,
            element,
        })
    }

    /// Outputs of all parts.
    pub(super) fn outputs(&self) -> usize {
        self.parts.iter().map(|part| part.outputs).sum()
    }

    /// Gives it a bias, of no value yet.
    pub(super) fn add_bias(&mut self, gpu: &Gpu) -> Result<(), ModelError> {
        self.bias = Some(Arc::new(gpu.elements(self.outputs(), self.element)?));
        Ok(())
    }

    /// Takes the bias of `other`, which has the same outputs.
    pub(super) fn share_bias(&mut self, other: &Self) {
        self.bias.clone_from(&other.bias);
    }

    fn biases(&self) -> Option<View> {
        let bias = self.bias.as_ref()?;
        Some(bias.matrix(1, self.outputs()))
    }

    /// The bias of one part, `[1, outputs]`, where there is one.
    pub(super) fn bias(&self, part: usize) -> Option<View> {
        let Part {
            outputs, first_output, ..
        } = self.parts[part];
        self.biases()
            .map(|all| all.columns(first_output, outputs, self.element))
    }

    fn all(&self) -> View {
        let rows = self.parts.iter().map(Part::height).sum();
        self.matrix.matrix(rows, self.inputs + self.rank)
    }

    /// `[W | B]`.
    fn wide(&self, part: usize) -> View {
        let Part {
            outputs, rank, first, ..
        } = self.parts[part];
        let rows = self.all().rows(first, outputs, self.element);
        rows.columns(0, self.inputs + rank, self.element)
    }

    /// W, `[outputs, inputs]`.
    pub(super) fn weight(&self, part: usize) -> View {
        self.wide(part).columns(0, self.inputs, self.element)
    }

    /// A, `[rank, inputs]`.
    pub(super) fn a(&self, part: usize) -> View {
        let Part {
            outputs, rank, first, ..
        } = self.parts[part];
        let rows = self.all().rows(first + outputs, rank, self.element);
        rows.columns(0, self.inputs, self.element)
    }

    /// B, `[outputs, rank]`.
    pub(super) fn b(&self, part: usize) -> View {
        let rank = self.parts[part].rank;
        self.wide(part).columns(self.inputs, rank, self.element)
    }

    /// All rows, `[W ; A]` of each part, `inputs` wide.
    fn tall(&self) -> View {
        self.all().columns(0, self.inputs, self.element)
    }

    /// Width of rows of input for `part`: the input, and room for what goes through its adapter.
    pub(super) fn input_width(&self, part: usize) -> usize {
        self.inputs + self.parts[part].rank
    }

    /// Width of rows of gradients of all outputs.
    pub(super) fn gradient_width(&self) -> usize {
        self.parts.iter().map(Part::height).sum()
    }

    /// First column of the part's gradient among those.
    pub(super) fn gradient_start(&self, part: usize) -> usize {
        self.parts[part].first
    }

    /// `y = W x + b`, and `+ s B A x` where `adapted`. `x` has room for the adapter's inner values behind the input.
    pub(super) fn forward(&self, gpu: &Gpu, part: usize, x: View, y: View, adapted: bool) -> Result<(), ModelError> {
        let (element, rank) = (self.element, self.parts[part].rank);
        let bias = self.bias(part);
        if !adapted || rank == 0 {
            let plain = x.columns(0, self.inputs, element);
            return self.product(gpu, plain, self.weight(part), y, bias);
        }
        self.forward_low(gpu, part, x)?;
        let x = x.columns(0, self.inputs + rank, element);
        self.product(gpu, x, self.wide(part), y, bias)
    }

    /// The adapter's inner values `s A x`, behind the input in `x`; nothing where there is none.
    pub(super) fn forward_low(&self, gpu: &Gpu, part: usize, x: View) -> Result<(), ModelError> {
        let (element, rank) = (self.element, self.parts[part].rank);
        if rank == 0 {
            return Ok(());
        }
        let (plain, low) = (
            x.columns(0, self.inputs, element),
            x.columns(self.inputs, rank, element),
        );
        let a = Factor::Transposed(self.a(part));
        let scale = Scale::times(self.scale);
        gpu.multiply((low, element), Factor::Plain(plain), a, element, scale)
    }

    /// `y = W x + b` of all parts side by side: for stacks without adapters.
    pub(super) fn forward_all(&self, gpu: &Gpu, x: View, y: View) -> Result<(), ModelError> {
        debug_assert_eq!(self.rank, 0);
        self.product(gpu, x, self.tall(), y, self.biases())
    }

    /// `y = x · wᵀ`, and a row added to each of its rows.
    fn product(&self, gpu: &Gpu, x: View, w: View, y: View, bias: Option<View>) -> Result<(), ModelError> {
        let element = self.element;
        let (into, left, right) = ((y, element), Factor::Plain(x), Factor::Transposed(w));
        let Some(bias) = bias else {
            return gpu.multiply(into, left, right, element, Scale::ONE);
        };
        // On tensor cores the product adds it before it rounds.
        let even = |view: View| view.pointer.is_multiple_of(16) && view.stride.is_multiple_of(8);
        let sizes = [x.columns, y.columns].iter().all(|size| size.is_multiple_of(8));
        if element == Element::Bf16 && sizes && [x, w, y].into_iter().all(even) && bias.pointer.is_multiple_of(16) {
            return gpu.multiply_then(into, left, right, element, Epilogue::Bias(bias.pointer));
        }
        gpu.multiply(into, left, right, element, Scale::ONE)?;
        // SAFETY: y has rows of as many columns as the bias.
        unsafe {
            let arguments = [y.into(), y.stride.into(), bias.into(), y.columns.into()];
            let grid = [y.rows as u32, blocks(y.columns), 1];
            gpu.launch(ADD_ROW, element, grid, 256, 0, &arguments)
        }
    }

    /// As [`Stack::forward`] of a part without a bias, and `after` done to it.
    pub(super) fn forward_then(
        &self,
        gpu: &Gpu,
        part: usize,
        x: View,
        y: View,
        adapted: bool,
        after: After<'_>,
    ) -> Result<(), ModelError> {
        debug_assert!(self.bias.is_none());
        if adapted {
            self.forward_low(gpu, part, x)?;
        }
        let (x, weight) = self.factors(part, x, adapted);
        gpu.forward_then(y, x, weight, after)
    }

    /// What a part multiplies: its input, with what has gone through the adapter where `adapted`, and the weights for it.
    pub(super) fn factors(&self, part: usize, x: View, adapted: bool) -> (View, View) {
        let rank = if adapted { self.parts[part].rank } else { 0 };
        let weight = self.wide(part).columns(0, self.inputs + rank, self.element);
        (x.columns(0, self.inputs + rank, self.element), weight)
    }

    /// As [`Stack::forward`], into f32: for the head, which has no bias.
    pub(super) fn forward_f32(
        &self,
        gpu: &Gpu,
        part: usize,
        x: View,
        y: View,
        adapted: bool,
    ) -> Result<(), ModelError> {
        debug_assert!(self.bias.is_none());
        let (element, rank) = (self.element, self.parts[part].rank);
        let (x, w) = if adapted && rank > 0 {
            self.forward_low(gpu, part, x)?;
            (x.columns(0, self.inputs + rank, element), self.wide(part))
        } else {
            (x.columns(0, self.inputs, element), self.weight(part))
        };
        let (x, w) = (Factor::Plain(x), Factor::Transposed(w));
        gpu.multiply((y, Element::F32), x, w, element, Scale::ONE)
    }

    /// The adapters' inner gradients, behind each part's own in `dy`, whose first columns are the gradient of the outputs.
    pub(super) fn backward_low(&self, gpu: &Gpu, dy: View) -> Result<(), ModelError> {
        for (index, part) in self.parts.iter().enumerate().filter(|(_, part)| part.rank > 0) {
            let own = dy.columns(part.first, part.outputs, self.element);
            let low = dy.columns(part.first + part.outputs, part.rank, self.element);
            let b = Factor::Plain(self.b(index));
            let scale = Scale::times(self.scale);
            gpu.multiply((low, self.element), Factor::Plain(own), b, self.element, scale)?;
        }
        Ok(())
    }

    /// The gradient of the input, after [`Stack::backward_low`].
    pub(super) fn backward_input(&self, gpu: &Gpu, dy: View, dx: View) -> Result<(), ModelError> {
        let tall = Factor::Plain(self.tall());
        gpu.multiply((dx, self.element), Factor::Plain(dy), tall, self.element, Scale::ONE)
    }

    /// The same, and `then` done to it.
    pub(super) fn backward_input_then(&self, gpu: &Gpu, dy: View, dx: View, then: Then<'_>) -> Result<(), ModelError> {
        gpu.backward_then(dx, dy, self.tall(), then)
    }

    /// Puts values at `at`, a view into this stack.
    pub(super) fn put(&self, gpu: &Gpu, at: View, values: &Values<'_>) -> Result<(), ModelError> {
        put(gpu, at, self.element, values)
    }

    /// Writes the weights with the adapters added, `W + s·B·A`, at `into`, which has this stack's outputs.
    pub(super) fn merge_into(&self, gpu: &Gpu, into: &Self) -> Result<(), ModelError> {
        // A product of at most so many elements at a time.
        const MOST: usize = 32 << 20;
        for (index, part) in self.parts.iter().enumerate() {
            let rows = (MOST / self.inputs).clamp(1, part.outputs);
            let added = match part.rank {
                0 => None,
                _ => Some(gpu.elements(rows * self.inputs, Element::F32)?),
            };
            let mut first = 0;
            while first < part.outputs {
                let rows = rows.min(part.outputs - first);
                let weight = self.weight(index).rows(first, rows, self.element);
                let out = into.weight(index).rows(first, rows, self.element);
                let mut address = 0;
                if let Some(added) = &added {
                    let b = self.b(index).rows(first, rows, self.element);
                    let product = added.matrix(rows, self.inputs);
                    address = product.pointer;
                    gpu.multiply(
                        (product, Element::F32),
                        Factor::Plain(b),
                        Factor::Plain(self.a(index)),
                        self.element,
                        Scale::times(self.scale),
                    )?;
                }
                // SAFETY: all three have `rows` × `inputs` elements.
                unsafe {
                    gpu.launch(
                        MERGE,
                        self.element,
                        [blocks(self.inputs), rows as u32, 1],
                        256,
                        0,
                        &[
                            out.into(),
                            out.stride.into(),
                            weight.into(),
                            weight.stride.into(),
                            Argument::Address(address),
                            self.inputs.into(),
                        ],
                    )?;
                }
                first += rows;
            }
        }
        Ok(())
    }
}

/// Blocks of 256 threads for so many columns.
pub(super) fn blocks(columns: usize) -> u32 {
    columns.div_ceil(256) as u32
}

/// A non-linearity as kernels number it.
pub(super) fn activation(of: Activation) -> Argument {
    Argument::Int(match of {
        Activation::Silu => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
    })
}

/// Where a parameter's values come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values<'a> {
    /// Row by row.
    Host(&'a [f32]),
    /// Normal with this deviation, under a seed.
    Noise(u32, f32),
    /// f32 values on the card.
    Card(&'a Buffer),
}

/// Rows of a matrix that go to or from the card at once: as many as a grid has, of no more values than this.
fn rows_at_once(columns: usize) -> usize {
    const MOST_ROWS: usize = 32_768;
    const MOST_VALUES: usize = 16 << 20;
    (MOST_VALUES / columns.max(1)).clamp(1, MOST_ROWS)
}

/// The values at `at`, row by row.
pub(super) fn read(gpu: &Gpu, at: View, element: Element) -> Result<Vec<f32>, ModelError> {
    let step = rows_at_once(at.columns);
    let mut values = Vec::with_capacity(at.rows * at.columns);
    let mut first = 0;
    while first < at.rows {
        let rows = step.min(at.rows - first);
        let part = at.rows(first, rows, element);
        let copy = gpu.elements(rows * at.columns, Element::F32)?;
        // SAFETY: `copy` has `rows` × `columns` values, as `part` has.
        unsafe {
            let arguments = [(&copy).into(), part.into(), part.stride.into(), part.columns.into()];
            let grid = [blocks(at.columns), rows as u32, 1];
            gpu.launch(WIDEN, element, grid, 256, 0, &arguments)?;
        }
        values.extend(copy.read::<f32>(0, rows * at.columns)?);
        first += rows;
    }
    Ok(values)
}

/// Puts values at `at`.
pub(super) fn put(gpu: &Gpu, at: View, element: Element, values: &Values<'_>) -> Result<(), ModelError> {
    let step = rows_at_once(at.columns);
    let mut first = 0;
    while first < at.rows {
        let rows = step.min(at.rows - first);
        let part = at.rows(first, rows, element);
        let grid = [blocks(at.columns), rows as u32, 1];
        let range = first * at.columns..(first + rows) * at.columns;
        let place = |from: Argument| -> Result<(), ModelError> {
            // SAFETY: `from` has `rows` × `columns` values, as `part` has.
            unsafe {
                let arguments = [part.into(), part.stride.into(), from, part.columns.into()];
                gpu.launch(PLACE, element, grid, 256, 0, &arguments)
            }
        };
        match values {
            Values::Host(values) => {
                let copy = gpu.upload(&values[range])?;
                place((&copy).into())?;
            }
            Values::Card(buffer) => {
                place(Argument::Address(buffer.pointer() + 4 * range.start as u64))?;
            }
            Values::Noise(seed, deviation) => {
                let seed = seed.wrapping_mul(0x9E37_79B9).wrapping_add(first as u32);
                // SAFETY: within `part`.
                unsafe {
                    let arguments = [
                        part.into(),
                        part.stride.into(),
                        part.columns.into(),
                        seed.into(),
                        (*deviation).into(),
                    ];
                    gpu.launch(NOISE, element, grid, 256, 0, &arguments)?;
                }
            }
        }
        first += rows;
    }
    Ok(())
}
