//! What can stop a training run or an evaluation.

use std::path::PathBuf;

use models::text::TextError;

/// Why training or evaluation stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A model could not be read, computed or written.
    #[error(transparent)]
    Model(#[from] models::ModelError),
    /// A text could not be tokenised.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The dataset could not be read.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// Something could not be ranked or summed up.
    #[error("evaluation: {0}")]
    Evaluation(#[from] eval_core::Error),
    /// A log could not be written.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    /// The configuration could not be written.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The processes of a run could not be joined, or did not stay together.
    #[error(transparent)]
    Dist(#[from] crate::dist::DistError),
    /// A model named by the configuration could not be found.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A loss is not a number: nothing after it would be.
    #[error(
        "the loss of {phase} update {update} is {loss} (users {}); the run stops here, the last good checkpoint is {}",
        users.join(", "),
        checkpoint.as_ref().map_or("none".to_owned(), |path| path.display().to_string())
    )]
    NotFinite {
        /// Embedder or language model.
        phase: &'static str,
        /// The global update.
        update: u64,
        /// The loss.
        loss: f64,
        /// The batch's users.
        users: Vec<String>,
        /// The last checkpoint that was written.
        checkpoint: Option<PathBuf>,
    },
    /// Somebody asked for an orderly end.
    #[error("interrupted")]
    Interrupted,
    /// Settings that do not go with the data or the models.
    #[error("{0}")]
    Mismatch(String),
}

impl TrainError {
    /// An I/O error at `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }
}
