//! The command line.

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Shows a Meshwright mesh, finds what is wrong with it and steers its upgrades.
#[derive(Debug, Parser)]
#[command(name = "kubectl-mesh", bin_name = "kubectl mesh", version, about)]
pub struct Cli {
    /// Which cluster and mesh.
    #[command(flatten)]
    pub target: Target,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Refuses what contradicts itself. clap sees no conflict with an option that stands before the subcommand.
    pub fn verify(&self) -> anyhow::Result<()> {
        let pre = matches!(self.command, Command::Check { pre: true, .. });
        ensure!(
            !pre || self.target.namespace.is_none(),
            "`check --pre` looks at the whole cluster, before there is a mesh: leave -n away"
        );
        Ok(())
    }
}

/// Which cluster and mesh.
#[derive(Debug, Args)]
pub struct Target {
    /// Namespace of the MeshControlPlane; a cluster has one mesh, which is found without it
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Path of the kubeconfig
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
}

/// How to show it.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// Forms of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
}

/// What the plugin can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find what is wrong, why it matters and what to run; exit code 1 when something is
    Check {
        /// Before an installation: whether this cluster and your rights will do
        #[arg(long)]
        pre: bool,
        /// How to show it.
        #[command(flatten)]
        output: Output,
    },
    /// One part of the mesh, and where it stands
    Describe {
        /// What.
        #[command(subcommand)]
        what: Describe,
    },
    /// The mesh on one screen
    Status(Output),
    /// What an upgrade would do, or does
    Upgrade {
        /// Which of both.
        #[command(subcommand)]
        what: Upgrade,
    },
    /// Agree to the step that the upgrade waits with
    Approve {
        /// The step you mean, as the upgrade names it: a number, `nodes-` and the number of a wave, `promote`, or a number with `-unmeasured` to go on without a good
        /// verdict; refused when another one waits
        step: Option<String>,
    },
    /// Let no further phase, step or share begin; of the next upgrade none at all
    Pause,
    /// Go on after `pause`
    Resume,
    /// Go back to the old revision
    Rollback,
    /// Go on in spite of what blocks the upgrade
    Acknowledge {
        /// The plan that you have seen; refused when it has changed since
        plan: Option<String>,
    },
    /// Try a revision again that went back
    Retry,
    /// Remove the old revision of a promoted upgrade now; there is no way back after it
    EndKeepWarm,
    /// The last ten upgrades
    History(Output),
    /// Print a completion script
    Completion {
        /// For which shell; `kubectl` is the script that completes `kubectl mesh`
        #[arg(value_enum)]
        shell: Shell,
    },
    /// What kubectl asks for when Tab is pressed.
    #[command(hide = true, name = "__complete", disable_help_flag = true)]
    Complete {
        /// What was typed after `kubectl mesh`; the last word may be empty.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// What can be described.
#[derive(Debug, Subcommand)]
pub enum Describe {
    /// Whether a pod is in the mesh and why (not), its identity, who serves it; -n is the pod's namespace, `default` without it
    Pod {
        /// Name of the pod
        name: String,
        /// How to show it.
        #[command(flatten)]
        output: Output,
    },
}

/// Looking at upgrades.
#[derive(Debug, Subcommand)]
pub enum Upgrade {
    /// What would change and through which steps; changes nothing; exit code 1 when something stops it
    Plan {
        /// Release to go to; without it what the MeshControlPlane asks for
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
        /// How to show it.
        #[command(flatten)]
        output: Output,
    },
    /// Where the upgrade is
    Status {
        /// Follow it to its end; exit code 1 when it goes or went back, or when none begins because the spec is refused; 2 when that
        /// cannot be seen
        #[arg(short, long)]
        watch: bool,
        /// How to show it.
        #[command(flatten)]
        output: Output,
    },
}

/// Who completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// kubectl, in whatever shell
    Kubectl,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_means_nothing_before_there_is_a_mesh() {
        let verify = |words: &str| Cli::parse_from(words.split(' ')).verify();
        assert!(verify("kubectl-mesh -n mesh check --pre").is_err());
        assert!(verify("kubectl-mesh check --pre -n mesh").is_err());
        verify("kubectl-mesh check --pre").unwrap();
        verify("kubectl-mesh check -n mesh").unwrap();
    }
}
