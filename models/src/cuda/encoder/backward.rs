//! The way back through a forward pass.

use super::forward::{LONGEST_ROW, choose};
use super::{CudaEncoder, Linear, Norm, Part, Saved, Texts};
use crate::ModelError;
use crate::cuda::attend::Attended;
use crate::cuda::batch::Grouped;
use crate::cuda::fused::Then;
use crate::cuda::gemm::{Factor, Scale};
use crate::cuda::gpu::{Buffer, Element, Gpu, View};
use crate::cuda::kernels::{
    ADD_PARTS, BEND_BACKWARD, BEND_BACKWARD_8, COLUMN_PARTS, COLUMN_PARTS_8, LAYER_NORM_BACKWARD,
    LAYER_NORM_BACKWARD_8, POOL_BACKWARD, POOL_BACKWARD_8, SCATTER, SCATTER_8,
};
use crate::cuda::launch::Argument;

/// Rows whose sums are wanted: those of one after those of another, or side by side.
struct Parts<'a> {
    parts: &'a Buffer,
    rows: usize,
    /// Columns of each.
    width: usize,
    /// From one row to the next.
    pitch: usize,
    /// From one to the other.
    plane: usize,
}

/// A gradient of hidden states, in two parts that are still to be added.
struct Slope {
    one: Buffer,
    other: Option<Buffer>,
}

impl CudaEncoder {
    /// Adds the gradients of Σ slopes · vectors of some texts, `slopes` being `[texts, hidden]`, f32.
    pub(super) fn part_backward(&mut self, part: Part, slopes: View) -> Result<(), ModelError> {
        let count = part.texts.rows.count;
        let mut slope = Slope {
            one: self.pool_backward(&part.texts, slopes)?,
            other: None,
        };
        let mut saved = part.layers;
        for index in (0..self.layers.len()).rev() {
            let Some(block) = saved.pop() else { break };
            slope = self.block_backward(index, block, slope, &part.texts)?;
        }
        let d_sum = self.gpu.elements(count * self.plan.hidden, self.element)?;
        norm_backward(self, Place::Embeddings, &slope, &part.embedded, &d_sum, count)?;
        drop(slope);
        self.scatter(&part.gathered[0], &d_sum, self.words.slot)?;
        self.scatter(&part.gathered[1], &d_sum, self.positions.slot)?;
        // All tokens are of the first segment.
        let segments = self.segments.slot;
        self.sum_columns(&d_sum, self.plan.hidden, count, &[segments])
    }

