//! Completion: scripts of the shells, and what kubectl asks for.
//!
//! kubectl runs a program `kubectl_complete-mesh` from the PATH with the words typed so far; it answers with a line for
//! each candidate (value, tab, description) and a last line with a directive to the shell.

use clap::{Command, CommandFactory};
use clap_complete::{Shell as Known, generate};

use crate::args::{Cli, Shell};

/// Nothing else is offered, or file names.
const NO_FILES: &str = ":4\n";
const FILES: &str = ":0\n";

const KUBECTL: &str = "#!/bin/sh
# Save as kubectl_complete-mesh on your PATH and make it executable.
exec kubectl-mesh __complete \"$@\"
";

/// The script for a shell.
pub fn script(shell: Shell) -> anyhow::Result<String> {
    let known = match shell {
        Shell::Bash => Known::Bash,
        Shell::Zsh => Known::Zsh,
        Shell::Fish => Known::Fish,
        Shell::Kubectl => return Ok(KUBECTL.to_owned()),
    };
    let mut script = Vec::new();
    generate(known, &mut Cli::command(), "kubectl-mesh", &mut script);
    Ok(String::from_utf8(script)?)
}

/// The answer to kubectl.
pub fn answer(words: &[String]) -> String {
    let mut root = Cli::command();
    root.build();
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let mut command = &root;
    let mut value_of = None;
    for word in before {
        if value_of.take().is_some() {
            continue;
        }
        match command.find_subcommand(word) {
            Some(found) => command = found,
            None => value_of = option(command, word),
        }
    }
    let offered = match value_of {
        Some(option) if values(option).is_empty() => return FILES.to_owned(),
        Some(option) => values(option),
        None if last.starts_with('-') => flags(command),
        None => subcommands(command),
    };
    let fitting = offered.into_iter().filter(|line| line.starts_with(last)).map(|line| line + "\n");
    fitting.collect::<String>() + NO_FILES
}

/// The option that this word is and whose value comes next.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|arg| {
        let long = arg.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
        let short = arg.get_short().is_some_and(|short| word == format!("-{short}"));
        (long || short) && arg.get_action().takes_values()
    })
}

fn line(value: &str, help: Option<&clap::builder::StyledStr>) -> String {
    help.map_or_else(|| value.to_owned(), |help| format!("{value}\t{help}"))
}

fn values(arg: &clap::Arg) -> Vec<String> {
    arg.get_possible_values().iter().map(|v| line(v.get_name(), v.get_help())).collect()
}

fn flags(command: &Command) -> Vec<String> {
    let long = |arg: &clap::Arg| arg.get_long().map(|l| line(&format!("--{l}"), arg.get_help()));
    command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(long).collect()
}

fn subcommands(command: &Command) -> Vec<String> {
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
    let named = shown.map(|c| line(c.get_name(), c.get_about()));
    named.chain(command.get_positionals().flat_map(values)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let value = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
        answer(&words).lines().map(value).collect()
    }

    #[test]
    fn the_command_line_has_no_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn tab_offers_subcommands_flags_and_values() {
        assert_eq!(offered(&["r"]), ["resume", "rollback", "retry", ":4"]);
        assert_eq!(offered(&["-n", "mesh", "upgrade", ""]), ["plan", "status", "help", ":4"]);
        assert_eq!(offered(&["upgrade", "plan", "--t"]), ["--to", ":4"]);
        assert_eq!(offered(&["status", "-o", ""]), ["text", "json", "yaml", ":4"]);
        assert_eq!(offered(&["completion", "f"]), ["fish", ":4"]);
        assert!(offered(&["status", "--n"]).contains(&"--namespace".to_owned()));
        assert!(!offered(&[""]).contains(&"__complete".to_owned()));
    }

    #[test]
    fn a_path_is_completed_by_the_shell() {
        assert_eq!(offered(&["--kubeconfig", ""]), [":0"]);
    }

    #[test]
    fn every_shell_gets_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            assert!(script(shell).unwrap().contains("kubectl-mesh"), "{shell:?}");
        }
        assert!(script(Shell::Kubectl).unwrap().starts_with("#!/bin/sh"));
    }
}
