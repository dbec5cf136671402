//! What a run writes down while it trains.
//!
//! | in the run folder | content |
//! |---|---|
//! | `events/events.out.tfevents.*` | TensorBoard: all scalars, the configuration and samples as text |
//! | `metrics.jsonl` | one JSON object a line: `step`, `wall_time` (seconds since 1970), then name → value |
//! | `samples/step-N.jsonl` | one JSON object a user: prompt, generated profile, reference profile, rank |
//!
//! Steps are global updates, counted from 1 through both phases and all iterations.

mod curves;
mod event;
pub mod scalars;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use models::replace_file;
use serde::{Deserialize, Serialize};

pub use curves::read_curves;
use event::EventWriter;

/// Rows of a sample table that TensorBoard gets; the file has all.
const SAMPLE_ROWS_IN_EVENTS: usize = 10;

/// Why something could not be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file of the run cannot be written or read.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A value has no JSON form.
    #[error("cannot write {} as JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        source: serde_json::Error,
    },
    /// A line of `metrics.jsonl` is not what [`Logger::scalars`] writes.
    #[error("{}:{line}: expected an object of numbers with a `step`: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// One user's row of a sample table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The user, as numbered in the dataset.
    pub user: u64,
    /// The prompt that the language model read.
    pub prompt: String,
    /// The profile that it wrote.
    pub profile: String,
    /// The reference profile.
    pub reference: String,
    /// Place of the first target under the generated profile, counted from 1; none if it was not ranked.
    pub rank: Option<u64>,
}

/// How far a run's logs are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Bytes of `metrics.jsonl`.
    pub metrics: u64,
    /// Bytes of each event file, by name.
    pub events: BTreeMap<String, u64>,
}

/// Writes a run's logs. Every call is on disk when it returns, so that a killed run loses nothing that it logged.
#[derive(Debug)]
pub struct Logger {
    run: PathBuf,
    events: EventWriter,
    metrics: File,
}

impl Logger {
    /// The file of scalars in a run.
    pub const METRICS: &'static str = "metrics.jsonl";

    /// Starts the logs of a new run in the folder `run`, which is made if it is missing. Earlier logs are removed.
    pub fn create(run: &Path) -> Result<Self, LogError> {
        for folder in [run.join("events"), run.join("samples")] {
            if folder.exists() {
                fs::remove_dir_all(&folder).map_err(io_error("clear", &folder))?;
            }
        }
        let path = run.join(Self::METRICS);
        if path.exists() {
            fs::remove_file(&path).map_err(io_error("clear", &path))?;
        }
        Self::open(run)
    }

    /// Goes on with the logs of an interrupted run: what was logged after `position` is cut away first, because it will be
    /// logged again, and sample tables after `last_step` are removed.
    pub fn resume(run: &Path, position: &LogPosition, last_step: u64) -> Result<Self, LogError> {
        cut_file(&run.join(Self::METRICS), position.metrics)?;
        cut_samples(&run.join("samples"), last_step)?;
        event::cut_back(&run.join("events"), &position.events)?;
        Self::open(run)
    }

    /// How far the logs are written, all of it on the disk.
    pub fn position(&self) -> Result<LogPosition, LogError> {
        let path = self.run.join(Self::METRICS);
        self.metrics.sync_all().map_err(io_error("flush", &path))?;
        self.events.flush()?;
        Ok(LogPosition {
            metrics: self.metrics.metadata().map_err(io_error("read", &path))?.len(),
            events: event::lengths(&self.run.join("events"))?,
        })
    }

    fn open(run: &Path) -> Result<Self, LogError> {
        let events = run.join("events");
        fs::create_dir_all(&events).map_err(io_error("make", &events))?;
        let path = run.join(Self::METRICS);
        let metrics = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        Ok(Self {
            run: run.to_owned(),
            events: EventWriter::create(&events, now())?,
            metrics,
        })
    }

    /// Logs values under their names (see [`scalars`]) at a global update.
    ///
    /// A value that is not finite is `null` in `metrics.jsonl` and stays itself in TensorBoard.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<(), LogError> {
        let wall_time = now();
        self.events.scalars(wall_time, step, values)?;
        let path = self.run.join(Self::METRICS);
        let mut line = serde_json::Map::new();
        line.insert("step".to_owned(), step.into());
        line.insert("wall_time".to_owned(), wall_time.into());
        line.extend(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
        let mut text = serde_json::to_string(&line).map_err(|source| LogError::Json {
            path: path.clone(),
            source,
        })?;
        text.push('\n');
        // One write a line: a reader never sees half of one.
        self.metrics
            .write_all(text.as_bytes())
            .and_then(|()| self.metrics.flush())
            .map_err(io_error("write", &path))
    }

    /// Logs a text (Markdown) to TensorBoard, e.g. the configuration.
    pub fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<(), LogError> {
        self.events.text(now(), step, tag, text)
    }

    /// Writes a sample table to `samples/step-N.jsonl`, and its first rows to TensorBoard.
    pub fn samples(&mut self, step: u64, rows: &[Sample]) -> Result<(), LogError> {
        let folder = self.run.join("samples");
        fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        let path = folder.join(format!("step-{step}.jsonl"));
        let mut text = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut text, row).map_err(|source| LogError::Json {
                path: path.clone(),
                source,
            })?;
            text.push(b'\n');
        }
        replace_file(&path, |out| out.write_all(&text)).map_err(io_error("write", &path))?;
        let shown = rows.get(..SAMPLE_ROWS_IN_EVENTS).unwrap_or(rows);
        self.events.text(now(), step, "samples", &markdown_table(shown))
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { action, path, source }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

