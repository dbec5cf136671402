//! Writes a report as large as a viewer must bear: `large_report DIR USERS ITEMS CHECKPOINTS DIMS`; `cargo xtask large-report` runs it.
//!
//! The world is made up, but nothing in the report contradicts itself: ranks, scores and top lists are those of the vectors,
//! metrics and tests are computed from the ranks, and text indexes, counts and maps from what is written. Vectors differ in their first
//! [`world::LIVE`] dimensions only, so that ranking by those gives the same bits in a fraction of the time.

mod words;
mod world;

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use eval_core::metrics::{Measure, Metric, MetricTable};
use eval_core::projection::PrincipalAxes;
use eval_core::report::{
    Baseline, Catalogue, Checkpoint, Chunks, Comparison, Curves, Dataset, Embeddings, Exposure, F16File, Found,
    IndexBuilder, ItemChunk, Manifest, MapFiles, Model, Points, ResultChunk, TextIndex, UserChunk, UserResult,
    write_json,
};
use eval_core::retrieval::{self, EmbeddingStore, Query, Retriever, Similarity};
use eval_core::scores::{TieSummary, rank_by_scores, top_by_scores};
use eval_core::significance::{Bootstrap, paired_randomisation};
use eval_core::{Cutoff, TargetRanks};
use world::World;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ITEMS_PER_FILE: usize = 500;
const USERS_PER_FILE: usize = 100;
/// Flips of a paired test; fewer than training takes, since there are so many users.
const FLIPS: usize = 200;
const BOOTSTRAP: Bootstrap = Bootstrap {
    resamples: 200,
    seed: 0,
    confidence: 0.95,
};

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("give a folder")?);
    let mut number = || -> Outcome<usize> { Ok(arguments.next().ok_or("give four numbers")?.parse()?) };
    let world = World {
        users: number()?,
        items: number()?.max(4 * world::HISTORY),
        checkpoints: number()?.max(1),
        dims: number()?.max(world::LIVE),
    };
    Report { folder, world }.write()
}

struct Report {
    folder: PathBuf,
    world: World,
}

/// Rankings of all users, one each.
struct Ranked {
    found: Vec<retrieval::Found>,
    table: MetricTable,
}

impl Ranked {
    fn ties(&self) -> TieSummary {
        TieSummary::of(self.found.iter().flat_map(|found| &found.targets))
    }
}

impl Report {
    fn write(&self) -> Outcome<()> {
        let world = &self.world;
        fs::create_dir_all(&self.folder)?;
        let items = self.chunks("items", world.items, ITEMS_PER_FILE, |first, numbers| ItemChunk {
            first,
            items: numbers.map(|item| world.item(item)).collect(),
        })?;
        let mut catalogue = Catalogue::default();
        (0..world.items).for_each(|item| catalogue.push(&world.item(item)));
        self.json("catalogue.json", &catalogue)?;
        drop(catalogue);
        eprintln!("items are written");
        let mut history_words = IndexBuilder::default();
        let users = self.chunks("users", world.users, USERS_PER_FILE, |first, numbers| {
            let users: Vec<_> = numbers.map(|user| world.user(user)).collect();
            for (number, user) in (first as u32..).zip(&users) {
                for interaction in &user.history {
                    history_words.add(number, &world.title(interaction.item as usize));
                    history_words.add(number, interaction.review.as_deref().unwrap_or_default());
                }
            }
            UserChunk { first, users }
        })?;
        let history_index = self.index("history-words", history_words)?;
        self.json("curves.json", &self.curves())?;
        eprintln!("users are written");

        let model = |name: &str, architecture: &str, parameters, trained_parameters| Model {
            name: name.into(),
            architecture: architecture.into(),
            parameters,
            trained_parameters,
        };
        let mut manifest = Manifest {
            run: "large".into(),
            generator: "large_report".into(),
            language_model: model("made-up-lm", "LlamaForCausalLM", 2_000_000_000, 20_000_000),
            embedder: model("made-up-embedder", "BertModel", 335_000_000, 335_000_000),
            dataset: Dataset {
                name: "made up".into(),
                split: "val".into(),
                items: world.items,
                train_users: world.users * 8,
                val_users: world.users,
                test_users: world.users,
            },
            items,
            users,
            history_index: Some(history_index),
            curves: Some("curves.json".into()),
            catalogue: Some("catalogue.json".into()),
            ..Manifest::default()
        };
        let mut others = Vec::new();
        for name in ["random", "popular"] {
            let ranked = self.ranked(self.by_scores(name)?)?;
            manifest.baselines.push(self.baseline(name, &ranked)?);
            others.push((name.to_owned(), ranked.table));
            eprintln!("the baseline {name} is written");
        }
        let retriever = Retriever::new(
            self.vectors(world::LIVE, world.items, |item| world.item_vector(item))?,
            Similarity::Cosine,
        )?;
        let last_item = |user| world.item_vector(world.last_item(user));
        let reference = self.ranked(self.search(&retriever, &self.vectors(world::LIVE, world.users, last_item)?)?)?;
        for number in 0..world.checkpoints {
            let vector = |user| world.profile_vector(user, number);
            let ranked = self.ranked(self.search(&retriever, &self.vectors(world::LIVE, world.users, vector)?)?)?;
            let mut checkpoint = self.checkpoint(number, &ranked, &reference, &others)?;
            if number == 0 {
                others.insert(0, (checkpoint.name.clone(), ranked.table.clone()));
            }
            // The last is the best too, so the one before it stands for the best.
            if number + 2 >= world.checkpoints {
                self.add_vectors(&mut checkpoint, number, &ranked)?;
            }
            eprintln!("{} is written", checkpoint.name);
            manifest.checkpoints.push(checkpoint);
        }
        manifest.check()?;
        self.json("manifest.json", &manifest)
    }

