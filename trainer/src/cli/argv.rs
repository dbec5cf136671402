//! The published spelling of flags, brought to ours before clap reads them.

use std::ffi::OsString;

use clap::Command;

/// Rewrites flags as clap knows them, and leaves values alone.
///
/// - Underscores in a flag's name become dashes: `--task.query_dataset=D` is `--task.query-dataset=D`.
/// - `--no-X` (or `--no_X`) of a yes-or-no flag `X` of the chosen subcommand is `--X=false`.
///
/// Nothing after `--` changes.
pub(super) fn normalise(arguments: impl IntoIterator<Item = OsString>, command: &Command) -> Vec<OsString> {
    let mut chosen = None;
    let mut flags_ended = false;
    let mut normalised = Vec::new();
    for (position, argument) in arguments.into_iter().enumerate() {
        let text = argument
            .to_str()
            .filter(|_| position > 0 && !flags_ended)
            .map(str::to_owned);
        let Some(text) = text else {
            normalised.push(argument);
            continue;
        };
        flags_ended = text == "--";
        if chosen.is_none() && !text.starts_with('-') {
            chosen = command.find_subcommand(&text);
        }
        normalised.push(match text.strip_prefix("--") {
            Some(flag) if !flag.is_empty() => rewrite(flag, chosen).into(),
            _ => argument,
        });
    }
    normalised
}

fn rewrite(flag: &str, command: Option<&Command>) -> String {
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    let name = name.replace('_', "-");
    match (name.strip_prefix("no-"), value) {
        (Some(switched_off), None) if is_yes_or_no(switched_off, command) => format!("--{switched_off}=false"),
        (_, Some(value)) => format!("--{name}={value}"),
        (_, None) => format!("--{name}"),
    }
}

/// Whether `flag` of `command` may stand alone or with true or false behind it.
fn is_yes_or_no(flag: &str, command: Option<&Command>) -> bool {
    let mut arguments = command.into_iter().flat_map(Command::get_arguments);
    arguments.any(|argument| {
        let names = argument.get_long_and_visible_aliases().unwrap_or_default();
        let optional_value = argument
            .get_num_args()
            .is_some_and(|count| count.min_values() == 0 && count.takes_values());
        names.contains(&flag) && optional_value
    })
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn normalised(line: &str) -> String {
        let switch = Arg::new("whiten")
            .long("whiten-rewards")
            .num_args(0..=1)
            .action(ArgAction::Set);
        let train = Command::new("train").arg(switch).arg(Arg::new("nice").long("no-nice"));
        let command = Command::new("langptune").subcommand(train);
        let words = normalise(line.split(' ').map(OsString::from), &command);
        words
            .iter()
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn underscores_in_names_become_dashes_and_values_stay() {
        assert_eq!(
            normalised("langptune train --task.query_dataset my_data --lr=1e-7 --exp_name=a_b"),
            "langptune train --task.query-dataset my_data --lr=1e-7 --exp-name=a_b"
        );
    }

    #[test]
    fn a_yes_or_no_flag_has_a_negative_form_in_either_spelling() {
        assert_eq!(
            normalised("langptune train --no-whiten_rewards"),
            "langptune train --whiten-rewards=false"
        );
        assert_eq!(
            normalised("langptune train --no_whiten_rewards"),
            "langptune train --whiten-rewards=false"
        );
    }

    #[test]
    fn a_flag_that_merely_begins_with_no_stays() {
        assert_eq!(normalised("langptune train --no_nice 1"), "langptune train --no-nice 1");
        assert_eq!(normalised("langptune train --no-lora"), "langptune train --no-lora");
    }

    #[test]
    fn nothing_changes_after_two_dashes_or_in_the_program_name() {
        assert_eq!(normalised("my_program train -- --a_b"), "my_program train -- --a_b");
    }
}
