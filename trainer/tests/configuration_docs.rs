//! `docs/configuration.md` says what the flags, keys and presets are. Its tables are made here, so they stay true:
//! `UPDATE_DOCS=1 cargo test -p trainer --test configuration_docs` rewrites them.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Args, Command};
use trainer::cli::TrainArgs;
use trainer::config::{KEYS, Layer, Source, key_of_flag, resolve, variable_name};

const START: &str = "<!-- tables: made by trainer/tests/configuration_docs.rs -->\n";
const END: &str = "<!-- end of tables -->\n";

#[test]
fn the_tables_of_the_configuration_page_are_those_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(START).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let expected = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{START}{expected}{END}{after}")).unwrap();
        return;
    }
    assert!(
        found == expected,
        "docs/configuration.md is out of date: run this test with UPDATE_DOCS=1"
    );
}

fn tables() -> String {
    let command = TrainArgs::augment_args(Command::new("train"));
    let [defaults, gemma, llama] = [None, Some("gemma"), Some("llama")].map(resolved);
    let mut text = String::new();
    let mut heading = "";
    for argument in command.get_arguments() {
        let group = argument.get_help_heading().unwrap();
        if group != heading {
            heading = group;
            write!(
                text,
                "\n## {group}\n\n| flag | key | default | gemma | llama | meaning |\n|---|---|---|---|---|---|\n"
            )
            .unwrap();
        }
        let flag = argument.get_long().unwrap();
        let keys = key_of_flag(flag).map_or(&[][..], |entry| entry.keys);
        let values =
            [&defaults, &gemma, &llama].map(|config| keys.first().map_or(String::new(), |key| value(config, key)));
        let keys = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let [default, gemma, llama] = values;
        writeln!(
            text,
            "| {} | {keys} | {default} | {gemma} | {llama} | {} |",
            names(argument),
            meaning(argument)
        )
        .unwrap();
    }
    text.push('\n');
    text
}

/// The configuration of a preset without further settings, as its saved file has it.
fn resolved(preset: Option<&str>) -> toml::Table {
    let mut flags = toml::Table::new();
    let given = [("dataset", "DATASET"), ("lm_model", "LM"), ("emb_model", "EMBEDDER")];
    match preset {
        Some(preset) => {
            flags.insert("preset".to_owned(), preset.into());
            flags.insert("dataset".to_owned(), "DATASET".into());
        }
        None => flags.extend(given.map(|(flag, value)| (flag.to_owned(), value.into()))),
    }
    let config = resolve(&[Layer::from_flags(Source::CommandLine, &flags)]).unwrap();
    toml::from_str(&config.to_toml().unwrap()).unwrap()
}

fn value(config: &toml::Table, key: &str) -> String {
    let mut parts = key.split('.');
    let first = config.get(parts.next().unwrap());
    let found = parts.fold(first, |value, part| value?.as_table()?.get(part));
    match found {
        None => "–".to_owned(),
        Some(toml::Value::String(text)) if ["DATASET", "LM", "EMBEDDER"].contains(&text.as_str()) => {
            "required".to_owned()
        }
        Some(toml::Value::String(text)) if text.is_empty() => "empty".to_owned(),
        Some(toml::Value::String(text)) => format!("`{text}`"),
        Some(toml::Value::Float(small)) if *small != 0.0 && small.abs() < 1e-3 => format!("`{small:e}`"),
        Some(toml::Value::Array(values)) if values.is_empty() => "none".to_owned(),
        Some(value) => format!("`{value}`"),
    }
}

fn names(argument: &Arg) -> String {
    let flag = argument.get_long().unwrap();
    let aliases = argument.get_all_aliases().unwrap_or_default();
    let others: String = aliases.iter().map(|alias| format!(", `--{alias}`")).collect();
    format!("`--{flag}`{others}")
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_help().unwrap().to_string();
    let help = help.split(" [").next().unwrap();
    let choices: Vec<_> = argument
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let is_choice = argument.get_num_args().is_none_or(|count| count.min_values() > 0) && !choices.is_empty();
    let choices = if is_choice {
        format!(" ({})", choices.join(", "))
    } else {
        String::new()
    };
    format!("{help}{choices}").replace('|', "\\|").replace('<', "&lt;")
}

#[test]
fn every_key_has_a_flag_and_a_variable_of_its_own() {
    let mut variables: Vec<_> = KEYS.iter().map(|entry| variable_name(entry.flag)).collect();
    let count = variables.len();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), count);
}