    fn queries<'a>(histories: &'a [Vec<u32>], targets: &'a [[u32; 1]]) -> Vec<Query<'a>> {
        let both = histories.iter().zip(targets);
        both.map(|(masked, targets)| Query { masked, targets }).collect()
    }

    fn wanted(&self) -> (Vec<Vec<u32>>, Vec<[u32; 1]>) {
        let users = 0..self.world.users;
        let histories = users.clone().map(|user| self.world.history(user)).collect();
        (histories, users.map(|user| [self.world.target(user)]).collect())
    }

    fn search(&self, retriever: &Retriever, vectors: &EmbeddingStore) -> Outcome<Vec<retrieval::Found>> {
        let (histories, targets) = self.wanted();
        Ok(retriever.search(vectors, &Self::queries(&histories, &targets), Some(cutoffs()?[1]))?)
    }

    /// Rankings by popularity, or by scores that are drawn anew for each user.
    fn by_scores(&self, name: &str) -> Outcome<Vec<retrieval::Found>> {
        let (histories, targets) = self.wanted();
        let mut scores: Vec<f32> = (0..self.world.items)
            .map(|item| self.world.popularity(item) as f32)
            .collect();
        let mut all = Vec::with_capacity(self.world.users);
        for (user, (history, target)) in histories.iter().zip(&targets).enumerate() {
            if name == "random" {
                (0u64..)
                    .zip(&mut scores)
                    .for_each(|(item, score)| *score = world::unit([5, user as u64, item]) as f32);
            }
            all.push(retrieval::Found {
                targets: rank_by_scores(&scores, history, target)?,
                top: top_by_scores(&scores, history, cutoffs()?[1])?,
            });
        }
        Ok(all)
    }

    fn ranked(&self, found: Vec<retrieval::Found>) -> Outcome<Ranked> {
        let measures = [Measure::Recall, Measure::Precision, Measure::Mrr, Measure::Ndcg];
        let metrics = cutoffs()?.into_iter().rev();
        let mut table = MetricTable::new(
            metrics
                .flat_map(|at| measures.map(|measure| Metric::at(measure, at)))
                .collect(),
        );
        for found in &found {
            table.push(&TargetRanks::from_ranked(&found.targets)?);
        }
        Ok(Ranked { found, table })
    }

    fn baseline(&self, name: &str, ranked: &Ranked) -> Outcome<Baseline> {
        let stem = format!("baselines/{name}");
        let result = |user: usize| UserResult {
            generated: vec![Found::new(None, &ranked.found[user])],
            reference: None,
        };
        Ok(Baseline {
            name: name.into(),
            metrics: ranked.table.summary(&BOOTSTRAP),
            ties: ranked.ties(),
            results: Some(self.results(&stem, result)?),
            exposure: Some(self.exposure(&stem, ranked, None)?),
        })
    }

