//! ZeRO-2: every rank keeps the optimizer's moments of a part of each parameter, gets the summed gradients of that part alone,
//! moves it, and gives it to the others (Rajbhandari et al., 2020, arXiv 1910.02054). The numbers are those of whole optimizers.
//!
//! Each parameter is cut into as many equal parts as there are ranks, the last of which may be shorter; so moments can be cut
//! anew for any number of ranks, and a checkpoint holds them whole.

use std::any::Any;
use std::ops::Range;

use models::{AdamConfig, Gradient, Moments, NamedTensor, ParameterSpec, Trainable, moment_tensors};

use crate::TrainError;
use crate::dist::Communicator;

/// Values that travel together: enough to make little of each message's cost, few enough to cost little memory.
const BUCKET: usize = 1 << 22;

/// How much of a parameter of `scalars` values each of `world` ranks keeps, but for the last ones.
fn part_length(scalars: usize, world: usize) -> usize {
    scalars.div_ceil(world)
}

/// What `rank` of `world` keeps of a parameter of `scalars` values.
fn part(scalars: usize, rank: usize, world: usize) -> Range<usize> {
    let length = part_length(scalars, world);
    (rank * length).min(scalars)..((rank + 1) * length).min(scalars)
}

/// Lets the model keep its rank's parts alone. False where it cannot: then every rank keeps everything.
pub(super) fn keep_parts(comm: &mut dyn Communicator, model: &mut dyn Trainable) -> Result<bool, TrainError> {
    let (rank, world) = (comm.rank(), comm.world());
    let parts: Vec<_> = model
        .trained()
        .iter()
        .map(|spec| part(spec.scalars(), rank, world))
        .collect();
    Ok(world > 1 && model.keep_parts(&parts)?)
}

/// Of how many values this rank keeps the optimizer's moments, and of how many there could be.
pub(super) fn kept(model: &dyn Trainable) -> [usize; 2] {
    let specs = model.trained();
    [
        (0..specs.len()).map(|index| model.part(index).len()).sum(),
        specs.iter().map(ParameterSpec::scalars).sum(),
    ]
}

/// One optimizer step along the gradients that all ranks have summed; afterwards all have the same parameters.
pub(super) fn step(
    comm: &mut dyn Communicator,
    model: &mut dyn Trainable,
    sharded: bool,
    optimizer: &AdamConfig,
    scale: f64,
) -> Result<(), TrainError> {
    if comm.has_device() && model.steps_over_devices() {
        let reached = reached(comm, model)?;
        let mut step = |link: &mut dyn Any| model.step_over(link, &reached, optimizer, scale);
        return Ok(comm.on_device(&mut step)??);
    }
    if !sharded {
        sum_gradients(comm, model)?;
        return Ok(model.step(optimizer, scale)?);
    }
    for bucket in buckets(comm, model)? {
        step_bucket(comm, model, &bucket, optimizer, scale)?;
    }
    Ok(())
}

/// Whether a gradient has arrived at each parameter on any rank.
fn reached(comm: &mut dyn Communicator, model: &dyn Trainable) -> Result<Vec<bool>, TrainError> {
    let mut counts = Vec::with_capacity(model.trained().len());
    for index in 0..model.trained().len() {
        counts.push(f64::from(u8::from(model.has_gradient(index)?)));
    }
    comm.all_reduce_sum_f64(&mut counts)?;
    Ok(counts.into_iter().map(|count| count > 0.0).collect())
}

/// The parameters that a gradient has arrived at on any rank, in groups that travel together.
fn buckets(comm: &mut dyn Communicator, model: &dyn Trainable) -> Result<Vec<Vec<usize>>, TrainError> {
    let reached = reached(comm, model)?;
    let mut buckets = vec![Vec::new()];
    let mut filled = 0;
    for (index, spec) in model.trained().iter().enumerate() {
        if !reached[index] {
            continue;
        }
        if filled > 0 && filled + spec.scalars() > BUCKET {
            buckets.push(Vec::new());
            filled = 0;
        }
        filled += spec.scalars();
        if let Some(last) = buckets.last_mut() {
            last.push(index);
        }
    }
    buckets.retain(|bucket| !bucket.is_empty());
    Ok(buckets)
}

/// Parameters side by side, rank after rank: where a rank's part of each begins.
struct Layout {
    /// Index, number of values, and place within a rank's share.
    parameters: Vec<(usize, usize, usize)>,
    /// Length of a rank's share.
    width: usize,
    rank: usize,
    world: usize,
}

impl Layout {
    fn new(comm: &dyn Communicator, specs: &[ParameterSpec], bucket: &[usize]) -> Self {
        let world = comm.world();
        let mut width = 0;
        let mut parameters = Vec::with_capacity(bucket.len());
        for &index in bucket {
            let scalars = specs[index].scalars();
            parameters.push((index, scalars, width));
            width += part_length(scalars, world);
        }
        Self {
            parameters,
            width,
            rank: comm.rank(),
            world,
        }
    }

    /// Each rank's part of a parameter, and its place in the whole bucket.
    fn parts(&self, scalars: usize, place: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        (0..self.world).map(move |rank| {
            let part = part(scalars, rank, self.world);
            let start = rank * self.width + place;
            (part.clone(), start..start + part.len())
        })
    }
}

