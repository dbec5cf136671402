//! What the ranks of a run share: work that is split and gathered, sums of gradients, means of what was measured.
//!
//! Rank r of W takes item i of a list where i mod W = r, and its k-th user of a global batch is that batch's user r + k·W. So
//! a gathered list has the order that one process alone would give it. Alone, nothing here costs or changes anything.

use eval_core::retrieval::EmbeddingStore;
use models::{Encoder, Gradient, ParameterSpec, Trainable, optimizer_state};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::loss::{Contrastive, contrastive_loss};
use super::{EmbedderState, LmState};
use crate::TrainError;
use crate::config::{FEWEST_WHITENED, TrainConfig};
use crate::data::Dataset;
use crate::dist::Communicator;
use crate::reward;

/// Between the seeds of one rank and the next.
const SEED_STEP: u64 = 100_003;

/// The seed of what each rank draws for itself.
pub(super) fn rank_seed(seed: u64, rank: usize) -> u64 {
    seed.wrapping_add(SEED_STEP.wrapping_mul(rank as u64))
}

/// Refuses more ranks than users, and whitening over too few rewards.
pub(super) fn check(config: &TrainConfig, world: usize, users: usize) -> Result<(), TrainError> {
    if users < world {
        let message = format!("{world} processes, but only {users} train users: start at most {users}");
        return Err(TrainError::Mismatch(message));
    }
    let rewards = config.rl.num_gens * config.users_per_update().min(users / world) * world;
    let few = config.rl.whiten_rewards
        && config.rl.global_whitening
        && config.schedule.num_lm_updates > 0
        && rewards < FEWEST_WHITENED;
    if few {
        let message = format!(
            "--global-whitening: at least {FEWEST_WHITENED} rewards an update over all processes are needed, found {rewards}; raise --gradient-accumulation-steps"
        );
        return Err(TrainError::Mismatch(message));
    }
    Ok(())
}

/// Whether `here` holds on any rank.
pub(super) fn any(comm: &mut dyn Communicator, here: bool) -> Result<bool, TrainError> {
    let mut count = [f64::from(u8::from(here))];
    comm.all_reduce_sum_f64(&mut count)?;
    Ok(count[0] > 0.0)
}

/// Takes the list of all ranks apart: what rank `rank` of `world` does.
pub(super) fn own_part<T: Copy>(all: &[T], [rank, world]: [usize; 2]) -> Vec<T> {
    all.iter().skip(rank).step_by(world).copied().collect()
}

