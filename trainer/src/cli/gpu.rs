//! What a GPU computes beside the processor, and how fast: `langptune doctor --gpu` and `langptune bench --gpu`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use serde_json::json;

use super::UsageError;
use super::doctor::Compared;
use crate::config::Device;

#[cfg(feature = "engine")]
pub(super) use cuda::bench;
#[cfg(feature = "engine")]
use cuda::check as check_cuda;
#[cfg(feature = "wgpu")]
use wgpu::check as check_wgpu;

/// Compares `device` with the processor, on models made from `seed`; `only` these parts, where there are any.
pub(super) fn check(device: Device, seed: Option<u64>, json: bool, only: &[Compared]) -> anyhow::Result<()> {
    let clock = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs())
    };
    let mut table = Table {
        seed: seed.unwrap_or_else(clock),
        json,
        count: 0,
        bad: 0,
        trouble: None,
    };
    match device {
        Device::Cpu => {
            return Err(UsageError::new("--device cpu: give the GPU to compare with it, cuda or wgpu").into());
        }
        Device::Wgpu(_) if !only.is_empty() => {
            return Err(UsageError::new("--only: comparisons of wgpu are made all together").into());
        }
        Device::Cuda(_) => check_cuda(device, only, &mut table)?,
        Device::Wgpu(_) => check_wgpu(device, &mut table)?,
    }
    table.finish()
}

/// Comparisons, printed as they come.
struct Table {
    seed: u64,
    json: bool,
    count: usize,
    bad: usize,
    trouble: Option<anyhow::Error>,
}

#[cfg_attr(not(any(feature = "engine", feature = "wgpu")), expect(dead_code))]
impl Table {
    fn head(&self, gpu: &str) -> anyhow::Result<()> {
        match self.json {
            true => Ok(()),
            false => super::print(&format!("{gpu}, seed {}\n   error    bound\n", self.seed)),
        }
    }

    fn row(&mut self, name: &str, error: f64, bound: f64, holds: bool) {
        self.count += 1;
        self.bad += usize::from(!holds);
        let line = if self.json {
            format!(
                "{}\n",
                json!({"name": name, "error": error, "bound": bound, "holds": holds})
            )
        } else {
            let mark = if holds { "  " } else { "✗ " };
            format!("{mark}{error:.1e} ≤ {bound:.0e}  {name}\n")
        };
        let trouble = super::print(&line).err();
        self.trouble = self.trouble.take().or(trouble);
    }
}

impl Table {
    fn finish(self) -> anyhow::Result<()> {
        let Self { count, bad, .. } = self;
        if let Some(trouble) = self.trouble {
            return Err(trouble);
        }
        ensure!(bad == 0, "{bad} of {count} comparisons are out of bounds");
        eprintln!("{count} comparisons, all within bounds");
        Ok(())
    }
}

#[cfg(not(feature = "engine"))]
fn check_cuda(_: Device, _: &[Compared], _: &mut Table) -> anyhow::Result<()> {
    anyhow::bail!(
        "this langptune was built without CUDA; build it with `cargo build --release --package trainer --features engine`"
    )
}

#[cfg(not(feature = "engine"))]
pub(super) fn bench(_: bool, _: &[super::bench::Work]) -> anyhow::Result<()> {
    check(Device::Cuda(None), None, false, &[])
}

#[cfg(not(feature = "wgpu"))]
fn check_wgpu(_: Device, _: &mut Table) -> anyhow::Result<()> {
    anyhow::bail!(
        "this langptune was built without wgpu; build it with `cargo build --release --package trainer --features wgpu`"
    )
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use super::Table;
    use crate::config::Device;
    use crate::train;

    pub(super) fn check(device: Device, table: &mut Table) -> anyhow::Result<()> {
        let (device, adapter) = train::adapter(device)?;
        table.head(&adapter.to_string())?;
        models::wgpu::check(&device, table.seed, &mut |one| {
            table.row(&one.name, one.error, one.bound, one.holds());
        })?;
        Ok(())
    }
}

#[cfg(feature = "engine")]
mod cuda {
    use models::cuda::{Gpu, Part, Shapes, nccl_version};
    use serde_json::json;

    use super::Table;
    use crate::cli::bench::Work;
    use crate::cli::doctor::Compared;
    use crate::cli::print;
    use crate::config::Device;
    use crate::train;

    pub(super) fn check(device: Device, only: &[Compared], table: &mut Table) -> anyhow::Result<()> {
        let gpu = train::gpu(device)?;
        table.head(gpu.name())?;
        // Without NCCL one GPU is as good as ever.
        let nccl = nccl_version();
        let seed = table.seed;
        let mut report = |one: models::cuda::Check| table.row(&one.name, one.error, one.bound, one.holds());
        if !only.is_empty() {
            let parts: Vec<Part> = only.iter().map(|part| part_of(*part)).collect();
            return Ok(models::cuda::check(&gpu, seed, &parts, &mut report)?);
        }
        models::cuda::check_shared(&gpu, nccl.is_ok(), seed, &mut report)?;
        models::cuda::check(&gpu, seed, &Part::ALL, &mut report)?;
        match nccl {
            Ok(version) => eprintln!("NCCL {version}, checked with one rank"),
            Err(error) => eprintln!("not checked: {error}"),
        }
        Ok(())
    }

    fn part_of(compared: Compared) -> Part {
        match compared {
            Compared::Operations => Part::Operations,
            Compared::LanguageModels => Part::LanguageModels,
            Compared::Embedders => Part::Embedders,
            Compared::Ranking => Part::Ranking,
        }
    }

    pub(in crate::cli) fn bench(json: bool, only: &[Work]) -> anyhow::Result<()> {
        let wanted = |work| only.is_empty() || only.contains(&work);
        let gpu = Gpu::open(0)?;
        let mut trouble = None;
        let mut report = |timing: models::cuda::Timing| {
            let line = if json {
                let mut line = json!({"name": timing.name, "runs": timing.runs, "median_s": timing.seconds});
                for (unit, value) in &timing.work {
                    line[*unit] = json!(value);
                }
                format!("{line}\n")
            } else {
                let work: Vec<String> = timing
                    .work
                    .iter()
                    .map(|(unit, value)| format!("{value:.0} {unit}"))
                    .collect();
                format!(
                    "{:>11.2} ms  {:<72} {}\n",
                    timing.seconds * 1e3,
                    timing.name,
                    work.join(", ")
                )
            };
            trouble = print(&line).err();
        };
        models::cuda::limits(&gpu, &mut report)?;
        if wanted(Work::Gemma2b) {
            models::cuda::time(&gpu, Shapes::Gemma2b, &[8, 64, 256], &mut report)?;
        }
        if wanted(Work::Llama8b) {
            models::cuda::time(&gpu, Shapes::Llama8b, &[64], &mut report)?;
        }
        if wanted(Work::Embedder) {
            models::cuda::time_embedder(&gpu, &mut report)?;
        }
        if wanted(Work::Ranking) {
            models::cuda::time_ranking(&gpu, &mut report)?;
        }
        match trouble {
            Some(trouble) => Err(trouble),
            None => Ok(()),
        }
    }
}
