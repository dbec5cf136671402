//! Blocks, forward.

use std::sync::Arc;

use super::forward::{eight, views};
use super::{BlockWeights, CudaDecoder, Keep, Layer, Saved, Stream, Track, Way};
use crate::ModelError;
use crate::cuda::attend::Asking;
use crate::cuda::batch::Rows;
use crate::cuda::fused::After;
use crate::cuda::gpu::{Buffer, Element, View};
use crate::cuda::kernels::{MOVE_ROWS, MOVE_ROWS_8};
use crate::cuda::launch::Argument;
use crate::cuda::layers::Stack;
use crate::plan::Activation;

/// What a block's attention leaves.
struct Attention {
    /// The hidden states that went in, f32.
    hidden_in: Arc<Buffer>,
    inverse_in: Buffer,
    x: Vec<Buffer>,
    qkv: Buffer,
    mixed: Buffer,
    lse: Buffer,
}

impl CudaDecoder {
    /// Runs blocks; `track` says what is kept for the way back.
    pub(in crate::cuda) fn blocks(
        &self,
        layers: &[Layer],
        rows: &Rows,
        mut stream: Stream,
        adapted: bool,
        track: Track,
    ) -> Result<(Stream, Vec<Way>), ModelError> {
        let mut saved = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let (next, block) = self.block(
                index,
                layer.weights(),
                rows,
                stream,
                (adapted, track == Track::Whole),
                None,
            )?;
            stream = next;
            match track {
                Track::Nothing => {}
                Track::Inputs => saved.push(Way::Input(block.hidden_in)),
                Track::Whole => saved.push(Way::Whole(Box::new(block))),
            }
        }
        Ok((stream, saved))
    }

    pub(in crate::cuda) fn block(
        &self,
        index: usize,
        layer: BlockWeights<'_>,
        rows: &Rows,
        stream: Stream,
        (adapted, track): (bool, bool),
        keep: Option<Keep<'_>>,
    ) -> Result<(Stream, Saved), ModelError> {
        let saved = self.block_inside(index, layer, rows, stream, (adapted, track), keep)?;
        self.block_ends(layer, saved, rows.count, adapted)
    }

    /// A block's last product, of `count` rows.
    fn block_ends(
        &self,
        layer: BlockWeights<'_>,
        saved: Saved,
        count: usize,
        adapted: bool,
    ) -> Result<(Stream, Saved), ModelError> {
        let width = self.plan.hidden;
        let down = self.gpu.elements(count * width, self.element)?;
        let gated = saved.gated.matrix(count, layer.down.input_width(0));
        let into = down.matrix(count, width);
        layer.down.forward(&self.gpu, 0, gated, into, adapted)?;
        let stream = Stream {
            hidden: saved.hidden_mid.clone(),
            pending: Some(down),
        };
        Ok((stream, saved))
    }

    /// A block without adapters of which only some rows go on after its attention: those at `chosen`, `count` of them, in that order.
    pub(in crate::cuda) fn block_of_rows(
        &self,
        index: usize,
        layer: BlockWeights<'_>,
        rows: &Rows,
        stream: Stream,
        (chosen, count): (&Buffer, usize),
        keep: Keep<'_>,
    ) -> Result<Stream, ModelError> {
        let all = self.attention_inside(index, layer, rows, stream, false, Some(keep))?;
        let (gpu, element, width) = (&self.gpu, self.element, self.plan.hidden);
        let hidden = gpu.elements(count * width, Element::F32)?;
        let normed = gpu.elements(count * width, element)?;
        let (states, out) = ((all.hidden_in.as_ref(), None), [normed.matrix(count, width)]);
        self.add_norm_of(states, Some(chosen), count, layer.mlp_norm, Some(&hidden), None, &out)?;
        let queries = self.plan.heads * self.plan.head_dim;
        let mixed = gpu.elements(count * queries, element)?;
        let (kernel, columns) = match eight(queries, &[]) {
            true => (MOVE_ROWS_8, queries / 8),
            false => (MOVE_ROWS, queries),
        };
        // SAFETY: chosen rows are among all; `mixed` has one for each.
        unsafe {
            let arguments = [
                (&mixed).into(),
                (&all.mixed).into(),
                chosen.into(),
                queries.into(),
                Argument::Int(0),
            ];
            let grid = [count as u32, columns.div_ceil(128) as u32, 1];
            gpu.launch(kernel, element, grid, 128, 0, &arguments)?;
        }
        let attention = Attention {
            hidden_in: Arc::new(hidden),
            mixed,
            ..all
        };
        let saved = self.after_attention(layer, attention, count, (false, false))?;
        Ok(self.block_ends(layer, saved, count, false)?.0)
    }

    /// What a block's way back needs, from what went into it, with the very operations of its forward pass.
    pub(super) fn block_again(&self, index: usize, hidden: Arc<Buffer>, rows: &Rows) -> Result<Saved, ModelError> {
        let layer = self.layers[index].weights();
        let stream = Stream { hidden, pending: None };
        let saved = self.block_inside(index, layer, rows, stream, (true, true), None)?;
        let gated = saved.gated.matrix(rows.count, layer.down.input_width(0));
        layer.down.forward_low(&self.gpu, 0, gated)?;
        Ok(saved)
    }

    /// A block's attention.
    fn attention_inside(
        &self,
        index: usize,
        layer: BlockWeights<'_>,
        rows: &Rows,
        stream: Stream,
        adapted: bool,
        keep: Option<Keep<'_>>,
    ) -> Result<Attention, ModelError> {
        let (gpu, plan, element, count) = (&self.gpu, &self.plan, self.element, rows.count);
        let width = plan.hidden;
        let (queries, keys) = (plan.heads * plan.head_dim, plan.kv_heads * plan.head_dim);
        let inverse_in = gpu.elements(count, Element::F32)?;
        let x = self.inputs(layer.qkv, count, adapted)?;
        let hidden_in = match &stream.pending {
            None => {
                self.add_norm(
                    &stream,
                    None,
                    count,
                    layer.input_norm,
                    None,
                    Some(&inverse_in),
                    &views(layer.qkv, &x, count),
                )?;
                stream.hidden
            }
            Some(_) => {
                let sum = gpu.elements(count * width, Element::F32)?;
                let places = views(layer.qkv, &x, count);
                self.add_norm(
                    &stream,
                    None,
                    count,
                    layer.input_norm,
                    Some(&sum),
                    Some(&inverse_in),
                    &places,
                )?;
                Arc::new(sum)
            }
        };
        let all = queries + 2 * keys;
        let qkv = gpu.elements(count * all, element)?;
        self.project(layer.qkv, &x, count, qkv.matrix(count, all), adapted)?;
        let places = qkv.matrix(count, all);
        let angles = self.angles(rows.longest)?;
        self.rotate(
            places.columns(0, queries + keys, element),
            (&rows.positions, &angles),
            count,
            1.0,
        )?;
        if let Some(keep) = keep {
            keep(index, &qkv)?;
        }
        let mixed = gpu.elements(count * queries, element)?;
        let lse = gpu.elements(count * plan.heads, Element::F32)?;
        let heads = self.heads();
        let into = mixed.matrix(count, queries);
        heads.attend(heads.split(places), into, &lse, rows, Asking::All)?;
        Ok(Attention {
            hidden_in,
            inverse_in,
            x,
            qkv,
            mixed,
            lse,
        })
    }

    /// A block but for its last product.
    fn block_inside(
        &self,
        index: usize,
        layer: BlockWeights<'_>,
        rows: &Rows,
        stream: Stream,
        (adapted, track): (bool, bool),
        keep: Option<Keep<'_>>,
    ) -> Result<Saved, ModelError> {
        let attention = self.attention_inside(index, layer, rows, stream, adapted, keep)?;
        self.after_attention(layer, attention, rows.count, (adapted, track))
    }

    /// What comes after a block's attention, of `count` rows, but for its last product.
    fn after_attention(
        &self,
        layer: BlockWeights<'_>,
        attention: Attention,
        count: usize,
        (adapted, track): (bool, bool),
    ) -> Result<Saved, ModelError> {
        let (gpu, plan, element) = (&self.gpu, &self.plan, self.element);
        let (width, inner, queries) = (plan.hidden, plan.intermediate, plan.heads * plan.head_dim);
        let Attention {
            hidden_in,
            inverse_in,
            x,
            qkv,
            mixed,
            lse,
        } = attention;
        // Room for what goes through the adapter beside it.
        let wide = match adapted && layer.output.parts[0].rank > 0 {
            true => Some(self.widened(mixed.matrix(count, queries), layer.output.input_width(0))?),
            false => None,
        };
        let output_x = match &wide {
            Some(wide) => wide.matrix(count, layer.output.input_width(0)),
            None => mixed.matrix(count, queries),
        };
        let out = gpu.elements(count * width, element)?;
        layer
            .output
            .forward(gpu, 0, output_x, out.matrix(count, width), adapted)?;

        let hidden_mid = gpu.elements(count * width, Element::F32)?;
        let inverse_mid = gpu.elements(count, Element::F32)?;
        let z = self.inputs(layer.gate_up, count, adapted)?;
        let stream = Stream {
            hidden: hidden_in.clone(),
            pending: Some(out),
        };
        let places = views(layer.gate_up, &z, count);
        self.add_norm(
            &stream,
            None,
            count,
            layer.mlp_norm,
            Some(&hidden_mid),
            Some(&inverse_mid),
            &places,
        )?;
        let both = gpu.elements(count * 2 * inner, element)?;
        let gated_width = layer.down.input_width(0);
        let gated = gpu.elements(count * gated_width, element)?;
        let into = (both.matrix(count, 2 * inner), gated.matrix(count, gated_width));
        let derived = self.gated(layer, &z, into, adapted, track)?;
        Ok(Saved {
            hidden_in,
            inverse_in,
            x,
            qkv,
            mixed,
            wide,
            lse,
            hidden_mid: Arc::new(hidden_mid),
            inverse_mid,
            z,
            both,
            derived,
            gated,
        })
    }

    /// Gate and up of `x` side by side into `both`, and their gated product into `out`. Where one product does it all, `both` holds with
    /// `track` the derivatives by gate and up instead, as the answer says.
    fn gated(
        &self,
        layer: BlockWeights<'_>,
        x: &[Buffer],
        (both, out): (View, View),
        adapted: bool,
        track: bool,
    ) -> Result<bool, ModelError> {
        let (stack, count) = (layer.gate_up, both.rows);
        let (inner, activation) = (self.plan.intermediate, self.plan.activation);
        let [gate, up] = [0, 1].map(|part| both.columns(part * inner, inner, self.element));
        let out = out.columns(0, inner, self.element);
        let each = |part: usize| {
            let width = stack.input_width(if x.len() == 1 { 0 } else { part });
            x.get(part).unwrap_or(&x[0]).matrix(count, width)
        };
        let places = [out, gate, up, each(0), stack.weight(0)];
        // The way back has rows with an adapter's inner gradients in them.
        let aligned = |stack: &Stack| stack.parts.iter().all(|part| part.rank.is_multiple_of(8));
        let fused = activation != Activation::Gelu
            && stack.bias(0).is_none()
            && self.gpu.fuses(self.element, count, &places)
            && [stack, layer.down].into_iter().all(aligned);
        if !fused {
            self.project(stack, x, count, both, adapted)?;
            self.gate(both, out, count)?;
            return Ok(false);
        }
        stack.forward(&self.gpu, 1, each(1), up, adapted)?;
        let after = match track {
            true => After::GateKept(activation, up, gate),
            false => After::Gate(activation, up),
        };
        stack.forward_then(&self.gpu, 0, each(0), out, adapted, after)?;
        Ok(true)
    }
}
