//! The judgement of nodes that went over to another revision's proxy: whether connections between a workload and a Service go worse than they
//! did. A pure function of what the agents counted; called again and again while a wave lasts.
//!
//! # What is compared
//! Nodes are not alike, so there are no two sides at the same time: each pair of a workload and a Service is held against its own past on the
//! same nodes, from before they went over. Only what proxies cause counts: requests that got no answer of the application, failed handshakes
//! of mutual TLS, connections that reached nobody. What an application answers is left out.
//!
//! What got worse everywhere is nobody's doing here: the same pair on nodes that have not gone over, in the same time, is a second thing to be
//! held against. Of both the worse one counts.
//!
//! Not so with handshakes, which no application makes fail: a proxy that went over and refuses them is seen by callers on all nodes, so they
//! count wherever they fail.
//!
//! What was never called before has no past of its own: a proxy that does not know where a Service is tells of calls to nowhere instead. It is
//! held against all that the same workload called, and raises a doubt, which a person resolves: perhaps the workload has only now begun to call
//! what does not answer.
//!
//! # The test
//! Given the events of both times, each is of the later one with a probability that is known when nothing changed: its share of the trials. The
//! evidence is the mean likelihood ratio of "two, four, … times as much" against that. It may be looked at at any time: the probability that it
//! ever exceeds `1/a` is at most `a`. One in a hundred upgrades is divided among waves, pairs and metrics. Events come in bursts, so there must
//! be enough of it left without the slot that has most of them.

use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// Seconds that a slot covers.
pub const SLOT_SECONDS: i64 = 30;
/// After a node went over, for as long its connections and caches are like nothing later.
const WARM_UP: i64 = 15;
/// Agents report every few seconds: a slot that is over for as long is known.
const REPORTED: i64 = 10;
/// Where there is less traffic than is asked for, so many seconds with as much of it as before, or nearly so, are enough.
const ENOUGH: i64 = 60;
/// "Before" is so many seconds then: what was busy an hour ago need not be now, whoever serves it.
const RECENT: i64 = 60;
/// So much of the past is looked at, in seconds.
pub const PAST: i64 = 900;
/// Bound on the probability that an upgrade to an equal revision is rolled back by this.
const FALSE_ALARMS: f64 = 0.01;
/// So many times as much may have become of it.
const RISES: [f64; 5] = [2.0, 4.0, 16.0, 64.0, 512.0];
/// Evidence at which a rise is in doubt.
const DOUBT: f64 = 3.0;

/// What one node's proxy counted between a workload and a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairSeries {
    /// The node of the caller.
    pub node: String,
    /// Who calls whom, in words: `shop/cart to pay/api:8080`.
    pub pair: String,
    /// What happened, each start at most once, in any order.
    pub slots: Vec<Slot>,
}

/// What ended within [`SLOT_SECONDS`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// Unix seconds, a multiple of [`SLOT_SECONDS`].
    pub start: i64,
    /// HTTP requests.
    pub requests: u64,
    /// Of these, those without an answer of the application.
    pub failed: u64,
    /// Connections of other protocols.
    pub connections: u64,
    /// Of these, those that reached nobody.
    pub connections_failed: u64,
    /// Handshakes of mutual TLS that failed.
    pub tls_failures: u64,
}

/// What is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Wave {
    /// Nodes that have gone over, and when, in Unix seconds.
    pub moved: BTreeMap<String, i64>,
    /// When it is looked at, in Unix seconds. Slots that are not over, or not reported yet, do not count.
    pub now: i64,
    /// Waves of the upgrade that are judged.
    pub waves: usize,
    /// So much more of the requests may fail, as a ratio: 0.005 for half a percent.
    pub max_error_increase: f64,
    /// Fewest requests and connections, before and after, that pass.
    pub min_requests: u64,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Result {
    /// Nothing got worse.
    Pass,
    /// Something did.
    Fail,
    /// Nobody can say yet.
    Insufficient,
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What it comes to.
    pub result: Result,
    /// Why, in a sentence with the figures.
    pub reason: String,
    /// Requests and connections since the nodes went over.
    pub after: u64,
    /// Those of the same nodes before.
    pub before: u64,
}

