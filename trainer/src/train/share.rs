//! What the ranks of a run share: work that is split and gathered, sums of gradients, means of what was measured.
//!
//! A list is dealt out and put together again in its order ([`Deal`]), so that what comes of it is what one process alone would
//! have. Alone, nothing here costs or changes anything.

use eval_core::retrieval::EmbeddingStore;
use models::{Contrastive, Encoder, Trainable, contrastive_loss, optimizer_state};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::deal::Deal;
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

/// Gathers each rank's part of a list, which a rank may have been interrupted in: then all are.
pub(super) fn gather<T: Serialize + DeserializeOwned>(
    comm: &mut dyn Communicator,
    deal: &Deal,
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
    deal.whole(parts.collect::<Result<_, _>>()?)
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
    deal: &Deal,
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
    deal.whole(parts.iter().map(numbers).collect())
}

/// What each rank has measured, in rank order.
pub(super) fn each<const N: usize>(comm: &mut dyn Communicator, own: [f64; N]) -> Result<Vec<[f64; N]>, TrainError> {
    let deal = Deal::in_turn(comm.world(), comm.world());
    gather_numbers(comm, &deal, &[own])
}

/// Gathers rows of numbers, `width` each.
fn gather_rows(comm: &mut dyn Communicator, deal: &Deal, own: &[f32], width: usize) -> Result<Vec<f32>, TrainError> {
    let bytes: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
    let parts = comm.all_gather(&bytes)?;
    let rows = parts.iter().map(|part| part.chunks_exact(4 * width.max(1)).collect());
    let rows: Vec<&[u8]> = deal.whole(rows.collect())?;
    let numbers = |row: &[u8]| -> Vec<f32> {
        row.as_chunks()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect()
    };
    Ok(rows.into_iter().flat_map(numbers).collect())
}

/// Embeds texts, each rank its part of them, dealt out by length.
pub(super) fn embed(
    comm: &mut dyn Communicator,
    encoder: &dyn Encoder,
    texts: &[&[u32]],
) -> Result<EmbeddingStore, TrainError> {
    if comm.world() == 1 {
        return reward::embed(encoder, texts);
    }
    let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
    let deal = Deal::by_length(&lengths, comm.world());
    let own = encoder.embed(&deal.own(texts, comm.rank()))?;
    let width = encoder.dimension();
    Ok(EmbeddingStore::from_f32(gather_rows(comm, &deal, &own, width)?, width)?)
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
    let (rank, world) = (comm.rank(), comm.world());
    let (profiles, targets) = own.split_at(own.len() / 2);
    let deal = Deal::in_turn(profiles.len() / width.max(1) * world, world);
    let mut vectors = Vec::with_capacity(own.len() * world);
    for own in [profiles, targets] {
        vectors.extend(gather_rows(comm, &deal, own, width)?);
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
            .map(|rows| deal.own(rows, rank))
            .concat()
            .concat(),
    })
}

/// Gives all ranks rank 0's trained parameters where any has others, and checks that their optimizers stand alike.
pub(super) fn same_start(
    comm: &mut dyn Communicator,
    lm: Option<&mut LmState>,
    embedder: &mut EmbedderState,
) -> Result<(), TrainError> {
    if comm.world() == 1 {
        return Ok(());
    }
    let mut models = vec![embedder.model.trainable()];
    models.extend(lm.map(|lm| lm.model.trainable()));
    let mut optimizers = Sha256::new();
    for model in models {
        let mut parameters = Sha256::new();
        for index in 0..model.trained().len() {
            model
                .values(index)?
                .iter()
                .for_each(|value| parameters.update(value.to_le_bytes()));
        }
        // Most often they are the same already: loaded from the same files, drawn from the same seed.
        if differing(comm, parameters)?.is_some() {
            spread_parameters(comm, model)?;
        }
        digest_state(&mut optimizers, model)?;
    }
    match differing(comm, optimizers)? {
        None => Ok(()),
        Some(rank) => Err(TrainError::Mismatch(format!(
            "rank {rank} resumed from another optimizer state than rank 0; all hosts must see the same run folder"
        ))),
    }
}

/// The first rank that has another digest than rank 0.
fn differing(comm: &mut dyn Communicator, digest: Sha256) -> Result<Option<usize>, TrainError> {
    let digests = comm.all_gather(&digest.finalize())?;
    Ok(digests.iter().position(|digest| *digest != digests[0]))
}

/// What carries the collectives of each rank, as a text for the log; none for a process alone.
pub(super) fn descriptions(comm: &mut dyn Communicator) -> Result<Option<String>, TrainError> {
    if comm.world() == 1 {
        return Ok(None);
    }
    let lines = comm.gather(comm.description().as_bytes())?;
    let line = |(rank, line): (usize, &Vec<u8>)| format!("rank {rank}: {}\n", String::from_utf8_lossy(line));
    Ok(Some(lines.iter().enumerate().map(line).collect()))
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
    match differing(comm, digest)? {
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
    fn seeds_of_ranks_are_100003_apart() {
        assert_eq!(rank_seed(555_134, 0), 555_134);
        assert_eq!(rank_seed(555_134, 3), 855_143);
        assert_eq!(rank_seed(u64::MAX, 1), 100_002);
    }
}
