//! `langptune doctor`: what this machine can do.

use std::fmt::Write;

use clap::Args;

use crate::config::Device;
use crate::doctor::{Examination, examine};

/// Show what this machine can do, and what is missing for the rest
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  langptune doctor\n  langptune doctor --json\n  langptune doctor --gpu\n  langptune doctor --gpu --device wgpu:1"
)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Compare what a GPU computes with the processor, on fresh random models
    #[arg(long)]
    gpu: bool,
    /// The GPU to compare, cuda:N or wgpu:N [default: the first that this build can use]
    #[arg(long, requires = "gpu")]
    device: Option<Device>,
    /// Seed of those models [default: from the clock]
    #[arg(long, requires = "gpu")]
    seed: Option<u64>,
    /// Compare only this part on an NVIDIA GPU; several times for more
    #[arg(long, value_enum, value_name = "PART", requires = "gpu")]
    only: Vec<Compared>,
}

/// What can be compared by itself: every operation, whole language models, whole embedders, ranks in a catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Compared {
    Operations,
    LanguageModels,
    Embedders,
    Ranking,
}

/// The GPU that is compared unless another is named.
const FIRST: Device = match cfg!(all(feature = "wgpu", not(feature = "engine"))) {
    true => Device::Wgpu(None),
    false => Device::Cuda(None),
};

/// Prints the examination.
pub(super) fn run(arguments: &DoctorArgs) -> anyhow::Result<()> {
    if arguments.gpu {
        let device = arguments.device.unwrap_or(FIRST);
        return super::gpu::check(device, arguments.seed, arguments.json, &arguments.only);
    }
    let examination = examine()?;
    let text = match arguments.json {
        true => format!("{}\n", serde_json::to_string_pretty(&examination)?),
        false => report(&examination),
    };
    super::print(&text)
}

fn report(examination: &Examination) -> String {
    let Examination {
        program,
        cpu,
        memory,
        self_check,
        devices,
        hub,
        advice,
    } = examination;
    let mut rows = vec![
        ("langptune", format!("{} ({})", program.version, build(program))),
        ("platform", program.platform.clone()),
        ("processor", format!("{} threads, {}", cpu.threads, list(&cpu.simd))),
        (
            "memory",
            memory.map_or_else(
                || "unknown".to_owned(),
                |memory| {
                    format!(
                        "{} GB, {} GB free",
                        gigabytes(memory.total_bytes),
                        gigabytes(memory.available_bytes)
                    )
                },
            ),
        ),
    ];
    let digest = self_check.digest.as_deref().unwrap_or("no digest");
    rows.push((
        "metrics",
        format!(
            "self-check {}, {digest}",
            if self_check.passed { "passed" } else { "FAILED" }
        ),
    ));
    for device in devices {
        let usable = if device.usable { "yes" } else { "no" };
        rows.push((device.device, format!("{usable}: {}", device.detail)));
    }
    let token = if hub.token { "token set" } else { "no token" };
    let offline = if hub.offline { ", offline" } else { "" };
    rows.push((
        "hub",
        format!(
            "{} ({} models, {token}{offline})",
            hub.cache.display(),
            hub.models.len()
        ),
    ));
    let mut text = String::new();
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<10} {value}");
    }
    if !advice.is_empty() {
        text.push_str("\nWhat is missing:\n");
    }
    for line in advice {
        let _ = writeln!(text, "- {line}");
    }
    text
}

fn build(program: &crate::doctor::Program) -> String {
    let kind = if program.optimised { "release" } else { "debug" };
    match program.features.is_empty() {
        true => kind.to_owned(),
        false => format!("{kind}, with {}", program.features.join(", ")),
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "no known vector instructions".to_owned()
    } else {
        names.join(" ")
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Cpu, DeviceState, HubState, Memory, Program, SelfCheck};

    #[test]
    fn the_report_reads_as_a_table_and_a_list() {
        let examination = Examination {
            program: Program {
                version: "0.1.0",
                platform: "linux x86_64".to_owned(),
                optimised: true,
                features: vec!["cuda"],
            },
            cpu: Cpu {
                threads: 16,
                simd: vec!["avx2", "fma"],
            },
            memory: Some(Memory {
                total_bytes: 64_000_000_000,
                available_bytes: 60_500_000_000,
            }),
            self_check: SelfCheck {
                digest: Some("00ff".to_owned()),
                passed: true,
            },
            devices: vec![DeviceState {
                device: "cpu",
                usable: true,
                detail: "burn flex".to_owned(),
            }],
            hub: HubState {
                cache: "/cache/hub".into(),
                models: vec!["a/b".to_owned()],
                token: false,
                offline: true,
            },
            advice: vec!["Set HF_TOKEN.".to_owned()],
        };
        insta::assert_snapshot!(report(&examination), @r"
        langptune  0.1.0 (release, with cuda)
        platform   linux x86_64
        processor  16 threads, avx2 fma
        memory     64.0 GB, 60.5 GB free
        metrics    self-check passed, 00ff
        cpu        yes: burn flex
        hub        /cache/hub (1 models, no token, offline)

        What is missing:
        - Set HF_TOKEN.
        ");
    }
}