    fn block_backward(&mut self, index: usize, saved: Saved, slope: Slope, texts: &Texts) -> Result<Slope, ModelError> {
        let (gpu, element, all) = (self.gpu.clone(), self.element, texts.rows.count);
        let (width, inner) = (self.plan.hidden, self.plan.intermediate);
        let alone = self.first_rows_alone(index);
        let count = if alone { texts.count } else { all };
        let room = |rows: usize, columns: usize| gpu.elements(rows * columns, element);
        let asking = saved.asking();
        // The MLP.
        let d_mlp = room(count, width)?;
        norm_backward(self, Place::Mlp(index), &slope, &saved.mlp_sum, &d_mlp, count)?;
        drop(slope);
        let d_inner = room(count, inner)?;
        self.weight_gradient(|e| &e.layers[index].down, &d_mlp, &saved.bent, count)?;
        drop(saved.bent);
        match saved.derived {
            true => self.bent_gradient(index, &d_mlp, &saved.inner, &d_inner, count)?,
            false => {
                self.input_gradient(&self.layers[index].down, &d_mlp, &d_inner, None, count)?;
                self.bend_backward(index, &d_inner, &saved.inner, count)?;
            }
        }
        drop(saved.inner);
        let d_middle = room(count, width)?;
        self.weight_gradient(|e| &e.layers[index].up, &d_inner, &saved.middle, count)?;
        let other = self.input_gradient(&self.layers[index].up, &d_inner, &d_middle, Some(d_mlp), count)?;
        drop(d_inner);
        // Attention.
        let mut d_attention = room(count, width)?;
        let slope = Slope { one: d_middle, other };
        let sum = &saved.attention_sum;
        norm_backward(self, Place::Attention(index), &slope, sum, &d_attention, count)?;
        drop(slope);
        let mut d_mixed = room(count, width)?;
        let going = saved.chosen.as_ref().unwrap_or(&saved.mixed);
        self.weight_gradient(|e| &e.layers[index].output, &d_attention, going, count)?;
        self.input_gradient(&self.layers[index].output, &d_attention, &d_mixed, None, count)?;
        if alone && saved.queries.is_none() {
            d_mixed = self.first_rows_back(&d_mixed, texts)?;
            d_attention = self.first_rows_back(&d_attention, texts)?;
        }
        let d_qkv = room(all, 3 * width)?;
        let each = d_qkv.matrix(all, 3 * width);
        let mut parts = [0, 1, 2].map(|part| each.columns(part * width, width, element));
        let mut inputs = self.heads().split(saved.qkv.matrix(all, 3 * width));
        let d_first = room(saved.queries.as_ref().map_or(0, |_| count), width)?;
        if let Some(queries) = &saved.queries {
            inputs[0] = queries.matrix(count, width);
            parts[0] = d_first.matrix(count, width);
        }
        let asked = inputs[0].rows;
        let attended = Attended {
            inputs,
            mixed: saved.mixed.matrix(asked, width),
            lse: &saved.lse,
            asking,
        };
        let slope = d_mixed.matrix(asked, width);
        let sums = self.heads().attend_backward(attended, slope, parts, &texts.rows)?;
        let slots: Vec<Option<usize>> = self.layers[index].qkv.slots.iter().map(|slots| slots[1]).collect();
        match &sums {
            Some(parts) => {
                let sums = Parts {
                    parts,
                    rows: texts.rows.tile_count,
                    width,
                    pitch: 3 * width,
                    plane: width,
                };
                self.add_parts(&sums, &slots)?;
            }
            None => self.sum_columns(&d_qkv, 3 * width, all, &slots)?,
        }
        if saved.queries.is_some() {
            return self.first_backward(
                index,
                &saved.x,
                [parts[0], each.columns(width, 2 * width, element)],
                &d_attention,
                texts,
            );
        }
        let d_x = d_mixed;
        self.weight_gradient(|e| &e.layers[index].qkv, &d_qkv, &saved.x, all)?;
        let other = self.input_gradient(&self.layers[index].qkv, &d_qkv, &d_x, Some(d_attention), all)?;
        Ok(Slope { one: d_x, other })
    }

    /// The way back of [`CudaEncoder::project_first`], given the gradients of first tokens' queries, of all keys and values, and of the
    /// first tokens by what attention was added to.
    fn first_backward(
        &mut self,
        index: usize,
        x: &Buffer,
        [d_queries, d_others]: [View; 2],
        d_first: &Buffer,
        texts: &Texts,
    ) -> Result<Slope, ModelError> {
        let (gpu, element, width) = (self.gpu.clone(), self.element, self.plan.hidden);
        let (all, count) = (d_others.rows, d_queries.rows);
        let first = self.first_rows(x, texts)?;
        let slots: Vec<Option<usize>> = self.layers[index].qkv.slots.iter().map(|slots| slots[0]).collect();
        let (queries, others) = slots.split_at(1);
        self.gradient_of(queries, d_queries, Factor::Plain(first.matrix(count, width)))?;
        self.gradient_of(others, d_others, Factor::Plain(x.matrix(all, width)))?;
        let weight = self.layers[index].qkv.matrix();
        let [own, other] = [weight.rows(0, width, element), weight.rows(width, 2 * width, element)];
        let into = (d_first.matrix(count, width), element);
        gpu.multiply(into, Factor::Plain(d_queries), Factor::Plain(own), element, Scale::ADD)?;
        let residual = self.first_rows_back(d_first, texts)?;
        let d_x = gpu.elements(all * width, element)?;
        let then = Then::Add(residual.matrix(all, width));
        gpu.backward_then(d_x.matrix(all, width), d_others, other, then)?;
        Ok(Slope { one: d_x, other: None })
    }

