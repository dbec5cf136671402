//! The report that the browser tests open, `fixtures/report`: written by eval-core's own types, so that it follows the schema.
//! Six users, forty items; the ranks below are the truth, and everything else is made to agree with them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use eval_core::metrics::{Metric, MetricTable, Summary};
use eval_core::report::{
    Baseline, Catalogue, Checkpoint, Chunks, Comparison, Curves, Dataset, Embeddings, Exposure, F16File, Found,
    IndexBuilder, Interaction, Item, ItemChunk, Manifest, MapFiles, Model, Points, ResultChunk, TextIndex, User,
    UserChunk, UserResult, read_chunk, read_manifest, write_json,
};
use eval_core::retrieval::{EmbeddingStore, Query, Retriever, Similarity};
use eval_core::scores::{RankedTarget, TieSummary};
use eval_core::significance::{Bootstrap, paired_randomisation};
use eval_core::{Cutoff, TargetRanks};

const ITEMS: u32 = 40;
const USERS: usize = 6;

/// Rank of each user's target.
type Ranks = [u32; USERS];

const POPULAR: Ranks = [3, 9, 30, 22, 17, 8];
const FIRST: [Ranks; 2] = [[12, 7, 31, 5, 18, 2], [4, 14, 9, 25, 36, 6]];
const LAST: [Ranks; 2] = [[6, 1, 15, 4, 8, 2], [3, 11, 9, 20, 28, 6]];

/// What no page may take for anything but text: markup, marks that turn the direction, a word without end, signs of many bytes.
const HOSTILE: &str = "<script>window.hacked = 1</script><img src=x onerror=\"window.hacked = 1\"> & &lt;b&gt; \
     \u{202e}turned\u{202c} مرحبا 👩‍👩‍👧‍👦🎬 Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenfarbe\
     Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenfarbe";

/// The files of the report, by name.
type Files = BTreeMap<String, Vec<u8>>;

fn table(ranks: Ranks) -> MetricTable {
    let mut table = MetricTable::new(Metric::all_at(&[Cutoff::new(10).unwrap(), Cutoff::new(5).unwrap()]));
    for rank in ranks {
        table.push(&TargetRanks::new(&[rank]).unwrap());
    }
    table
}

fn metrics(ranks: Ranks) -> Summary {
    table(ranks).summary(&Bootstrap::default())
}

fn comparisons(with: &str, ours: Ranks, theirs: Ranks) -> Vec<Comparison> {
    let (ours, theirs) = (table(ours), table(theirs));
    let compare = |&metric: &Metric| Comparison {
        with: with.into(),
        metric,
        test: paired_randomisation(ours.column(metric).unwrap(), theirs.column(metric).unwrap(), 1000, 0).unwrap(),
    };
    ours.metrics().iter().map(compare).collect()
}

fn history(user: usize) -> [u32; 3] {
    [0, 1, 2].map(|place| user as u32 * 3 + place)
}

fn target(user: usize) -> u32 {
    20 + user as u32
}

/// A vector whose ranking of all items but the history has the target at that rank: items are the axes, so its values order
/// them. Those of the history would come first.
fn vector(user: usize, rank: u32) -> Vec<f32> {
    let (masked, target) = (history(user), target(user));
    let mut order: Vec<u32> = (0..ITEMS)
        .filter(|item| *item != target && !masked.contains(item))
        .collect();
    order.sort_by_key(|item| (item * 7 + user as u32 * 11) % ITEMS);
    order.insert(rank as usize - 1, target);
    let mut vector = vec![0.9375f32; ITEMS as usize];
    for (place, &item) in order.iter().enumerate() {
        vector[item as usize] = 0.875 - place as f32 / 64.0;
    }
    vector
}

/// Vectors as a report keeps them.
fn store(values: Vec<f32>) -> EmbeddingStore {
    EmbeddingStore::from_f32(values, ITEMS as usize)
        .unwrap()
        .to_f16()
        .unwrap()
}

/// The items' vectors: the axes.
fn axes() -> EmbeddingStore {
    let is_axis = |place: u32| place / ITEMS == place % ITEMS;
    store(
        (0..ITEMS * ITEMS)
            .map(|place| f32::from(u8::from(is_axis(place))))
            .collect(),
    )
}

