//! From the command line to what is printed.

use std::process::ExitCode;

use anyhow::Context;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{Api, Client, ResourceExt, api::ListParams};
use meshwright_api::{MeshControlPlane, MeshRevision};

use crate::{
    args::{Cli, Command, Describe, Target, Upgrade},
    check,
    client::{self, Sought},
    completion,
    describe::Description,
    gather,
    members::{self, Members},
    output::{emit, show},
    status,
    steer::{self, Wish},
    upgrade::{history, plan, progress, watch},
};

/// Does what was asked for.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    cli.verify()?;
    let target = &cli.target;
    let wish = match cli.command {
        Command::Completion { shell } => return done(&completion::script(shell)?),
        Command::Complete { words } => return done(&completion::answer(&words)),
        Command::Check { pre, output } => {
            let client = client::connect(target).await?;
            let report = match pre {
                true => check::before(&gather::before(&client).await),
                false => {
                    let seen = gather::installed(&client, target.namespace.as_deref()).await;
                    let members = members_around(&client, &seen).await;
                    check::installed(&seen, members.as_ref(), Timestamp::now())
                }
            };
            emit(&show(output.output, &report, check::Report::text)?)?;
            return Ok(code(report.ok));
        }
        Command::Describe { what: Describe::Pod { name, output } } => {
            let client = client::connect(target).await?;
            let view = describe_pod(&client, target, &name).await?;
            return done(&show(output.output, &view, Description::text)?);
        }
        Command::Status(output) => {
            let (client, mesh) = mesh(target).await?;
            let seen = gather::around(&client, Ok(Sought::Found(Box::new(mesh.clone())))).await;
            let view = status::Status::new(&mesh, &seen);
            return done(&show(output.output, &view, |v| v.text(Timestamp::now()))?);
        }
        Command::Upgrade { what: Upgrade::Plan { to, output } } => {
            let (client, mesh) = mesh(target).await?;
            let revisions = revisions(&client, &mesh).await?;
            let pods = gather::pods_of_gateways(&client, &mesh).await.unwrap_or_default();
            let plan = plan::plan(&mesh, &revisions, to.as_deref(), &pods);
            emit(&show(output.output, &plan, plan::Plan::text)?)?;
            return Ok(code(!plan.is_stopped()));
        }
        Command::Upgrade { what: Upgrade::Status { watch: true, output } } => {
            let (client, mesh) = mesh(target).await?;
            return watch::follow(client, &mesh, output.output).await;
        }
        Command::Upgrade { what: Upgrade::Status { watch: false, output } } => {
            let (_, mesh) = mesh(target).await?;
            let view = progress::Progress::new(&mesh);
            return done(&show(output.output, &view, |v| v.text(Timestamp::now()))?);
        }
        Command::History(output) => {
            let (_, mesh) = mesh(target).await?;
            let history = mesh.status.unwrap_or_default().history;
            return done(&show(output.output, &history, |h| history::text(h))?);
        }
        Command::Approve { step } => Wish::Approve { step },
        Command::Pause => Wish::Pause,
        Command::Resume => Wish::Resume,
        Command::Rollback => Wish::Rollback,
        Command::Acknowledge { plan } => Wish::Acknowledge { plan },
        Command::Retry => Wish::Retry,
        Command::EndKeepWarm => Wish::EndKeepWarm,
    };
    let (client, mesh) = mesh(target).await?;
    let user = match wish {
        Wish::Approve { .. } | Wish::Acknowledge { .. } => client::user(&client).await?,
        _ => String::new(),
    };
    let change = steer::decide(&mesh, &wish, &user)?;
    client::patch(&client, &mesh, change.patch.clone()).await?;
    done(&change.text())
}

fn done(text: &str) -> anyhow::Result<ExitCode> {
    emit(text)?;
    Ok(ExitCode::SUCCESS)
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn mesh(target: &Target) -> anyhow::Result<(Client, MeshControlPlane)> {
    let client = client::connect(target).await?;
    let mesh = client::mesh(&client, target.namespace.as_deref()).await?;
    Ok((client, mesh))
}

async fn revisions(client: &Client, mesh: &MeshControlPlane) -> anyhow::Result<Vec<MeshRevision>> {
    let namespace = mesh.namespace().unwrap_or_default();
    let api: Api<MeshRevision> = Api::namespaced(client.clone(), &namespace);
    let list = api.list(&ListParams::default()).await.map_err(|e| anyhow::anyhow!(client::reason(&e)));
    Ok(list.with_context(|| format!("could not list MeshRevisions in namespace {namespace}"))?.items)
}

async fn members_around(client: &Client, seen: &gather::Installed) -> Option<Members> {
    let Ok(Sought::Found(mesh)) = &seen.mesh else { return None };
    let operator = seen.operators.as_ref().ok().and_then(|all| all.first()?.namespace());
    let revisions = seen.revisions.as_deref().unwrap_or_default();
    members::gather::members(client, mesh, revisions, operator).await
}

/// The namespace of the command line is the pod's here; a cluster has one mesh.
async fn describe_pod(client: &Client, target: &Target, name: &str) -> anyhow::Result<Description> {
    let namespace = target.namespace.as_deref().unwrap_or("default");
    let pod: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pod.get(name).await.map_err(|e| anyhow::anyhow!(client::reason(&e)));
    let pod = pod.with_context(|| format!("could not read pod {namespace}/{name}"))?;
    let seen = gather::installed(client, None).await;
    let members = members_around(client, &seen).await;
    let members = members.context("no mesh with node proxies could be found here, so no pod is in it")?;
    Ok(Description::new(&pod, &members, seen.revisions.as_deref().unwrap_or_default()))
}
