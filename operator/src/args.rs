//! The command line. Everything can be set by environment too, because a Deployment sets it that way.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use meshwright_runtime::{admin, telemetry};

use crate::catalogue::Release;

/// Meshwright's operator.
#[derive(Debug, Parser)]
#[command(name = "operator", version, about)]
pub struct Cli {
    /// What to do; `run` when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Settings of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconcile MeshControlPlanes until told to stop
    Run,
    /// Print YAML to install with
    Manifests {
        /// Which manifests.
        #[command(subcommand)]
        what: Manifests,
    },
}

/// The files of an installation.
#[derive(Debug, Subcommand)]
pub enum Manifests {
    /// The CustomResourceDefinitions of group meshwright.io
    Crds,
    /// Namespace, rights, admission policy and Deployment of the operator
    Install(InstallArgs),
}

/// What an installation depends on.
#[derive(Clone, Debug, Args)]
pub struct InstallArgs {
    /// Image of the operator
    #[arg(long)]
    pub operator_image: String,
    /// A release that it can install, VERSION=CONTROL_PLANE_IMAGE,PROXY_IMAGE; may be repeated
    #[arg(long = "release", required = true)]
    pub releases: Vec<Release>,
    /// Namespace of the operator
    #[arg(long, default_value = "meshwright-system")]
    pub namespace: String,
    /// Secret of type kubernetes.io/dockerconfigjson for every pod; may be repeated
    #[arg(long = "pull-secret")]
    pub pull_secrets: Vec<String>,
}

/// Settings of a running operator.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Names of pull secrets, separated by commas
    #[arg(long, env = "IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub image_pull_secrets: Vec<String>,
    /// Folder with the Gateway API's CRDs: standard/*.yaml and experimental/*.yaml
    #[arg(long, env = "GATEWAY_API_DIR", default_value = "/gateway-api")]
    pub gateway_api_dir: PathBuf,
    /// Name of this replica
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pub pod_name: String,
    /// Namespace of the operator: its Lease and the root keys are there
    #[arg(long, env = "POD_NAMESPACE", default_value = "meshwright-system")]
    pub namespace: String,
    /// ServiceAccount that the operator runs as
    #[arg(long, env = "SERVICE_ACCOUNT", default_value = "meshwright-operator")]
    pub service_account: String,
    /// Deployment of the operator, watched to notice its own removal
    #[arg(long, env = "OPERATOR_DEPLOYMENT", default_value = "meshwright-operator")]
    pub deployment: String,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: telemetry::Args,
    /// The admin server.
    #[command(flatten)]
    pub admin: admin::Args,
}
