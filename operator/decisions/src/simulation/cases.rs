//! The traffic and the faults that upgrades are simulated with.

use super::latencies::Shape;

/// One kind of upgrade.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    /// A sentence that says what it is.
    pub name: &'static str,
    /// What has to hold.
    pub kind: Kind,
    /// Pods of the canary and of the baseline in each step.
    pub steps: &'static [(usize, usize)],
    /// What clients and backends do.
    pub traffic: Traffic,
    /// What the canary does.
    pub fault: Fault,
}

/// What has to hold of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Both revisions are alike: at most one upgrade in a hundred may be rolled back.
    Equal,
    /// The canary is bad: at least 95 upgrades in a hundred must be rolled back from so many of its requests.
    Faulty {
        /// Requests of the canary in all steps together.
        requests: u64,
    },
}

/// What clients and backends do, to both sides alike unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// Requests per second through all pods.
    pub rate: f64,
    /// Times in which the rate is multiplied.
    pub rush: Spells,
    /// Share by which the rate goes up and down within a quarter of an hour; latency follows by half of it.
    pub drift: f64,
    /// How much the logarithm of a single pod's rate wanders.
    pub pod_rate: f64,
    /// Share of requests that backends fail.
    pub errors: f64,
    /// Mean number of failures that come together.
    pub cluster: f64,
    /// How much the logarithm of the share wanders.
    pub errors_wander: f64,
    /// How much it wanders for a single pod.
    pub pod_errors: f64,
    /// Times in which a share is added.
    pub outbreak: Spells,
    /// The same for a single pod, as from a client that stays with it.
    pub pod_outbreak: Spells,
    /// Share of requests that are answered with 4xx.
    pub client_errors: f64,
    /// Median latency in milliseconds.
    pub median: f64,
    /// Shape of the latencies.
    pub shape: Shape,
    /// How much the logarithm of the latency wanders.
    pub latency_wander: f64,
    /// How much it wanders for a single pod.
    pub pod_latency: f64,
    /// By how much pods differ for good, in latency and in failures.
    pub pods_differ: f64,
    /// The operator's own requests to each pod in five seconds, beside those of users.
    pub probes: u64,
}

/// Times that come and go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spells {
    /// Mean seconds between them; 0 is never.
    pub every: f64,
    /// Mean length in seconds.
    pub lasting: f64,
    /// What they do.
    pub strength: f64,
}

/// What is wrong with a canary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// Share of requests that it fails beyond what the backends do.
    pub failing: f64,
    /// Share of requests that it has no route for.
    pub no_route: f64,
    /// Factor of the latency.
    pub slower: f64,
    /// Milliseconds on top of the latency.
    pub milliseconds: f64,
}

impl Default for Fault {
    fn default() -> Self {
        NO_FAULT
    }
}

const NO_FAULT: Fault = Fault { failing: 0.0, no_route: 0.0, slower: 1.0, milliseconds: 0.0 };
/// Five per second.
const PROBES: u64 = 25;
const NEVER: Spells = Spells { every: 0.0, lasting: 0.0, strength: 0.0 };
/// 10, 25 and 50 % of pods of a large Gateway.
const LARGE: &[(usize, usize)] = &[(1, 9), (3, 9), (6, 6)];
/// The same steps where a pod is a quarter of all.
const SMALL: &[(usize, usize)] = &[(1, 3), (1, 3), (2, 2)];
/// One pod each, in every step: the least that can be compared.
const ONE_EACH: &[(usize, usize)] = &[(1, 1), (1, 1), (1, 1)];

const STEADY: Traffic = Traffic {
    rate: 100.0,
    rush: NEVER,
    drift: 0.0,
    pod_rate: 0.05,
    errors: 0.001,
    cluster: 1.0,
    errors_wander: 0.0,
    pod_errors: 0.0,
    outbreak: NEVER,
    pod_outbreak: NEVER,
    client_errors: 0.02,
    median: 20.0,
    shape: Shape { sigma: 0.5, tail: 0.01 },
    latency_wander: 0.05,
    pod_latency: 0.01,
    pods_differ: 0.03,
    probes: 0,
};

