//! One pod's way into the mesh and out of it, without I/O.
//!
//! In: its namespace is known → it has a certificate and Envoy its listeners → Envoy listens in it → its rules are set and tried → it is
//! captured, and reported. Out: it is reported no more → whoever sends to it has stopped → its new connections are left alone → its redirected
//! connections have ended → its listeners are closed → its rules are removed. No step back or forth ends a connection. While nobody can say
//! whether others still send to it, it is left alone after a while, and its listeners stay.

mod views;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use rand::Rng;
use tokio::time::Instant;

use crate::{backoff::Backoff, node::rules::Guard};

/// So long after a replica of the control plane saw that it is listed no more, nobody sends mutual TLS to a pod: every replica and node has it.
pub const GRACE: Duration = Duration::from_secs(10);
/// A control plane that is away for longer than this does not keep what a pod sends in. What it is sent may still come through us.
const UNTOLD: Duration = Duration::from_secs(60);
/// What is still connected through the proxy this long after its pod left is cut.
pub const PARTING: Duration = Duration::from_secs(3600);
/// Envoy closes a listener at once; one that is away has none.
const CLOSING: Duration = Duration::from_secs(5);
/// So long may connections in plaintext go on that were there before it was refused.
pub const NOTICE: Duration = Duration::from_secs(30);
/// How often the rules of a captured pod are looked at, give or take a quarter: a node's pods never all at once.
const CHECK: Duration = Duration::from_secs(300);
/// How soon the connections of a pod that leaves are counted again, at first.
const COUNT: Duration = Duration::from_secs(1);

/// What is to be done in the pod's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Job {
    /// See whether Envoy listens.
    AwaitListeners,
    /// While another one serves: shake hands with Envoy as a peer of the mesh would.
    Try,
    /// Set the rules, and try them.
    Redirect,
    /// See whether the rules are still there, and mend them.
    Check,
    /// Refuse other plaintext than before.
    Guard,
    /// The same before its redirection is ours, and when it goes: where that leads stays as it is.
    Refuse,
    /// End what is connected in plaintext that is refused now.
    Cut,
    /// Leave new connections alone.
    Part,
    /// Count redirected connections.
    Count,
    /// See whether Envoy listens no more.
    AwaitClosed,
    /// Remove the rules.
    Clear,
}

/// What the rest of the world says about a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// It is to be in the mesh.
    pub wanted: bool,
    /// We are who sets rules on this node.
    pub serves: bool,
    /// There is a certificate for its identity.
    pub certified: bool,
    /// Envoy has taken its listeners.
    pub opened: bool,
    /// The control plane has a report without it, and lists it no more.
    pub told: bool,
    /// All pods leave, whether anybody is there to say that or not.
    pub leaves: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sought,
    Opening,
    Open,
    Captured,
    Unlisted { since: Instant },
    Parting { deadline: Instant },
    Closing { deadline: Instant },
    Clearing,
    Gone,
}

/// See the module.
#[derive(Debug)]
pub struct Pod {
    stage: Stage,
    namespace: Option<PathBuf>,
    /// The rules in its namespace are ours, or may be.
    redirected: bool,
    /// The ports to which it was ever redirected.
    ports: BTreeSet<u16>,
    /// Plaintext that it is to refuse, whether the rules say so already, and when what is connected is ended.
    guard: Guard,
    guarded: bool,
    cut: Option<Instant>,
    /// What is under way. What was begun in another namespace does not count any more.
    job: Option<(Job, u64)>,
    jobs: u64,
    /// Nobody waits for its connections any more.
    hurries: bool,
    due: Instant,
    /// Since when it is listed no more.
    told_since: Option<Instant>,
    wakes: Option<Instant>,
    backoff: Backoff,
    problem: Option<String>,
    /// Envoy shook hands.
    tried: bool,
}