/// Puts the parts of all ranks, each of which [`own_part`] gave, together again.
fn whole<T>(parts: Vec<Vec<T>>) -> Vec<T> {
    let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
    let mut all = Vec::new();
    loop {
        let before = all.len();
        all.extend(parts.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

/// Gathers each rank's part of a list, which a rank may have been interrupted in: then all are.
pub(super) fn gather<T: Serialize + DeserializeOwned>(
    comm: &mut dyn Communicator,
    own: Result<Vec<T>, TrainError>,
) -> Result<Vec<T>, TrainError> {
    if comm.world() == 1 {
        return own;
    }
    let own = match own {
        Ok(own) => to_bytes(&own)?,
        // No list has no bytes.
        Err(TrainError::Interrupted) => Vec::new(),
        Err(error) => return Err(error),
    };
    let parts = comm.all_gather(&own)?;
    if parts.iter().any(Vec::is_empty) {
        return Err(TrainError::Interrupted);
    }
    let parts = parts.iter().map(|part| from_bytes(part));
    Ok(whole(parts.collect::<Result<_, _>>()?))
}

/// CBOR, which gets every number back exactly.
fn to_bytes(value: &impl Serialize) -> Result<Vec<u8>, TrainError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|error| wire_error(&error))?;
    Ok(bytes)
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, TrainError> {
    ciborium::from_reader(bytes).map_err(|error| wire_error(&error))
}

fn wire_error(error: &impl std::fmt::Display) -> TrainError {
    TrainError::Mismatch(format!("what ranks tell each other cannot be written or read: {error}"))
}

/// Gathers numbers, `N` for each of a rank's users, exactly.
pub(super) fn gather_numbers<const N: usize>(
    comm: &mut dyn Communicator,
    own: &[[f64; N]],
) -> Result<Vec<[f64; N]>, TrainError> {
    let bytes: Vec<u8> = own.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let parts = comm.all_gather(&bytes)?;
    let numbers = |part: &Vec<u8>| -> Vec<[f64; N]> {
        let values: Vec<f64> = part
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| f64::from_le_bytes(bytes))
            .collect();
        values.as_chunks().0.to_vec()
    };
    Ok(whole(parts.iter().map(numbers).collect()))
}

/// Gathers rows of numbers, `width` each.
fn gather_rows(comm: &mut dyn Communicator, own: &[f32], width: usize) -> Result<Vec<f32>, TrainError> {
    let bytes: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
    let parts = comm.all_gather(&bytes)?;
    let rows = whole(
        parts
            .iter()
            .map(|part| part.chunks_exact(4 * width.max(1)).collect())
            .collect(),
    );
    let numbers = |row: &[u8]| -> Vec<f32> {
        row.as_chunks()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect()
    };
    Ok(rows.into_iter().flat_map(numbers).collect())
}

/// Embeds texts, each rank its part of them.
pub(super) fn embed(
    comm: &mut dyn Communicator,
    encoder: &dyn Encoder,
    texts: &[&[u32]],
) -> Result<EmbeddingStore, TrainError> {
    if comm.world() == 1 {
        return reward::embed(encoder, texts);
    }
    let own = encoder.embed(&own_part(texts, [comm.rank(), comm.world()]))?;
    let width = encoder.dimension();
    Ok(EmbeddingStore::from_f32(gather_rows(comm, &own, width)?, width)?)
}

/// The means over the ranks of what each measured over its own users, of whom all have as many.
pub(super) fn means(comm: &mut dyn Communicator, values: &mut [(&'static str, f64)]) -> Result<(), TrainError> {
    let mut sums: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    comm.all_reduce_sum_f64(&mut sums)?;
    let world = comm.world() as f64;
    values
        .iter_mut()
        .zip(sums)
        .for_each(|((_, value), sum)| *value = sum / world);
    Ok(())
}

/// Puts the sum over the ranks in place of the gradients that each has summed. A parameter that got none on any rank has none.
pub(super) fn sum_gradients(comm: &mut dyn Communicator, model: &mut dyn Trainable) -> Result<(), TrainError> {
    if comm.world() == 1 {
        return Ok(());
    }
    let sizes: Vec<usize> = model.trained().iter().map(ParameterSpec::scalars).collect();
    let own = (0..sizes.len())
        .map(|index| model.gradient(index))
        .collect::<Result<Vec<_>, _>>()?;
    // First, how many ranks have a gradient of each parameter; then the gradients.
    let mut flat: Vec<f64> = own.iter().map(|sum| f64::from(u8::from(sum.is_some()))).collect();
    for (sum, size) in own.iter().zip(&sizes) {
        match sum {
            Some(sum) => flat.extend(to_f64(sum)),
            None => flat.resize(flat.len() + size, 0.0),
        }
    }
    drop(own);
    comm.all_reduce_sum_f64(&mut flat)?;
    let (counts, mut values) = flat.split_at(sizes.len());
    for (index, (&count, &size)) in counts.iter().zip(&sizes).enumerate() {
        let (value, rest) = values.split_at(size);
        values = rest;
        model.set_gradient(index, (count > 0.0).then(|| from_f64(value)))?;
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

/// Brings what the ranks have summed between two steps together on rank 0, where it is saved; the others begin anew. The sum
/// over the ranks stays what it was.
pub(super) fn collect_gradients(comm: &mut dyn Communicator, model: &mut dyn Trainable) -> Result<(), TrainError> {
    sum_gradients(comm, model)?;
    if comm.rank() != 0 {
        model.clear_gradients()?;
    }
    Ok(())
}

/// What a loss over the batches of all ranks says about one rank's texts.
#[derive(Debug)]
pub(super) struct GlobalLoss {
    /// The mean over all rows, the same on every rank.
    pub(super) loss: f64,
    /// Cosines of all profiles and all targets, row by row.
    pub(super) similarities: Vec<f32>,
    /// The loss' slopes in this rank's vectors, `[2 · batch, width]`.
    pub(super) slopes: Vec<f32>,
}

/// The contrastive loss among the batches of all ranks. `own`, `[2 · batch, width]`, are this rank's profiles and then its
/// targets.
///
/// Every rank computes the whole loss on the gathered vectors, the same bits everywhere, and takes the gradient in its own rows
/// (as profiles) and columns (as targets). Brought back through each rank's encoder and summed over the ranks, that is the
/// gradient in the parameters (the chain rule in two parts, as Gao et al., 2021, arXiv 2101.06983, cut it).
pub(super) fn global_loss(
    comm: &mut dyn Communicator,
    own: &[f32],
    width: usize,
    temperature: f64,
) -> Result<GlobalLoss, TrainError> {
    let place = [comm.rank(), comm.world()];
    let (profiles, targets) = own.split_at(own.len() / 2);
    let mut vectors = Vec::with_capacity(own.len() * place[1]);
    for own in [profiles, targets] {
        let all = gather_rows(comm, own, width)?;
        if all.len() != own.len() * place[1] {
            let message =
                "ranks have batches of different sizes; start the same program with the same settings everywhere";
            return Err(TrainError::Mismatch(message.to_owned()));
        }
        vectors.extend(all);
    }
    let Contrastive {
        loss,
        similarities,
        slopes,
    } = contrastive_loss(&vectors, width, temperature);
    let rows: Vec<&[f32]> = slopes.chunks_exact(width).collect();
    let (of_profiles, of_targets) = rows.split_at(rows.len() / 2);
    Ok(GlobalLoss {
        loss,
        similarities,
        slopes: [of_profiles, of_targets]
            .map(|rows| own_part(rows, place))
            .concat()
            .concat(),
    })
}

/// Gives all ranks rank 0's trained parameters, and checks that their optimizers stand alike.
pub(super) fn same_start(
    comm: &mut dyn Communicator,
    lm: Option<&mut LmState>,
    embedder: &mut EmbedderState,
) -> Result<(), TrainError> {
    if comm.world() == 1 {
        return Ok(());
    }
    let mut digest = Sha256::new();
    if let Some(lm) = lm {
        spread_parameters(comm, lm.model.trainable())?;
        digest_state(&mut digest, lm.model.trainable())?;
    }
    spread_parameters(comm, embedder.model.trainable())?;
    digest_state(&mut digest, embedder.model.trainable())?;
    let digests = comm.all_gather(&digest.finalize())?;
    match digests.iter().position(|digest| *digest != digests[0]) {
        None => Ok(()),
        Some(rank) => Err(TrainError::Mismatch(format!(
            "rank {rank} resumed from another optimizer state than rank 0; all hosts must see the same run folder"
        ))),
    }
}

fn spread_parameters(comm: &mut dyn Communicator, model: &mut dyn Trainable) -> Result<(), TrainError> {
    for index in 0..model.trained().len() {
        let mut values = model.values(index)?;
        comm.broadcast(&mut values, 0)?;
        if comm.rank() != 0 {
            model.set_values(index, values)?;
        }
    }
    Ok(())
}

fn digest_state(digest: &mut Sha256, model: &dyn Trainable) -> Result<(), TrainError> {
    for tensor in optimizer_state(model)? {
        digest.update(tensor.name.as_bytes());
        tensor.data.iter().for_each(|value| digest.update(value.to_le_bytes()));
    }
    Ok(())
}

/// Checks that all ranks have the same users and items.
pub(super) fn same_dataset(comm: &mut dyn Communicator, dataset: &Dataset) -> Result<(), TrainError> {
    if comm.world() == 1 {
        return Ok(());
    }
    let mut digest = Sha256::new();
    let mut add = |id: &str, numbers: &[u32]| {
        digest.update((id.len() as u64).to_le_bytes());
        digest.update(id.as_bytes());
        digest.update((numbers.len() as u64).to_le_bytes());
        numbers.iter().for_each(|number| digest.update(number.to_le_bytes()));
    };
    dataset.items.iter().for_each(|item| add(&item.id, &item.tokens));
    for user in dataset.train.iter().chain(&dataset.val) {
        add(&user.id, &user.prompt_tokens);
        add("", &user.targets);
    }
    let digests = comm.all_gather(&digest.finalize())?;
    match digests.iter().position(|digest| *digest != digests[0]) {
        None => Ok(()),
        Some(rank) => Err(TrainError::Mismatch(format!(
            "rank {rank} has other users or items than rank 0; give all ranks the same --dataset"
        ))),
    }
}

/// What rank 0 has in `value`, on every rank.
pub(super) fn from_root<T: Serialize + DeserializeOwned>(
    comm: &mut dyn Communicator,
    value: T,
) -> Result<T, TrainError> {
    if comm.world() == 1 {
        return Ok(value);
    }
    let mut bytes = to_bytes(&value)?;
    comm.broadcast_bytes(&mut bytes, 0)?;
    from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn parts_of_a_list_make_it_whole_again() {
        let all: Vec<u32> = (0..11).collect();
        for world in 1..5 {
            let parts = (0..world).map(|rank| own_part(&all, [rank, world])).collect();
            assert_eq!(whole(parts), all);
        }
    }

    #[test]
    fn seeds_of_ranks_are_100003_apart() {
        assert_eq!(rank_seed(555_134, 0), 555_134);
        assert_eq!(rank_seed(555_134, 3), 855_143);
        assert_eq!(rank_seed(u64::MAX, 1), 100_002);
    }
}