/// The ranking by that vector.
fn found(user: usize, rank: u32, profile: Option<String>) -> Found {
    let retriever = Retriever::new(axes(), Similarity::Cosine).unwrap();
    let query = Query {
        masked: &history(user),
        targets: &[target(user)],
    };
    let found = retriever
        .search(&store(vector(user, rank)), &[query], Some(Cutoff::new(10).unwrap()))
        .unwrap();
    Found::new(profile, &found[0])
}

/// The vectors of a checkpoint with these ranks.
fn add_vectors(files: &mut Files, stem: &str, [ours, reference]: [Ranks; 2]) -> Embeddings {
    let of_users = |ranks: Ranks| store((0..USERS).flat_map(|user| vector(user, ranks[user])).collect());
    let mut add = |name: &str, vectors: &EmbeddingStore| {
        let mut bytes = Vec::new();
        vectors.write_f16(&mut bytes).unwrap();
        let file = format!("{stem}/{name}.f16");
        files.insert(file.clone(), bytes);
        F16File {
            file,
            rows: vectors.rows(),
            dims: vectors.dims(),
        }
    };
    Embeddings {
        items: add("items", &axes()),
        profiles: add("profiles", &of_users(ours)),
        references: Some(add("references", &of_users(reference))),
    }
}

fn profile(name: &str, user: usize) -> String {
    match (name, user) {
        ("end", 3) => HOSTILE.to_owned(),
        ("end", _) => format!("Likes {} with a slow pace, and says so at length.", taste(user)),
        _ => format!("Likes {}.", taste(user)),
    }
}

fn taste(user: usize) -> &'static str {
    [
        "horror",
        "comedies",
        "westerns",
        "musicals",
        "horror and comedies",
        "films about the sea",
    ][user]
}

fn add(files: &mut Files, name: &str, record: &impl serde::Serialize) {
    let mut bytes = Vec::new();
    write_json(&mut bytes, record).unwrap();
    files.insert(name.into(), bytes);
}

fn add_index(files: &mut Files, stem: &str, builder: IndexBuilder) -> TextIndex {
    let written = builder.into_files();
    let index = TextIndex::of_files(stem, &written);
    for (listed, file) in index.files.iter().zip(&written) {
        let mut bytes = Vec::new();
        file.write(&mut bytes).unwrap();
        files.insert(listed.file.clone(), bytes);
    }
    index
}

/// Records in files of four.
fn add_chunks<T: Clone, C: serde::Serialize>(
    files: &mut Files,
    stem: &str,
    records: &[T],
    chunk: impl Fn(usize, Vec<T>) -> C,
) -> Chunks {
    const PER_FILE: usize = 4;
    let chunks = Chunks::in_files(stem, records.len(), PER_FILE);
    for (number, (name, part)) in chunks.files.iter().zip(records.chunks(PER_FILE)).enumerate() {
        add(files, name, &chunk(number * PER_FILE, part.to_vec()));
    }
    chunks
}

fn add_results(files: &mut Files, stem: &str, results: &[UserResult]) -> Chunks {
    add_chunks(files, &format!("{stem}/results"), results, |first, results| {
        ResultChunk { first, results }
    })
}

/// How often each item is in the top lists, written as the file `name`.
fn add_exposure(files: &mut Files, name: String, results: &[UserResult]) -> String {
    let cutoffs = [10, 5].map(|cutoff| Cutoff::new(cutoff).unwrap());
    let lists = |found: fn(&UserResult) -> &[Found]| -> Vec<&[u32]> {
        let found = results.iter().flat_map(found);
        found.map(|found| found.top_items.as_slice()).collect()
    };
    let generated = lists(|result| &result.generated);
    let reference = lists(|result| result.reference.as_slice());
    let reference = (!reference.is_empty()).then_some(&reference[..]);
    let exposure = Exposure::of(ITEMS as usize, &cutoffs, &generated, reference).unwrap();
    add(files, &name, &exposure);
    name
}

