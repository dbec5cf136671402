//! Attention: on tensor cores where element, head size and alignment allow it, else by kernels for any of them.

use super::batch::Rows;
use super::fused::tensor_map;
use super::gpu::{Buffer, Element, Gpu, View};
use super::kernels::{
    ATTEND, ATTEND_DELTA, ATTEND_JOIN, ATTEND_KEYS, ATTEND_QUERIES, ATTEND_STEP, JOIN_SPLITS, Kernel, ROWS_ATTEND_128,
    ROWS_ATTEND_256, ROWS_KEYS_128, ROWS_KEYS_256, ROWS_QUERIES_128, ROWS_QUERIES_256, SUM_PARTS, TENSOR_ATTEND_64,
    TENSOR_ATTEND_128, TENSOR_ATTEND_256, TENSOR_DELTAS, TENSOR_KEYS_64, TENSOR_KEYS_128, TENSOR_KEYS_256,
    TENSOR_QUERIES_64, TENSOR_QUERIES_128, TENSOR_QUERIES_256, TEXTS_ATTEND_64, TEXTS_KEYS_64, TEXTS_QUERIES_64,
    TOKEN_64, TOKEN_128, TOKEN_256,
};
use super::launch::Argument;
use crate::ModelError;

/// Query heads that one block of a step's attention takes.
const SHARED_HEADS: usize = 8;
/// Most blocks that share a sequence's keys in a step.
const MOST_PARTS: usize = 64;

/// A kernel, the threads of its blocks and the dynamic shared memory that each block wants.
type Blocks = (Kernel, u32, u32);

/// Kernels on tensor cores for a head size.
struct Tensor {
    attend: Blocks,
    queries: Blocks,
    keys: Blocks,
    token: Blocks,
    /// Whether the first three are those for packed rows on Hopper: their blocks go in pairs, those by queries stay and take
    /// their shares of all tiles instead of being one for each tile and head, and what a pair shares is described as boxes.
    pairs: bool,
    /// Whether they are those for whole texts on Hopper: gradients come with their sums, and those of queries with deltas.
    texts: bool,
}

/// The kernels on tensor cores for heads of `dim`, where a card's blocks have the shared memory that they need.
fn tensor(dim: usize, shared_memory: u32) -> Option<Tensor> {
    // The kernel of keys is compiled with one stage less for cards that have not the room.
    const KEYS_256: (u32, u32) = (131_584, 98_560);
    let kernels = match dim {
        64 => Tensor {
            attend: (TENSOR_ATTEND_64, 128, 49_152),
            queries: (TENSOR_QUERIES_64, 128, 49_152),
            keys: (TENSOR_KEYS_64, 128, 49_664),
            token: (TOKEN_64, 128, 49_152),
            pairs: false,
            texts: false,
        },
        128 => Tensor {
            attend: (TENSOR_ATTEND_128, 128, 98_304),
            queries: (TENSOR_QUERIES_128, 128, 98_304),
            keys: (TENSOR_KEYS_128, 128, 66_048),
            token: (TOKEN_128, 128, 98_304),
            pairs: false,
            texts: false,
        },
        256 => Tensor {
            attend: (TENSOR_ATTEND_256, 128, 98_304),
            queries: (TENSOR_QUERIES_256, 128, 98_304),
            keys: (
                TENSOR_KEYS_256,
                256,
                if shared_memory < KEYS_256.0 {
                    KEYS_256.1
                } else {
                    KEYS_256.0
                },
            ),
            token: (TOKEN_256, 64, 98_304),
            pairs: false,
            texts: false,
        },
        _ => return None,
    };
    let needed = [kernels.attend, kernels.queries, kernels.keys, kernels.token];
    needed
        .iter()
        .all(|(_, _, memory)| *memory <= shared_memory)
        .then_some(kernels)
}

impl Asking {
    /// How many there are.
    fn rows(self, queries: View, rows: &Rows) -> usize {
        match self {
            Self::All => rows.count,
            Self::First => queries.rows,
        }
    }
}

impl Tensor {
    /// What kernels for whole texts take besides.
    fn asking(&self, asking: Asking) -> Option<Argument> {
        let first = Argument::Int(i32::from(asking == Asking::First));
        self.texts.then_some(first)
    }
}

/// A matrix as kernels for pairs of blocks read it, no more than there are tokens.
fn boxes(view: View, rows: &Rows) -> Result<Argument, ModelError> {
    let tokens = View {
        rows: rows.count,
        ..view
    };
    Ok(Argument::Map(tensor_map(tokens, [64, 64])?))
}