    fn checkpoint(
        &self,
        number: usize,
        ranked: &Ranked,
        reference: &Ranked,
        others: &[(String, MetricTable)],
    ) -> Outcome<Checkpoint> {
        let (name, phase) = match number + 1 == self.world.checkpoints {
            true => ("end".to_owned(), "end"),
            false => (
                format!("update-{:06}", number * 100),
                if number == 0 { "embedder" } else { "lm" },
            ),
        };
        let stem = format!("checkpoints/{name}");
        let mut profile_words = IndexBuilder::default();
        (0..self.world.users).for_each(|user| profile_words.add(user as u32, &self.world.profile(user, number)));
        let result = |user: usize| UserResult {
            generated: vec![Found::new(Some(self.world.profile(user, number)), &ranked.found[user])],
            reference: Some(Found::new(None, &reference.found[user])),
        };
        let mut comparisons = Vec::new();
        let with_reference = [("reference", &reference.table)].into_iter();
        for (with, other) in with_reference.chain(others.iter().map(|(name, table)| (name.as_str(), table))) {
            for &metric in ranked.table.metrics() {
                let column = |table: &MetricTable| table.column(metric).unwrap_or_default().to_vec();
                comparisons.push(Comparison {
                    with: with.into(),
                    metric,
                    test: paired_randomisation(&column(&ranked.table), &column(other), FLIPS, 0)?,
                });
            }
        }
        Ok(Checkpoint {
            update: number as u64 * 100 + 1,
            phase: phase.into(),
            profiles_per_user: 1,
            generated: ranked.table.summary(&BOOTSTRAP),
            reference: Some(reference.table.summary(&BOOTSTRAP)),
            ties: ranked.ties(),
            comparisons,
            results: Some(self.results(&stem, result)?),
            profile_index: Some(self.index(&format!("{stem}/profile-words"), profile_words)?),
            exposure: Some(self.exposure(&stem, ranked, Some(reference))?),
            name,
            ..Checkpoint::default()
        })
    }

    /// Vectors in full width, and their map.
    fn add_vectors(&self, checkpoint: &mut Checkpoint, number: usize, ranked: &Ranked) -> Outcome<()> {
        let (world, stem) = (&self.world, format!("checkpoints/{}", checkpoint.name));
        let live = self.vectors(world::LIVE, world.items, |item| world.item_vector(item))?;
        // The further dimensions are all zeros: they have no part in covariances.
        let axes = PrincipalAxes::fit(&live, Similarity::Cosine)?;
        drop(live);
        let write = |name: &str, rows: usize, vector: &dyn Fn(usize) -> world::Vector| -> Outcome<(F16File, String)> {
            let file = format!("{stem}/{name}.f16");
            self.vectors(world.dims, rows, vector)?.write_f16(self.create(&file)?)?;
            let map = format!("{stem}/map-{name}.xy");
            let points = axes.project(&self.vectors(world::LIVE, rows, vector)?)?;
            Points { points }.write(self.create(&map)?)?;
            let dims = world.dims;
            Ok((F16File { file, rows, dims }, map))
        };
        let items = write("items", world.items, &|item| world.item_vector(item))?;
        let profiles = write("profiles", world.users, &|user| world.profile_vector(user, number))?;
        let references = write("references", world.users, &|user| {
            world.item_vector(world.last_item(user))
        })?;
        checkpoint.map = Some(MapFiles {
            items: items.1,
            profiles: profiles.1,
            references: Some(references.1),
            explained: axes.explained(),
        });
        self.check_width(number, ranked)?;
        checkpoint.embeddings = Some(Embeddings {
            items: items.0,
            profiles: profiles.0,
            references: Some(references.0),
        });
        Ok(())
    }