    /// Gradients of texts' first rows among all rows, of which the others' are zero.
    fn first_rows_back(&self, slope: &Buffer, texts: &Texts) -> Result<Buffer, ModelError> {
        let all = self.gpu.zeros(texts.rows.count * self.plan.hidden, self.element)?;
        self.move_rows(&all, slope, texts, true)?;
        Ok(all)
    }

    /// The gradient of a linear layer's input into `dx`, given that of its outputs. `other` is a gradient of the same input that is to be
    /// added: it comes back where it still is.
    fn input_gradient(
        &self,
        linear: &Linear,
        dy: &Buffer,
        dx: &Buffer,
        other: Option<Buffer>,
        count: usize,
    ) -> Result<Option<Buffer>, ModelError> {
        let (dy, dx) = (dy.matrix(count, linear.outputs), dx.matrix(count, linear.inputs));
        if let (true, Some(other)) = (self.ends(count), &other) {
            let then = Then::Add(other.matrix(count, linear.inputs));
            self.gpu.backward_then(dx, dy, linear.matrix(), then)?;
            return Ok(None);
        }
        let (into, weight) = ((dx, self.element), Factor::Plain(linear.matrix()));
        self.gpu
            .multiply(into, Factor::Plain(dy), weight, self.element, Scale::ONE)?;
        Ok(other)
    }

    /// The gradient of a linear layer's weights, given that of its outputs and its input.
    fn weight_gradient(
        &mut self,
        of: impl Fn(&Self) -> &Linear,
        dy: &Buffer,
        x: &Buffer,
        count: usize,
    ) -> Result<(), ModelError> {
        let linear = of(self);
        let (inputs, outputs) = (linear.inputs, linear.outputs);
        let slots: Vec<Option<usize>> = linear.slots.iter().map(|slots| slots[0]).collect();
        let x = Factor::Plain(x.matrix(count, inputs));
        self.gradient_of(&slots, dy.matrix(count, outputs), x)
    }

    /// The gradients of weights whose outputs stand side by side, all of one height.
    fn gradient_of(&mut self, slots: &[Option<usize>], dy: View, x: Factor) -> Result<(), ModelError> {
        let (gpu, element) = (self.gpu.clone(), self.element);
        let high = dy.columns / slots.len();
        let all: Option<Vec<usize>> = slots.iter().copied().collect();
        if let Some((slope, scale)) = all.and_then(|all| self.parameters.joint_slope(&all)) {
            return gpu.multiply((slope, Element::F32), Factor::Transposed(dy), x, element, scale);
        }
        for (index, slot) in slots.iter().enumerate() {
            let Some(slot) = *slot else { continue };
            let own = Factor::Transposed(dy.columns(index * high, high, element));
            let (slope, scale) = self.parameters.slope(slot);
            gpu.multiply((slope, Element::F32), own, x, element, scale)?;
        }
        Ok(())
    }

    /// The gradient of what the MLP's non-linearity was taken of into `into`, given that of the MLP's output and the derivative that was
    /// kept; and that of the bias that was added before it.
    fn bent_gradient(
        &mut self,
        index: usize,
        slope: &Buffer,
        derivative: &Buffer,
        into: &Buffer,
        count: usize,
    ) -> Result<(), ModelError> {
        let (gpu, width) = (self.gpu.clone(), self.plan.intermediate);
        let rows = Gpu::rows_of_sums(count);
        let parts = gpu.elements(rows * width, Element::F32)?;
        let layer = &self.layers[index];
        let then = Then::Times(derivative.matrix(count, width), &parts);
        let slope = slope.matrix(count, self.plan.hidden);
        gpu.backward_then(into.matrix(count, width), slope, layer.down.matrix(), then)?;
        let slot = layer.up.slots[0][1];
        let sums = Parts {
            parts: &parts,
            rows,
            width,
            pitch: width,
            plane: 0,
        };
        self.add_parts(&sums, &[slot])
    }

