//! The releases of the mesh that this operator can render: with which builders, images and steps. A revision is always rendered by
//! the builders of its own release, so that a newer operator does not restart an older mesh.

use std::{collections::BTreeMap, str::FromStr};

use meshwright_api::Blocker;

/// Builders of a revision's objects. Those of a release never change: golden files hold what they make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Builders {
    /// Since 0.1.0.
    V0_1,
    /// Since 0.2.0: pods say their version by label and environment, and a container that ends leaves its last words in its status.
    V0_2,
    /// Since 0.3.0: node proxies.
    V0_3,
}

impl Builders {
    /// Whether a revision has a proxy on every node.
    pub fn has_node_proxies(self) -> bool {
        self >= Self::V0_3
    }
}

/// A minor release. Patch releases are built like the first.
#[derive(Debug)]
struct Minor {
    number: (u32, u32),
    builders: Builders,
    /// First and last minor version of Kubernetes 1.x that it was tested with.
    kubernetes: (u32, u32),
    /// What a person must know before stepping to it from the minor release before.
    hazards: &'static [Hazard],
}

/// Something that behaves differently after a step.
#[derive(Debug)]
struct Hazard {
    reason: &'static str,
    message: &'static str,
    remedy: &'static str,
}

/// Every minor release, oldest first.
const MINORS: &[Minor] = &[
    Minor { number: (0, 1), builders: Builders::V0_1, kubernetes: (34, 38), hazards: &[] },
    Minor { number: (0, 2), builders: Builders::V0_2, kubernetes: (34, 38), hazards: &[] },
    Minor { number: (0, 3), builders: Builders::V0_3, kubernetes: (34, 38), hazards: &[] },
];

/// A version of the mesh, `major.minor.patch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text.split('.').map(|n| n.parse::<u32>().map_err(|_| ()));
        let mut next = || numbers.next().unwrap_or(Err(()));
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if numbers.next().is_none() { Ok(version) } else { Err(()) }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    fn of(self) -> Option<&'static Minor> {
        MINORS.iter().find(|m| m.number == (self.major, self.minor))
    }

    /// Its builders; none for a release that this operator does not render.
    pub fn builders(self) -> Option<Builders> {
        self.of().map(|m| m.builders)
    }

    /// Whether its revisions have a proxy on every node.
    pub fn has_node_proxies(self) -> bool {
        self.builders().is_some_and(Builders::has_node_proxies)
    }

    /// First and last minor version of Kubernetes 1.x that it was tested with.
    pub fn kubernetes(self) -> (u32, u32) {
        self.of().map_or((0, u32::MAX), |m| m.kubernetes)
    }

    /// Whether one can go from this version to that one at once: within a minor release, or to the next or the one before.
    pub fn may_step_to(self, to: Self) -> bool {
        let place = |v: Self| MINORS.iter().position(|m| m.number == (v.major, v.minor));
        match (place(self), place(to)) {
            (Some(from), Some(to)) => from.abs_diff(to) <= 1,
            // From a release that is no longer rendered every way leads forward.
            (None, Some(_)) => to > self,
            (_, None) => false,
        }
    }

    /// What a person must know about this step.
    pub fn hazards(self, to: Self) -> Vec<Blocker> {
        let of = to.of().filter(|m| m.number > (self.major, self.minor));
        let hazards = of.iter().flat_map(|m| m.hazards);
        let blocker = |h: &Hazard| Blocker {
            reason: h.reason.to_owned(),
            message: h.message.to_owned(),
            remedy: h.remedy.to_owned(),
        };
        hazards.map(blocker).collect()
    }
}

/// Images of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// The control plane.
    pub control_plane: String,
    /// The proxy.
    pub proxy: String,
}

/// The releases whose images this operator was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue(BTreeMap<Version, Images>);

/// An image that belongs to no release.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `<version>=<control plane>,<proxy>`.
    #[error("{0:?} is not a release: write VERSION=CONTROL_PLANE_IMAGE,PROXY_IMAGE")]
    Release(String),
    /// No builders for it.
    #[error("this operator has no builders for version {0}")]
    Unknown(Version),
    /// Half of it.
    #[error("{0} has no image of the {1}")]
    Incomplete(Version, &'static str),
    /// Nothing can be installed.
    #[error(
        "no release is known: set RELATED_IMAGE_CONTROL_PLANE_<VERSION> and RELATED_IMAGE_PROXY_<VERSION>"
    )]
    Empty,
}

const CONTROL_PLANE: &str = "RELATED_IMAGE_CONTROL_PLANE_";
const PROXY: &str = "RELATED_IMAGE_PROXY_";

