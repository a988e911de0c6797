//! Every way to take the mesh away ends, leaves users' objects and nothing of ours.

use anyhow::Result;
use meshwright_e2e::soak::{self, Target, What};

use crate::env::Env;

async fn deleted(target: Target) -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::Deleted(target), 0).await
}

#[tokio::test]
async fn deleting_the_mesh_leaves_users_objects_and_nothing_of_ours() -> Result<()> {
    deleted(Target::Mesh).await
}

#[tokio::test]
async fn deleting_the_meshs_namespace_ends() -> Result<()> {
    deleted(Target::MeshNamespace).await
}

#[tokio::test]
async fn deleting_the_operators_namespace_ends_and_the_gateways_go_on() -> Result<()> {
    deleted(Target::OperatorNamespace).await
}

#[tokio::test]
async fn deleting_the_meshs_and_the_operators_namespace_at_once_ends() -> Result<()> {
    deleted(Target::BothNamespaces).await
}

#[tokio::test]
async fn deleting_the_install_file_ends_and_the_gateways_go_on() -> Result<()> {
    deleted(Target::InstallFile).await
}
