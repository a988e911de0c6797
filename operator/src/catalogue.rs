//! The releases of the mesh that this operator can render. A revision is always rendered by the builders of its own
//! release, so that a newer operator does not restart an older mesh.

/// A released version of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 0.1.0
    V0_1_0,
}

/// Every release, oldest first.
pub const KNOWN: &[Release] = &[Release::V0_1_0];

/// The release that an unset `spec.version` installs.
pub const NEWEST: Release = Release::V0_1_0;

impl Release {
    /// The release with this number.
    pub fn parse(version: &str) -> Option<Self> {
        KNOWN.iter().copied().find(|r| r.as_str() == version)
    }

    /// Its number.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
        }
    }
}

/// The known numbers, for messages.
pub fn known() -> String {
    KNOWN.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_the_last_known_one() {
        assert_eq!(KNOWN.last(), Some(&NEWEST));
        assert_eq!(Release::parse("0.1.0"), Some(Release::V0_1_0));
        assert_eq!(Release::parse("9.9.9"), None);
    }
}
