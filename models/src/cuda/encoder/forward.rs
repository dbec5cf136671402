//! The forward pass over packed texts.

use super::rows::gathered;
use super::{CudaEncoder, Linear, Norm, Part, Saved, Texts};
use crate::cuda::attend::Asking;
use crate::cuda::fused::After;
use crate::cuda::gemm::{Epilogue, Factor, Scale};
use crate::cuda::gpu::{Buffer, Element, View};
use crate::cuda::kernels::{
    ADD_BIAS, ADD_BIAS_8, BEND, BEND_8, EMBED_TEXT, EMBED_TEXT_8, Kernel, LAYER_NORM, LAYER_NORM_8, MOVE_ROWS,
    MOVE_ROWS_8, POOL, POOL_8,
};
use crate::cuda::launch::Argument;
use crate::cuda::layers::activation;
use crate::plan::Activation;
use crate::{ModelError, Pooling};

/// The longest row that a warp keeps in registers.
pub(super) const LONGEST_ROW: usize = 1024;

/// The kernel for rows of `width`, and how many blocks of `threads` a row takes.
pub(super) fn choose(plain: Kernel, eight: Kernel, width: usize, threads: usize) -> (Kernel, u32) {
    match width.is_multiple_of(8) {
        true => (eight, width.div_ceil(8 * threads) as u32),
        false => (plain, width.div_ceil(threads) as u32),
    }
}

/// What is normed: `x + delta + bias`.
#[derive(Clone, Copy)]
pub(super) struct Summed<'a> {
    x: &'a Buffer,
    delta: Option<&'a Buffer>,
    bias: Option<&'a Buffer>,
    /// Where the sum is kept.
    sum: Option<&'a Buffer>,
}

impl CudaEncoder {
    /// Vectors of texts into `out`, f32; with `keep` returns what the way back needs.
    pub(super) fn run(&self, texts: &[&[u32]], out: View, keep: bool) -> Result<Option<Part>, ModelError> {
        let own = Texts::new(&self.gpu, texts)?;
        let count = own.rows.count;
        let embedded = self.embedded(&own)?;
        let mut x = self.gpu.elements(count * self.plan.hidden, self.element)?;
        self.norm(Summed::of(&embedded), &self.norm, &x, count)?;
        let mut layers = Vec::with_capacity(self.layers.len());
        for index in 0..self.layers.len() {
            let (next, saved) = self.block(index, x, &own, keep)?;
            x = next;
            layers.extend(saved);
        }
        self.pool(&x, &own, out)?;
        if !keep {
            return Ok(None);
        }
        // The card is busy meanwhile.
        let gathered = gathered(&self.gpu, texts)?;
        Ok(Some(Part {
            texts: own,
            gathered,
            embedded,
            layers,
        }))
    }