/// Everything that varies does so, together, in time and between pods; over time a tenth of a percent fails.
const ROUGH: Traffic = Traffic {
    rush: Spells { every: 40.0, lasting: 20.0, strength: 4.0 },
    drift: 0.3,
    pod_rate: 0.3,
    errors: 0.0005,
    cluster: 1.5,
    errors_wander: 0.7,
    pod_errors: 0.3,
    outbreak: Spells { every: 120.0, lasting: 20.0, strength: 0.003 },
    client_errors: 0.05,
    shape: Shape { sigma: 0.8, tail: 0.03 },
    latency_wander: 0.2,
    pod_latency: 0.04,
    ..STEADY
};

/// The same with backends that fail by the dozen now and then.
const WILD: Traffic =
    Traffic { errors: 0.001, outbreak: Spells { every: 120.0, lasting: 20.0, strength: 0.05 }, ..ROUGH };

const fn equal(name: &'static str, steps: &'static [(usize, usize)], traffic: Traffic) -> Case {
    Case { name, kind: Kind::Equal, steps, traffic, fault: NO_FAULT }
}

const fn faulty(
    name: &'static str,
    requests: u64,
    steps: &'static [(usize, usize)],
    traffic: Traffic,
    fault: Fault,
) -> Case {
    Case { name, kind: Kind::Faulty { requests }, steps, traffic, fault }
}

/// A tenth of a percent of errors becomes 1.1 %.
const ERRORS: Fault = Fault { failing: 0.01, ..NO_FAULT };
const SLOWER: Fault = Fault { slower: 1.2, ..NO_FAULT };