    /// That whoever ranks the vectors in full width gets what is recorded, tried with some users.
    fn check_width(&self, number: usize, ranked: &Ranked) -> Outcome<()> {
        let world = &self.world;
        let users = world.users.min(64);
        let items = self.vectors(world.dims, world.items, |item| world.item_vector(item))?;
        let profiles = self.vectors(world.dims, users, |user| world.profile_vector(user, number))?;
        let (histories, targets) = self.wanted();
        let wanted = Self::queries(&histories[..users], &targets[..users]);
        let found = Retriever::new(items, Similarity::Cosine)?.search(&profiles, &wanted, Some(cutoffs()?[1]))?;
        match found == ranked.found[..users] {
            true => Ok(()),
            false => Err("the vectors in full width rank otherwise".into()),
        }
    }

    /// Rows of `dims` values, zeros from [`world::LIVE`] on, rounded to f16.
    fn vectors(&self, dims: usize, rows: usize, vector: impl Fn(usize) -> world::Vector) -> Outcome<EmbeddingStore> {
        let mut values = vec![half::f16::ZERO; rows * dims];
        for (row, into) in values.chunks_exact_mut(dims).enumerate() {
            into.iter_mut()
                .zip(vector(row))
                .for_each(|(into, value)| *into = half::f16::from_f32(value));
        }
        Ok(EmbeddingStore::from_f16(values, dims)?)
    }

    fn curves(&self) -> Curves {
        let steps = 1..=self.world.checkpoints as u64 * 100;
        let noise = |stream, step| world::unit([stream, step, 0]) - 0.5;
        let tags = [
            "embedder/loss",
            "objective/rewards",
            "objective/kl",
            "policy/entropy_avg",
            "loss/policy_avg",
        ];
        Curves::of((0u64..).zip(tags).flat_map(|(stream, tag)| {
            let value = move |step: u64| 1.0 / (1.0 + step as f64 / 100.0) + 0.1 * noise(100 + stream, step);
            steps.clone().map(move |step| (tag, step, value(step)))
        }))
    }

    fn results(&self, stem: &str, result: impl Fn(usize) -> UserResult) -> Outcome<Chunks> {
        self.chunks(
            &format!("{stem}/results"),
            self.world.users,
            USERS_PER_FILE,
            |first, users| ResultChunk {
                first,
                results: users.map(&result).collect(),
            },
        )
    }

    fn exposure(&self, stem: &str, ranked: &Ranked, reference: Option<&Ranked>) -> Outcome<String> {
        let lists = |ranked: &Ranked| -> Vec<Vec<u32>> {
            let lists = ranked.found.iter();
            lists
                .map(|found| found.top.iter().map(|scored| scored.item).collect())
                .collect()
        };
        let reference = reference.map(lists);
        let exposure = Exposure::of(self.world.items, &cutoffs()?, &lists(ranked), reference.as_deref())?;
        let file = format!("{stem}/exposure.json");
        self.json(&file, &exposure)?;
        Ok(file)
    }

    fn index(&self, stem: &str, builder: IndexBuilder) -> Outcome<TextIndex> {
        let files = builder.into_files();
        let index = TextIndex::of_files(stem, &files);
        for (listed, file) in index.files.iter().zip(&files) {
            file.write(self.create(&listed.file)?)?;
        }
        Ok(index)
    }

    fn chunks<C: serde::Serialize>(
        &self,
        stem: &str,
        count: usize,
        per_file: usize,
        mut chunk: impl FnMut(usize, std::ops::Range<usize>) -> C,
    ) -> Outcome<Chunks> {
        let chunks = Chunks::in_files(stem, count, per_file);
        for (first, file) in (0..count).step_by(per_file).zip(&chunks.files) {
            self.json(file, &chunk(first, first..count.min(first + per_file)))?;
        }
        Ok(chunks)
    }

    fn json(&self, file: &str, record: &impl serde::Serialize) -> Outcome<()> {
        Ok(write_json(self.create(file)?, record)?)
    }

    fn create(&self, file: &str) -> Outcome<std::io::BufWriter<fs::File>> {
        let path = self.folder.join(file);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        Ok(std::io::BufWriter::new(fs::File::create(path)?))
    }
}

/// Ascending.
fn cutoffs() -> Outcome<[Cutoff; 2]> {
    Ok([Cutoff::new(5)?, Cutoff::new(20)?])
}

#[cfg(test)]
mod tests;
