//! What the models are pretrained on: worlds that went through `langptune prepare` as the demo's own will.

use std::collections::HashMap;
use std::path::Path;

use models::text::Tokenizer;
use rayon::prelude::*;

use super::TRAINING_SEED;
use crate::TrainError;
use crate::data::{Preparation, User};
use crate::demo::random::Random;
use crate::demo::{Film, World, WorldSize, prepare_rules, profile};

/// Histories and films of several worlds, and both tokenizers.
pub(super) struct Corpus {
    worlds: Vec<Prepared>,
    lm: Tokenizer,
    embedder: Tokenizer,
}

/// One world as models read it.
struct Prepared {
    world: World,
    histories: Vec<History>,
    /// The films that are left after filtering, with the embedder's tokens of their texts.
    films: Vec<(usize, Vec<u32>)>,
}

struct History {
    prompt: Vec<u32>,
    /// Film and rating.
    seen: Vec<(usize, u8)>,
}

/// A prompt and what may be answered to it, as tokens.
pub(super) struct Lesson {
    pub(super) prompt: Vec<u32>,
    pub(super) profiles: Vec<Vec<u32>>,
}

/// A statement about a film and the film's text, as tokens.
pub(super) type Pair = [Vec<u32>; 2];

impl Corpus {
    /// Makes `count` worlds of `size` and prepares them with the tokenizers in `lm` and `embedder`.
    pub(super) fn build(count: usize, size: WorldSize, lm: &Path, embedder: &Path) -> Result<Self, TrainError> {
        let worlds = (0..count.max(1) as u64)
            .into_par_iter()
            .map(|index| prepare(TRAINING_SEED + index, size, lm, embedder))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            worlds,
            lm: Tokenizer::open(lm)?,
            embedder: Tokenizer::open(embedder)?,
        })
    }

    pub(super) fn histories(&self) -> usize {
        self.worlds.iter().map(|world| world.histories.len()).sum()
    }

    pub(super) fn films(&self) -> usize {
        self.worlds.iter().map(|world| world.films.len()).sum()
    }

    /// A history with `count` profiles of it, each ended.
    pub(super) fn lesson(&self, count: usize, random: &mut Random) -> Result<Lesson, TrainError> {
        let Prepared { world, histories, .. } = random.choose(&self.worlds);
        let history = random.choose(histories);
        let seen: Vec<(&Film, u8)> = history
            .seen
            .iter()
            .map(|&(film, rating)| (&world.films[film], rating))
            .collect();
        let profiles = (0..count).map(|_| {
            let text = profile(&seen, random);
            let mut tokens = self.lm.encode(&text, models::text::SpecialTokens::None)?;
            tokens.extend(self.lm.eos());
            Ok(tokens)
        });
        Ok(Lesson {
            profiles: profiles.collect::<Result<_, TrainError>>()?,
            prompt: history.prompt.clone(),
        })
    }

    /// Pairs of different films of one world.
    pub(super) fn pairs(&self, count: usize, random: &mut Random) -> Result<Vec<Pair>, TrainError> {
        let Prepared { world, films, .. } = random.choose(&self.worlds);
        let mut order: Vec<usize> = (0..films.len()).collect();
        random.shuffle(&mut order);
        order
            .into_iter()
            .take(count)
            .map(|index| {
                let (film, text) = &films[index];
                let statement = profile(&[(&world.films[*film], 5)], random);
                let statement = self.embedder.encode(&statement, models::text::SpecialTokens::Add)?;
                Ok([statement, text.clone()])
            })
            .collect()
    }
}

fn prepare(seed: u64, size: WorldSize, lm: &Path, embedder: &Path) -> Result<Prepared, TrainError> {
    let world = World::generate(seed, size);
    let folder = tempfile::tempdir().map_err(|source| TrainError::io(std::env::temp_dir(), source))?;
    let files = world.write(folder.path())?;
    let output = folder.path().join("dataset");
    let preparation = Preparation {
        reviews: files.reviews,
        metadata: files.metadata,
        lm: lm.to_owned(),
        embedder: embedder.to_owned(),
        output: output.clone(),
        overwrite: false,
        skip_bad_lines: false,
        rules: prepare_rules(seed),
    };
    preparation.run()?;
    let dataset = crate::data::Dataset::open(&output)?;
    let by_id: HashMap<&str, usize> = world
        .films
        .iter()
        .enumerate()
        .map(|(index, film)| (film.id.as_str(), index))
        .collect();
    let film_of = |item: u32| by_id.get(dataset.items[item as usize].id.as_str()).copied();
    let rated: HashMap<(&str, usize), u8> = world
        .reviews
        .iter()
        .map(|review| ((world.people[review.person].id.as_str(), review.film), review.rating))
        .collect();
    let history = |user: &User| History {
        prompt: user.prompt_tokens.clone(),
        seen: user
            .history
            .iter()
            .filter_map(|&item| {
                let film = film_of(item)?;
                Some((film, *rated.get(&(user.id.as_str(), film))?))
            })
            .collect(),
    };
    let users = dataset.train.iter().chain(&dataset.val).chain(&dataset.test);
    let histories = users.map(history).filter(|history| !history.seen.is_empty()).collect();
    let films = (0..dataset.items.len() as u32)
        .filter_map(|item| Some((film_of(item)?, dataset.items[item as usize].tokens.clone())))
        .collect();
    Ok(Prepared {
        histories,
        films,
        world,
    })
}