#[derive(Debug, Clone, Copy)]
enum Metric {
    Requests,
    Connections,
    Handshakes,
}

const METRICS: [Metric; 3] = [Metric::Requests, Metric::Connections, Metric::Handshakes];

impl Metric {
    /// Trials and events.
    fn of(self, slot: &Slot) -> (u64, u64) {
        match self {
            Self::Requests => (slot.requests, slot.failed),
            Self::Connections => (slot.connections, slot.connections_failed),
            Self::Handshakes => (slot.requests + slot.connections, slot.tls_failures),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests that failed on the way",
            Self::Connections => "connections that reached nobody",
            Self::Handshakes => "failed handshakes of mutual TLS",
        }
    }
}

/// Trials and events of some time; `most` is the largest number of events in one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    trials: f64,
    events: f64,
    most: f64,
}

impl Sum {
    fn add(&mut self, (trials, events): (u64, u64)) {
        let events = events as f64;
        // A handshake may fail without a request, or several for one.
        self.trials += (trials as f64).max(events);
        self.events += events;
        self.most = self.most.max(events);
    }

    fn rate(&self) -> f64 {
        if self.trials > 0.0 { self.events / self.trials } else { 0.0 }
    }
}

/// One pair: the nodes that went over, before and after, and the others in the same time.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    before: [Sum; 3],
    after: [Sum; 3],
    others: [Sum; 3],
}

/// Place of the handshakes among the metrics.
const HANDSHAKES: usize = 2;

/// Judges.
pub fn judge(series: &[PairSeries], wave: &Wave) -> Verdict {
    let pairs = pairs(series, wave);
    let trials = |sums: &[Sum; 3]| sums[..HANDSHAKES].iter().map(|sum| sum.trials as u64).sum::<u64>();
    let all = |of: fn(&Pair) -> &[Sum; 3]| -> u64 { pairs.values().map(|pair| trials(of(pair))).sum() };
    let (before, after) = (all(|p| &p.before), all(|p| &p.after));
    let verdict = |result, reason| Verdict { result, reason, after, before };
    let looks = (wave.waves.max(1) * pairs.len().max(1) * METRICS.len()) as f64;
    let (mut doubt, all_of) = (None, of_sources(&pairs));
    for (name, pair) in &pairs {
        for (index, metric) in METRICS.into_iter().enumerate() {
            let (past, others, now) = (pair.before[index], pair.others[index], pair.after[index]);
            let known = if index != HANDSHAKES && others.rate() > past.rate() { others } else { past };
            let (known, whose) = match known.trials > 0.0 {
                true => (known, ""),
                false => (all_of.get(source(name)).map_or(known, |all| all[index]), " of all that it called"),
            };
            if now.rate() - known.rate() <= wave.max_error_increase || now.trials == 0.0 {
                continue;
            }
            let text = format!(
                "{name}: {} of {} {}, {:.2} %{whose} before",
                now.events,
                now.trials,
                metric.as_str(),
                100.0 * known.rate()
            );
            let is_rise =
                evidence(Sum { events: now.events - now.most, ..now }, known) >= looks / FALSE_ALARMS;
            let (has_past, may_be) = (whose.is_empty(), evidence(now, known) >= DOUBT);
            if is_rise && has_past {
                return verdict(Result::Fail, text);
            }
            if is_rise || (has_past && may_be) {
                doubt.get_or_insert(text);
            }
        }
    }
    let needed = wave.min_requests;
    if let Some(doubt) = doubt {
        return verdict(Result::Insufficient, format!("{doubt}, which may be chance"));
    }
    if before == 0 && after == 0 {
        let reason = "nothing was called from these nodes, before or after".to_owned();
        return verdict(Result::Pass, reason);
    }
    // A node that had little to do is not waited for to have more.
    let needed = needed.min(before);
    if after < needed && !is_as_busy(series, wave, after) {
        let reason = format!("{after} requests and connections since, of at least {needed}");
        return verdict(Result::Insufficient, reason);
    }
    verdict(Result::Pass, format!("nothing rose in {after} requests and connections, {before} before"))
}

