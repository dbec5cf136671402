//! The sources of a training configuration around its flags: environment, `--config` file, command line.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use clap::{Args, Command, FromArgMatches};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::UsageError;
use super::train::{RunControl, TrainArgs};
use crate::config::{self, ConfigError, Layer, Source, TrainConfig, variable_name};
use crate::dist::RESTARTED_VARIABLE;
use crate::train::Sharing;

/// The configuration that command line, environment and file make together, and what holds for this call alone.
///
/// `variables` are those of the process; they are a parameter so that tests need not change the process.
///
/// # Errors
/// A [`UsageError`] or a [`config::ConfigError`] that names the flag, variable or line.
pub(super) fn resolve(
    arguments: &TrainArgs,
    variables: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<(TrainConfig, RunControl)> {
    let flags = arguments
        .given()
        .map_err(|error| UsageError::new(format!("the command line: {error}")))?;
    let variables: Vec<_> = variables.collect();
    let started = variables.iter().find(|(name, _)| name == RESTARTED_VARIABLE);
    let started = started.and_then(|(_, seconds)| seconds.parse::<u64>().ok());
    let variables = environment(variables.into_iter())?;
    let both = |name: &str| flags.get(name).or_else(|| variables.get(name));
    let mut layers = Vec::new();
    let given = |name: &str| both(name).and_then(Value::as_bool).unwrap_or(false);
    // In place of a process that failed: it goes on with what that one began, and replaces what was there before.
    let began = |seconds: u64| {
        let output = both("output").and_then(Value::as_str).unwrap_or_default();
        !given("overwrite") || modified(&Path::new(output).join(TrainConfig::FILE_NAME)) >= Some(seconds)
    };
    let goes_on = started.is_some_and(began);
    let yes = |name: &str| match (goes_on, name) {
        (true, "resume") => true,
        (true, "overwrite") => false,
        _ => given(name),
    };
    if let Some(path) = both("config").and_then(Value::as_str) {
        layers.push(Layer::from_file(Path::new(path))?);
    }
    let mut no_run = None;
    if yes("resume") {
        if yes("overwrite") {
            return Err(
                UsageError::new("--resume goes on with a run and --overwrite replaces it: give one of them").into(),
            );
        }
        let Some(output) = both("output").and_then(Value::as_str) else {
            return Err(UsageError::new("--resume: name the run with --output").into());
        };
        let saved = Path::new(output).join(TrainConfig::FILE_NAME);
        if saved.is_file() {
            layers.push(Layer::from_file(&saved)?);
        } else {
            no_run = Some(output);
        }
    }
    layers.push(layer(Source::Environment, variables.clone())?);
    layers.push(layer(Source::CommandLine, flags.clone())?);
    let count = |name: &str| {
        let count = both(name).and_then(Value::as_integer);
        count.and_then(|count| usize::try_from(count).ok())
    };
    let control = RunControl {
        overwrite: yes("overwrite"),
        resume: yes("resume"),
        stop_after: count("stop_after"),
        watchdog_secs: count("watchdog_secs"),
        sharing: Sharing {
            shard_optimizer: both("shard_optimizer").and_then(Value::as_bool).unwrap_or(true),
            collectives: chosen(both("collectives"))?.unwrap_or(Sharing::default().collectives),
            gradient_precision: chosen(both("gradient_precision"))?.unwrap_or(Sharing::default().gradient_precision),
        },
        print_config: yes("print_config"),
    };
    // A run that was killed before it had written its configuration begins anew, by the flags that it was given.
    match (config::resolve(&layers), no_run) {
        (Err(ConfigError::Missing { .. }), Some(output)) => Err(UsageError::new(format!(
            "{output}: there is no run to go on with ({} is missing); to start one give --dataset and the other settings",
            TrainConfig::FILE_NAME
        ))
        .into()),
        (resolved, _) => Ok((resolved?, control)),
    }
}

/// One of the choices that clap has checked already.
fn chosen<T: DeserializeOwned>(value: Option<&Value>) -> Result<Option<T>, UsageError> {
    let chosen = value.map(|value| value.clone().try_into()).transpose();
    chosen.map_err(|error| UsageError::new(error.to_string()))
}

/// When a file was last written, in seconds since 1970; `None` where there is none.
fn modified(path: &Path) -> Option<u64> {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    modified.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn layer(source: Source, mut flags: Table) -> Result<Layer, UsageError> {
    one_dataset(&source, &mut flags)?;
    Ok(Layer::from_flags(source, &flags))
}

/// Brings the published names of the dataset to ours: --task.query-dataset is --dataset, and items that lie in the same place
/// need no flag of their own.
fn one_dataset(source: &Source, flags: &mut Table) -> Result<(), UsageError> {
    let given = |flags: &Table, name: &str| flags.get(name).and_then(Value::as_str).map(PathBuf::from);
    let (ours, published) = (given(flags, "dataset"), given(flags, "task_query_dataset"));
    if let (Some(ours), Some(published)) = (&ours, &published)
        && !same_folder(ours, published)
    {
        return Err(UsageError::new(format!(
            "{source}: --dataset is {} but --task.query-dataset is {}: they are two names of one setting; give one of them",
            ours.display(),
            published.display(),
        )));
    }
    let Some(dataset) = ours.or(published) else {
        return Ok(());
    };
    if given(flags, "task_item_dataset").is_some_and(|items| same_folder(&items, &dataset)) {
        flags.remove("task_item_dataset");
    }
    flags.insert(
        "dataset".to_owned(),
        Value::String(dataset.to_string_lossy().into_owned()),
    );
    Ok(())
}

fn same_folder(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// The flags given as `LANGPTUNE_…`, by field. Variables that are no flag of `train` are left to others.
fn environment(variables: impl Iterator<Item = (String, String)>) -> Result<Table, UsageError> {
    let command = TrainArgs::augment_args(Command::new("train"));
    let mut given = Table::new();
    let mut variables: Vec<_> = variables
        // An empty variable is one that was not set, as shells and containers hand them on.
        .filter(|(name, value)| name.starts_with("LANGPTUNE_") && !value.is_empty())
        .collect();
    variables.sort();
    for (name, value) in variables {
        let Some(flag) = flag_of_variable(&command, &name) else {
            continue;
        };
        let failed = |reason: String| UsageError::new(format!("environment variable {name}: {reason}"));
        let matches = command
            .clone()
            .try_get_matches_from(["train".to_owned(), format!("--{flag}={value}")])
            .map_err(|error| failed(reason_of(&error)))?;
        let arguments = TrainArgs::from_arg_matches(&matches).map_err(|error| failed(reason_of(&error)))?;
        given.extend(arguments.given().map_err(|error| failed(error.to_string()))?);
    }
    Ok(given)
}

fn flag_of_variable(command: &Command, variable: &str) -> Option<String> {
    let names = command.get_arguments().flat_map(|argument| {
        let aliases = argument.get_all_aliases().unwrap_or_default();
        argument.get_long().into_iter().chain(aliases)
    });
    names
        .into_iter()
        .find(|name| variable_name(name) == variable)
        .map(str::to_owned)
}

/// clap's message without its prefix and its hint at `--help`.
fn reason_of(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.split("\n\nFor more information").next().unwrap_or_default();
    text.trim_start_matches("error: ").trim().to_owned()
}

#[cfg(test)]
mod tests;
