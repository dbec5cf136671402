//! The way back through a forward pass.

use super::forward::{by_eight, eight, views};
use super::gradients::{add_gradients, embedding_gradient, norm_gradient};
use super::{CudaDecoder, CudaPass, Norm, Saved, Way};
use crate::ModelError;
use crate::cuda::attend::{Asking, Attended};
use crate::cuda::batch::Rows;
use crate::cuda::fused::Then;
use crate::cuda::gpu::{Buffer, Element, View};
use crate::cuda::kernels::{GATE_BACKWARD, GATE_BACKWARD_8, NORM_BACKWARD, NORM_BACKWARD_8, SUM_ROWS};
use crate::cuda::launch::Argument;
use crate::cuda::layers::blocks;

impl CudaDecoder {
    /// Adds the gradients of Σ slopes · logprobs to the sums that are kept.
    ///
    /// # Errors
    /// Slopes of another number than scores, or too little memory.
    pub fn backward(&mut self, pass: CudaPass, slopes: &[f32]) -> Result<(), ModelError> {
        if slopes.len() != pass.scored.count {
            let message = format!("{} slopes for {} scores", slopes.len(), pass.scored.count);
            return Err(ModelError::Input(message));
        }
        self.parameters.check_version(pass.version)?;
        let (gpu, element) = (self.gpu.clone(), self.element);
        let (width, count) = (self.plan.hidden, pass.rows.count);
        let slopes = gpu.upload(slopes)?;
        let gradient = gpu.zeros(count * width, Element::F32)?;
        let top = self.layers.last().map_or(0, |layer| layer.down.parts[0].rank);
        let dy = gpu.zeros(count * (width + top), element)?;
        self.head_backward(&pass, &slopes, &gradient, dy.matrix(count, width + top))?;
        let first = self.plan.layers - pass.layers.len();
        let mut saved = pass.layers;
        for index in (first..self.plan.layers).rev() {
            let block = match saved.pop() {
                None => break,
                Some(Way::Whole(block)) => block,
                Some(Way::Input(hidden)) => Box::new(self.block_again(index, hidden, &pass.rows)?),
            };
            self.block_backward(index, &block, &pass.rows, &gradient, &dy, index == first)?;
        }
        if let (Some(slot), Some(tokens)) = (self.embedding_slot, &pass.embedded) {
            let scale = self.embedding_scale();
            let parameters = &mut self.parameters;
            embedding_gradient(&gpu, element, parameters, slot, tokens, (&gradient, width), scale)?;
        }
        Ok(())
    }

    fn head_backward(
        &mut self,
        pass: &CudaPass,
        slopes: &Buffer,
        gradient: &Buffer,
        dy: View,
    ) -> Result<(), ModelError> {
        let (gpu, element, width) = (self.gpu.clone(), self.element, self.plan.hidden);
        let count = pass.scored.count;
        let x_width = self.head.input_width(0);
        let x = pass.x.matrix(count, x_width);
        let dx = gpu.elements(count * width, element)?;
        let wide = self.head.gradient_width();
        for part in self.backward_chunks(pass) {
            let rows = x.rows(part.start, part.len(), element);
            let d_logits = gpu.elements(part.len() * wide, element)?;
            let d_logits = (d_logits.matrix(part.len(), wide), d_logits);
            self.logit_gradient(pass, part.clone(), slopes, d_logits.0)?;
            self.head.backward_low(&gpu, d_logits.0)?;
            self.head.backward_input(
                &gpu,
                d_logits.0,
                dx.matrix(count, width).rows(part.start, part.len(), element),
            )?;
            add_gradients(&gpu, element, &mut self.parameters, &self.head, &[rows], d_logits.0)?;
        }
        let fresh = gpu.elements(count * width, Element::F32)?;
        let slope = dx.matrix(count, width);
        self.norm_backward(&fresh, None, slope, &pass.last, &pass.inverse, &self.norm, count, true)?;
        let of = (&pass.last, &pass.inverse);
        norm_gradient(&gpu, element, &mut self.parameters, &self.norm, slope, of)?;
        let by_row = &pass.scored.by_row;
        // SAFETY: rows of both are `width` wide; the targets are among the tokens.
        unsafe {
            let arguments = [
                gradient.into(),
                dy.into(),
                dy.stride.into(),
                (&fresh).into(),
                (&by_row.ids).into(),
                (&by_row.order).into(),
                (&by_row.starts).into(),
                width.into(),
            ];
            gpu.launch(SUM_ROWS, element, [by_row.count as u32, 1, 1], 256, 0, &arguments)
        }
    }