/// All cases.
pub const CASES: &[Case] = &[
    equal("equal, steady, no errors", LARGE, Traffic { errors: 0.0, ..STEADY }),
    equal("equal, steady, 0.1 % errors", LARGE, STEADY),
    equal("equal, steady, 2 % errors", SMALL, Traffic { errors: 0.02, ..STEADY }),
    equal("equal, steady, 1,000 requests/s", SMALL, Traffic { rate: 1000.0, errors: 0.02, ..STEADY }),
    equal("equal, one pod each", ONE_EACH, Traffic { rate: 50.0, cluster: 2.0, pod_latency: 0.03, ..STEADY }),
    equal("equal, errors in clusters", SMALL, Traffic { cluster: 3.0, ..STEADY }),
    equal("equal, errors in large clusters", LARGE, Traffic { cluster: 8.0, errors: 0.005, ..STEADY }),
    equal(
        "equal, wandering errors in clusters",
        LARGE,
        Traffic { errors: 0.02, cluster: 3.0, errors_wander: 0.7, pod_errors: 0.3, ..STEADY },
    ),
    equal(
        "equal, on and off",
        LARGE,
        Traffic { rush: Spells { every: 30.0, lasting: 15.0, strength: 10.0 }, pod_rate: 0.3, ..STEADY },
    ),
    equal(
        "equal, few long bursts of errors",
        SMALL,
        Traffic {
            outbreak: Spells { every: 300.0, lasting: 60.0, strength: 0.3 },
            pod_errors: 0.1,
            cluster: 1.5,
            ..STEADY
        },
    ),
    equal(
        "equal, bursts of errors at single pods",
        LARGE,
        Traffic { pod_outbreak: Spells { every: 900.0, lasting: 10.0, strength: 0.05 }, ..STEADY },
    ),
    equal("equal, sparse", SMALL, Traffic { rate: 0.2, errors: 0.02, ..STEADY }),
    equal("equal, sparse and bursty", SMALL, Traffic { rate: 0.2, errors: 0.02, ..WILD }),
    equal("equal, 2 requests/s", SMALL, Traffic { rate: 2.0, errors: 0.02, cluster: 1.5, ..STEADY }),
    equal(
        "equal, heavy-tailed latency",
        LARGE,
        Traffic { shape: Shape { sigma: 1.0, tail: 0.08 }, latency_wander: 0.4, pod_latency: 0.08, ..STEADY },
    ),
    equal("equal, narrow latency", SMALL, Traffic { shape: Shape { sigma: 0.15, tail: 0.01 }, ..STEADY }),
    equal("equal, busy and quiet hours", LARGE, Traffic { drift: 0.8, errors_wander: 0.5, ..STEADY }),
    equal("equal, everything at once", LARGE, ROUGH),
    equal("equal, everything at once, few pods", SMALL, Traffic { errors: 0.02, rate: 50.0, ..WILD }),
    equal("equal, everything at once, wild", LARGE, WILD),
    equal(
        "equal, probes, users stay with their pods",
        SMALL,
        Traffic { pod_rate: 1.0, probes: PROBES, ..STEADY },
    ),
    equal("equal, probes, sparse", SMALL, Traffic { rate: 0.2, errors: 0.02, probes: PROBES, ..WILD }),
    equal(
        "equal, probes, everything at once, few pods",
        SMALL,
        Traffic { errors: 0.02, rate: 50.0, probes: PROBES, ..WILD },
    ),
    equal("equal, everything at once, one pod each", ONE_EACH, Traffic { rate: 50.0, ..WILD }),
    equal("equal, everything at once, 500 requests/s", SMALL, Traffic { rate: 500.0, ..WILD }),
    faulty("errors 0.1 to 1.1 %", 3000, LARGE, STEADY, ERRORS),
    faulty("errors 0.1 to 1.1 %, few pods", 3000, SMALL, Traffic { rate: 50.0, ..STEADY }, ERRORS),
    faulty(
        "errors 0.1 to 1.1 %, half of the traffic",
        3000,
        &[(2, 2)],
        Traffic { rate: 40.0, ..STEADY },
        ERRORS,
    ),
    faulty("errors 0.1 to 1.1 %, slow traffic", 3000, LARGE, Traffic { rate: 20.0, ..STEADY }, ERRORS),
    faulty("errors 0.1 to 1.1 %, everything at once", 3000, LARGE, Traffic { rate: 20.0, ..ROUGH }, ERRORS),
    faulty(
        "2 % of requests answered with 503",
        3000,
        LARGE,
        Traffic { errors: 0.0, ..STEADY },
        Fault { failing: 0.02, ..NO_FAULT },
    ),
    faulty(
        "2 % of requests answered with 503, everything at once",
        3000,
        SMALL,
        Traffic { rate: 40.0, ..ROUGH },
        Fault { failing: 0.02, ..NO_FAULT },
    ),
    faulty("latency 20 % longer", 3000, LARGE, STEADY, SLOWER),
    faulty("latency 20 % longer, few pods", 3000, SMALL, Traffic { rate: 40.0, ..STEADY }, SLOWER),
    faulty("latency 20 % longer, everything at once", 6000, LARGE, Traffic { rate: 50.0, ..ROUGH }, SLOWER),
    faulty("100 ms more", 1000, LARGE, STEADY, Fault { milliseconds: 100.0, ..NO_FAULT }),
    faulty(
        "100 ms more, everything at once",
        3000,
        SMALL,
        Traffic { rate: 40.0, ..ROUGH },
        Fault { milliseconds: 100.0, ..NO_FAULT },
    ),
    faulty("5 % without a route", 1000, LARGE, STEADY, Fault { no_route: 0.05, ..NO_FAULT }),
    faulty(
        "5 % without a route, everything at once",
        3000,
        SMALL,
        Traffic { rate: 40.0, ..ROUGH },
        Fault { no_route: 0.05, ..NO_FAULT },
    ),
    faulty("all requests fail", 150, LARGE, STEADY, Fault { failing: 1.0, ..NO_FAULT }),
    faulty(
        "half of the requests fail",
        200,
        SMALL,
        Traffic { rate: 20.0, ..STEADY },
        Fault { failing: 0.5, ..NO_FAULT },
    ),
    faulty(
        "all requests fail, sparse",
        40,
        LARGE,
        Traffic { rate: 5.0, ..STEADY },
        Fault { failing: 1.0, ..NO_FAULT },
    ),
    faulty(
        "all requests fail, everything at once",
        400,
        SMALL,
        Traffic { rate: 20.0, ..ROUGH },
        Fault { failing: 1.0, ..NO_FAULT },
    ),
    faulty(
        "probes, errors 0.1 to 1.1 %",
        3000,
        SMALL,
        Traffic { rate: 50.0, probes: PROBES, ..STEADY },
        ERRORS,
    ),
    faulty(
        "probes, latency 20 % longer",
        3000,
        SMALL,
        Traffic { rate: 50.0, probes: PROBES, ..STEADY },
        SLOWER,
    ),
    faulty(
        "probes, 5 % without a route",
        1000,
        SMALL,
        Traffic { rate: 50.0, probes: PROBES, ..STEADY },
        Fault { no_route: 0.05, ..NO_FAULT },
    ),
];