fn pairs<'a>(series: &'a [PairSeries], wave: &Wave) -> BTreeMap<&'a str, Pair> {
    let first = wave.moved.values().copied().min().unwrap_or(wave.now);
    let mut pairs: BTreeMap<&str, Pair> = BTreeMap::new();
    for series in series {
        let pair = pairs.entry(series.pair.as_str()).or_default();
        let moved = wave.moved.get(&series.node).copied();
        for slot in &series.slots {
            let end = slot.start + SLOT_SECONDS;
            let since = moved.unwrap_or(first);
            let is_after = slot.start >= since + WARM_UP && end + REPORTED <= wave.now;
            let is_before = end <= since && slot.start >= since - PAST;
            let side = match moved {
                Some(_) if is_after => &mut pair.after,
                Some(_) if is_before => &mut pair.before,
                None if is_after => &mut pair.others,
                None if is_before => {
                    pair.before[HANDSHAKES].add(Metric::Handshakes.of(slot));
                    continue;
                }
                _ => continue,
            };
            side.iter_mut().zip(METRICS).for_each(|(sum, metric)| sum.add(metric.of(slot)));
            if moved.is_none() {
                pair.after[HANDSHAKES].add(Metric::Handshakes.of(slot));
            }
        }
    }
    pairs
}

/// Who calls, of a pair.
fn source(pair: &str) -> &str {
    pair.split_once(" to ").map_or(pair, |(source, _)| source)
}

/// What each workload called that is known: before, and on nodes that have not gone over.
fn of_sources<'a>(pairs: &BTreeMap<&'a str, Pair>) -> BTreeMap<&'a str, [Sum; 3]> {
    let mut all: BTreeMap<&str, [Sum; 3]> = BTreeMap::new();
    for (name, pair) in pairs {
        let sums = all.entry(source(name)).or_default();
        for (index, sum) in sums.iter_mut().enumerate() {
            // Handshakes of all nodes are among those from before.
            let others = if index == HANDSHAKES { Sum::default() } else { pair.others[index] };
            sum.trials += pair.before[index].trials + others.trials;
            sum.events += pair.before[index].events + others.events;
        }
    }
    all
}

/// Whether each node that went over has been looked at for [`ENOUGH`], and all of them had at least half as much to do as before.
fn is_as_busy(series: &[PairSeries], wave: &Wave, after: u64) -> bool {
    let mut expected = 0.0;
    for (node, since) in &wave.moved {
        let first = (since + WARM_UP + SLOT_SECONDS - 1).div_euclid(SLOT_SECONDS) * SLOT_SECONDS;
        let last = (wave.now - REPORTED).div_euclid(SLOT_SECONDS) * SLOT_SECONDS;
        if last - first < ENOUGH {
            return false;
        }
        let slots = series.iter().filter(|series| series.node == *node).flat_map(|series| &series.slots);
        let past = slots.filter(|slot| slot.start + SLOT_SECONDS <= *since && slot.start >= since - RECENT);
        let (began, trials) = past.fold((*since, 0), |(began, trials), slot| {
            (began.min(slot.start), trials + slot.requests + slot.connections)
        });
        if began < *since {
            expected += trials as f64 * (last - first) as f64 / (since - began) as f64;
        }
    }
    2.0 * after as f64 >= expected
}

/// How much more likely the events are when there are more of them now than before, than when not.
fn evidence(now: Sum, known: Sum) -> f64 {
    let all = now.trials + known.trials;
    if now.events <= 0.0 || all <= 0.0 {
        return 1.0;
    }
    let share = now.trials / all;
    let ratio = |rise: f64| {
        let events = now.events + known.events;
        now.events * rise.ln() - events * (1.0 + (rise - 1.0) * share).ln()
    };
    RISES.iter().map(|rise| ratio(*rise).min(700.0).exp()).sum::<f64>() / RISES.len() as f64
}