/// Cuts a file back to `length`; a file that is shorter, or missing, stays as it is.
pub(crate) fn cut_file(path: &Path, length: u64) -> Result<(), LogError> {
    let file = match File::options().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let found = file.metadata().map_err(io_error("read", path))?.len();
    if found > length {
        file.set_len(length).map_err(io_error("cut", path))?;
    }
    Ok(())
}

fn cut_samples(folder: &Path, last_step: u64) -> Result<(), LogError> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(io_error("read", folder))? {
        let path = entry.map_err(io_error("read", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let step = name
            .strip_prefix("step-")
            .and_then(|name| name.strip_suffix(".jsonl")?.parse::<u64>().ok());
        if step.is_some_and(|step| step > last_step) {
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
    }
    Ok(())
}

fn markdown_table(rows: &[Sample]) -> String {
    let cell = |text: &str| {
        text.replace('\\', "\\\\")
            .replace('|', "\\|")
            .replace(['\r', '\n'], " ")
    };
    let mut table = "| user | rank | prompt | profile | reference |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let rank = row.rank.map_or_else(|| "–".to_owned(), |rank| rank.to_string());
        let (prompt, profile, reference) = (cell(&row.prompt), cell(&row.profile), cell(&row.reference));
        table.push_str(&format!(
            "| {} | {rank} | {prompt} | {profile} | {reference} |\n",
            row.user
        ));
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sample(user: u64, profile: &str) -> Sample {
        Sample {
            user,
            prompt: "p".into(),
            profile: profile.into(),
            reference: "r".into(),
            rank: Some(3),
        }
    }

    #[test]
    fn a_line_of_metrics_is_an_object_with_step_time_and_values() {
        let run = tempfile::tempdir().unwrap();
        let mut logger = Logger::create(run.path()).unwrap();
        logger
            .scalars(7, &[(scalars::KL, 0.25), (scalars::LEARNING_RATE, f64::NAN)])
            .unwrap();
        let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(line["step"], 7);
        assert_eq!(line["objective/kl"], 0.25);
        assert!(line["dpo/lr"].is_null());
        assert!(line["wall_time"].as_f64().unwrap() > 1.7e9);
    }

    #[test]
    fn samples_are_one_object_a_line() {
        let run = tempfile::tempdir().unwrap();
        let mut logger = Logger::create(run.path()).unwrap();
        logger.samples(3, &[sample(0, "likes\nfilms"), sample(5, "")]).unwrap();
        let text = fs::read_to_string(run.path().join("samples/step-3.jsonl")).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            r#"{"user":0,"prompt":"p","profile":"likes\nfilms","reference":"r","rank":3}"#
        );
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn resuming_cuts_what_was_logged_after_the_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let mut logger = Logger::create(run.path()).unwrap();
        let mut position = LogPosition::default();
        for step in 1..=4 {
            logger.scalars(step, &[(scalars::KL, step as f64)]).unwrap();
            logger.samples(step, &[sample(0, "x")]).unwrap();
            if step == 2 {
                position = logger.position().unwrap();
            }
        }
        logger.metrics.write_all(b"{\"step\":5,\"obj").unwrap();
        drop(logger);
        // A second, later call's events are of no earlier checkpoint.
        drop(Logger::open(run.path()).unwrap());
        let mut logger = Logger::resume(run.path(), &position, 2).unwrap();
        logger.scalars(3, &[(scalars::KL, 30.0)]).unwrap();
        let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        let values: Vec<f64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["objective/kl"]
                    .as_f64()
                    .unwrap()
            })
            .collect();
        assert_eq!(values, [1.0, 2.0, 30.0]);
        assert!(run.path().join("samples/step-2.jsonl").exists());
        assert!(!run.path().join("samples/step-3.jsonl").exists());
        let events = run.path().join("events");
        assert_eq!(event::steps_in(&events).unwrap(), [1, 1, 2, 2, 3]);
        assert_eq!(event::lengths(&events).unwrap().len(), 2);
    }

    #[test]
    fn a_new_run_starts_with_empty_logs() {
        let run = tempfile::tempdir().unwrap();
        let mut logger = Logger::create(run.path()).unwrap();
        logger.scalars(1, &[(scalars::KL, 1.0)]).unwrap();
        logger.samples(1, &[sample(0, "x")]).unwrap();
        drop(Logger::create(run.path()).unwrap());
        assert_eq!(fs::read_to_string(run.path().join("metrics.jsonl")).unwrap(), "");
        assert!(!run.path().join("samples").exists());
        assert!(event::steps_in(&run.path().join("events")).unwrap().is_empty());
    }

    #[test]
    fn cells_of_the_table_cannot_break_it() {
        let table = markdown_table(&[sample(1, "a|b\nc")]);
        assert_eq!(table.lines().nth(2).unwrap(), "| 1 | 3 | p | a\\|b c | r |");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let run = tempfile::tempdir().unwrap();
        let file = run.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Logger::create(&file).unwrap_err().to_string();
        assert!(error.contains("file/events"), "{error}");
    }
}
