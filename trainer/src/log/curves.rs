//! What was logged by update, read back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use eval_core::report::Curves;

use super::{LogError, io_error, scalars};

/// One line: names to values, `null` where a value was not finite; `step` and `wall_time` among them.
type Line = BTreeMap<String, Option<f64>>;

/// The curves of a run's `metrics.jsonl` at `path`: all scalars but the metrics of evaluations, which a report holds elsewhere, and
/// without times, so that equal runs have equal curves. No file, no curves.
///
/// # Errors
/// When the file cannot be read, or a line of it is not what [`Logger::scalars`](super::Logger::scalars) writes.
pub fn read_curves(path: &Path) -> Result<Curves, LogError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Curves::default()),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let lines = text.lines().zip(1..).map(|(text, line)| {
        read_line(text).map_err(|reason| LogError::Line {
            path: path.to_owned(),
            line,
            reason,
        })
    });
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    let values = lines.iter().flat_map(|(step, values)| {
        let values = values.iter().filter(|(name, _)| !scalars::is_ranking(name));
        values.map(move |(name, value)| (name.as_str(), *step, value.unwrap_or(f64::NAN)))
    });
    Ok(Curves::of(values))
}

/// A line's update and values.
fn read_line(text: &str) -> Result<(u64, Line), String> {
    let mut line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    line.remove("wall_time");
    let step = line.remove("step").flatten().filter(|step| *step >= 0.0);
    let step = step.ok_or("it has no `step`")?;
    Ok((step as u64, line))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Logger;
    use super::*;

    #[test]
    fn curves_have_what_updates_logged_and_no_times() {
        let run = tempfile::tempdir().unwrap();
        let mut logger = Logger::create(run.path()).unwrap();
        let evaluated = scalars::ranking(scalars::ProfileKind::Generated, "ndcg", 10);
        logger.scalars(1, &[(&evaluated, 0.5)]).unwrap();
        logger
            .scalars(1, &[(scalars::REWARDS, 0.25), (scalars::KL, 0.0)])
            .unwrap();
        logger
            .scalars(2, &[(scalars::REWARDS, 0.5), (scalars::KL, f64::NAN)])
            .unwrap();
        let curves = read_curves(&run.path().join(Logger::METRICS)).unwrap();
        let expected = Curves::of([
            (scalars::KL, 1, 0.0),
            (scalars::REWARDS, 1, 0.25),
            (scalars::REWARDS, 2, 0.5),
        ]);
        assert_eq!(curves, expected);
    }

    #[test]
    fn a_run_without_a_log_has_no_curves() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(read_curves(&run.path().join("none")).unwrap(), Curves::default());
    }

    #[test]
    fn a_line_that_is_broken_is_named() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join("metrics.jsonl");
        let message = |text: &str| {
            fs::write(&path, text).unwrap();
            read_curves(&path).unwrap_err().to_string()
        };
        let cut = message("{\"step\": 1}\n{\"step\": 2, \"ob");
        assert!(cut.contains("metrics.jsonl:2: expected an object of numbers"), "{cut}");
        let without = message("{\"objective/kl\": 1.0}\n");
        assert!(without.ends_with("it has no `step`"), "{without}");
    }
}
