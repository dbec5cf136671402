//! `--device wgpu`: what the program says without it, and runs on an adapter of this machine, a software one if need be, beside the processor's.

#![allow(clippy::unwrap_used)]

mod tiny_run;

use tiny_run::{fixture, langptune, text};

/// Texts embedded on `device`: what the program said, and the file's bytes.
fn embed(device: &str, more: &[&str]) -> (bool, String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("texts.txt"), folder.path().join("vectors.npy"));
    std::fs::write(&input, "A film about the sea.\nwild\n").unwrap();
    let model = fixture("models/tiny-embedder");
    let arguments = [
        "embed",
        "--model",
        text(&model),
        "--input",
        text(&input),
        "--output",
        text(&output),
        "--device",
        device,
    ];
    let (done, said) = langptune(&[&arguments[..], more].concat());
    (done, said, std::fs::read(&output).unwrap_or_default())
}

#[test]
fn bf16_is_refused_before_anything_is_opened() {
    let (done, said, _) = embed("wgpu:3", &["--precision", "bf16"]);
    assert!(!done && said.contains("--device wgpu:3 computes in f32"), "{said}");
}

#[cfg(not(feature = "wgpu"))]
#[test]
fn a_build_without_wgpu_says_how_to_make_one_with_it() {
    let (done, said, _) = embed("wgpu", &[]);
    assert!(!done && said.contains("--features wgpu"), "{said}");
    let (done, said) = langptune(&["doctor", "--gpu", "--device", "wgpu"]);
    assert!(!done && said.contains("--features wgpu"), "{said}");
}

#[cfg(feature = "wgpu")]
mod on_an_adapter {
    use serde_json::Value;

    use super::embed;
    use crate::tiny_run::{arguments, langptune, lines, prepared, text};

    /// Whether there is an adapter; said on stderr where there is none.
    fn adapter() -> bool {
        let there = !models::wgpu::adapters().is_empty();
        if !there {
            eprintln!("skipped: no adapter is here (Debian: mesa-vulkan-drivers, libvulkan1)");
        }
        there
    }

    #[test]
    fn vectors_are_the_processors() {
        if !adapter() {
            return;
        }
        let values = |device: &str| -> Vec<f32> {
            let (done, said, file) = embed(device, &[]);
            assert!(done, "{said}");
            // The header of a NumPy file ends with a line.
            let start = file.iter().position(|&byte| byte == b'\n').unwrap() + 1;
            let values = file[start..].as_chunks::<4>().0;
            values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
        };
        let (expected, found) = (values("cpu"), values("wgpu:0"));
        assert_eq!(expected.len(), found.len());
        let apart = expected
            .iter()
            .zip(&found)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(apart < 1e-4, "{apart}");
    }

    #[test]
    fn an_adapter_too_many_is_refused_with_the_list_of_them() {
        if !adapter() {
            return;
        }
        let (done, said, _) = embed("wgpu:4711", &[]);
        assert!(!done && said.contains("wgpu:4711: this machine has"), "{said}");
    }

    /// Both phases: the same profiles are drawn, and losses and rewards are the same but for rounding.
    #[test]
    fn a_run_goes_as_on_the_processor() {
        if !adapter() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let dataset = prepared(folder.path());
        let run = |device: &str| {
            let output = folder.path().join(device);
            let trace = folder.path().join(format!("{device}.jsonl"));
            let settings = [
                ("--num_iterations", "1"),
                ("--num_emb_updates", "2"),
                ("--num_lm_updates", "1"),
                ("--run_eval", "false"),
                ("--lora_rank", "4"),
                ("--lora_alpha", "8"),
                ("--device", device),
                ("--trace", text(&trace)),
            ];
            let arguments = arguments(&dataset, &output, &settings);
            let (done, said) = langptune(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(done, "{said}");
            (lines(&output.join("metrics.jsonl")), lines(&trace))
        };
        let ((expected, expected_trace), (found, trace)) = (run("cpu"), run("wgpu"));
        let scalars = |lines: &[Value], name: &str| -> Vec<f64> {
            lines.iter().filter_map(|line| line.get(name)?.as_f64()).collect()
        };
        for (name, count) in [
            ("embedder/loss", 2),
            ("dpo/loss/policy", 1),
            ("objective/rewards", 1),
            ("objective/kl", 1),
        ] {
            let (expected, found) = (scalars(&expected, name), scalars(&found, name));
            assert_eq!((expected.len(), found.len()), (count, count), "{name}");
            for (expected, found) in expected.iter().zip(&found) {
                let apart = (expected - found).abs();
                assert!(apart < 1e-4 * expected.abs().max(1.0), "{name}: {expected} {found}");
            }
        }
        let tokens = |update: &Value| {
            update["responses"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|pair| pair.as_array().unwrap().clone())
                .map(|response| response["tokens"].clone())
                .collect::<Vec<_>>()
        };
        let tokens = |trace: &[Value]| trace.iter().flat_map(tokens).collect::<Vec<_>>();
        assert!(!tokens(&trace).is_empty());
        assert_eq!(tokens(&trace), tokens(&expected_trace));
    }
}