/// A map as of other vectors than those that are kept: items on a spiral, a group for each of six genres, and people beside what they like.
fn add_map(files: &mut Files, stem: &str) -> MapFiles {
    let item = |number: u32| {
        let (group, place) = (number % USERS as u32, number / USERS as u32);
        let centre = [
            [4.0, 0.0],
            [2.0, 3.0],
            [-2.0, 3.0],
            [-4.0, 0.0],
            [-2.0, -3.0],
            [2.0, -3.0f32],
        ][group as usize];
        let aside = [[0.5, 0.25], [-0.5, 0.5], [0.25, -0.75], [-0.25, -0.5]][place as usize % 4];
        let scale = 0.5 + place as f32 / 8.0;
        [centre[0] + aside[0] * scale, centre[1] + aside[1] * scale]
    };
    let beside = |by: f32| {
        (0..USERS as u32)
            .map(|user| item(user).map(|value| value * by))
            .collect()
    };
    let mut add = |name: &str, points: Vec<[f32; 2]>| {
        let mut bytes = Vec::new();
        Points { points }.write(&mut bytes).unwrap();
        let name = format!("{stem}/map-{name}.xy");
        files.insert(name.clone(), bytes);
        name
    };
    MapFiles {
        items: add("items", (0..ITEMS).map(item).collect()),
        profiles: add("profiles", beside(0.75)),
        references: Some(add("references", beside(0.5))),
        explained: [0.375, 0.25],
    }
}

fn items() -> Vec<Item> {
    let item = |number: u32| Item {
        id: format!("film-{number}"),
        title: format!("Film {number}"),
        text: format!(
            "Title: Film {number}\nDescription: A {} film.",
            taste(number as usize % USERS)
        ),
        train_interactions: u64::from(ITEMS - number),
    };
    (0..ITEMS).map(item).collect()
}

fn users() -> Vec<User> {
    let interaction = |user: usize, place: usize| Interaction {
        item: history(user)[place],
        rating: Some([5.0, 3.5, 1.0][place]),
        review: (place < 2).then(|| format!("What {} should be: watched it {} times.", taste(user), place + 1)),
    };
    let user = |user: usize| User {
        id: format!("person-{user}"),
        history: (0..3).map(|place| interaction(user, place)).collect(),
        targets: vec![target(user)],
        prompt: Some(format!("Describe what person {user} likes.")),
        reference_profile: Some(format!("A person who likes {}.", taste(user))),
    };
    (0..USERS).map(user).collect()
}

fn add_checkpoint(
    files: &mut Files,
    name: &str,
    update: u64,
    phase: &str,
    [ours, reference]: [Ranks; 2],
) -> Checkpoint {
    let stem = format!("checkpoints/{name}");
    let result = |user: usize| UserResult {
        generated: vec![found(user, ours[user], Some(profile(name, user)))],
        reference: Some(found(user, reference[user], None)),
    };
    let results: Vec<_> = (0..USERS).map(result).collect();
    let targets: Vec<RankedTarget> = results
        .iter()
        .flat_map(|result| result.generated[0].targets.clone())
        .collect();
    let mut words = IndexBuilder::default();
    (0..USERS).for_each(|user| words.add(user as u32, &profile(name, user)));
    let mut against = comparisons("reference", ours, reference);
    if name != "update-1" {
        against.extend(comparisons("update-1", ours, FIRST[0]));
    }
    against.extend(comparisons("popular", ours, POPULAR));
    Checkpoint {
        name: name.into(),
        update,
        phase: phase.into(),
        profiles_per_user: 1,
        generated: metrics(ours),
        reference: Some(metrics(reference)),
        ties: TieSummary::of(&targets),
        comparisons: against,
        results: Some(add_results(files, &stem, &results)),
        profile_index: Some(add_index(files, &format!("{stem}/profile-words"), words)),
        exposure: Some(add_exposure(files, format!("{stem}/exposure.json"), &results)),
        map: (name == "end").then(|| add_map(files, &stem)),
        embeddings: (name == "end").then(|| add_vectors(files, &stem, [ours, reference])),
    }
}

fn add_baseline(files: &mut Files, name: &str, ranks: Ranks) -> Baseline {
    let result = |user: usize| UserResult {
        generated: vec![found(user, ranks[user], None)],
        reference: None,
    };
    let results: Vec<_> = (0..USERS).map(result).collect();
    let targets: Vec<RankedTarget> = results
        .iter()
        .flat_map(|result| result.generated[0].targets.clone())
        .collect();
    Baseline {
        name: name.into(),
        metrics: metrics(ranks),
        ties: TieSummary::of(&targets),
        results: Some(add_results(files, &format!("baselines/{name}"), &results)),
        exposure: Some(add_exposure(files, format!("baselines/{name}/exposure.json"), &results)),
    }
}

