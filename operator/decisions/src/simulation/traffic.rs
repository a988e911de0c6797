//! Made-up traffic, slot by slot, through pods of both sides.

use std::collections::BTreeMap;

use super::cases::{Fault, Traffic};
use super::latencies::Above;
use super::random::{Random, Spell, Wander};
use crate::analysis::{Flags, ProbeSlot, SLOT_SECONDS, Slot, bucket_end};

/// The last bucket that is filled; it ends at five minutes.
const LAST_BUCKET: u32 = 60;
/// Logarithm of the ratio of the ends of two buckets.
const BUCKET_LOG: f64 = 0.223_143_551_314_209_76;
/// Fewer requests than these are drawn one by one, more are drawn bucket by bucket.
const FEW: f64 = 20.0;
/// A share of requests that never comes up.
const NOTHING: f64 = 1e-7;
/// Failed handshakes of scanners, per pod and second.
const SCANNERS: f64 = 0.02;
/// Share of requests for hosts that do not exist.
const NO_ROUTE: f64 = 0.002;
/// Share of requests that fail at first and are retried with success.
const RETRIED: f64 = 0.0005;
/// Of failed requests, those whose connection to the backend failed.
const OF_CONNECTIONS: f64 = 0.3;

/// What all pods share: the clients and the backends.
#[derive(Debug)]
pub(super) struct World<'a> {
    traffic: &'a Traffic,
    above: &'a Above,
    rush: Spell,
    outbreak: Spell,
    errors: Wander,
    latency: Wander,
    phase: f64,
    slots: f64,
}

/// A proxy.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub canary: bool,
    rate: Wander,
    errors: Wander,
    latency: Wander,
    outbreak: Spell,
    /// What makes it differ from the others for good, about 1.
    slower: f64,
    failing: f64,
    clients: Wander,
    /// Share of the probes that the proxy counts a slot later than the operator, whose clock is another one.
    late: f64,
    counted_later: u64,
}

impl Pod {
    pub fn new(traffic: &Traffic, canary: bool, random: &mut Random) -> Self {
        let differ = |random: &mut Random| 1.0 + traffic.pods_differ * (2.0 * random.uniform() - 1.0);
        Self {
            canary,
            rate: Wander::new(traffic.pod_rate, 60.0, random),
            errors: Wander::new(traffic.pod_errors, 60.0, random),
            latency: Wander::new(traffic.pod_latency, 30.0, random),
            outbreak: Spell::new(traffic.pod_outbreak.every, traffic.pod_outbreak.lasting, random),
            slower: differ(random),
            failing: differ(random),
            clients: Wander::new(traffic.pod_errors, 60.0, random),
            late: random.uniform(),
            counted_later: 0,
        }
    }

    /// Adds the operator's own requests to what the proxy counts, and says what the operator knows of them.
    pub fn probe(&mut self, probes: u64, slot: &mut Slot) -> ProbeSlot {
        let later = (probes as f64 * self.late) as u64;
        let counted = probes - later + self.counted_later;
        self.counted_later = later;
        slot.requests += counted;
        slot.client_errors += counted;
        slot.flags.no_route += counted;
        if counted > 0 {
            *slot.latency.entry(0).or_default() += counted;
        }
        ProbeSlot { start: slot.start, sent: probes, unrouted: probes, unanswered: 0 }
    }
}

impl<'a> World<'a> {
    pub fn new(traffic: &'a Traffic, above: &'a Above, random: &mut Random) -> Self {
        Self {
            traffic,
            above,
            rush: Spell::new(traffic.rush.every, traffic.rush.lasting, random),
            outbreak: Spell::new(traffic.outbreak.every, traffic.outbreak.lasting, random),
            errors: Wander::new(traffic.errors_wander, 60.0, random),
            latency: Wander::new(traffic.latency_wander, 60.0, random),
            phase: random.uniform(),
            slots: 0.0,
        }
    }

    /// Five seconds go by.
    pub fn go(&mut self, random: &mut Random) {
        self.rush.go(random);
        self.outbreak.go(random);
        self.errors.go(random);
        self.latency.go(random);
        self.slots += 1.0;
    }

