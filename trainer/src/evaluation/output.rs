//! The files of an evaluation.

use std::path::Path;

use eval_core::trec::{QrelsWriter, RunWriter};
use models::write_atomically;
use serde::Serialize;

use super::comparison::Evaluation;
use super::measure::{Measured, Row, Written};
use super::plan::{EvaluationPlan, Version};
use crate::TrainError;
use crate::data::{Dataset, User};

/// The file that says what the folder is.
pub const EVALUATION_FILE: &str = "evaluation.json";

/// Writes `evaluation.json`, the profiles and the TREC files into `folder`, which exists.
///
/// # Errors
/// When a file cannot be written.
pub fn write_files(
    folder: &Path,
    plan: &EvaluationPlan,
    measured: &Measured,
    evaluation: &Evaluation,
) -> Result<(), TrainError> {
    let dataset = &measured.dataset;
    let users = plan.split.users(dataset);
    let names = Names::of(dataset, users);
    write(&folder.join("qrels.trec"), |out| qrels(out, users, &names))?;
    let runs = folder.join("runs");
    std::fs::create_dir_all(&runs).map_err(|source| TrainError::io(&runs, source))?;
    // A TREC run has one ranking a user.
    for row in measured.rows.iter().filter(|row| row.ranked.samples == 1) {
        let name = row.name.to_string().replace('/', "-");
        write(&runs.join(format!("{name}.trec")), |out| run(out, &name, row, &names))?;
    }
    for written in &measured.written {
        let path = folder.join(format!("profiles-{}.jsonl", written.version));
        write(&path, |out| profiles(out, written, users, plan.sampling.samples))?;
    }
    write(&folder.join(EVALUATION_FILE), |out| {
        serde_json::to_writer_pretty(&mut *out, evaluation).map_err(std::io::Error::from)?;
        Ok(out.write_all(b"\n")?)
    })
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut dyn std::io::Write) -> Result<(), eval_core::Error>,
) -> Result<(), TrainError> {
    Ok(write_atomically(path, |out| {
        content(out).map_err(std::io::Error::other)
    })?)
}

/// What users and items are called in TREC files: their ids, or numbers where an id has white space.
struct Names {
    users: Vec<String>,
    items: Vec<String>,
}

impl Names {
    fn of(dataset: &Dataset, users: &[User]) -> Self {
        Self {
            users: trec_names("user", users.iter().map(|user| user.id.as_str())),
            items: trec_names("item", dataset.items.iter().map(|item| item.id.as_str())),
        }
    }
}

/// Numbers for all where one of them will not do, so that no two are the same.
fn trec_names<'a>(kind: &str, ids: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let fits = |id: &str| !id.is_empty() && !id.contains(char::is_whitespace);
    if ids.clone().all(fits) {
        return ids.map(str::to_owned).collect();
    }
    ids.enumerate().map(|(number, _)| format!("{kind}-{number}")).collect()
}

fn qrels(out: &mut dyn std::io::Write, users: &[User], names: &Names) -> Result<(), eval_core::Error> {
    let mut writer = QrelsWriter::new(out);
    for (user, name) in users.iter().zip(&names.users) {
        writer.query(
            name,
            user.targets
                .iter()
                .map(|&item| (names.items[item as usize].as_str(), 1)),
        )?;
    }
    Ok(())
}

fn run(out: &mut dyn std::io::Write, tag: &str, row: &Row, names: &Names) -> Result<(), eval_core::Error> {
    let mut writer = RunWriter::new(out, tag)?;
    for (found, name) in row.ranked.found.iter().zip(&names.users) {
        let top = found
            .top
            .iter()
            .map(|scored| (names.items[scored.item as usize].as_str(), scored.score));
        writer.query(name, top)?;
    }
    Ok(())
}

/// A line of `profiles-*.jsonl`.
#[derive(Serialize)]
struct ProfileLine<'a> {
    lm: Version,
    user: &'a str,
    sample: u32,
    /// Of the language model.
    tokens: usize,
    ended: bool,
    profile: &'a str,
}

fn profiles(
    out: &mut dyn std::io::Write,
    written: &Written,
    users: &[User],
    samples: u32,
) -> Result<(), eval_core::Error> {
    let whose = users
        .iter()
        .flat_map(|user| (0..samples).map(move |sample| (user, sample)));
    for ((user, sample), profile) in whose.zip(&written.profiles) {
        let line = ProfileLine {
            lm: written.version,
            user: &user.id,
            sample,
            tokens: profile.response.tokens.len(),
            ended: profile.response.ended,
            profile: &profile.text,
        };
        serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_white_space_make_all_names_numbers() {
        assert_eq!(trec_names("user", ["a", "b"].into_iter()), ["a", "b"]);
        assert_eq!(trec_names("user", ["a", "b c"].into_iter()), ["user-0", "user-1"]);
        assert_eq!(trec_names("item", ["", "x"].into_iter()), ["item-0", "item-1"]);
    }
}
