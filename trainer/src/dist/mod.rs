//! Several processes that train one model together: who they are and what they tell each other.
//!
//! Training sees a [`Communicator`] and nothing of what carries it: [`Solo`] is one process alone, [`Tcp`] joins processes of
//! one or more hosts over sockets. Every collective must be entered by all ranks in the same order. Sums are taken in rank
//! order, so they depend on no timing, and every rank gets the same bits.

mod environment;
mod error;
mod solo;
mod tcp;

use std::fmt;

pub use environment::{LAUNCHED_VARIABLE, Place, SECRET_VARIABLE, end_with_launcher, join, place};
pub use error::DistError;
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

    /// Returns when all ranks have come this far.
    fn barrier(&mut self) -> Result<(), DistError>;

    /// Ends well: waits for all ranks, then says goodbye.
    fn finish(&mut self) -> Result<(), DistError>;

    /// Ends badly: every other rank's current or next collective fails and gives `reason` with this rank's number.
    fn abort(&mut self, reason: &str);
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
}

impl Operation {
    const ALL: [Self; 7] = [
        Self::Broadcast,
        Self::BroadcastBytes,
        Self::AllReduce,
        Self::AllReduceF64,
        Self::AllGather,
        Self::Barrier,
        Self::Finish,
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
        })
    }
}