    /// Turns the gradient of the MLP's bent inner values into that of what they were made of, and sums that of their bias.
    fn bend_backward(&mut self, index: usize, slope: &Buffer, inner: &Buffer, count: usize) -> Result<(), ModelError> {
        let (gpu, width) = (self.gpu.clone(), self.plan.intermediate);
        let (kernel, across) = choose(BEND_BACKWARD, BEND_BACKWARD_8, width, 256);
        let blocks = blocks_for(&gpu, count, across);
        let parts = gpu.elements(blocks as usize * width, Element::F32)?;
        let up = &self.layers[index].up;
        // A fused product has added it to what it kept.
        let bias = if self.fused {
            Argument::Address(0)
        } else {
            (&up.bias).into()
        };
        // SAFETY: rows of `width`; parts has a row for each block.
        unsafe {
            let arguments = [
                slope.into(),
                (&parts).into(),
                inner.into(),
                bias,
                count.into(),
                width.into(),
                self.activation(),
            ];
            gpu.launch(kernel, self.element, [blocks, across, 1], 256, 0, &arguments)?;
        }
        let slot = up.slots[0][1];
        let sums = Parts {
            parts: &parts,
            rows: blocks as usize,
            width,
            pitch: width,
            plane: 0,
        };
        self.add_parts(&sums, &[slot])
    }

    /// Adds the sums over all rows of `x` to gradients, each of which takes an equal share of the columns.
    fn sum_columns(
        &mut self,
        x: &Buffer,
        width: usize,
        count: usize,
        slots: &[Option<usize>],
    ) -> Result<(), ModelError> {
        let gpu = self.gpu.clone();
        let (kernel, across) = choose(COLUMN_PARTS, COLUMN_PARTS_8, width, 256);
        let blocks = blocks_for(&gpu, count, across);
        let parts = gpu.elements(blocks as usize * width, Element::F32)?;
        // SAFETY: x has `count` rows of `width`; parts has a row for each block.
        unsafe {
            let arguments = [(&parts).into(), x.into(), count.into(), width.into()];
            gpu.launch(kernel, self.element, [blocks, across, 1], 256, 0, &arguments)?;
        }
        let share = width / slots.len();
        let sums = Parts {
            parts: &parts,
            rows: blocks as usize,
            width: share,
            pitch: width,
            plane: share,
        };
        self.add_parts(&sums, slots)
    }

    /// Adds sums of parts to the first rows of up to three gradients.
    fn add_parts(&mut self, of: &Parts<'_>, slots: &[Option<usize>]) -> Result<(), ModelError> {
        let mut targets = [Argument::Address(0); 3];
        let mut fresh = 0;
        for (place, (target, slot)) in targets.iter_mut().zip(slots).enumerate() {
            let Some(slot) = *slot else { continue };
            let (slope, written) = self.parameters.first_row(slot)?;
            *target = slope.into();
            fresh |= i32::from(written) << place;
        }
        let [first, second, third] = targets;
        // SAFETY: parts has rows for each target; targets have `width` values.
        unsafe {
            let arguments = [
                first,
                second,
                third,
                of.parts.into(),
                of.rows.into(),
                of.width.into(),
                of.pitch.into(),
                of.plane.into(),
                Argument::Int(fresh),
            ];
            let grid = [of.width.div_ceil(32) as u32, slots.len() as u32, 1];
            self.gpu.launch(ADD_PARTS, self.element, grid, 512, 0, &arguments)
        }
    }

    fn scatter(&mut self, gathered: &Grouped, slope: &Buffer, slot: Option<usize>) -> Result<(), ModelError> {
        let Some(slot) = slot else { return Ok(()) };
        let table = self.parameters.zeroed_slope(slot)?;
        let width = self.plan.hidden;
        let (kernel, across) = choose(SCATTER, SCATTER_8, width, 128);
        // SAFETY: ids are rows of the table, the order's entries rows of `slope`.
        unsafe {
            let arguments = [
                table.into(),
                slope.into(),
                (&gathered.order).into(),
                (&gathered.starts).into(),
                (&gathered.ids).into(),
                width.into(),
            ];
            let grid = [gathered.count as u32, across, 1];
            self.gpu.launch(kernel, self.element, grid, 128, 0, &arguments)
        }
    }

