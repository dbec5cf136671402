//! How fast several ranks train together, and what they lose to each other. A process alone measures nothing.

use std::time::Instant;

use super::{Trainer, share};
use crate::TrainError;
use crate::dist::{Communicator, Spent};

/// Share of all ranks' time in which a rank waited for another.
pub(crate) const IDLE: &str = "distributed/idle_share";
/// The same of the rank that waited longest.
pub(crate) const MOST_IDLE: &str = "distributed/idle_share_max";
/// Share of all ranks' time in which something was sent, received or summed between them.
pub(crate) const COMMUNICATION: &str = "distributed/communication_share";
/// Tokens of all ranks a second: those that were written in the language model's phase, those that were read in the embedder's.
pub(crate) const TOKENS: &str = "distributed/tokens_per_second";
/// The same of one rank, on average.
pub(crate) const TOKENS_OF_RANK: &str = "distributed/tokens_per_second_rank";
/// Most memory that a rank's process has had, in bytes, of the rank that has had most.
pub(crate) const MEMORY: &str = "distributed/peak_memory_bytes";
/// Most memory that is taken on a rank's GPU, in bytes; 0 on processors. What is freed there stays taken, so this is a peak.
pub(crate) const GPU_MEMORY: &str = "distributed/gpu_memory_bytes";

/// Seconds, seconds of waiting, of moving, tokens, bytes of memory, bytes of the GPU's memory.
type Lap = [f64; 6];

/// Where the last measurement ended.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    spent: Spent,
}

impl Pace {
    /// Begins to measure.
    pub(super) fn start(comm: &dyn Communicator) -> Self {
        Self {
            since: Instant::now(),
            spent: comm.spent(),
        }
    }

    /// What this rank had since the last measurement.
    fn lap(&mut self, comm: &dyn Communicator, tokens: usize, gpu_memory: u64) -> Lap {
        let before = std::mem::replace(self, Self::start(comm));
        let (spent, earlier) = (self.spent, before.spent);
        [
            before.since.elapsed().as_secs_f64(),
            spent.waiting.saturating_sub(earlier.waiting).as_secs_f64(),
            spent.moving.saturating_sub(earlier.moving).as_secs_f64(),
            tokens as f64,
            peak_memory().unwrap_or(0) as f64,
            gpu_memory as f64,
        ]
    }
}

/// What the laps of all ranks say.
fn summary(laps: &[Lap]) -> [(&'static str, f64); 7] {
    let sum = |of: usize| laps.iter().map(|lap| lap[of]).sum::<f64>();
    let most = |of: &dyn Fn(&Lap) -> f64| laps.iter().map(of).fold(0.0, f64::max);
    let [seconds, waiting, moving, tokens] = [0, 1, 2, 3].map(sum);
    // Too short to be measured is no division by zero.
    let seconds = seconds.max(1e-9);
    [
        (IDLE, waiting / seconds),
        (MOST_IDLE, most(&|lap| lap[1] / lap[0].max(1e-9))),
        (COMMUNICATION, moving / seconds),
        (TOKENS, tokens / most(&|lap| lap[0]).max(1e-9)),
        (TOKENS_OF_RANK, tokens / seconds),
        (MEMORY, most(&|lap| lap[4])),
        (GPU_MEMORY, most(&|lap| lap[5])),
    ]
}

impl Trainer {
    /// Logs how fast the ranks were since the last call, `tokens` being this rank's; returns the tokens of all.
    pub(super) fn log_pace(&mut self, tokens: usize) -> Result<usize, TrainError> {
        if self.comm.world() == 1 {
            return Ok(tokens);
        }
        let laps = self.laps(tokens)?;
        self.log(&summary(&laps))?;
        Ok(laps.iter().map(|lap| lap[3]).sum::<f64>() as usize)
    }

    /// The laps of all ranks since the last call.
    fn laps(&mut self, tokens: usize) -> Result<Vec<Lap>, TrainError> {
        let mut taken = self.embedder.model.trainable().device_memory()?;
        if let Some(lm) = &mut self.lm {
            taken = taken.max(lm.model.trainable().device_memory()?);
        }
        let lap = self.pace.lap(self.comm.as_ref(), tokens, taken.unwrap_or(0));
        share::each(self.comm.as_mut(), lap)
    }

    /// Says how fast the ranks did `what` since the last call, in a line for whoever watches.
    pub(super) fn say_pace(&mut self, what: &str, tokens: usize) -> Result<(), TrainError> {
        if self.comm.world() == 1 {
            return Ok(());
        }
        let laps = self.laps(tokens)?;
        if self.is_root() {
            let [idle, most, moving, all, one, ..] = summary(&laps).map(|(_, value)| value);
            eprintln!(
                "{what}: {all:.0} tokens/s, {one:.0} a rank; {:.1} % idle (the most idle rank {:.1} %), {:.1} % communication",
                idle * 100.0,
                most * 100.0,
                moving * 100.0
            );
        }
        Ok(())
    }
}

/// Most memory that this process has had, in bytes, where the system tells.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_time_of_all_ranks() {
        let laps = [[2.0, 0.5, 0.25, 300.0, 7e9, 1e9], [2.0, 0.0, 0.25, 500.0, 5e9, 2e9]];
        let expected = [
            (IDLE, 0.125),
            (MOST_IDLE, 0.25),
            (COMMUNICATION, 0.125),
            (TOKENS, 400.0),
            (TOKENS_OF_RANK, 200.0),
            (MEMORY, 7e9),
            (GPU_MEMORY, 2e9),
        ];
        assert_eq!(summary(&laps), expected);
        assert!(summary(&[[0.0; 6]; 2]).iter().all(|(_, value)| *value == 0.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_had_memory() {
        assert!(peak_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