impl Catalogue {
    /// Reads `RELATED_IMAGE_CONTROL_PLANE_0_2_0` and the like: under these names an operator's images are mirrored.
    pub fn from_env(variables: impl Iterator<Item = (String, String)>) -> Result<Self, Error> {
        let (mut planes, mut proxies) = (BTreeMap::new(), BTreeMap::new());
        for (name, image) in variables {
            let (images, rest) = if let Some(rest) = name.strip_prefix(CONTROL_PLANE) {
                (&mut planes, rest)
            } else if let Some(rest) = name.strip_prefix(PROXY) {
                (&mut proxies, rest)
            } else {
                continue;
            };
            let version = rest.replace('_', ".").parse().map_err(|()| Error::Release(name.clone()))?;
            images.insert(version, image);
        }
        let mut known = BTreeMap::new();
        for (version, control_plane) in planes {
            let proxy = proxies.remove(&version).ok_or(Error::Incomplete(version, "proxy"))?;
            version.builders().ok_or(Error::Unknown(version))?;
            known.insert(version, Images { control_plane, proxy });
        }
        if let Some(version) = proxies.into_keys().next() {
            return Err(Error::Incomplete(version, "control plane"));
        }
        if known.is_empty() { Err(Error::Empty) } else { Ok(Self(known)) }
    }

    /// The variable names of a release: its control plane's and its proxy's image.
    pub fn variables(version: Version) -> (String, String) {
        let number = version.to_string().replace('.', "_");
        (format!("{CONTROL_PLANE}{number}"), format!("{PROXY}{number}"))
    }

    /// A release that can be installed.
    pub fn images(&self, version: Version) -> Option<&Images> {
        self.0.get(&version)
    }

    /// The newest release.
    pub fn newest(&self) -> Option<Version> {
        self.0.keys().next_back().copied()
    }

    /// The newest release that can be stepped to from this one; none if that is no newer one.
    pub fn upgrade(&self, from: Version) -> Option<Version> {
        self.0.keys().rev().copied().find(|v| *v > from && from.may_step_to(*v))
    }

    /// All of them, oldest first.
    pub fn versions(&self) -> Vec<String> {
        self.0.keys().map(Version::to_string).collect()
    }

    /// For messages.
    pub fn list(&self) -> String {
        self.versions().join(", ")
    }
}

/// A release on the command line: `0.2.0=registry/control-plane@sha256:…,registry/proxy@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// Its images.
    pub images: Images,
}

impl FromStr for Release {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Release(text.to_owned());
        let (version, images) = text.split_once('=').ok_or_else(wrong)?;
        let (control_plane, proxy) = images.split_once(',').ok_or_else(wrong)?;
        let version: Version = version.parse().map_err(|()| wrong())?;
        version.builders().ok_or(Error::Unknown(version))?;
        let images = Images { control_plane: control_plane.to_owned(), proxy: proxy.to_owned() };
        Ok(Self { version, images })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    pub(crate) fn catalogue(versions: &[&str]) -> Catalogue {
        let variables = versions.iter().flat_map(|v| {
            let (control_plane, proxy) = Catalogue::variables(version(v));
            [(control_plane, format!("c:{v}")), (proxy, format!("p:{v}"))]
        });
        Catalogue::from_env(variables).unwrap()
    }

    #[test]
    fn releases_are_read_from_the_environment_and_half_ones_are_refused() {
        let known = catalogue(&["0.2.0", "0.1.0", "0.2.10", "0.2.9"]);
        assert_eq!(known.list(), "0.1.0, 0.2.0, 0.2.9, 0.2.10");
        assert_eq!(known.newest(), Some(version("0.2.10")));
        let half = [("RELATED_IMAGE_PROXY_0_1_0".to_owned(), "p".to_owned())];
        assert_eq!(
            Catalogue::from_env(half.into_iter()),
            Err(Error::Incomplete(version("0.1.0"), "control plane"))
        );
        assert_eq!(Catalogue::from_env(std::iter::empty()), Err(Error::Empty));
        let foreign = [("RELATED_IMAGE_CONTROL_PLANE_9_1_0", "c"), ("RELATED_IMAGE_PROXY_9_1_0", "p")];
        let foreign = foreign.map(|(n, i)| (n.to_owned(), i.to_owned()));
        assert_eq!(Catalogue::from_env(foreign.into_iter()), Err(Error::Unknown(version("9.1.0"))));
    }

    #[test]
    fn one_minor_up_or_down_at_a_time() {
        let (old, new) = (version("0.1.3"), version("0.2.0"));
        assert!(old.may_step_to(new) && new.may_step_to(old) && new.may_step_to(version("0.2.7")));
        assert!(!old.may_step_to(version("0.3.0")));
        assert!(version("0.0.9").may_step_to(old), "what is no longer rendered may go forward");
        assert!(new.may_step_to(version("0.3.0")) && version("0.3.0").may_step_to(new));
    }

    #[test]
    fn an_upgrade_is_the_newest_within_reach() {
        let known = catalogue(&["0.1.0", "0.2.0", "0.2.3"]);
        assert_eq!(known.upgrade(version("0.1.0")), Some(version("0.2.3")));
        assert_eq!(known.upgrade(version("0.2.3")), None);
    }

    #[test]
    fn a_release_on_the_command_line() {
        let release: Release = "0.2.3=r/c@sha256:1,r/p@sha256:2".parse().unwrap();
        assert_eq!((release.version, release.images.proxy.as_str()), (version("0.2.3"), "r/p@sha256:2"));
        for bad in ["0.2.3", "0.2=c,p", "0.2.3=c", "7.0.0=c,p"] {
            assert!(bad.parse::<Release>().is_err(), "{bad}");
        }
    }
}
