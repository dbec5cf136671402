//! What an NVIDIA GPU computes beside the processor, and how fast: `langptune doctor --gpu` and `langptune bench --gpu`.

#[cfg(feature = "engine")]
pub(super) use present::{bench, check};

#[cfg(not(feature = "engine"))]
pub(super) use absent::{bench, check};

#[cfg(not(feature = "engine"))]
mod absent {
    use anyhow::bail;

    use crate::cli::bench::Work;

    pub(in crate::cli) fn check(_: Option<u64>, _: bool) -> anyhow::Result<()> {
        bail!(
            "this langptune was built without CUDA; build it with `cargo build --release --package trainer --features engine`"
        )
    }

    pub(in crate::cli) fn bench(_: bool, _: &[Work]) -> anyhow::Result<()> {
        check(None, false)
    }
}

#[cfg(feature = "engine")]
mod present {
    use std::time::{SystemTime, UNIX_EPOCH};

    use anyhow::ensure;
    use models::cuda::{Gpu, Shapes, nccl_version};
    use serde_json::json;

    use crate::cli::bench::Work;
    use crate::cli::print;
    use crate::train::loss::contrastive_loss;

    pub(in crate::cli) fn check(seed: Option<u64>, json: bool) -> anyhow::Result<()> {
        let clock = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_secs())
        };
        let seed = seed.unwrap_or_else(clock);
        let gpu = Gpu::shared(0)?;
        if !json {
            print(&format!("{}, seed {seed}\n   error    bound\n", gpu.name()))?;
        }
        // Without NCCL one GPU is as good as ever.
        let nccl = nccl_version();
        let (mut count, mut bad, mut trouble) = (0, 0, None);
        let mut report = |check: models::cuda::Check| {
            count += 1;
            bad += usize::from(!check.holds());
            let line = if json {
                format!(
                    "{}\n",
                    json!({"name": check.name, "error": check.error, "bound": check.bound, "holds": check.holds()})
                )
            } else {
                let mark = if check.holds() { "  " } else { "✗ " };
                format!("{mark}{:.1e} ≤ {:.0e}  {}\n", check.error, check.bound, check.name)
            };
            trouble = print(&line).err();
        };
        models::cuda::check_shared(&gpu, nccl.is_ok(), seed, &mut report)?;
        models::cuda::check(&gpu, seed, &mut report)?;
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        match nccl {
            Ok(version) => eprintln!("NCCL {version}, checked with one rank"),
            Err(error) => eprintln!("not checked: {error}"),
        }
        ensure!(bad == 0, "{bad} of {count} comparisons are out of bounds");
        eprintln!("{count} comparisons, all within bounds");
        Ok(())
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
            let loss = |vectors: &[f32], width: usize| contrastive_loss(vectors, width, 0.05).slopes;
            models::cuda::time_embedder(&gpu, &loss, &mut report)?;
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