    fn block(&self, index: usize, x: Buffer, texts: &Texts, keep: bool) -> Result<(Buffer, Option<Saved>), ModelError> {
        let layer = &self.layers[index];
        let (all, width, inner) = (texts.rows.count, self.plan.hidden, self.plan.intermediate);
        let room = |rows: usize, columns: usize| self.gpu.elements(rows * columns, self.element);
        // What is not asked for later needs no room.
        let kept = |rows: usize, columns: usize| if keep { room(rows, columns) } else { room(0, 0) };
        let heads = self.heads();
        let alone = self.first_rows_alone(index);
        let count = if alone { texts.count } else { all };
        // What attention is added to.
        let first = if alone { Some(self.first_rows(&x, texts)?) } else { None };
        let asking = match &first {
            Some(first) if self.ends(all) && heads.can_ask_first(&texts.rows) => Some(first),
            _ => None,
        };
        let qkv = room(all, 3 * width)?;
        let joined = qkv.matrix(all, 3 * width);
        let queries = match asking {
            Some(first) => Some(self.project_first(&layer.qkv, &x, first, joined)?),
            None => {
                self.project(&layer.qkv, &x, &qkv, all)?;
                None
            }
        };
        let [of_all, keys, values] = heads.split(joined);
        let (asked, asking) = match &queries {
            Some(queries) => (queries.matrix(count, width), Asking::First),
            None => (of_all, Asking::All),
        };
        let mixed = room(asked.rows, width)?;
        let lse = self.gpu.elements(asked.rows * self.plan.heads, Element::F32)?;
        let into = mixed.matrix(asked.rows, width);
        heads.attend([asked, keys, values], into, &lse, &texts.rows, asking)?;
        let chosen = match alone && queries.is_none() {
            true => Some(self.first_rows(&mixed, texts)?),
            false => None,
        };
        let (going, residual) = (chosen.as_ref().unwrap_or(&mixed), first.as_ref().unwrap_or(&x));
        let (attention_sum, middle) = (kept(count, width)?, room(count, width)?);
        let sum = keep.then_some(&attention_sum);
        self.add_and_norm(
            &layer.output,
            going,
            residual,
            &layer.attention_norm,
            (sum, &middle),
            count,
        )?;
        let (wide, bent) = (kept(count, inner)?, room(count, inner)?);
        self.expand(&layer.up, &middle, keep.then_some(&wide), &bent, count)?;
        let (mlp_sum, next) = (kept(count, width)?, room(count, width)?);
        let sum = keep.then_some(&mlp_sum);
        self.add_and_norm(&layer.down, &bent, &middle, &layer.mlp_norm, (sum, &next), count)?;
        let saved = keep.then_some(Saved {
            x,
            qkv,
            queries,
            lse,
            mixed,
            chosen,
            attention_sum,
            middle,
            inner: wide,
            derived: self.ends(count),
            bent,
            mlp_sum,
        });
        Ok((next, saved))
    }

    /// Keys and values of all rows into the places of `qkv`, and queries of the texts' first rows by themselves.
    fn project_first(&self, linear: &Linear, x: &Buffer, first: &Buffer, qkv: View) -> Result<Buffer, ModelError> {
        let (width, element) = (linear.inputs, self.element);
        let (weight, bias) = (linear.matrix(), linear.bias.matrix(1, linear.outputs));
        let (into, x) = (qkv.columns(width, 2 * width, element), x.matrix(qkv.rows, width));
        let after = After::Bias(bias.columns(width, 2 * width, element));
        self.gpu
            .forward_then(into, x, weight.rows(width, 2 * width, element), after)?;
        let texts = first.count(element) / width;
        let queries = self.gpu.elements(texts * width, element)?;
        let (into, first) = (queries.matrix(texts, width), Factor::Plain(first.matrix(texts, width)));
        let own = Factor::Transposed(weight.rows(0, width, element));
        self.gpu
            .multiply_then((into, element), first, own, element, Epilogue::Bias(bias.pointer))?;
        Ok(queries)
    }

    /// Whether products of so many rows end in what follows them.
    pub(super) fn ends(&self, rows: usize) -> bool {
        self.fused && self.gpu.fuses(self.element, rows, &[])
    }

    /// The sum of `x · Wᵀ + b` and `other`, and its norm into `out`; the sum is kept where there is a place for it.
    fn add_and_norm(
        &self,
        linear: &Linear,
        x: &Buffer,
        other: &Buffer,
        norm: &Norm,
        (kept, out): (Option<&Buffer>, &Buffer),
        count: usize,
    ) -> Result<(), ModelError> {
        let width = self.plan.hidden;
        if !self.ends(count) {
            let delta = self.gpu.elements(count * width, self.element)?;
            self.product(linear, x, &delta, count)?;
            return self.norm(Summed::of(other).and(&delta, &linear.bias).kept(kept), norm, out, count);
        }
        let own;
        let sum = match kept {
            Some(sum) => sum,
            None => {
                own = self.gpu.elements(count * width, self.element)?;
                &own
            }
        };
        let (x, other) = (x.matrix(count, linear.inputs), other.matrix(count, width));
        let after = After::Add(&linear.bias, other);
        self.gpu
            .forward_then(sum.matrix(count, width), x, linear.matrix(), after)?;
        self.norm(Summed::of(sum), norm, out, count)
    }

    /// The first row of every text.
    pub(super) fn first_rows(&self, x: &Buffer, texts: &Texts) -> Result<Buffer, ModelError> {
        let out = self.gpu.elements(texts.count * self.plan.hidden, self.element)?;
        self.move_rows(&out, x, texts, false)?;
        Ok(out)
    }

