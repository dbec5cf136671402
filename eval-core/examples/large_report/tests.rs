//! That a report of the same making, but tiny, holds together: whoever reads its files finds what its manifest says.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;

use eval_core::report::read_manifest;

use super::*;

fn read<T: serde::de::DeserializeOwned>(folder: &Path, file: &str) -> T {
    serde_json::from_reader(File::open(folder.join(file)).unwrap()).unwrap()
}

/// The vectors of a file.
fn vectors(folder: &Path, file: &F16File) -> EmbeddingStore {
    EmbeddingStore::read_f16(File::open(folder.join(&file.file)).unwrap(), file.rows, file.dims).unwrap()
}

#[test]
fn a_tiny_report_agrees_with_itself() {
    let folder = std::env::temp_dir().join(format!("langptune-large-report-{}", std::process::id()));
    let world = World {
        users: 130,
        items: 700,
        checkpoints: 3,
        dims: 40,
    };
    let (users, items) = (world.users, world.items);
    let report = Report {
        folder: folder.clone(),
        world,
    };
    report.write().unwrap();
    let manifest = read_manifest(File::open(folder.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(
        (manifest.users.count, manifest.items.count, manifest.checkpoints.len()),
        (users, items, 3)
    );
    for file in manifest.files() {
        assert!(folder.join(file).is_file(), "{file} is missing");
    }
    let of_users: Vec<UserChunk> = manifest.users.files.iter().map(|file| read(&folder, file)).collect();
    for (number, chunk) in of_users.iter().enumerate() {
        chunk.check(&manifest, number).unwrap();
    }
    read::<Catalogue>(&folder, manifest.catalogue.as_ref().unwrap())
        .check(&manifest)
        .unwrap();
    for checkpoint in &manifest.checkpoints {
        let results: Vec<ResultChunk> = checkpoint
            .results
            .as_ref()
            .unwrap()
            .files
            .iter()
            .map(|file| read(&folder, file))
            .collect();
        for (number, chunk) in results.iter().enumerate() {
            chunk.check(&manifest, checkpoint, number).unwrap();
        }
        // The vectors that are kept give the ranks that are recorded.
        let Some(kept) = &checkpoint.embeddings else {
            assert_eq!(checkpoint.update, 1, "the last two keep theirs");
            continue;
        };
        let retriever = Retriever::new(vectors(&folder, &kept.items), Similarity::Cosine).unwrap();
        let people = || of_users.iter().flat_map(|chunk| &chunk.users);
        let histories: Vec<Vec<u32>> = people()
            .map(|user| user.history.iter().map(|interaction| interaction.item).collect())
            .collect();
        let wanted: Vec<Query<'_>> = people()
            .zip(&histories)
            .map(|(user, masked)| Query {
                masked,
                targets: &user.targets,
            })
            .collect();
        let ranks = retriever.rank(&vectors(&folder, &kept.profiles), &wanted).unwrap();
        let recorded = results.iter().flat_map(|chunk| &chunk.results);
        assert!(
            recorded.map(|result| &result.generated[0].targets).eq(&ranks),
            "{}",
            checkpoint.name
        );
    }
    fs::remove_dir_all(folder).unwrap();
}
