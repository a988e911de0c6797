//! What stands in the way of an upgrade, with the remedy for each. Pure: one small check after the other.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use meshwright_api::Blocker;

/// The mesh's namespace lets no node proxies run.
pub const POD_SECURITY: &str = "PodSecurity";

/// An upgrade takes hours at most; a certificate that ends within this may end in the middle of it.
const FAR: SignedDuration = SignedDuration::from_hours(24);

/// What the checks look at.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// What expires first, and when.
    pub earliest: Option<(String, Timestamp)>,
    /// Minor version of Kubernetes, 1.x.
    pub kubernetes: Option<u32>,
    /// First and last minor version of Kubernetes that the new release was tested with.
    pub supported: (u32, u32),
    /// Why the Gateway API's definitions cannot be used.
    pub gateway_api: Option<String>,
    /// Why the old control plane is not as it should be.
    pub control_plane: Option<String>,
    /// Gateway pods that wait for a node, by name.
    pub pending: Vec<String>,
    /// Gateways whose proxies are not ready, by name.
    pub unready: Vec<String>,
    /// Budgets of others on our pods: with two on a pod no eviction succeeds.
    pub foreign_budgets: Vec<String>,
    /// Proxies that go on with an older configuration, because Envoy refused the newest.
    pub behind: Vec<String>,
    /// Gateways whose proxies are left as they are, and why.
    pub unmanaged: Vec<String>,
    /// Why the mesh's namespace refuses the node proxies of the new release, and the way out.
    pub pod_security: Option<(String, String)>,
    /// Pods are in the mesh, and the new release has no node proxies.
    pub leaving: bool,
    /// What is known to be dangerous about this step, from the catalogue.
    pub hazards: Vec<Blocker>,
}

/// Everything that stands in the way.
pub fn blockers(sight: &Sight, now: Timestamp) -> Vec<Blocker> {
    let checks = [
        certificates(sight, now),
        kubernetes(sight),
        sight.gateway_api.as_ref().map(|why| {
            found(
                "GatewayAPIUnusable",
                why.clone(),
                "install the CustomResourceDefinitions that it names".to_owned(),
            )
        }),
        sight.control_plane.as_ref().map(|why| {
            let remedy =
                "wait for it, or mend it; if the new revision is the cure, acknowledge this".to_owned();
            found("BaselineUnavailable", why.clone(), remedy)
        }),
        pending(sight),
        list(
            "ProxiesNotReady",
            "gateways without all of their proxies ready",
            &sight.unready,
            "see the pods' events",
        ),
        list(
            "ForeignBudget",
            "PodDisruptionBudgets of others select gateway pods, so that no eviction of them succeeds",
            &sight.foreign_budgets,
            "delete them; every Gateway has a budget of its own",
        ),
        list(
            "ConfigurationRefused",
            "proxies go on with an older configuration, because Envoy refused the newest",
            &sight.behind,
            "mend the Gateway or route that says so in its status",
        ),
        list(
            "GatewayNotFollowing",
            "gateways whose proxies no upgrade reaches",
            &sight.unmanaged,
            "mend what each of them says, or finish its deletion",
        ),
        sight.pod_security.as_ref().map(|(why, remedy)| found(POD_SECURITY, why.clone(), remedy.clone())),
        leaving(sight),
    ];
    checks.into_iter().flatten().chain(sight.hazards.iter().cloned()).collect()
}

fn found(reason: &str, message: String, remedy: String) -> Blocker {
    Blocker { reason: reason.to_owned(), message, remedy }
}

fn list(reason: &str, what: &str, names: &[String], remedy: &str) -> Option<Blocker> {
    (!names.is_empty()).then(|| found(reason, format!("{what}: {}", names.join(", ")), remedy.to_owned()))
}

fn certificates(sight: &Sight, now: Timestamp) -> Option<Blocker> {
    let (what, until) = sight.earliest.as_ref()?;
    let remedy = "wait for its renewal; kubectl mesh check says why it is late".to_owned();
    (until.duration_since(now) < FAR)
        .then(|| found("CertificateExpires", format!("{what} is valid until {until} only"), remedy))
}

fn kubernetes(sight: &Sight) -> Option<Blocker> {
    let (there, (first, last)) = (sight.kubernetes?, sight.supported);
    let message = format!("this is Kubernetes 1.{there}; the new version is made for 1.{first} to 1.{last}");
    let remedy = "upgrade Kubernetes first, or choose a version that is made for it".to_owned();
    (there < first || there > last).then(|| found("KubernetesVersion", message, remedy))
}

fn pending(sight: &Sight) -> Option<Blocker> {
    let remedy = "add nodes or lower requests: the upgrade needs room for more pods, not for fewer";
    list("NoRoom", "gateway pods wait for a node", &sight.pending, remedy)
}

fn leaving(sight: &Sight) -> Option<Blocker> {
    let message = "pods are in the mesh, and the new version has no node proxies: they would speak plaintext";
    let remedy = "take the label meshwright.io/mesh off them first, or acknowledge this";
    sight.leaving.then(|| found("NoNodeProxies", message.to_owned(), remedy.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Sight {
        let far = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 30);
        Sight {
            earliest: Some(("the root".to_owned(), far)),
            kubernetes: Some(37),
            supported: (34, 38),
            ..Sight::default()
        }
    }

    #[test]
    fn a_healthy_mesh_has_nothing_in_the_way() {
        assert_eq!(blockers(&healthy(), Timestamp::UNIX_EPOCH), []);
    }

    #[test]
    fn each_obstacle_is_named_with_its_remedy() {
        type Spoil = fn(&mut Sight, Timestamp);
        let soon = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(2);
        let bad: [(&str, Spoil); 10] = [
            ("CertificateExpires", |s, t| s.earliest = Some(("issuing certificate".to_owned(), t))),
            ("KubernetesVersion", |s, _| s.kubernetes = Some(39)),
            ("GatewayAPIUnusable", |s, _| s.gateway_api = Some("absent".to_owned())),
            ("BaselineUnavailable", |s, _| s.control_plane = Some("1 of 3 pods".to_owned())),
            ("NoRoom", |s, _| s.pending = vec!["shop/edge-1".to_owned()]),
            ("ForeignBudget", |s, _| s.foreign_budgets = vec!["shop/theirs".to_owned()]),
            ("GatewayNotFollowing", |s, _| s.unmanaged = vec!["shop/edge (being deleted)".to_owned()]),
            ("ConfigurationRefused", |s, _| s.behind = vec!["shop/edge-1".to_owned()]),
            ("PodSecurity", |s, _| {
                s.pod_security = Some(("restricted".to_owned(), "kubectl label".to_owned()))
            }),
            ("NoNodeProxies", |s, _| s.leaving = true),
        ];
        for (reason, spoil) in bad {
            let mut sight = healthy();
            spoil(&mut sight, soon);
            let found = blockers(&sight, Timestamp::UNIX_EPOCH);
            assert_eq!(found.iter().map(|b| b.reason.as_str()).collect::<Vec<_>>(), [reason]);
            assert!(!found[0].remedy.is_empty() && !found[0].message.is_empty());
        }
    }
}
