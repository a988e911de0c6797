//! The Gateway API's CustomResourceDefinitions: installed where they are absent, raised where they are ours and older,
//! never lowered, never removed (users' objects would go with them) and left alone where somebody else installed them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, ResourceExt, core::PartialObjectMeta};
use meshwright_api::{GATEWAY_API_VERSION, GatewayApiChannel, GatewayApiStatus, labels};

use crate::{apply, context::Context, error::Class};

mod install;
#[cfg(test)]
mod tests;

pub use install::install;

/// What the mesh cannot do without.
const REQUIRED: [&str; 4] = ["gatewayclasses", "gateways", "httproutes", "referencegrants"];
const GROUP: &str = "gateway.networking.k8s.io";

/// The CRDs could not be read or installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] apply::Error),
    /// A file that comes with the image.
    #[error("could not read {file}")]
    Unreadable {
        /// Which one.
        file: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// One of the files is not a definition.
    #[error("{file} is not a CustomResourceDefinition")]
    File {
        /// Which one.
        file: String,
        /// Why not.
        #[source]
        source: serde_yaml_ng::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Request(error) => error.class(),
            Self::Unreadable { .. } | Self::File { .. } => Class::Transient,
        }
    }
}

/// A definition in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Release that it comes from.
    pub version: Option<String>,
    /// Its channel.
    pub channel: Option<String>,
    /// This operator installed it.
    pub ours: bool,
    /// The API server serves it.
    pub established: bool,
}

/// The definitions in the cluster, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found(pub BTreeMap<String, Definition>);

/// Why the Gateway API cannot be used, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A definition is not there.
    #[error(
        "CustomResourceDefinition {name} is absent; install Gateway API {GATEWAY_API_VERSION} or set spec.gatewayAPI.crds to Standard"
    )]
    Absent {
        /// Which one.
        name: String,
    },
    /// A definition is of another release.
    #[error(
        "CustomResourceDefinition {name} is of Gateway API {version} and was installed by somebody else; {GATEWAY_API_VERSION} or newer is needed: \
         install it, or delete the definitions and set spec.gatewayAPI.crds to Standard"
    )]
    Old {
        /// Which one.
        name: String,
        /// Its release.
        version: String,
    },
    /// The API server is not ready with it.
    #[error("CustomResourceDefinition {name} is not established yet")]
    NotEstablished {
        /// Which one.
        name: String,
    },
}

/// Looks at the definitions in the cluster: at their metadata only, because the bodies are large.
pub async fn find(ctx: &Context, channel: GatewayApiChannel) -> Result<Found, Error> {
    let api: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
    let shipped = shipped(&ctx.settings.gateway_api_dir, channel);
    let mut names: Vec<String> = shipped.into_keys().collect();
    names.extend(REQUIRED.map(|plural| format!("{plural}.{GROUP}")));
    names.sort();
    names.dedup();
    let served = served(ctx).await?;
    let mut found = BTreeMap::new();
    for name in names {
        let read = api.get_metadata_opt(&name).await;
        let read = read.map_err(apply::Error::request("read", format!("CustomResourceDefinition {name}")))?;
        if let Some(crd) = read {
            let established = served.iter().any(|plural| name == format!("{plural}.{GROUP}"));
            found.insert(name, definition(&crd, established));
        }
    }
    Ok(Found(found))
}

async fn served(ctx: &Context) -> Result<Vec<String>, Error> {
    match ctx.client.list_api_group_resources(&format!("{GROUP}/v1")).await {
        Ok(list) => Ok(list.resources.into_iter().map(|r| r.name).collect()),
        // The answer for a group that nobody serves is plain text, without a reason.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(apply::Error::request("discover", GROUP)(error).into()),
    }
}

fn definition(crd: &PartialObjectMeta<CustomResourceDefinition>, established: bool) -> Definition {
    let annotation = |name: &str| crd.annotations().get(name).cloned();
    Definition {
        version: annotation(labels::BUNDLE_VERSION),
        channel: annotation(labels::CHANNEL),
        ours: crd.labels().get(labels::MANAGED_BY).is_some_and(|m| m == labels::MANAGER),
        established,
    }
}

// The file names say what is inside, as controller-gen writes them: <group>_<plural>.yaml. What else is in the folder
// (kustomization, an admission policy) has another form.
fn shipped(folder: &Path, channel: GatewayApiChannel) -> BTreeMap<String, PathBuf> {
    let Some(channel) = channel_folder(channel) else { return BTreeMap::new() };
    let files = std::fs::read_dir(folder.join(channel)).into_iter().flatten().flatten();
    let named = files.filter_map(|file| {
        let name = file.file_name();
        let (group, plural) = name.to_str()?.strip_suffix(".yaml")?.split_once('_')?;
        (!plural.contains('_')).then(|| (format!("{plural}.{group}"), file.path()))
    });
    named.collect()
}

fn channel_folder(channel: GatewayApiChannel) -> Option<&'static str> {
    match channel {
        GatewayApiChannel::Standard => Some("standard"),
        GatewayApiChannel::Experimental => Some("experimental"),
        GatewayApiChannel::None => None,
    }
}

impl Found {
    /// Whether a definition shipped for this channel is to be applied. From Standard to Experimental what is ours is
    /// widened, because the channels do not mix; back would take fields from objects that use them.
    pub fn wants(&self, name: &str, channel: GatewayApiChannel) -> bool {
        let Some(there) = self.0.get(name) else { return true };
        let widened = channel == GatewayApiChannel::Experimental
            && there.channel.as_deref() == channel_folder(GatewayApiChannel::Standard)
            && there.version.as_deref() == Some(GATEWAY_API_VERSION);
        there.ours && (widened || is_older(there.version.as_deref()))
    }

    /// Whether the mesh can use what is there.
    pub fn usable(&self) -> Result<(), Unusable> {
        for plural in REQUIRED {
            let name = format!("{plural}.{GROUP}");
            let Some(there) = self.0.get(&name) else { return Err(Unusable::Absent { name }) };
            if is_older(there.version.as_deref()) {
                let version = there.version.clone().unwrap_or_else(|| "unknown".to_owned());
                return Err(Unusable::Old { name, version });
            }
            if !there.established {
                return Err(Unusable::NotEstablished { name });
            }
        }
        Ok(())
    }

    /// For the status.
    pub fn status(&self) -> Option<GatewayApiStatus> {
        let gateways = self.0.get(&format!("gateways.{GROUP}"))?;
        Some(GatewayApiStatus {
            version: gateways.version.clone().unwrap_or_default(),
            channel: gateways.channel.clone().unwrap_or_default(),
            installed_by_operator: gateways.ours,
        })
    }
}

/// Older than the release that we follow, or of no release at all.
fn is_older(version: Option<&str>) -> bool {
    version.and_then(parse) < parse(GATEWAY_API_VERSION)
}

// A pre-release such as v1.7.0-rc.1 counts as the release before.
fn parse(version: &str) -> Option<(u32, u32, u32, bool)> {
    let (numbers, pre) = match version.strip_prefix('v')?.split_once('-') {
        Some((numbers, _)) => (numbers, true),
        None => (version.strip_prefix('v')?, false),
    };
    let mut parts = numbers.split('.').map(str::parse);
    let mut part = || parts.next()?.ok();
    Some((part()?, part()?, part()?, !pre))
}

/// Whether the API server serves the kinds at all.
pub async fn is_served(ctx: &Context) -> Result<bool, Error> {
    let served = served(ctx).await?;
    Ok(REQUIRED.iter().all(|plural| served.iter().any(|s| s == plural)))
}
