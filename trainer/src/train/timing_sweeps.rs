//! What goes over a whole list and is dealt out to the ranks: profiles of all users of a split, vectors of all items.

use models::{Draws, Encoder, LanguageModel, Prompt, philox};

use super::deal::Deal;
use super::share;
use super::timing::{Load, Stage, tokens};
use crate::TrainError;
use crate::dist::Communicator;
use crate::rollout::Profile;

/// Spread of the logarithm of items' lengths, as of the real catalogues.
const ITEM_SPREAD: f64 = 0.6;
/// The shortest prompt of the sweep is the longest over this.
const SHORTEST_PROMPT: usize = 4;
/// Streams of made-up tokens, which updates do not use.
const PROMPTS: usize = 8;
const ITEMS: usize = 9;

/// The lists, the same on all ranks.
#[derive(Debug)]
pub(super) struct Sweeps {
    load: Load,
    prompts: Vec<Vec<u32>>,
    items: Vec<Vec<u32>>,
}

impl Sweeps {
    /// Makes up what `stages` need, so much for each of `world` ranks as `load` says.
    pub(super) fn new(load: Load, world: usize, stages: &[Stage]) -> Self {
        let count = |stage: Stage, each: usize| if stages.contains(&stage) { each * world } else { 0 };
        let list = |stream: usize, count: usize, length: &dyn Fn(u32) -> usize| -> Vec<Vec<u32>> {
            (0..count)
                .map(|at| tokens(load, [0, 0, stream, at], length(at as u32)))
                .collect()
        };
        let prompts = count(Stage::Sweep, load.sweep_users);
        let items = count(Stage::Catalogue, load.items);
        Self {
            load,
            prompts: list(PROMPTS, prompts, &|at| prompt_length(load, at)),
            items: list(ITEMS, items, &|at| item_length(load, at)),
        }
    }

    /// Writes a profile of every user, each rank its part, and gathers them, as the trainer does. Returns this rank's tokens.
    pub(super) fn profiles(
        &self,
        comm: &mut dyn Communicator,
        lm: &mut dyn LanguageModel,
        update: usize,
    ) -> Result<usize, TrainError> {
        let prompts: Vec<Prompt<'_>> = self
            .prompts
            .iter()
            .zip(0..)
            .map(|(tokens, user)| Prompt {
                tokens,
                user,
                sample: 0,
            })
            .collect();
        let lengths: Vec<usize> = self.prompts.iter().map(Vec::len).collect();
        let deal = Deal::by_length(&lengths, comm.world());
        let draws = Draws {
            seed: 0,
            update: update as u32,
            temperature: 1.0,
            limit: self.load.response_tokens,
            // No token ends a profile: all are of full length.
            end_tokens: Vec::new(),
            slots: self.load.sweep_slots,
        };
        let responses = lm.sample(&deal.own(&prompts, comm.rank()), &draws)?;
        let written = responses.iter().map(|response| response.tokens.len()).sum();
        let profile = |response: models::Response| Profile {
            // Some bytes for every token, as a tokenizer would give.
            text: "text ".repeat(response.tokens.len()),
            tokens: response.tokens.clone(),
            response,
        };
        share::gather(comm, &deal, Ok(responses.into_iter().map(profile).collect()))?;
        Ok(written)
    }

    /// Embeds all items, as the trainer does. Rank 0 counts the tokens of all.
    pub(super) fn catalogue(&self, comm: &mut dyn Communicator, encoder: &dyn Encoder) -> Result<usize, TrainError> {
        let items: Vec<&[u32]> = self.items.iter().map(Vec::as_slice).collect();
        share::embed(comm, encoder, &items)?;
        let tokens = items.iter().map(|item| item.len()).sum();
        Ok(if comm.rank() == 0 { tokens } else { 0 })
    }
}

/// Evenly from the shortest to the longest prompt.
fn prompt_length(load: Load, user: u32) -> usize {
    let least = load.prompt_tokens / SHORTEST_PROMPT;
    let spread = (load.prompt_tokens - least + 1) as u32;
    least + (philox([user, 0, 0, 0], [1, 2])[0] % spread) as usize
}

/// Log-normal, by the transform of Box and Muller (1958).
fn item_length(load: Load, item: u32) -> usize {
    let words = philox([item, 0, 0, 0], [3, 4]);
    let [one, two] = [words[0], words[1]].map(|word| (f64::from(word) + 0.5) / 4_294_967_296.0);
    let normal = (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos();
    let middle = (load.item_tokens as f64).ln() - ITEM_SPREAD * ITEM_SPREAD / 2.0;
    let length = (middle + ITEM_SPREAD * normal).exp().round() as usize;
    length.clamp(1, load.text_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        updates: 1,
        users: 4,
        prompt_tokens: 1024,
        response_tokens: 8,
        epochs: 1,
        pairs: 4,
        text_tokens: 512,
        sweep_users: 8,
        sweep_slots: 4,
        items: 8,
        item_tokens: 180,
        vocabulary: 500,
    };

    #[test]
    fn items_are_as_long_as_real_ones() {
        let lengths: Vec<usize> = (0..20_000).map(|item| item_length(LOAD, item)).collect();
        assert!(lengths.iter().all(|length| (1..=512).contains(length)));
        // The median of a log-normal of mean 180 is 180 · exp(−0.18) = 150.3; half of the lengths lie between 150.3 · exp(∓0.4047).
        let share = |most: usize| lengths.iter().filter(|&&length| length <= most).count() as f64 / 20_000.0;
        for (length, expected) in [(100, 0.25), (150, 0.5), (225, 0.75)] {
            assert!((share(length) - expected).abs() < 0.02, "{length}: {}", share(length));
        }
    }

    #[test]
    fn ranks_have_lists_of_their_own_size_or_parts_of_one_list() -> Result<(), TrainError> {
        let both = [Stage::Sweep, Stage::Catalogue];
        let alone = Sweeps::new(LOAD, 1, &both);
        let weak = Sweeps::new(LOAD, 4, &both);
        let strong = Sweeps::new(LOAD.dealt(4)?, 4, &both);
        assert_eq!((weak.prompts.len(), weak.items.len()), (32, 32));
        assert_eq!(strong.prompts, alone.prompts);
        assert_eq!(strong.items, alone.items);
        let refused = LOAD.dealt(3).map_err(|error| error.to_string());
        assert!(refused.is_err_and(|error| error.contains("4 users") && error.contains("not 3")));
        Ok(())
    }
}
