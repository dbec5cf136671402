//! What can part the processes of a run.

use std::io;
use std::time::Duration;

use super::Operation;

/// Why processes could not be joined, or did not stay together.
#[derive(Debug, thiserror::Error)]
pub enum DistError {
    /// A variable that places this process in the run is missing or wrong.
    #[error("environment variable {variable}: expected {expected}, found {found}; {advice}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
        /// What to do.
        advice: &'static str,
    },
    /// Rank 0 cannot listen where the others look for it.
    #[error(
        "rank 0 cannot listen at {address}: {source}; give MASTER_ADDR an address of this host and MASTER_PORT a free port"
    )]
    Listen {
        /// Address and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Rank 0 was not found.
    #[error("rank {rank} cannot join rank 0 at {address} within {} s: {source}; is rank 0 running, and is MASTER_ADDR reachable from here?", waited.as_secs())]
    Unreachable {
        /// This rank.
        rank: usize,
        /// Where rank 0 should be.
        address: String,
        /// How long it was tried.
        waited: Duration,
        /// What the last try said.
        source: io::Error,
    },
    /// Some ranks did not come to rank 0.
    #[error("rank 0 waited {} s, but of {world} ranks these did not come: {}{refused}; start them with the same MASTER_ADDR, MASTER_PORT and secret", waited.as_secs(), list(missing))]
    Missing {
        /// The ranks.
        missing: Vec<usize>,
        /// All ranks.
        world: usize,
        /// How long it was waited.
        waited: Duration,
        /// What was turned away meanwhile, as text to follow the list.
        refused: String,
    },
    /// This rank was turned away.
    #[error("rank 0 refused rank {rank}: {reason}")]
    Refused {
        /// This rank.
        rank: usize,
        /// What rank 0 said.
        reason: String,
    },
    /// Another rank does not belong to the same run.
    #[error("rank {rank} ({address}) was refused: {reason}")]
    Stranger {
        /// The rank that it claims.
        rank: usize,
        /// Where it came from.
        address: String,
        /// What does not fit.
        reason: String,
    },
    /// A rank ended, fell silent or lagged behind; the first cause that was known.
    #[error("{}rank {rank} failed: {reason}", during.map_or(String::new(), |operation| format!("{operation}: ")))]
    Failed {
        /// The rank that caused it.
        rank: usize,
        /// What happened to it.
        reason: String,
        /// The collective that this rank was in.
        during: Option<Operation>,
    },
    /// Two ranks are in different collectives: a bug, or different programs.
    #[error("{own}: rank {rank} is in {found} instead; all ranks must run the same program with the same settings")]
    Disagree {
        /// The other rank.
        rank: usize,
        /// This rank's collective and size.
        own: String,
        /// The other's.
        found: String,
    },
    /// A message is beyond the bound that keeps a wrong length from taking all memory.
    #[error("{operation}: rank {rank} wants to send {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// The sender.
        rank: usize,
        /// The collective.
        operation: Operation,
        /// The size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// Values that do not make a part for each rank.
    #[error("{operation}: {values} values do not make {world} equal parts")]
    Uneven {
        /// The collective.
        operation: Operation,
        /// How many values there are.
        values: usize,
        /// All ranks.
        world: usize,
    },
    /// A root that no rank is.
    #[error("{operation}: there is no rank {root} among {world}")]
    NoSuchRank {
        /// The collective.
        operation: Operation,
        /// The root.
        root: usize,
        /// All ranks.
        world: usize,
    },
    /// The system gave no random numbers or no thread.
    #[error("rank {rank} cannot join: {reason}")]
    System {
        /// This rank.
        rank: usize,
        /// What the system said.
        reason: String,
    },
}

fn list(ranks: &[usize]) -> String {
    ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