    /// What one of `pods` pods reports of these five seconds.
    pub fn slot(&self, start: i64, pod: &mut Pod, pods: usize, fault: &Fault, random: &mut Random) -> Slot {
        let traffic = self.traffic;
        for wander in [&mut pod.rate, &mut pod.errors, &mut pod.latency, &mut pod.clients] {
            wander.go(random);
        }
        pod.outbreak.go(random);
        let hour = (std::f64::consts::TAU * (self.phase + self.slots * 5.0 / 900.0)).sin();
        let rush = if self.rush.on { traffic.rush.strength } else { 1.0 };
        let rate = traffic.rate / pods as f64 * rush * (1.0 + traffic.drift * hour) * pod.rate.now.exp();
        let none = Fault::default();
        let fault = if pod.canary { fault } else { &none };

        let log = self.latency.now
            + pod.latency.now
            + (pod.slower * fault.slower).ln()
            + traffic.drift * hour * 0.5;
        let (requests, latency) = self.latencies(rate * SLOT_SECONDS as f64, log, fault.milliseconds, random);

        let mut ratio = traffic.errors * (self.errors.now + pod.errors.now).exp() * pod.failing;
        if self.outbreak.on {
            ratio += traffic.outbreak.strength * pod.errors.now.exp() * pod.failing;
        }
        if pod.outbreak.on {
            ratio += traffic.pod_outbreak.strength;
        }
        let failed =
            clusters(requests, ratio, traffic.cluster, random) + part(requests, fault.failing, random);
        let failed = failed.min(requests);
        let no_route = part(requests, NO_ROUTE + fault.no_route, random);
        let clients = traffic.client_errors * pod.clients.now.exp();
        let client_errors =
            (clusters(requests, clients, traffic.cluster, random) + no_route).min(requests - failed);
        let flags = Flags {
            upstream_connection_failure: part(failed, OF_CONNECTIONS, random)
                + part(requests, RETRIED, random),
            no_route,
            no_healthy_upstream: part(failed, OF_CONNECTIONS / 2.0, random),
            retry_limit_exceeded: part(failed, OF_CONNECTIONS / 2.0, random),
            upstream_overflow: 0,
        };
        let tls_failures = random.poisson(SCANNERS * SLOT_SECONDS as f64);
        Slot { start, requests, failed, client_errors, flags, tls_failures, latency }
    }

    fn latencies(
        &self,
        expected: f64,
        log: f64,
        more: f64,
        random: &mut Random,
    ) -> (u64, BTreeMap<u32, u64>) {
        let first = (bucket_end(0) / self.traffic.median).ln() - log;
        let above = |bucket: u32| match bucket {
            LAST_BUCKET => 0.0,
            // Logarithms are most of what a simulation costs.
            _ if more == 0.0 => self.above.share(first + f64::from(bucket) * BUCKET_LOG),
            _ if bucket_end(bucket) <= more => 1.0,
            _ => self.above.share(((bucket_end(bucket) - more) / self.traffic.median).ln() - log),
        };
        let mut latency = BTreeMap::new();
        if expected < FEW {
            let requests = random.poisson(expected);
            for _ in 0..requests {
                let slower = random.uniform();
                let (mut from, mut to) = (0, LAST_BUCKET);
                while from < to {
                    let middle = (from + to) / 2;
                    if above(middle) <= slower { to = middle } else { from = middle + 1 }
                }
                *latency.entry(from).or_default() += 1;
            }
            return (requests, latency);
        }
        let (mut requests, mut before) = (0, 1.0);
        for bucket in 0..=LAST_BUCKET {
            let share = before - above(bucket);
            before -= share;
            let count = if share > NOTHING { random.poisson(expected * share) } else { 0 };
            if count > 0 {
                latency.insert(bucket, count);
                requests += count;
            }
            if before <= NOTHING {
                break;
            }
        }
        (requests, latency)
    }
}

/// Events in clusters of a mean size.
fn clusters(requests: u64, ratio: f64, size: f64, random: &mut Random) -> u64 {
    let clusters = random.poisson(requests as f64 * ratio.min(1.0) / size);
    (0..clusters).map(|_| random.geometric(size)).sum::<u64>().min(requests)
}

/// Each of some with a probability.
fn part(of: u64, probability: f64, random: &mut Random) -> u64 {
    if probability <= 0.0 || of == 0 {
        return 0;
    }
    if probability >= 1.0 {
        return of;
    }
    if probability < 0.05 && of > 20 {
        return random.poisson(of as f64 * probability).min(of);
    }
    (0..of).filter(|_| random.chance(probability)).count() as u64
}