impl Pod {
    /// Nothing is known of it but that it is to be in the mesh.
    pub fn new(now: Instant) -> Self {
        Self {
            stage: Stage::Sought,
            namespace: None,
            redirected: false,
            ports: BTreeSet::new(),
            guard: Guard::default(),
            guarded: false,
            cut: None,
            job: None,
            jobs: 0,
            hurries: false,
            due: now,
            told_since: None,
            wakes: None,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(10)),
            problem: None,
            tried: false,
        }
    }

    /// There are rules in its namespace, set before by us or by who served before us.
    pub fn restore(&mut self, namespace: PathBuf, ports: impl IntoIterator<Item = u16>, now: Instant) {
        self.found(namespace, now);
        (self.redirected, self.guarded) = (true, false);
        self.ports.extend(ports);
    }

    /// Its namespace is there. One that is another than before has none of what the other had.
    pub fn found(&mut self, namespace: PathBuf, now: Instant) {
        if self.namespace.as_ref() == Some(&namespace) {
            return;
        }
        self.lost(now);
        self.namespace = Some(namespace);
    }

    /// Its namespace is gone, with everything in it.
    pub fn lost(&mut self, now: Instant) {
        self.namespace = None;
        (self.redirected, self.job, self.problem) = (false, None, None);
        self.ports.clear();
        self.go(Stage::Sought, now);
    }

    /// Goes for good as soon as what is under way has ended, whatever is connected.
    pub fn give_up(&mut self) {
        self.hurries = true;
    }

    /// What to do now, if anything. Its end is told by [`Pod::ended`].
    pub fn step(&mut self, seen: Seen, now: Instant) -> Option<(Job, u64)> {
        let told = seen.told && !seen.wanted;
        self.told_since = self.told_since.filter(|_| told).or(told.then_some(now));
        if self.job.is_some() {
            return None;
        }
        while let Some(next) = self.next(seen, now) {
            self.go(next, now);
        }
        if self.stage == Stage::Open && seen.serves && !self.tried {
            // Who has to serve now does not wait for what a handshake said.
            (self.problem, self.due, self.tried) = (None, now, true);
        }
        let (job, timer) = match self.stage {
            // Neither Envoy nor a certificate is needed for that. Also to refuse nothing any more: nobody knows what the rules say.
            Stage::Opening if self.redirected && seen.serves && !self.guarded => (Some(Job::Refuse), None),
            Stage::Opening => (Some(Job::AwaitListeners).filter(|_| seen.certified && seen.opened), None),
            Stage::Open if seen.serves => (Some(Job::Redirect), None),
            Stage::Open => (Some(Job::Try).filter(|_| !self.tried), None),
            Stage::Captured if !self.guarded => (Some(Job::Guard), None),
            // Rules that others left lead elsewhere, and go as they are.
            Stage::Unlisted { .. } if !self.guarded => (Some(Job::Refuse), None),
            Stage::Captured if self.cut.is_some_and(|cut| now >= cut) => (Some(Job::Cut), None),
            Stage::Captured => (Some(Job::Check), self.cut),
            Stage::Unlisted { since } => {
                let until = self.quiet().map_or(since + UNTOLD, |quiet| quiet.min(since + UNTOLD));
                (Some(Job::Part).filter(|_| now >= until), Some(until))
            }
            Stage::Parting { deadline } if self.may_close(seen, now) => (Some(Job::Count), Some(deadline)),
            Stage::Parting { .. } => (None, self.quiet()),
            Stage::Closing { deadline } => (Some(Job::AwaitClosed), Some(deadline)),
            Stage::Clearing => (Some(Job::Clear), None),
            Stage::Sought | Stage::Gone => (None, None),
        };
        // What waits for others is looked at when they say something.
        let later = job.filter(|_| now < self.due).map(|_| self.due);
        self.wakes = later.into_iter().chain(timer.filter(|timer| now < *timer)).min();
        let job = job.filter(|_| now >= self.due)?;
        self.wakes = None;
        // From here on it may be; after a crash nobody knows.
        self.redirected |= job == Job::Redirect;
        // What is said while it is under way is another thing to do.
        self.guarded |= matches!(job, Job::Redirect | Job::Guard | Job::Refuse);
        self.jobs += 1;
        self.job = Some((job, self.jobs));
        self.job
    }

    // Where the pod goes without anything to be done in its namespace.
    fn next(&mut self, seen: Seen, now: Instant) -> Option<Stage> {
        // Who serves now has the rules.
        self.redirected &= seen.serves;
        match self.stage {
            Stage::Clearing if !self.redirected => Some(Stage::Gone),
            Stage::Clearing | Stage::Gone if self.hurries => None,
            _ if self.hurries => Some(Stage::Clearing),
            Stage::Sought if self.namespace.is_some() => Some(Stage::Opening),
            Stage::Sought if !seen.wanted => Some(Stage::Gone),
            Stage::Opening | Stage::Open | Stage::Captured if !seen.wanted => Some(match self.redirected {
                true => Stage::Unlisted { since: now },
                false => Stage::Parting { deadline: now + PARTING },
            }),
            // Envoy was started anew before anything was redirected.
            Stage::Open if !seen.opened => Some(Stage::Opening),
            Stage::Captured if !seen.serves => Some(Stage::Open),
            Stage::Unlisted { .. } | Stage::Parting { .. } | Stage::Closing { .. } | Stage::Clearing
                if seen.wanted =>
            {
                Some(Stage::Opening)
            }
            Stage::Gone if seen.wanted => Some(Stage::Sought),
            Stage::Unlisted { .. } if !seen.serves => Some(Stage::Parting { deadline: now + PARTING }),
            Stage::Parting { deadline } if now >= deadline && self.may_close(seen, now) => {
                Some(Stage::Closing { deadline: now + CLOSING })
            }
            Stage::Closing { deadline } if now >= deadline => Some(Stage::Clearing),
            _ => None,
        }
    }

    /// From when on nobody sends to it, as far as that is known.
    fn quiet(&self) -> Option<Instant> {
        self.told_since.map(|since| since + GRACE)
    }

    /// Whether its listeners may be closed: where nobody can come through them any more, or everything goes.
    fn may_close(&self, seen: Seen, now: Instant) -> bool {
        !self.redirected || seen.leaves || self.quiet().is_some_and(|quiet| now >= quiet)
    }

    /// A job has ended: with 0 it is done, with anything else so much is left to wait for.
    pub fn ended(&mut self, job: (Job, u64), outcome: Result<usize, String>, now: Instant) {
        if self.job != Some(job) {
            return;
        }
        self.job = None;
        match outcome {
            Ok(0) => {
                self.problem = None;
                self.backoff.reset();
                let next = match job.0 {
                    Job::AwaitListeners => Stage::Open,
                    Job::Redirect => Stage::Captured,
                    Job::Part => Stage::Parting { deadline: now + PARTING },
                    Job::Count => Stage::Closing { deadline: now + CLOSING },
                    Job::AwaitClosed => Stage::Clearing,
                    Job::Clear => {
                        self.redirected = false;
                        Stage::Gone
                    }
                    Job::Check | Job::Guard | Job::Refuse | Job::Cut | Job::Try => self.stage,
                };
                self.go(next, now);
                match job.0 {
                    Job::Redirect | Job::Guard => self.cut = self.guard.refuses_any().then_some(now + NOTICE),
                    // Sockets that were handed over, and such, are seen late.
                    Job::Check if self.guard.refuses_any() => self.cut = self.cut.or(Some(now)),
                    Job::Cut => self.cut = None,
                    _ => {}
                }
                self.tried |= job.0 == Job::Try;
                let stays = matches!(job.0, Job::Redirect | Job::Check | Job::Guard | Job::Cut);
                // What it is to refuse may have changed meanwhile.
                if stays && self.stage == Stage::Captured && self.guarded {
                    let check = now + CHECK.mul_f64(rand::rng().random_range(0.75..=1.25));
                    self.due = self.cut.map_or(check, |cut| check.min(cut));
                }
            }
            Ok(_) if job.0 == Job::Count => self.due = now + self.backoff.next_delay().max(COUNT),
            Ok(_) => self.due = now + self.backoff.next_delay().min(COUNT),
            Err(problem) => {
                self.guarded &= !matches!(job.0, Job::Redirect | Job::Guard | Job::Refuse);
                self.problem = Some(problem);
                self.due = now + self.backoff.next_delay();
            }
        }
    }

    /// From now on it is to refuse this plaintext.
    pub fn guards(&mut self, guard: &Guard, now: Instant) {
        if self.guard != *guard {
            self.guard = guard.clone();
            self.guarded = false;
            self.due = now;
        }
    }

    /// Plaintext that it is to refuse.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    fn go(&mut self, stage: Stage, now: Instant) {
        // A timer that begins is no reason to hurry.
        if std::mem::discriminant(&stage) != std::mem::discriminant(&self.stage) {
            self.due = now;
            self.backoff.reset();
            self.tried = false;
        }
        self.stage = stage;
    }

    /// When to look at it again, if nothing happens.
    pub fn wakes(&self) -> Option<Instant> {
        self.wakes
    }
}

#[cfg(test)]
mod tests;
