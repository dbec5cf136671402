//! Running other programs: what runs is shown first, and a failure says what failed.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command without standard input, so that nothing waits for an answer that nobody gives.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Shows the command, runs it with our own output, and fails unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// What the command prints on stdout, trimmed; its stderr is ours.
pub fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no UTF-8"))?;
    Ok(text.trim().to_owned())
}

/// What the command prints on stdout, trimmed, or nothing when it cannot be started or fails. For questions like "which version?".
pub fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The first of `names` that lies in a folder of `PATH`.
pub fn find_on_path(names: &[&str]) -> Option<std::path::PathBuf> {
    let folders: Vec<_> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    names.iter().find_map(|name| {
        folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| is_file(path))
    })
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// The command as one could type it: variables that it sets, program, arguments.
fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let variables = variables.map(|(name, value)| format!("{}={}", name.display(), quoted(value)));
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// Single quotes around a word that a shell would read otherwise.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+${}".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.contains('$') {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_command_is_shown_as_one_could_type_it() {
        let mut command = command("cargo");
        command
            .args(["check", "a b"])
            .env("RUSTFLAGS", "-D warnings")
            .env_remove("CARGO");
        assert_eq!(shown(&command), "RUSTFLAGS='-D warnings' cargo check 'a b'");
    }

    #[test]
    fn a_failure_names_the_command_and_its_status() {
        let message = run(command("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert_eq!(message, "`sh -c 'exit 3'` failed (exit status: 3)");
    }

    #[test]
    fn a_program_that_does_not_exist_gives_no_answer() {
        assert_eq!(answer(&mut command("langptune-no-such-program")), None);
        assert_eq!(answer(command("sh").args(["-c", "echo 1; exit 1"])), None);
        assert_eq!(answer(command("sh").args(["-c", "echo 1"])).as_deref(), Some("1"));
    }
}
