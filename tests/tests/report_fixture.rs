//! The report that the browser tests open, `fixtures/report`: written by eval-core's own types, so that it follows the schema.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use eval_core::metrics::{Metric, MetricTable, Summary};
use eval_core::report::{Baseline, Checkpoint, Dataset, Manifest, Model, read_manifest};
use eval_core::scores::TieSummary;
use eval_core::significance::Bootstrap;
use eval_core::{Cutoff, TargetRanks};

/// Metrics of users whose only target has these ranks.
fn metrics(ranks: &[u32]) -> Summary {
    let mut table = MetricTable::new(Metric::all_at(&[Cutoff::new(10).unwrap(), Cutoff::new(5).unwrap()]));
    for &rank in ranks {
        table.push(&TargetRanks::new(&[rank]).unwrap());
    }
    table.summary(&Bootstrap::default())
}

fn checkpoint(name: &str, update: u64, phase: &str, generated: &[u32], reference: &[u32]) -> Checkpoint {
    let mean = f64::from(generated.iter().sum::<u32>()) / generated.len() as f64;
    Checkpoint {
        name: name.into(),
        update,
        phase: phase.into(),
        profiles_per_user: 1,
        generated: metrics(generated),
        reference: Some(metrics(reference)),
        ties: TieSummary {
            targets: generated.len(),
            tied_share: 0.0,
            mean_rank: mean,
            mean_expected_rank: mean,
        },
        ..Checkpoint::default()
    }
}

fn manifest() -> Manifest {
    let model = |name: &str, architecture: &str, parameters, trained_parameters| Model {
        name: name.into(),
        architecture: architecture.into(),
        parameters,
        trained_parameters,
    };
    let popular = Baseline {
        name: "popular".into(),
        metrics: metrics(&[3, 9, 40, 22, 17, 8]),
        ..Baseline::default()
    };
    Manifest {
        run: "Six users & <one> fixture".into(),
        generator: "the tests of langptune".into(),
        language_model: model("tiny-lm", "LlamaForCausalLM", 5_000, 600),
        embedder: model("tiny-embedder", "BertModel", 4_000, 4_000),
        dataset: Dataset {
            name: "made up".into(),
            split: "val".into(),
            items: 40,
            train_users: 20,
            val_users: 6,
            test_users: 5,
        },
        baselines: vec![popular],
        checkpoints: vec![
            checkpoint(
                "update-1",
                1,
                "embedder",
                &[12, 7, 31, 5, 18, 2],
                &[4, 14, 9, 25, 36, 6],
            ),
            checkpoint("end", 40, "end", &[6, 1, 15, 4, 8, 2], &[3, 11, 9, 20, 28, 6]),
        ],
        ..Manifest::default()
    }
}

#[test]
fn the_report_of_the_browser_tests_is_what_these_types_write() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/report/manifest.json");
    let written = serde_json::to_string_pretty(&manifest()).unwrap() + "\n";
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &written).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap();
    assert_eq!(
        recorded, written,
        "write it anew with UPDATE_FIXTURES=1 and look at the difference"
    );
    assert_eq!(read_manifest(recorded.as_bytes()).unwrap().run, manifest().run);
}