    /// Copies the first rows of texts to rows that follow each other, or `back`.
    pub(super) fn move_rows(&self, out: &Buffer, x: &Buffer, texts: &Texts, back: bool) -> Result<(), ModelError> {
        let width = self.plan.hidden;
        let (kernel, across) = choose(MOVE_ROWS, MOVE_ROWS_8, width, 128);
        // SAFETY: one has a row for each text, the other all rows.
        unsafe {
            let arguments = [
                out.into(),
                x.into(),
                (&texts.starts).into(),
                width.into(),
                Argument::Int(i32::from(back)),
            ];
            let grid = [texts.count as u32, across, 1];
            self.gpu.launch(kernel, self.element, grid, 128, 0, &arguments)
        }
    }

    /// The MLP's inner values: `bent` = activation of `x · Wᵀ + b`; what that was taken of, or the derivative there, goes to `kept`.
    fn expand(
        &self,
        up: &Linear,
        x: &Buffer,
        kept: Option<&Buffer>,
        bent: &Buffer,
        count: usize,
    ) -> Result<(), ModelError> {
        if !self.fused {
            let inner = kept.unwrap_or(bent);
            self.product(up, x, inner, count)?;
            return self.bend(up, inner, bent, count);
        }
        if self.ends(count) {
            let after = match kept {
                Some(kept) => After::GeluKept(&up.bias, kept.matrix(count, up.outputs)),
                None => After::Gelu(&up.bias),
            };
            let (x, out) = (x.matrix(count, up.inputs), bent.matrix(count, up.outputs));
            return self.gpu.forward_then(out, x, up.matrix(), after);
        }
        let bias = up.bias.pointer();
        let epilogue = match kept {
            Some(kept) => Epilogue::GeluKept(bias, kept.matrix(count, up.outputs)),
            None => Epilogue::Gelu(bias),
        };
        let (x, into) = (x.matrix(count, up.inputs), bent.matrix(count, up.outputs));
        let (into, x) = ((into, self.element), Factor::Plain(x));
        let weight = Factor::Transposed(up.matrix());
        self.gpu.multiply_then(into, x, weight, self.element, epilogue)
    }

    /// Sums of words', positions' and the first segment's embeddings.
    fn embedded(&self, texts: &Texts) -> Result<Buffer, ModelError> {
        let (count, width) = (texts.rows.count, self.plan.hidden);
        let out = self.gpu.elements(count * width, self.element)?;
        let kernel = if width.is_multiple_of(8) {
            EMBED_TEXT_8
        } else {
            EMBED_TEXT
        };
        // SAFETY: tokens and positions lie in their tables: checked where they came in.
        unsafe {
            let arguments = [
                (&out).into(),
                (&self.words.rows).into(),
                (&self.positions.rows).into(),
                (&self.segments.rows).into(),
                (&texts.rows.tokens).into(),
                (&texts.rows.positions).into(),
                width.into(),
            ];
            self.gpu
                .launch(kernel, self.element, [count as u32, 1, 1], 128, 0, &arguments)?;
        }
        Ok(out)
    }

    fn norm(&self, summed: Summed<'_>, norm: &Norm, out: &Buffer, count: usize) -> Result<(), ModelError> {
        let width = self.plan.hidden;
        let optional = |buffer: Option<&Buffer>| buffer.map_or(Argument::Address(0), Argument::from);
        let kernel = match width.is_multiple_of(8) && width <= LONGEST_ROW {
            true => LAYER_NORM_8,
            false => LAYER_NORM,
        };
        // SAFETY: all have `count` rows of `width`.
        unsafe {
            let arguments = [
                out.into(),
                optional(summed.sum),
                summed.x.into(),
                optional(summed.delta),
                optional(summed.bias),
                (&norm.weight).into(),
                (&norm.bias).into(),
                count.into(),
                width.into(),
                (self.plan.norm_eps as f32).into(),
            ];
            let grid = [count.div_ceil(4) as u32, 1, 1];
            self.gpu.launch(kernel, self.element, grid, 128, 0, &arguments)
        }
    }

