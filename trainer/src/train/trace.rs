//! The trace of the reinforcement phase: everything an update saw and computed, one JSON object a line.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Where updates are written.
#[derive(Debug)]
pub(super) struct Trace {
    path: PathBuf,
    out: BufWriter<File>,
}

/// One update of the language model.
#[derive(Debug, Serialize)]
pub(super) struct TracedUpdate<'a> {
    /// The global update.
    pub(super) update: u64,
    /// The users' ids.
    pub(super) users: Vec<&'a str>,
    /// For each user its responses.
    pub(super) responses: Vec<&'a [TracedResponse; 2]>,
    /// The mean loss of each epoch.
    pub(super) losses: Vec<f64>,
}

/// One user of an update.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TracedUser {
    pub(super) id: String,
    pub(super) responses: [TracedResponse; 2],
}

/// One response and what it earned.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TracedResponse {
    pub(super) tokens: Vec<u32>,
    /// log π_old of each token.
    pub(super) logprobs: Vec<f32>,
    /// log π_ref of each token.
    pub(super) reference_logprobs: Vec<f32>,
    pub(super) reward: f64,
    /// After the KL term and, where asked, whitening.
    pub(super) total_reward: f64,
}

impl Trace {
    pub(super) fn create(path: &Path) -> Result<Self, TrainError> {
        let file = File::create(path).map_err(|source| TrainError::io(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            out: BufWriter::new(file),
        })
    }

    /// Goes on with the trace of an interrupted run, cut back to `length` bytes.
    pub(super) fn resume(path: &Path, length: u64) -> Result<Self, TrainError> {
        crate::log::cut_file(path, length)?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|source| TrainError::io(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            out: BufWriter::new(file),
        })
    }

    /// How far it is written, in bytes, all of it on the disk.
    pub(super) fn position(&self) -> Result<u64, TrainError> {
        let file = self.out.get_ref();
        file.sync_all()
            .and_then(|()| file.metadata())
            .map(|metadata| metadata.len())
            .map_err(|source| TrainError::io(&self.path, source))
    }

    pub(super) fn write(&mut self, update: &TracedUpdate<'_>) -> Result<(), TrainError> {
        serde_json::to_writer(&mut self.out, update)
            .map_err(std::io::Error::from)
            .and_then(|()| self.out.write_all(b"\n"))
            .and_then(|()| self.out.flush())
            .map_err(|source| TrainError::io(&self.path, source))
    }
}