/// What of a forward pass the way back needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attended<'a> {
    /// Queries, keys and values.
    pub(super) inputs: [View; 3],
    /// What came out, `[tokens, heads · dim]`.
    pub(super) mixed: View,
    pub(super) lse: &'a Buffer,
    pub(super) asking: Asking,
}

/// Whose queries there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// Every token's.
    All,
    /// Those of texts' first tokens: what goes by queries has a row a text. [`Heads::can_ask_first`] says where.
    First,
}

/// The caches of a layer and who reads them.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepInputs<'a> {
    pub(super) qkv: View,
    pub(super) mixed: View,
    pub(super) keys: &'a Buffer,
    pub(super) values: &'a Buffer,
    pub(super) slots: &'a Buffer,
    pub(super) chosen: &'a Buffer,
    pub(super) partial: &'a Buffer,
}

/// How a model attends: its heads, what they compute in, and where.
#[derive(Debug, Clone)]
pub(super) struct Heads {
    pub(super) gpu: Gpu,
    pub(super) element: Element,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Heads {
    /// Queries, keys and values of a buffer that has them side by side.
    pub(super) fn split(&self, qkv: View) -> [View; 3] {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        [
            qkv.columns(0, queries, self.element),
            qkv.columns(queries, keys, self.element),
            qkv.columns(queries + keys, keys, self.element),
        ]
    }

    fn score_scale(&self) -> f32 {
        (self.head_dim as f32).powf(-0.5)
    }

    /// The kernels on tensor cores, where they take these matrices: rows must begin at multiples of 16 bytes.
    fn tensor(&self, views: &[View]) -> Option<Tensor> {
        let aligned = |view: &View| view.pointer.is_multiple_of(16) && view.stride.is_multiple_of(8);
        let fits = self.element == Element::Bf16 && views.iter().all(aligned);
        fits.then(|| tensor(self.head_dim, self.gpu.shared_memory())).flatten()
    }

    /// The same for a pass over these rows: on Hopper there are faster ones, for heads of 64 those for whole texts alone.
    fn tensor_for(&self, rows: &Rows, views: &[View]) -> Option<Tensor> {
        let tensor = self.tensor(views)?;
        if self.gpu.capability() != (9, 0) {
            return Some(tensor);
        }
        Some(match self.head_dim {
            64 if rows.texts && self.heads == self.kv_heads => Tensor {
                attend: (TEXTS_ATTEND_64, 256, 81_920),
                queries: (TEXTS_QUERIES_64, 256, 98_304),
                keys: (TEXTS_KEYS_64, 128, 50_176),
                texts: true,
                ..tensor
            },
            128 => Tensor {
                attend: (ROWS_ATTEND_128, 384, 229_632),
                queries: (ROWS_QUERIES_128, 384, 229_632),
                keys: (ROWS_KEYS_128, 384, 198_912),
                pairs: true,
                ..tensor
            },
            256 => Tensor {
                attend: (ROWS_ATTEND_256, 384, 229_632),
                queries: (ROWS_QUERIES_256, 384, 229_632),
                keys: (ROWS_KEYS_256, 384, 214_272),
                pairs: true,
                ..tensor
            },
            _ => tensor,
        })
    }

    /// Launches a kernel that goes by tiles of queries, which takes `first`, keys and values, `strides` and theirs, and `rest`.
    ///
    /// # Safety
    /// As [`Gpu::launch`].
    unsafe fn launch_by_queries(
        &self,
        (kernel, threads, shared): Blocks,
        pairs: bool,
        rows: &Rows,
        [k, v]: [View; 2],
        [first, strides, rest]: [Vec<Argument>; 3],
    ) -> Result<(), ModelError> {
        let mut arguments = first;
        let mut grid = [self.heads as u32, rows.tile_count as u32, 1];
        if pairs {
            grid = [self.gpu.multiprocessors() / 2 * 2, 1, 1];
            arguments.extend([boxes(k, rows)?, boxes(v, rows)?]);
            arguments.extend(strides);
            arguments.extend(rest);
            arguments.push(rows.tile_count.into());
        } else {
            arguments.extend([Argument::from(k), v.into()]);
            arguments.extend(strides);
            arguments.extend([Argument::from(k.stride), v.stride.into()]);
            arguments.extend(rest);
        }
        // SAFETY: as the caller says.
        unsafe { self.gpu.launch(kernel, self.element, grid, threads, shared, &arguments) }
    }

    /// Whether texts' first tokens can ask alone, where rows begin at multiples of 16 bytes.
    pub(super) fn can_ask_first(&self, rows: &Rows) -> bool {
        self.tensor_for(rows, &[]).is_some_and(|tensor| tensor.texts)
    }

    /// What follows the strides of a kernel by queries, of which there are `asking`.
    fn layout(&self, rows: &Rows, asking: usize) -> Vec<Argument> {
        vec![
            (&rows.segments).into(),
            (&rows.tiles).into(),
            asking.into(),
            self.heads.into(),
            self.kv_heads.into(),
            Argument::Int(i32::from(rows.causal)),
            self.score_scale().into(),
        ]
    }

    /// `mixed` = attention of queries, keys and values, and the logarithms of the softmax' denominators.
    pub(super) fn attend(
        &self,
        [q, k, v]: [View; 3],
        mixed: View,
        lse: &Buffer,
        rows: &Rows,
        asking: Asking,
    ) -> Result<(), ModelError> {
        if rows.count == 0 {
            return Ok(());
        }
        let plan = self;
        if let Some(tensor) = self.tensor_for(rows, &[q, k, v, mixed]) {
            let mut rest = self.layout(rows, asking.rows(q, rows));
            rest.extend(tensor.asking(asking));
            // SAFETY: keys and values have a row for each token, the others for each that asks, and segments lie among them.
            return unsafe {
                let first = vec![mixed.into(), lse.into(), q.into()];
                let strides = vec![q.stride.into()];
                self.launch_by_queries(tensor.attend, tensor.pairs, rows, [k, v], [first, strides, rest])
            };
        }
        assert!(
            asking == Asking::All,
            "attention of first tokens by kernels that have none"
        );
        // SAFETY: all have a row for each token; ranges lie among them.
        unsafe {
            let arguments = [
                mixed.into(),
                mixed.stride.into(),
                lse.into(),
                q.into(),
                q.stride.into(),
                k.into(),
                k.stride.into(),
                v.into(),
                v.stride.into(),
                (&rows.sees).into(),
                plan.heads.into(),
                (plan.heads / plan.kv_heads).into(),
                plan.head_dim.into(),
                self.score_scale().into(),
            ];
            let grid = [rows.count as u32, plan.heads.div_ceil(4) as u32, 1];
            self.gpu.launch(ATTEND, self.element, grid, 128, 0, &arguments)
        }
    }

    /// Gradients of queries, keys and values into `into`, given `slope`, that of what came out, `[tokens, heads · dim]`. Where that costs
    /// nothing, their sums over the rows of each tile come back, `[tiles, columns of all three]`, f32.
    pub(super) fn attend_backward(
        &self,
        of: Attended<'_>,
        slope: View,
        into: [View; 3],
        rows: &Rows,
    ) -> Result<Option<Buffer>, ModelError> {
        if rows.count == 0 {
            return Ok(None);
        }
        let [q, k, v] = of.inputs;
        let [dq, dk, dv] = into;
        let delta = self.gpu.elements(of.asking.rows(q, rows) * self.heads, Element::F32)?;
        match self.tensor_for(rows, &[q, k, v, of.mixed, slope, dq, dk, dv]) {
            Some(tensor) => self.tensor_backward(&tensor, of, slope, into, rows, &delta),
            None => {
                assert!(
                    of.asking == Asking::All,
                    "attention of first tokens by kernels that have none"
                );
                self.plain_backward(of, slope, into, rows, &delta).map(|()| None)
            }
        }
    }

    fn tensor_backward(
        &self,
        tensor: &Tensor,
        of: Attended<'_>,
        slope: View,
        [dq, dk, dv]: [View; 3],
        rows: &Rows,
        delta: &Buffer,
    ) -> Result<Option<Buffer>, ModelError> {
        let (gpu, plan, element) = (&self.gpu, self, self.element);
        let [q, k, v] = of.inputs;
        let shared = plan.heads / plan.kv_heads;
        // As many query heads in a block as still leave work for all multiprocessors.
        let tiles_in_block = if tensor.pairs && plan.head_dim == 128 { 2 } else { 1 };
        let enough = 2 * tiles_in_block * gpu.multiprocessors() as usize;
        let together = (1..=shared)
            .rev()
            .find(|heads| shared.is_multiple_of(*heads) && plan.heads / heads * rows.tile_count >= enough)
            .unwrap_or(1);
        let groups = plan.heads / together;
        let apart = together < shared;
        let parts = |wanted: bool| match wanted {
            true => gpu
                .elements(rows.count * groups * plan.head_dim, Element::F32)
                .map(Some),
            false => Ok(None),
        };
        let (k_parts, v_parts) = (parts(apart)?, parts(apart)?);
        let address = |parts: &Option<Buffer>| parts.as_ref().map_or(Argument::Address(0), Argument::from);
        let columns = (plan.heads + 2 * plan.kv_heads) * plan.head_dim;
        // Tiles without queries have no sums of theirs.
        let sums = match (tensor.texts, of.asking) {
            (false, _) => None,
            (true, Asking::All) => Some(gpu.elements(rows.tile_count * columns, Element::F32)?),
            (true, Asking::First) => Some(gpu.zeros(rows.tile_count * columns, Element::F32)?),
        };
        // SAFETY: all have a row for each token, and segments lie among them.
        unsafe {
            if !tensor.texts {
                let arguments = [
                    delta.into(),
                    slope.into(),
                    of.mixed.into(),
                    rows.count.into(),
                    plan.heads.into(),
                    plan.head_dim.into(),
                ];
                // Small heads share a warp.
                let in_block = 128 / (plan.head_dim / 8).min(32);
                let grid = [plan.heads.div_ceil(in_block) as u32, rows.count as u32, 1];
                gpu.launch(TENSOR_DELTAS, element, grid, 128, 0, &arguments)?;
            }
            let first = vec![dq.into(), slope.into(), of.lse.into(), delta.into(), q.into()];
            let strides = vec![dq.stride.into(), q.stride.into()];
            let mut rest = self.layout(rows, of.asking.rows(q, rows));
            rest.extend(tensor.asking(of.asking));
            if let Some(sums) = &sums {
                rest.extend([Argument::from(of.mixed), sums.into()]);
            }
            self.launch_by_queries(tensor.queries, tensor.pairs, rows, [k, v], [first, strides, rest])?;
            let by_queries = |view: View| match tensor.pairs {
                true => boxes(view, rows),
                false => Ok(view.into()),
            };
            let mut arguments: Vec<Argument> = vec![dk.into(), dv.into(), address(&k_parts), address(&v_parts)];
            arguments.extend([
                by_queries(slope)?,
                of.lse.into(),
                delta.into(),
                by_queries(q)?,
                k.into(),
                v.into(),
            ]);
            arguments.extend([Argument::from(dk.stride), dv.stride.into()]);
            if !tensor.pairs {
                arguments.push(q.stride.into());
            }
            arguments.extend([Argument::from(k.stride), v.stride.into()]);
            let layout = self.layout(rows, of.asking.rows(q, rows));
            let (layout, ends) = layout.split_at(5);
            arguments.extend(layout);
            arguments.push(together.into());
            arguments.extend(ends);
            arguments.extend(tensor.asking(of.asking));
            arguments.extend(sums.as_ref().map(Argument::from));
            let grid = [
                if tensor.pairs { 2 * groups } else { groups } as u32,
                rows.tile_count as u32,
                1,
            ];
            let (kernel, threads, memory) = tensor.keys;
            gpu.launch(kernel, element, grid, threads, memory, &arguments)?;
            for (out, parts) in [(dk, &k_parts), (dv, &v_parts)] {
                let Some(parts) = parts else { continue };
                let arguments = [
                    out.into(),
                    parts.into(),
                    out.stride.into(),
                    plan.kv_heads.into(),
                    (shared / together).into(),
                    plan.head_dim.into(),
                ];
                let width = (plan.kv_heads * plan.head_dim / 8).div_ceil(128) as u32;
                gpu.launch(SUM_PARTS, element, [width, rows.count as u32, 1], 128, 0, &arguments)?;
            }
        }
        Ok(sums)
    }

    fn plain_backward(
        &self,
        of: Attended<'_>,
        slope: View,
        [dq, dk, dv]: [View; 3],
        rows: &Rows,
        delta: &Buffer,
    ) -> Result<(), ModelError> {
        let (gpu, plan, element, count) = (&self.gpu, self, self.element, rows.count);
        let [q, k, v] = of.inputs;
        let grid = [count as u32, plan.heads.div_ceil(4) as u32, 1];
        let common = |ranges: &Buffer| -> Vec<Argument> {
            vec![
                slope.into(),
                slope.stride.into(),
                q.into(),
                q.stride.into(),
                k.into(),
                k.stride.into(),
                v.into(),
                v.stride.into(),
                of.lse.into(),
                delta.into(),
                ranges.into(),
                plan.heads.into(),
                (plan.heads / plan.kv_heads).into(),
                plan.head_dim.into(),
                self.score_scale().into(),
            ]
        };
        // SAFETY: all have a row for each token; ranges lie among them.
        unsafe {
            let arguments = [
                delta.into(),
                slope.into(),
                slope.stride.into(),
                of.mixed.into(),
                of.mixed.stride.into(),
                plan.heads.into(),
                plan.head_dim.into(),
            ];
            gpu.launch(ATTEND_DELTA, element, grid, 128, 0, &arguments)?;
            let mut arguments = vec![dq.into(), dq.stride.into()];
            arguments.extend(common(&rows.sees));
            gpu.launch(ATTEND_QUERIES, element, grid, 128, 0, &arguments)?;
            let mut arguments = vec![dk.into(), dk.stride.into(), dv.into(), dv.stride.into()];
            arguments.extend(common(&rows.seen));
            let grid = [count as u32, plan.kv_heads.div_ceil(4) as u32, 1];
            gpu.launch(ATTEND_KEYS, element, grid, 128, 0, &arguments)
        }
    }

    /// f32 numbers that a step's attention needs between its two kernels, for `rows` rows.
    pub(super) fn step_scratch(&self, rows: usize) -> usize {
        let groups = (self.heads / self.kv_heads).div_ceil(SHARED_HEADS);
        rows * self.kv_heads * groups * SHARED_HEADS * MOST_PARTS * (self.head_dim + 2)
    }

    /// Attention of one new token of each row over its sequence.
    pub(super) fn attend_step(&self, of: StepInputs<'_>, rows: usize) -> Result<(), ModelError> {
        let (gpu, plan, element) = (&self.gpu, self, self.element);
        let [q, ..] = self.split(of.qkv);
        let shared = plan.heads / plan.kv_heads;
        let groups = plan.kv_heads * shared.div_ceil(SHARED_HEADS);
        let parts = |blocks: u32| {
            let wanted = (blocks * gpu.multiprocessors()) as usize;
            wanted.div_ceil(rows * groups).clamp(1, MOST_PARTS)
        };
        if let Some(Tensor { token, .. }) = self.tensor(&[q, of.mixed]) {
            let parts = parts(4);
            // SAFETY: active slots' places lie in the cache; `partial` is as large as `step_scratch` says.
            return unsafe {
                let arguments = [
                    of.mixed.into(),
                    q.into(),
                    q.stride.into(),
                    of.keys.into(),
                    of.values.into(),
                    of.slots.into(),
                    of.chosen.into(),
                    plan.heads.into(),
                    plan.kv_heads.into(),
                    self.score_scale().into(),
                    of.partial.into(),
                ];
                let grid = [parts as u32, groups as u32, rows as u32];
                let (kernel, threads, memory) = token;
                gpu.launch(kernel, element, grid, threads, memory, &arguments)?;
                if parts == 1 {
                    return Ok(());
                }
                let arguments = [
                    of.mixed.into(),
                    of.partial.into(),
                    of.slots.into(),
                    of.chosen.into(),
                    plan.heads.into(),
                    plan.kv_heads.into(),
                    parts.into(),
                    plan.head_dim.into(),
                ];
                let grid = [plan.heads as u32, rows as u32, 1];
                gpu.launch(
                    JOIN_SPLITS,
                    element,
                    grid,
                    (plan.head_dim / 4).max(32) as u32,
                    0,
                    &arguments,
                )
            };
        }
        let parts = parts(2);
        let memory = 8 * SHARED_HEADS * (plan.head_dim + 2) * 4;
        // SAFETY: as above.
        unsafe {
            let arguments = [
                of.partial.into(),
                q.into(),
                q.stride.into(),
                of.keys.into(),
                of.values.into(),
                of.slots.into(),
                of.chosen.into(),
                plan.heads.into(),
                shared.into(),
                plan.head_dim.into(),
                self.score_scale().into(),
            ];
            let grid = [parts as u32, groups as u32, rows as u32];
            gpu.launch(ATTEND_STEP, element, grid, 256, memory as u32, &arguments)?;
            let arguments = [
                of.mixed.into(),
                of.mixed.stride.into(),
                of.partial.into(),
                parts.into(),
                plan.head_dim.into(),
            ];
            let grid = [plan.heads as u32, rows as u32, 1];
            gpu.launch(ATTEND_JOIN, element, grid, 256, 0, &arguments)
        }
    }
}
