//! The optimizer on a card: of whole parameters or of the parts that this rank keeps, alone or with other ranks over NCCL.

use std::ops::Range;

use cudarc::driver::{result, sys};

use super::adam::{Move, Place, adam};
use super::gpu::{Buffer, Element, Gpu, driver};
use super::layers::{Values, put};
use super::nccl::{Nccl, widen};
use super::parameters::{Master, Trained};
use crate::{AdamConfig, ModelError};

/// Values that travel together: 256 MB of f32.
const BUCKET: usize = 64 << 20;

impl Trained {
    /// The values whose moments are kept here.
    pub(super) fn part(&self) -> Range<usize> {
        self.kept.clone().unwrap_or(0..self.spec.scalars())
    }

    /// The next move of the part that is kept along its f32 gradient at `gradient`, where there is such a part; clears the sum.
    pub(super) fn next_move(&mut self, gpu: &Gpu, gradient: u64) -> Result<Option<Move>, ModelError> {
        self.reached = false;
        let part = self.part();
        if part.is_empty() {
            return Ok(None);
        }
        if self.moments.is_none() {
            let zeros = || gpu.zeros(part.len(), Element::F32);
            self.moments = Some([zeros()?, zeros()?]);
        }
        let Some(moments) = &self.moments else {
            return Ok(None);
        };
        self.steps += 1;
        Ok(Some(Move {
            values: match &self.master {
                Master::Own(values) => Place::Own(values.pointer() + 4 * part.start as u64),
                Master::Copy(rounding) => Place::Copy {
                    rounding: *rounding,
                    besides: 0,
                },
            },
            moments: moments.each_ref().map(Buffer::pointer),
            gradient,
            copy: Some(self.copy),
            start: part.start,
            count: part.len(),
            steps: self.steps,
        }))
    }
}

/// Moves parameters along their own gradients times `factor`.
pub(super) fn step<'a>(
    gpu: &Gpu,
    trained: impl Iterator<Item = &'a mut Trained>,
    config: &AdamConfig,
    factor: f64,
) -> Result<(), ModelError> {
    let mut moves = Vec::new();
    for trained in trained {
        let gradient = trained.gradient.pointer();
        moves.extend(trained.next_move(gpu, gradient)?);
    }
    // SAFETY: values and copies have the parameters' shapes, gradients and moments so many values.
    unsafe { adam(gpu, config, factor, &moves) }
}

/// Sums gradients over the ranks and moves `trained` along them times `factor`; `reached` says at which of them a gradient has
/// arrived on any rank. Where parts are kept, each rank gets the sums of its parts alone and gives the moved values to the others.
pub(super) fn step_over(
    gpu: &Gpu,
    trained: &mut [Trained],
    nccl: &mut Nccl,
    reached: &[bool],
    config: &AdamConfig,
    factor: f64,
) -> Result<(), ModelError> {
    let mut chosen: Vec<&mut Trained> = trained
        .iter_mut()
        .zip(reached)
        .filter_map(|(trained, &reached)| reached.then_some(trained))
        .collect();
    let mut rest = &mut chosen[..];
    while !rest.is_empty() {
        let mut filled = 0;
        let mut fits = |trained: &&mut Trained| {
            filled += trained.spec.scalars();
            filled <= BUCKET
        };
        // A parameter that is larger than a bucket is one by itself.
        let count = rest.iter().take_while(|trained| fits(trained)).count().max(1);
        let (bucket, others) = rest.split_at_mut(count);
        rest = others;
        for trained in bucket.iter_mut().filter(|trained| !trained.reached) {
            trained.gradient.clear()?;
        }
        match bucket.iter().any(|trained| trained.kept.is_some()) {
            true => step_parts(gpu, bucket, nccl, config, factor)?,
            false => step_whole(gpu, bucket, nccl, config, factor)?,
        }
    }
    nccl.wait()
}

/// Each rank moves everything.
fn step_whole(
    gpu: &Gpu,
    bucket: &mut [&mut Trained],
    nccl: &mut Nccl,
    config: &AdamConfig,
    factor: f64,
) -> Result<(), ModelError> {
    let total = bucket.iter().map(|trained| trained.spec.scalars()).sum();
    let terms = gpu.elements(total, Element::F32)?;
    let mut at = 0;
    for trained in bucket.iter() {
        let count = trained.spec.scalars();
        copy_rows(
            gpu,
            Rows::flat(trained.gradient.pointer(), 0),
            Rows::flat(terms.pointer(), at),
            [1, count],
        )?;
        at += count;
    }
    nccl.sum_gradients(&terms, total)?;
    at = 0;
    let mut moves = Vec::with_capacity(bucket.len());
    for trained in bucket {
        moves.extend(trained.next_move(gpu, terms.pointer() + 4 * at as u64)?);
        at += trained.spec.scalars();
    }
    // SAFETY: values and copies have the parameters' shapes, moments so many values, and so has each share of the sums.
    unsafe { adam(gpu, config, factor, &moves) }
}

