//! What can be wrong with a configuration.

use std::path::PathBuf;

/// Why no configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("{path}, line {line}: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// The configuration file has a key that no configuration has.
    #[error("{path}, line {line}: unknown key `{key}`{}", suggestion(closest.as_deref()), path = path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The dotted key.
        key: String,
        /// The known key that is nearest to it.
        closest: Option<String>,
    },
    /// A value of the configuration file has the wrong type, or is none of the choices.
    #[error("{path}, line {line}: `{key}`: {message}", path = path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The dotted key.
        key: String,
        /// What was expected and found.
        message: String,
    },
    /// Something required was given nowhere.
    #[error("no {what}: give --{flag}, the environment variable {variable}, or `{key}` in a --config file")]
    Missing {
        /// What it is.
        what: &'static str,
        /// The flag that gives it.
        flag: &'static str,
        /// The environment variable that gives it.
        variable: String,
        /// The key that gives it.
        key: &'static str,
    },
    /// Two settings exclude each other.
    #[error("{source_name}: {message}")]
    Conflict {
        /// Where both were given.
        source_name: String,
        /// Which, and what to do.
        message: String,
    },
    /// A value outside its range.
    #[error("{flag}: expected {expected}, found {found}{}", advice.as_deref().map(|advice| format!(": {advice}")).unwrap_or_default())]
    Value {
        /// The flag that sets it, with dashes.
        flag: String,
        /// The range.
        expected: String,
        /// The value.
        found: String,
        /// What to do, where the range does not say it.
        advice: Option<String>,
    },
    /// The merged settings are no configuration (a fault of ours if it ever shows).
    #[error("the merged configuration is not complete: {reason}")]
    Incomplete {
        /// What the decoder said.
        reason: String,
    },
    /// The configuration cannot be saved.
    #[error("cannot save the configuration: {reason}")]
    Write {
        /// What failed, where.
        reason: String,
    },
}

fn suggestion(closest: Option<&str>) -> String {
    match closest {
        Some(key) => format!("; did you mean `{key}`?"),
        None => "; docs/configuration.md lists the keys".to_owned(),
    }
}