    /// The way back through a block: `gradient` is that of the hidden states, f32, and `dy` the same as `T` with room for an
    /// adapter's inner gradients; both are of the block's output before, of its input afterwards.
    fn block_backward(
        &mut self,
        index: usize,
        saved: &Saved,
        rows: &Rows,
        gradient: &Buffer,
        dy: &Buffer,
        last: bool,
    ) -> Result<(), ModelError> {
        let (gpu, element, count) = (self.gpu.clone(), self.element, rows.count);
        let (width, inner) = (self.plan.hidden, self.plan.intermediate);
        let (queries, keys) = (
            self.plan.heads * self.plan.head_dim,
            self.plan.kv_heads * self.plan.head_dim,
        );
        let layer = &self.layers[index];
        let below = if index > 0 {
            &self.layers[index - 1].down
        } else {
            &layer.down
        };

        // The MLP.
        let down = dy.matrix(count, layer.down.gradient_width());
        layer.down.backward_low(&gpu, down)?;
        let gated = saved.gated.matrix(count, layer.down.input_width(0));
        add_gradients(&gpu, element, &mut self.parameters, &layer.down, &[gated], down)?;
        let wide = layer.gate_up.gradient_width();
        let d_both = gpu.elements(count * wide, element)?;
        let d_both = (d_both.matrix(count, wide), d_both);
        let parts = [0, 1].map(|part| d_both.0.columns(layer.gate_up.gradient_start(part), inner, element));
        let both = saved.both.matrix(count, 2 * inner);
        match saved.derived {
            true => {
                let [by_gate, by_up] = [0, 1].map(|part| both.columns(part * inner, inner, element));
                let then = Then::TimesTwo(by_gate, by_up, parts[1]);
                layer.down.backward_input_then(&gpu, down, parts[0], then)?;
            }
            false => {
                let d_gated = gpu.elements(count * inner, element)?;
                let slope = d_gated.matrix(count, inner);
                layer.down.backward_input(&gpu, down, slope)?;
                self.gate_backward(slope, both, parts)?;
            }
        }
        layer.gate_up.backward_low(&gpu, d_both.0)?;
        let dz = gpu.elements(count * width, element)?;
        let dz = (dz.matrix(count, width), dz);
        layer.gate_up.backward_input(&gpu, d_both.0, dz.0)?;
        let z = views(&layer.gate_up, &saved.z, count);
        add_gradients(&gpu, element, &mut self.parameters, &layer.gate_up, &z, d_both.0)?;
        drop(d_both.1);
        let d_out = gpu.elements(count * layer.output.gradient_width(), element)?;
        let d_out = (d_out.matrix(count, layer.output.gradient_width()), d_out);
        let out = Some(d_out.0);
        self.norm_backward(
            gradient,
            out,
            dz.0,
            &saved.hidden_mid,
            &saved.inverse_mid,
            &layer.mlp_norm,
            count,
            false,
        )?;
        let of = (saved.hidden_mid.as_ref(), &saved.inverse_mid);
        norm_gradient(&gpu, element, &mut self.parameters, &layer.mlp_norm, dz.0, of)?;

        // Attention.
        layer.output.backward_low(&gpu, d_out.0)?;
        let d_mixed = gpu.elements(count * queries, element)?;
        let d_mixed = (d_mixed.matrix(count, queries), d_mixed);
        layer.output.backward_input(&gpu, d_out.0, d_mixed.0)?;
        let output_x = match &saved.wide {
            Some(wide) => wide.matrix(count, layer.output.input_width(0)),
            None => saved.mixed.matrix(count, queries),
        };
        add_gradients(&gpu, element, &mut self.parameters, &layer.output, &[output_x], d_out.0)?;
        let wide = layer.qkv.gradient_width();
        let d_qkv = gpu.elements(count * wide, element)?;
        let d_qkv = (d_qkv.matrix(count, wide), d_qkv);
        let part = |index: usize, columns: usize| d_qkv.0.columns(layer.qkv.gradient_start(index), columns, element);
        let parts = [part(0, queries), part(1, keys), part(2, keys)];
        let attended = Attended {
            inputs: self.heads().split(saved.qkv.matrix(count, queries + 2 * keys)),
            mixed: saved.mixed.matrix(count, queries),
            lse: &saved.lse,
            asking: Asking::All,
        };
        self.heads().attend_backward(attended, d_mixed.0, parts, rows)?;
        let angles = self.angles(rows.longest)?;
        self.rotate(parts[0], (&rows.positions, &angles), count, -1.0)?;
        self.rotate(parts[1], (&rows.positions, &angles), count, -1.0)?;
        layer.qkv.backward_low(&gpu, d_qkv.0)?;
        let x = views(&layer.qkv, &saved.x, count);
        add_gradients(&gpu, element, &mut self.parameters, &layer.qkv, &x, d_qkv.0)?;
        // Below the last block is nothing that is trained; the norm's own weight may be.
        if last && layer.input_norm.slot.is_none() {
            return Ok(());
        }
        let dx = dz;
        layer.qkv.backward_input(&gpu, d_qkv.0, dx.0)?;
        let below = dy.matrix(count, below.gradient_width());
        let (hidden, inverse) = (&saved.hidden_in, &saved.inverse_in);
        self.norm_backward(
            gradient,
            Some(below),
            dx.0,
            hidden,
            inverse,
            &layer.input_norm,
            count,
            false,
        )?;
        let of = (hidden.as_ref(), inverse);
        norm_gradient(&gpu, element, &mut self.parameters, &layer.input_norm, dx.0, of)
    }