fn add_history_index(files: &mut Files) -> TextIndex {
    let mut words = IndexBuilder::default();
    let items = items();
    for (number, user) in (0..).zip(users()) {
        for interaction in user.history {
            words.add(number, &items[interaction.item as usize].title);
            words.add(number, &interaction.review.unwrap_or_default());
        }
    }
    add_index(files, "history-words", words)
}

fn curves() -> Curves {
    let falling = (1..=39).map(|step| ("embedder/loss", step, 2.5 / step as f64));
    let rising = (2..=39).map(|step| {
        (
            "objective/rewards",
            step,
            0.25 + step as f64 / 128.0 + (step % 3) as f64 / 32.0,
        )
    });
    Curves::of(falling.chain(rising))
}

fn report() -> Files {
    let mut files = Files::new();
    let model = |name: &str, architecture: &str, parameters, trained_parameters| Model {
        name: name.into(),
        architecture: architecture.into(),
        parameters,
        trained_parameters,
    };
    add(&mut files, "curves.json", &curves());
    let mut catalogue = Catalogue::default();
    items().iter().for_each(|item| catalogue.push(item));
    add(&mut files, "catalogue.json", &catalogue);
    let manifest = Manifest {
        run: "Six users & <one> fixture".into(),
        generator: "the tests of langptune".into(),
        language_model: model("tiny-lm", "LlamaForCausalLM", 5_000, 600),
        embedder: model("tiny-embedder", "BertModel", 4_000, 4_000),
        dataset: Dataset {
            name: "made up".into(),
            split: "val".into(),
            items: ITEMS as usize,
            train_users: 20,
            val_users: USERS,
            test_users: 5,
        },
        config: BTreeMap::from([("seed".into(), "1".into()), ("evaluation.topk".into(), "10".into())]),
        items: add_chunks(&mut files, "items", &items(), |first, items| ItemChunk { first, items }),
        users: add_chunks(&mut files, "users", &users(), |first, users| UserChunk { first, users }),
        history_index: Some(add_history_index(&mut files)),
        curves: Some("curves.json".into()),
        catalogue: Some("catalogue.json".into()),
        baselines: vec![add_baseline(&mut files, "popular", POPULAR)],
        checkpoints: vec![
            add_checkpoint(&mut files, "update-1", 1, "embedder", FIRST),
            add_checkpoint(&mut files, "end", 40, "end", LAST),
        ],
        ..Manifest::default()
    };
    let manifest = serde_json::to_string_pretty(&manifest).unwrap() + "\n";
    files.insert("manifest.json".into(), manifest.into());
    files
}

#[test]
fn the_report_of_the_browser_tests_is_what_these_types_write() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/report");
    let files = report();
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::remove_dir_all(&folder).unwrap();
        for (name, bytes) in &files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    for (name, bytes) in &files {
        let recorded = fs::read(folder.join(name)).unwrap();
        assert!(
            recorded == *bytes,
            "{name}: write it anew with UPDATE_FIXTURES=1 and look at the difference"
        );
    }
    let manifest = read_manifest(&files["manifest.json"][..]).unwrap();
    for (number, name) in manifest.users.files.iter().enumerate() {
        let users: UserChunk = serde_json::from_slice(&files[name]).unwrap();
        users.check(&manifest, number).unwrap();
    }
    let read = |name: &Option<String>| &files[name.as_ref().unwrap()][..];
    let catalogue: Catalogue = read_chunk(read(&manifest.catalogue)).unwrap();
    catalogue.check(&manifest).unwrap();
    let exposure = |name: &Option<String>| read_chunk::<Exposure>(read(name)).unwrap();
    for baseline in &manifest.baselines {
        exposure(&baseline.exposure).check_baseline(&manifest).unwrap();
    }
    for checkpoint in &manifest.checkpoints {
        exposure(&checkpoint.exposure).check(&manifest, checkpoint).unwrap();
        for (number, name) in checkpoint.results.as_ref().unwrap().files.iter().enumerate() {
            let results: ResultChunk = serde_json::from_slice(&files[name]).unwrap();
            results.check(&manifest, checkpoint, number).unwrap();
        }
    }
}