fn step_bucket(
    comm: &mut dyn Communicator,
    model: &mut dyn Trainable,
    bucket: &[usize],
    optimizer: &AdamConfig,
    scale: f64,
) -> Result<(), TrainError> {
    let layout = Layout::new(comm, model.trained(), bucket);
    let mut terms = vec![0.0; layout.width * layout.world];
    for &(index, scalars, place) in &layout.parameters {
        let Some(sum) = model.gradient(index)? else { continue };
        let sum = to_f64(&sum);
        for (part, at) in layout.parts(scalars, place) {
            terms[at].copy_from_slice(&sum[part]);
        }
    }
    let sums = comm.reduce_scatter_f64(&terms)?;
    drop(terms);
    let mut parts = vec![0.0; layout.width * layout.world];
    let mut moved = Vec::with_capacity(bucket.len());
    for &(index, scalars, place) in &layout.parameters {
        let own = part(scalars, layout.rank, layout.world);
        let gradient = sums[place..place + own.len()].iter().map(|&sum| sum as f32).collect();
        model.step_part(index, gradient, optimizer, scale)?;
        let values = model.values(index)?;
        let start = layout.rank * layout.width + place;
        parts[start..start + own.len()].copy_from_slice(&values[own]);
        moved.push(values);
    }
    comm.all_gather_parts(&mut parts)?;
    for (&(index, scalars, place), mut values) in layout.parameters.iter().zip(moved) {
        for (part, at) in layout.parts(scalars, place) {
            values[part].copy_from_slice(&parts[at]);
        }
        model.set_values(index, values)?;
    }
    Ok(())
}

/// Puts the sum over the ranks in place of the gradients that each has summed. A parameter that got none on any rank has none.
fn sum_gradients(comm: &mut dyn Communicator, model: &mut dyn Trainable) -> Result<(), TrainError> {
    if comm.world() == 1 {
        return Ok(());
    }
    for bucket in buckets(comm, model)? {
        let mut flat = Vec::new();
        for &index in &bucket {
            match model.gradient(index)? {
                Some(sum) => flat.extend(to_f64(&sum)),
                None => flat.resize(flat.len() + model.trained()[index].scalars(), 0.0),
            }
        }
        comm.all_reduce_sum_f64(&mut flat)?;
        let mut values = &flat[..];
        for &index in &bucket {
            let (value, rest) = values.split_at(model.trained()[index].scalars());
            values = rest;
            model.set_gradient(index, Some(from_f64(value)))?;
        }
    }
    Ok(())
}

/// Brings what the ranks have summed between two steps together on rank 0, where it is saved; the others begin anew. The sum
/// over the ranks stays what it was.
pub(super) fn collect_gradients(comm: &mut dyn Communicator, model: &mut dyn Trainable) -> Result<(), TrainError> {
    sum_gradients(comm, model)?;
    if comm.rank() != 0 {
        model.clear_gradients()?;
    }
    Ok(())
}

/// Both floats of a sum as one.
fn to_f64(sum: &Gradient) -> Vec<f64> {
    let mut values: Vec<f64> = sum.value.iter().copied().map(f64::from).collect();
    let rest = sum.rest.iter().flatten();
    values
        .iter_mut()
        .zip(rest)
        .for_each(|(value, &rest)| *value += f64::from(rest));
    values
}

fn from_f64(values: &[f64]) -> Gradient {
    let rounded: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    let rest = values
        .iter()
        .zip(&rounded)
        .map(|(&value, &rounded)| (value - f64::from(rounded)) as f32);
    Gradient {
        rest: Some(rest.collect()),
        value: rounded,
    }
}

/// The optimizer's whole state at rank 0, to be saved; nothing elsewhere.
pub(super) fn optimizer_state(
    comm: &mut dyn Communicator,
    model: &dyn Trainable,
    sharded: bool,
) -> Result<Vec<NamedTensor>, TrainError> {
    let root = comm.rank() == 0;
    if !sharded {
        let whole = || models::optimizer_state(model);
        return Ok(root.then(whole).transpose()?.unwrap_or_default());
    }
    let mut state = Vec::new();
    for (index, spec) in model.trained().iter().enumerate() {
        let own = model.moments(index)?;
        let steps = own.as_ref().map(|own| own.steps);
        let halves = own.map_or([Vec::new(), Vec::new()], |own| [own.first, own.second]);
        let mut whole = [Vec::new(), Vec::new()];
        for (half, whole) in halves.iter().zip(&mut whole) {
            let bytes: Vec<u8> = half.iter().flat_map(|value| value.to_le_bytes()).collect();
            for part in comm.gather(&bytes)? {
                let (values, _) = part.as_chunks();
                whole.extend(values.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            }
        }
        // Rank 0 has a part of every parameter, so it knows whether there are moments.
        let (true, Some(steps)) = (root, steps) else { continue };
        let [first, second] = whole;
        if first.len() != spec.scalars() || second.len() != spec.scalars() {
            let message = format!(
                "{}: the ranks keep moments of {} values of {}",
                spec.name,
                first.len(),
                spec.scalars()
            );
            return Err(TrainError::Mismatch(message));
        }
        state.extend(moment_tensors(spec, Moments { first, second, steps }));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_parameter_once_and_rank_0_always_has_one() {
        for scalars in [1, 2, 5, 12, 13] {
            for world in 1..7 {
                let parts: Vec<usize> = (0..world).flat_map(|rank| part(scalars, rank, world)).collect();
                assert!(parts.iter().copied().eq(0..scalars), "{scalars} {world}");
                assert!(!part(scalars, 0, world).is_empty());
            }
        }
    }

    #[test]
    fn a_sum_in_two_floats_comes_back_exactly() {
        let sum = Gradient {
            value: vec![1.0, -3.5e-8],
            rest: Some(vec![2e-8, 1e-16]),
        };
        assert_eq!(from_f64(&to_f64(&sum)), sum);
    }
}
