//! STUB, the status writer replaces this file.

use meshwright_index::Index;
use meshwright_k8s::lease::Leadership;
use meshwright_runtime::CancellationToken;

pub async fn run(_client: kube::Client, _index: Index, _leadership: Leadership, drain: CancellationToken) -> anyhow::Result<()> {
    drain.cancelled().await;
    Ok(())
}