    /// Gradients of gate and up, given that of their gated product.
    fn gate_backward(&self, slope: View, both: View, [d_gate, d_up]: [View; 2]) -> Result<(), ModelError> {
        let inner = self.plan.intermediate;
        // SAFETY: rows are as wide as said.
        unsafe {
            let arguments = [
                d_gate.into(),
                d_gate.stride.into(),
                d_up.into(),
                d_up.stride.into(),
                slope.into(),
                slope.stride.into(),
                both.into(),
                both.stride.into(),
                inner.into(),
                self.activation(),
            ];
            let (kernel, columns) = match eight(inner, &[d_gate, d_up, slope, both]) {
                true => (GATE_BACKWARD_8, inner / 8),
                false => (GATE_BACKWARD, inner),
            };
            let grid = [blocks(columns), slope.rows as u32, 1];
            self.gpu.launch(kernel, self.element, grid, 256, 0, &arguments)
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the kernel's own")]
    fn norm_backward(
        &self,
        gradient: &Buffer,
        out: Option<View>,
        slope: View,
        hidden: &Buffer,
        inverse: &Buffer,
        norm: &Norm,
        count: usize,
        fresh: bool,
    ) -> Result<(), ModelError> {
        let none = [Argument::Address(0), Argument::Int(0)];
        let [place, stride] = out.map_or(none, |out| [out.into(), out.stride.into()]);
        let offset = if self.plan.norm_adds_one { 1.0_f32 } else { 0.0 };
        // SAFETY: all have `count` rows of the hidden width.
        unsafe {
            let arguments = [
                gradient.into(),
                place,
                stride,
                slope.into(),
                slope.stride.into(),
                hidden.into(),
                Argument::Address(0),
                inverse.into(),
                (&norm.weight).into(),
                offset.into(),
                self.plan.hidden.into(),
                Argument::Int(i32::from(fresh)),
            ];
            let places: Vec<View> = out.into_iter().chain([slope]).collect();
            let eight = by_eight(self.plan.hidden, &places);
            let kernel = if eight { NORM_BACKWARD_8 } else { NORM_BACKWARD };
            self.gpu
                .launch(kernel, self.element, [count as u32, 1, 1], 256, 0, &arguments)
        }
    }
}
