#![allow(clippy::unwrap_used)]

use eval_core::Cutoff;
use eval_core::metrics::Metric;
use eval_core::report::{Curves, Exposure, IndexFile, Points, read_manifest};
use eval_core::retrieval::{Query, Retriever, Similarity};

use super::*;
use crate::evaluation;

/// A report about one user who has item 0 and wants item 1, of three.
fn writer(folder: &Path, keeps_embeddings: bool) -> ReportWriter {
    let manifest = Manifest {
        items: Chunks::in_files("items", 3, ITEMS_PER_FILE),
        users: Chunks::in_files("users", 1, USERS_PER_FILE),
        ..Manifest::default()
    };
    ReportWriter {
        folder: folder.to_owned(),
        log: folder.join("metrics.jsonl"),
        manifest,
        seed: 1,
        keeps_embeddings,
        first: None,
        baselines: Vec::new(),
    }
}

/// Adds a checkpoint whose profile points in `direction`: along the first axis the target ranks first, along the second last.
fn add(writer: &mut ReportWriter, update: u64, direction: [f32; 2]) {
    let store = |values: &[f32]| EmbeddingStore::from_f32(values.to_vec(), 2).unwrap().to_f16().unwrap();
    let items = store(&[1.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
    let (profiles, references) = (store(&direction), store(&[1.0, 1.0]));
    let retriever = Retriever::new(items.clone(), Similarity::Cosine).unwrap();
    let wanted = [Query {
        masked: &[0],
        targets: &[1],
    }];
    let top = Cutoff::new(2).unwrap();
    let ranked = |store| evaluation::rank(&retriever, store, &wanted, 1, top).unwrap();
    let (generated, reference) = (ranked(&profiles), ranked(&references));
    let metrics = |ranked: &Ranked| ranked.table(evaluation::metrics(&[top])).unwrap();
    let response = models::Response {
        tokens: vec![1],
        logprobs: vec![0.0],
        ended: true,
    };
    let profile = Profile {
        response,
        text: "likes axes".to_owned(),
        tokens: vec![1],
    };
    let (generated_table, reference_table) = (metrics(&generated), metrics(&reference));
    let name = format!("update-{:06}", update - 1);
    writer
        .add_checkpoint(&Evaluated {
            name: &name,
            update,
            phase: "lm",
            profiles: &[profile],
            generated: (&generated, &generated_table),
            reference: (&reference, &reference_table),
            vectors: [&items, &profiles, &references],
        })
        .unwrap();
    writer.sweep().unwrap();
}

const TO_TARGET: [f32; 2] = [1.0, 0.0];
const AWAY: [f32; 2] = [0.0, 1.0];

fn kept(folder: &Path) -> Vec<bool> {
    let manifest = read_manifest(fs::File::open(folder.join("manifest.json")).unwrap()).unwrap();
    let kept = manifest.checkpoints.iter().map(|checkpoint| {
        let there = folder
            .join("checkpoints")
            .join(&checkpoint.name)
            .join("profiles.f16")
            .is_file();
        let map = folder
            .join("checkpoints")
            .join(&checkpoint.name)
            .join("map-profiles.xy");
        assert_eq!(there, checkpoint.embeddings.is_some(), "{}", checkpoint.name);
        assert_eq!(
            [there; 2],
            [checkpoint.map.is_some(), map.is_file()],
            "{}",
            checkpoint.name
        );
        there
    });
    kept.collect()
}

#[test]
fn vectors_stay_with_the_best_and_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), false);
    add(&mut writer, 1, AWAY);
    add(&mut writer, 2, TO_TARGET);
    assert_eq!(kept(folder.path()), [false, true]);
    // Equal to the best, so the earlier stays the best.
    add(&mut writer, 3, TO_TARGET);
    add(&mut writer, 4, AWAY);
    assert_eq!(kept(folder.path()), [false, true, false, true]);
    let ndcg: Metric = "ndcg@2".parse().unwrap();
    let means: Vec<f64> = writer
        .manifest
        .checkpoints
        .iter()
        .map(|checkpoint| checkpoint.generated.get(ndcg).unwrap().mean)
        .collect();
    assert_eq!(means, [1.0 / 3f64.log2(), 1.0, 1.0, 1.0 / 3f64.log2()]);
}

#[test]
fn all_vectors_stay_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), true);
    [AWAY, TO_TARGET, AWAY]
        .into_iter()
        .zip(1..)
        .for_each(|(direction, update)| add(&mut writer, update, direction));
    assert_eq!(kept(folder.path()), [true; 3]);
}

