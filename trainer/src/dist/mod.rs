//! Several processes that train one model together: who they are and what they tell each other.
//!
//! Training sees a [`Communicator`] and nothing of what carries it: [`Solo`] is one process alone, [`Tcp`] joins processes of
//! one or more hosts over sockets, and NCCL, in builds with it, their GPUs. Every collective must be entered by all ranks in the same order. Sums are taken in rank
//! order, so they depend on no timing, and every rank gets the same bits.

mod environment;
mod error;
#[cfg(feature = "engine")]
mod nccl;
mod solo;
mod tcp;

use std::any::Any;
use std::fmt;
use std::time::Duration;

use models::ModelError;

pub use environment::{
    LAUNCHED_VARIABLE, Launcher, Place, RESTARTED_VARIABLE, SECRET_VARIABLE, end_with_launcher, join, place,
};
pub use error::DistError;
#[cfg(feature = "engine")]
pub use nccl::Nccl;
pub use solo::Solo;
pub use tcp::{Identity, Secret, Tcp, TcpOptions};

/// What the processes of one run tell each other.
///
/// A collective that fails says which rank caused it. After a failure every further collective fails with the same cause.
pub trait Communicator: fmt::Debug + Send {
    /// This process's number, from 0.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn world(&self) -> usize;

    /// Replaces `values` by those of rank `root`; all ranks must have as many.
    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), DistError>;

    /// Replaces `bytes` by those of rank `root`, which may be of another length.
    fn broadcast_bytes(&mut self, bytes: &mut Vec<u8>, root: usize) -> Result<(), DistError>;

    /// Replaces each value by its sum over the ranks, in rank order, taken in f64 and rounded once.
    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), DistError>;

    /// Replaces each value by its sum over the ranks, in rank order.
    fn all_reduce_sum_f64(&mut self, values: &mut [f64]) -> Result<(), DistError>;

    /// The bytes of every rank, in rank order; lengths may differ.
    fn all_gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, DistError>;

    /// The bytes of every rank, in rank order, at rank 0; nothing elsewhere. Lengths may differ.
    fn gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, DistError>;

    /// The sum over the ranks, in rank order, of this rank's part: `values` are as many equal parts as there are ranks.
    fn reduce_scatter_f64(&mut self, values: &[f64]) -> Result<Vec<f64>, DistError>;

    /// Fills in the other ranks' parts: `values` are as many equal parts as there are ranks, of which this rank has filled its
    /// own.
    fn all_gather_parts(&mut self, values: &mut [f32]) -> Result<(), DistError>;

    /// Returns when all ranks have come this far.
    fn barrier(&mut self) -> Result<(), DistError>;

    /// Ends well: waits for all ranks, then says goodbye.
    fn finish(&mut self) -> Result<(), DistError>;

    /// Ends badly: every other rank's current or next collective fails and gives `reason` with this rank's number.
    fn abort(&mut self, reason: &str);

    /// What collectives have taken of this process's time so far.
    fn spent(&self) -> Spent;

    /// This process's number on its host, which chooses its device.
    fn local_rank(&self) -> usize {
        0
    }

    /// Whether this rank's GPU has collectives of its own.
    fn has_device(&self) -> bool {
        false
    }

    /// Does `work` with the collectives of this rank's GPU, when all ranks have come; it is watched over like any collective. A
    /// failure elsewhere ends it, and is the error.
    fn on_device(&mut self, work: &mut DeviceWork<'_>) -> Result<Result<(), ModelError>, DistError> {
        let _ = work;
        Ok(Err(ModelError::Input("this rank has no GPU's collectives".to_owned())))
    }

    /// What carries the collectives, and where this rank is: a line for the log.
    fn description(&self) -> String;
}

/// Work with a GPU's collectives, which the model knows.
pub type DeviceWork<'a> = dyn FnMut(&mut dyn Any) -> Result<(), ModelError> + 'a;

/// Time in collectives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Until all ranks had come.
    pub waiting: Duration,
    /// For what was sent, received and summed.
    pub moving: Duration,
}

/// The length of each of `world` equal parts of `values` values.
fn part_length(operation: Operation, values: usize, world: usize) -> Result<usize, DistError> {
    match values % world {
        0 => Ok(values / world),
        _ => Err(DistError::Uneven {
            operation,
            values,
            world,
        }),
    }
}

/// A collective, as errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`Communicator::broadcast`].
    Broadcast,
    /// [`Communicator::broadcast_bytes`].
    BroadcastBytes,
    /// [`Communicator::all_reduce_sum`].
    AllReduce,
    /// [`Communicator::all_reduce_sum_f64`].
    AllReduceF64,
    /// [`Communicator::all_gather`].
    AllGather,
    /// [`Communicator::barrier`].
    Barrier,
    /// [`Communicator::finish`].
    Finish,
    /// [`Communicator::gather`].
    Gather,
    /// [`Communicator::reduce_scatter_f64`].
    ReduceScatter,
    /// [`Communicator::all_gather_parts`].
    AllGatherParts,
    /// [`Communicator::on_device`].
    OnDevice,
}

impl Operation {
    const ALL: [Self; 11] = [
        Self::Broadcast,
        Self::BroadcastBytes,
        Self::AllReduce,
        Self::AllReduceF64,
        Self::AllGather,
        Self::Barrier,
        Self::Finish,
        Self::Gather,
        Self::ReduceScatter,
        Self::AllGatherParts,
        Self::OnDevice,
    ];

    /// The number on the wire.
    fn code(self) -> u8 {
        self as u8
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Broadcast => "broadcast",
            Self::BroadcastBytes => "broadcast of bytes",
            Self::AllReduce => "all-reduce",
            Self::AllReduceF64 => "all-reduce of f64",
            Self::AllGather => "all-gather",
            Self::Barrier => "barrier",
            Self::Finish => "finish",
            Self::Gather => "gather",
            Self::ReduceScatter => "reduce-scatter",
            Self::AllGatherParts => "all-gather of parts",
            Self::OnDevice => "collectives of GPUs",
        })
    }
}