    /// `y = x · Wᵀ`.
    fn product(&self, linear: &Linear, x: &Buffer, y: &Buffer, count: usize) -> Result<(), ModelError> {
        let weight = Factor::Transposed(linear.matrix());
        let (x, y) = (x.matrix(count, linear.inputs), y.matrix(count, linear.outputs));
        self.gpu
            .multiply((y, self.element), Factor::Plain(x), weight, self.element, Scale::ONE)
    }

    /// `y = x · Wᵀ + b`, where b is of the model's own type.
    fn project(&self, linear: &Linear, x: &Buffer, y: &Buffer, count: usize) -> Result<(), ModelError> {
        if self.ends(count) {
            let (x, y) = (x.matrix(count, linear.inputs), y.matrix(count, linear.outputs));
            return self.gpu.forward_then(
                y,
                x,
                linear.matrix(),
                After::Bias(linear.bias.matrix(1, linear.outputs)),
            );
        }
        if self.element == Element::Bf16 && linear.inputs.is_multiple_of(8) && linear.outputs.is_multiple_of(8) {
            let weight = Factor::Transposed(linear.matrix());
            let (x, y) = (x.matrix(count, linear.inputs), y.matrix(count, linear.outputs));
            let (into, x) = ((y, self.element), Factor::Plain(x));
            let bias = Epilogue::Bias(linear.bias.pointer());
            return self.gpu.multiply_then(into, x, weight, self.element, bias);
        }
        self.product(linear, x, y, count)?;
        let (kernel, blocks) = choose(ADD_BIAS, ADD_BIAS_8, linear.outputs, 256);
        // SAFETY: y has `count` rows of `outputs`.
        unsafe {
            let arguments = [y.into(), (&linear.bias).into(), linear.outputs.into()];
            self.gpu
                .launch(kernel, self.element, [count as u32, blocks, 1], 256, 0, &arguments)
        }
    }

    /// The MLP's non-linearity, of `x` and the bias of what made it.
    fn bend(&self, linear: &Linear, x: &Buffer, out: &Buffer, count: usize) -> Result<(), ModelError> {
        let width = linear.outputs;
        let (kernel, blocks) = choose(BEND, BEND_8, width, 256);
        // SAFETY: both have `count` rows of `width`.
        unsafe {
            let arguments = [
                out.into(),
                x.into(),
                (&linear.bias).into(),
                width.into(),
                self.activation(),
            ];
            self.gpu
                .launch(kernel, self.element, [count as u32, blocks, 1], 256, 0, &arguments)
        }
    }

    pub(super) fn activation(&self) -> Argument {
        // As the fused product has it.
        activation(if self.fused {
            Activation::GeluTanh
        } else {
            self.plan.activation
        })
    }

    pub(super) fn takes_mean(&self) -> Argument {
        Argument::Int(i32::from(self.pooling == Pooling::Mean))
    }

    fn pool(&self, hidden: &Buffer, texts: &Texts, out: View) -> Result<(), ModelError> {
        let width = self.plan.hidden;
        let (kernel, blocks) = choose(POOL, POOL_8, width, 128);
        // SAFETY: texts lie among the rows; `out` has a row for each.
        unsafe {
            let arguments = [
                out.into(),
                hidden.into(),
                self.pooled_starts(texts).into(),
                width.into(),
                self.takes_mean(),
            ];
            let grid = [texts.count as u32, blocks, 1];
            self.gpu.launch(kernel, self.element, grid, 128, 0, &arguments)
        }
    }
}

impl Linear {
    pub(super) fn matrix(&self) -> View {
        self.weight.matrix(self.outputs, self.inputs)
    }
}

impl<'a> Summed<'a> {
    fn of(x: &'a Buffer) -> Self {
        Self {
            x,
            delta: None,
            bias: None,
            sum: None,
        }
    }

    fn and(self, delta: &'a Buffer, bias: &'a Buffer) -> Self {
        Self {
            delta: Some(delta),
            bias: Some(bias),
            ..self
        }
    }

    fn kept(self, sum: Option<&'a Buffer>) -> Self {
        Self { sum, ..self }
    }
}