    fn pool_backward(&self, texts: &Texts, slopes: View) -> Result<Buffer, ModelError> {
        let width = self.plan.hidden;
        let alone = self.plan.layers > 0 && self.first_rows_alone(self.plan.layers - 1);
        let count = if alone { texts.count } else { texts.rows.count };
        let out = self.gpu.elements(count * width, self.element)?;
        let (kernel, across) = choose(POOL_BACKWARD, POOL_BACKWARD_8, width, 128);
        // SAFETY: texts lie among the rows; `slopes` has a row for each.
        unsafe {
            let arguments = [
                (&out).into(),
                slopes.into(),
                self.pooled_starts(texts).into(),
                width.into(),
                self.takes_mean(),
            ];
            let grid = [texts.count as u32, across, 16];
            self.gpu.launch(kernel, self.element, grid, 128, 0, &arguments)?;
        }
        Ok(out)
    }

    fn norm_at(&self, place: Place) -> (&Norm, Option<usize>) {
        match place {
            Place::Embeddings => (&self.norm, None),
            Place::Attention(index) => {
                let layer = &self.layers[index];
                (&layer.attention_norm, layer.output.slots[0][1])
            }
            Place::Mlp(index) => {
                let layer = &self.layers[index];
                (&layer.mlp_norm, layer.down.slots[0][1])
            }
        }
    }
}

/// Which norm.
#[derive(Clone, Copy)]
enum Place {
    Embeddings,
    Attention(usize),
    Mlp(usize),
}

/// The gradient `d_sum` of what a norm was of, and those of its weight, its bias and the bias that was added before it.
fn norm_backward(
    encoder: &mut CudaEncoder,
    place: Place,
    slope: &Slope,
    sum: &Buffer,
    d_sum: &Buffer,
    count: usize,
) -> Result<(), ModelError> {
    let (gpu, width) = (encoder.gpu.clone(), encoder.plan.hidden);
    let (norm, bias) = encoder.norm_at(place);
    let slots = [norm.slots[0], norm.slots[1], bias];
    let eight = width.is_multiple_of(8) && width <= LONGEST_ROW;
    // A row is a block's, which has two at once, or a warp's. Registers are enough for so many threads at a time.
    let (threads, blocks) = match eight {
        true => (warps_for(width) * 32, count.div_ceil(2) as u32),
        false => (128, count.div_ceil(4) as u32),
    };
    let resident = if eight { 640 } else { 384 } / threads;
    let blocks = blocks.min(resident * gpu.multiprocessors());
    let rows = if eight { blocks } else { 4 * blocks } as usize;
    let parts = gpu.elements(3 * rows * width, Element::F32)?;
    if !eight {
        parts.clear()?;
    }
    let kernel = if eight {
        LAYER_NORM_BACKWARD_8
    } else {
        LAYER_NORM_BACKWARD
    };
    // SAFETY: all have `count` rows of `width`; parts has three times as many rows as the kernel says.
    unsafe {
        let more = slope.other.as_ref().map_or(Argument::Address(0), Argument::from);
        let arguments = [
            d_sum.into(),
            (&parts).into(),
            (&slope.one).into(),
            more,
            sum.into(),
            (&norm.weight).into(),
            count.into(),
            width.into(),
            (encoder.plan.norm_eps as f32).into(),
        ];
        gpu.launch(kernel, encoder.element, [blocks, 1, 1], threads, 0, &arguments)?;
    }
    let sums = Parts {
        parts: &parts,
        rows,
        width,
        pitch: width,
        plane: rows * width,
    };
    encoder.add_parts(&sums, &slots)
}

/// Warps for a row of which a thread has eight columns.
fn warps_for(width: usize) -> u32 {
    width.div_ceil(256) as u32
}

/// Blocks that share `count` rows where a row takes `across` of them.
fn blocks_for(gpu: &Gpu, count: usize, across: u32) -> u32 {
    (8 * gpu.multiprocessors()).div_ceil(across).min(count as u32).max(1)
}