#[test]
fn a_checkpoint_written_again_replaces_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), false);
    add(&mut writer, 1, AWAY);
    add(&mut writer, 5, AWAY);
    add(&mut writer, 5, TO_TARGET);
    let names: Vec<&str> = writer
        .manifest
        .checkpoints
        .iter()
        .map(|checkpoint| checkpoint.name.as_str())
        .collect();
    assert_eq!(names, ["update-000000", "update-000004"]);
    assert_eq!(best(&writer.manifest.checkpoints), Some(1));
    assert_eq!(kept(folder.path()), [false, true]);
}

#[test]
fn words_of_profiles_stay_with_their_checkpoint_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), false);
    add(&mut writer, 1, AWAY);
    let stray = folder.path().join("checkpoints/update-000000/profile-words-1.bin");
    fs::write(&stray, "").unwrap();
    add(&mut writer, 2, AWAY);
    assert!(!stray.exists());
    for checkpoint in &writer.manifest.checkpoints {
        let listed = &checkpoint.profile_index.as_ref().unwrap().files;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].first, "axes");
        let file = fs::read(folder.path().join(&listed[0].file)).unwrap();
        let file = IndexFile::parse(&file, 1).unwrap();
        assert_eq!((file.lookup("likes"), file.lookup("profile")), (&[0][..], &[][..]));
    }
}

#[test]
fn curves_are_those_of_the_log_when_a_checkpoint_is_added() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), false);
    let curves = || -> Curves { read_json(&folder.path().join("curves.json")).unwrap() };
    add(&mut writer, 1, AWAY);
    assert_eq!(curves(), Curves::default());
    let line = |step: u64, kl: f64| format!("{{\"step\": {step}, \"wall_time\": 1.5, \"objective/kl\": {kl}}}\n");
    fs::write(folder.path().join("metrics.jsonl"), line(1, 0.25) + &line(2, 0.5)).unwrap();
    assert_eq!(curves(), Curves::default(), "it is an evaluation that writes them");
    add(&mut writer, 3, AWAY);
    let kl = "objective/kl";
    assert_eq!(curves(), Curves::of([(kl, 1, 0.25), (kl, 2, 0.5)]));
    let manifest = read_manifest(fs::File::open(folder.path().join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest.curves.as_deref(), Some("curves.json"));
}

#[test]
fn a_checkpoint_counts_what_it_shows_and_maps_its_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer(folder.path(), false);
    add(&mut writer, 1, TO_TARGET);
    let manifest = read_manifest(fs::File::open(folder.path().join("manifest.json")).unwrap()).unwrap();
    let checkpoint = &manifest.checkpoints[0];
    let exposure: Exposure = read_json(&folder.path().join(checkpoint.exposure.as_ref().unwrap())).unwrap();
    exposure.check(&manifest, checkpoint).unwrap();
    // Item 0 is the history. The reference profile is as near to both others, which it therefore ranks in their order.
    assert_eq!(exposure.cutoffs, [Cutoff::new(2).unwrap()]);
    assert_eq!(exposure.generated, [[0, 1, 1]]);
    assert_eq!(exposure.reference, Some(vec![vec![0, 1, 1]]));
    assert_eq!(exposure.rank_sum, [0, 1, 2]);
    // By hand: of length 1, the items are (a, a), (1, 0) and (0, 1) with a = √½. Most of their variance, (1)² + (1)², lies along
    // (1, −1)/√2; what is left along (1, 1)/√2, on which they are at 1, a and a.
    let map = checkpoint.map.as_ref().unwrap();
    let read = |file: &str, rows| {
        Points::read(fs::File::open(folder.path().join(file)).unwrap(), rows)
            .unwrap()
            .points
    };
    let points = read(&map.items, 3);
    let near =
        |found: f32, expected: f64| assert!((f64::from(found) - expected).abs() < 1e-3, "{found} and {expected}");
    let (a, mean) = (0.5f64.sqrt(), (1.0 + 2.0 * 0.5f64.sqrt()) / 3.0);
    for (point, expected) in points.iter().zip([[0.0, 1.0 - mean], [a, a - mean], [-a, a - mean]]) {
        // Either direction of the first axis has a largest component of the same size.
        near(point[0].abs(), f64::abs(expected[0]));
        near(point[1], expected[1]);
    }
    assert_eq!(read(&map.profiles, 1), [points[1]]);
    assert_eq!(read(map.references.as_ref().unwrap(), 1), [points[0]]);
}
