//! A communicator whose large arrays go from GPU to GPU by NCCL; all else, and the watch over it, is TCP's.

use std::any::Any;
use std::fmt::Write;
use std::time::{Duration, Instant};

use models::ModelError;
use models::cuda::{Element, Gpu, Nccl as Link, UNIQUE_ID_BYTES, nccl_unique_id, nccl_version};

use super::{Communicator, DeviceWork, DistError, Spent, Tcp};

/// Fewer values go faster over TCP than to the card and back.
const FEWEST: usize = 1 << 16;

/// One rank of several, each with a GPU of its own.
#[derive(Debug)]
pub struct Nccl {
    // Dropped before the connections whose failure it looks at.
    link: Link,
    tcp: Tcp,
    gpu: String,
}

impl Nccl {
    /// Joins the GPUs of all ranks that `tcp` connects. Gradients travel in `wire`.
    ///
    /// # Errors
    /// When NCCL is missing, two ranks have one GPU, or another rank fails meanwhile.
    pub fn join(mut tcp: Tcp, gpu: &Gpu, wire: Element) -> Result<Self, DistError> {
        let place = [tcp.rank(), tcp.world()];
        let system = |error: &dyn std::fmt::Display| DistError::System {
            rank: place[0],
            reason: error.to_string(),
        };
        let told = |tcp: &mut Tcp, error: DistError| {
            tcp.abort(&error.to_string());
            error
        };
        let mut id = Vec::new();
        if place[0] == 0 {
            id = nccl_unique_id()
                .map_err(|error| told(&mut tcp, system(&error)))?
                .to_vec();
        }
        tcp.broadcast_bytes(&mut id, 0)?;
        let id: [u8; UNIQUE_ID_BYTES] = id
            .try_into()
            .map_err(|_| told(&mut tcp, system(&"rank 0's id has another length")))?;
        let failed = tcp.failed();
        let joined = tcp.watched(|| {
            let start = Instant::now();
            (Link::join(gpu, id, place, wire, failed), start.elapsed())
        })?;
        let link = match joined {
            Ok(link) => link,
            Err(error) => return Err(tcp.cause().unwrap_or_else(|| told(&mut tcp, system(&error)))),
        };
        let gpu = format!("GPU {} ({})", gpu.ordinal(), gpu.name());
        Ok(Self { link, tcp, gpu })
    }

    /// Does `work` on the card; a failure of this rank there is told to the others.
    fn over_card(&mut self, work: impl FnOnce(&mut Link) -> Result<(), ModelError>) -> Result<(), DistError> {
        let mut work = Some(work);
        let outcome = self.run(&mut |link| match work.take() {
            Some(work) => work(link),
            None => Ok(()),
        })?;
        outcome.map_err(|error| {
            self.tcp.abort(&error.to_string());
            DistError::System {
                rank: self.tcp.rank(),
                reason: error.to_string(),
            }
        })
    }

    fn run(
        &mut self,
        work: &mut dyn FnMut(&mut Link) -> Result<(), ModelError>,
    ) -> Result<Result<(), ModelError>, DistError> {
        let link = &mut self.link;
        let outcome = self.tcp.watched(|| {
            let outcome = work(link);
            (outcome, Duration::from_secs_f64(link.take_seconds()))
        })?;
        match (outcome, self.tcp.cause()) {
            (Err(_), Some(cause)) => Err(cause),
            (outcome, _) => Ok(outcome),
        }
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.tcp.rank()
    }

    fn world(&self) -> usize {
        self.tcp.world()
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), DistError> {
        if values.len() < FEWEST || root >= self.world() {
            return self.tcp.broadcast(values, root);
        }
        self.over_card(|link| link.broadcast_host(values, root))
    }

    fn broadcast_bytes(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), DistError> {
        self.tcp.broadcast_bytes(bytes, root)
    }

    /// Sums of many values are taken by NCCL, in f32 and in its own order, which is the same every time.
    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), DistError> {
        if values.len() < FEWEST {
            return self.tcp.all_reduce_sum(values);
        }
        self.over_card(|link| link.all_reduce_host(values))
    }

    fn all_reduce_sum_f64(&mut self, values: &mut [f64]) -> Result<(), DistError> {
        self.tcp.all_reduce_sum_f64(values)
    }

    fn all_gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        self.tcp.all_gather(own)
    }

    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, DistError> {
        self.tcp.gather(own)
    }

    fn reduce_scatter_f64(&mut self, values: &[f64]) -> Result<Vec<f64>, DistError> {
        self.tcp.reduce_scatter_f64(values)
    }

    fn all_gather_parts(&mut self, values: &mut [f32]) -> Result<(), DistError> {
        if values.len() < FEWEST || !values.len().is_multiple_of(self.world()) {
            return self.tcp.all_gather_parts(values);
        }
        self.over_card(|link| link.all_gather_host(values))
    }

    fn barrier(&mut self) -> Result<(), DistError> {
        self.tcp.barrier()
    }

    fn finish(&mut self) -> Result<(), DistError> {
        self.tcp.finish()
    }

    fn abort(&mut self, reason: &str) {
        self.tcp.abort(reason);
    }

    fn spent(&self) -> Spent {
        self.tcp.spent()
    }

    fn local_rank(&self) -> usize {
        self.tcp.local_rank()
    }

    fn has_device(&self) -> bool {
        true
    }

    fn on_device(&mut self, work: &mut DeviceWork<'_>) -> Result<Result<(), ModelError>, DistError> {
        self.run(&mut |link| {
            let link: &mut dyn Any = link;
            work(link)
        })
    }

    /// With NCCL's version, its environment and, at rank 0, how the host's GPUs are linked.
    fn description(&self) -> String {
        let version = nccl_version().unwrap_or_else(|_| "unknown".to_owned());
        let mut text = format!("{}; NCCL {version}, {}", self.tcp.description(), self.gpu);
        let mut variables: Vec<_> = std::env::vars().filter(|(name, _)| name.starts_with("NCCL_")).collect();
        variables.sort();
        for (name, value) in variables {
            // Writing to a String cannot fail.
            let _ = write!(text, ", {name}={value}");
        }
        if self.rank() == 0
            && let Ok(output) = std::process::Command::new("nvidia-smi").args(["topo", "-m"]).output()
            && output.status.success()
        {
            let _ = write!(text, "\n{}", String::from_utf8_lossy(&output.stdout).trim_end());
        }
        text
    }
}