/// Each rank moves its part of every parameter. Parameters stand side by side, rank after rank, so that one collective has all.
fn step_parts(
    gpu: &Gpu,
    bucket: &mut [&mut Trained],
    nccl: &mut Nccl,
    config: &AdamConfig,
    factor: f64,
) -> Result<(), ModelError> {
    let (rank, world) = (nccl.rank(), nccl.world());
    let length = |trained: &Trained| trained.spec.scalars().div_ceil(world);
    let width: usize = bucket.iter().map(|trained| length(trained)).sum();
    // What fills up the last rank's parts is of no value: nobody reads its sums.
    let terms = gpu.elements(width * world, Element::F32)?;
    let mut place = 0;
    for trained in bucket.iter() {
        let (count, length) = (trained.spec.scalars(), length(trained));
        let side_by_side = Rows {
            pointer: terms.pointer() + 4 * place as u64,
            stride: width,
        };
        spread(
            gpu,
            Rows::of(trained.gradient.pointer(), length),
            side_by_side,
            count,
            length,
        )?;
        place += length;
    }
    let sums = nccl.scatter_gradients(&terms, width * world, width)?;
    drop(terms);
    // bf16 numbers travel as what they are.
    let narrow = bucket.iter().all(|trained| matches!(trained.master, Master::Copy(_)));
    let wire = if narrow { Element::Bf16 } else { Element::F32 };
    let mut parts = gpu.elements(width * world, wire)?;
    let own = parts.pointer() + (wire.bytes() * rank * width) as u64;
    place = 0;
    let mut moves = Vec::with_capacity(bucket.len());
    for trained in bucket.iter_mut() {
        let mut next = trained.next_move(gpu, sums.pointer() + 4 * place as u64)?;
        if let Some(Place::Copy { besides, .. }) = next.as_mut().map(|next| &mut next.values) {
            *besides = own + (wire.bytes() * place) as u64;
        }
        moves.extend(next);
        place += length(trained);
    }
    // SAFETY: values and copies have the parameters' shapes, moments as many values as the parts, and so has each share of the sums.
    unsafe { adam(gpu, config, factor, &moves)? };
    place = 0;
    for trained in bucket.iter() {
        let (part, length) = (trained.part(), length(trained));
        if let Master::Own(values) = &trained.master {
            let from = Rows::flat(values.pointer(), part.start);
            copy_rows(gpu, from, Rows::flat(own, place), [1, part.len()])?;
        }
        place += length;
    }
    nccl.all_gather(own, parts.pointer(), width, wire)?;
    if narrow {
        parts = widen(gpu, &parts, width * world)?;
    }
    place = 0;
    for trained in bucket.iter() {
        let (count, length) = (trained.spec.scalars(), length(trained));
        let side_by_side = Rows {
            pointer: parts.pointer() + 4 * place as u64,
            stride: width,
        };
        let whole;
        let values = match &trained.master {
            Master::Own(values) => values,
            Master::Copy(_) => {
                whole = gpu.elements(count, Element::F32)?;
                &whole
            }
        };
        spread(gpu, side_by_side, Rows::of(values.pointer(), length), count, length)?;
        let (copy, element) = trained.copy;
        put(gpu, copy, element, &Values::Card(values))?;
        place += length;
    }
    Ok(())
}

/// Rows of f32 on the card.
#[derive(Debug, Clone, Copy)]
struct Rows {
    pointer: u64,
    /// Elements from one to the next.
    stride: usize,
}

impl Rows {
    fn of(pointer: u64, stride: usize) -> Self {
        Self { pointer, stride }
    }

    /// One row that begins at element `at`.
    fn flat(pointer: u64, at: usize) -> Self {
        Self::of(pointer + 4 * at as u64, 0)
    }
}

/// Copies `count` values as rows of `length`, of which the last may be shorter.
fn spread(gpu: &Gpu, from: Rows, into: Rows, count: usize, length: usize) -> Result<(), ModelError> {
    let whole = count / length;
    copy_rows(gpu, from, into, [whole, length])?;
    let at = |rows: Rows| Rows::flat(rows.pointer, whole * rows.stride);
    copy_rows(gpu, at(from), at(into), [1, count - whole * length])
}

fn copy_rows(gpu: &Gpu, from: Rows, into: Rows, [rows, columns]: [usize; 2]) -> Result<(), ModelError> {
    if rows * columns == 0 {
        return Ok(());
    }
    gpu.bind()?;
    if rows == 1 {
        // A pitch has a limit, a length has none.
        // SAFETY: both sides have so many values, in buffers of the callers.
        let copied = unsafe { result::memcpy_dtod_async(into.pointer, from.pointer, 4 * columns, gpu.stream()) };
        return copied.map_err(driver("copying on the GPU"));
    }
    let pitch = |stride: usize| 4 * stride.max(columns);
    let copy = sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: std::ptr::null(),
        srcDevice: from.pointer,
        srcArray: std::ptr::null_mut(),
        srcPitch: pitch(from.stride),
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: std::ptr::null_mut(),
        dstDevice: into.pointer,
        dstArray: std::ptr::null_mut(),
        dstPitch: pitch(into.stride),
        WidthInBytes: 4 * columns,
        Height: rows,
    };
    // SAFETY: both sides have so many rows of so many values, in buffers of the callers.
    unsafe { sys::cuMemcpy2DAsync_v2(&copy, gpu.stream()) }
        .result()
        .map_err(driver("copying on the GPU"))
}

/// What a step needs of a gradient that the host has.
pub(super) fn step_part(
    gpu: &Gpu,
    trained: &mut Trained,
    gradient: &[f32],
    config: &AdamConfig,
    factor: f64,
) -> Result<(), ModelError> {
    let expected = trained.part().len();
    if gradient.len() != expected {
        let message = format!(
            "{}: a gradient of {} values for {expected}",
            trained.spec.name,
            gradient.len()
        );
        return Err(ModelError::Input(message));
    }
    let gradient: Buffer = gpu.upload(gradient)?;
    let moves = trained.next_move(gpu, gradient.pointer())?;
    // SAFETY: values and copy have the parameter's shape, moments and gradient the part's length.
    unsafe { adam(gpu, config, factor, moves.as_slice()) }
}
