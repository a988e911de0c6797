//! Envoy's counts at one moment, and what happened between two of them.

use std::collections::{BTreeMap, HashMap};

use meshwright_xds::mesh::signals::{Kind, MAX_COUNTERS, Series, is_of_requests, parse, parse_whole};

use crate::stats::answer::Answer;

/// Values by how often they were recorded; in thousandths, so that they can be keys.
type Times = BTreeMap<u64, u64>;

/// What Envoy has counted since it started, by its full names.
#[derive(Debug, Default)]
pub struct Reading {
    counts: HashMap<String, u64>,
    times: HashMap<String, Times>,
    wholes: BTreeMap<Kind, u64>,
}

/// What happened.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// What grew, by how much.
    pub counts: Vec<(Series, u64)>,
    /// What was recorded in histograms: milliseconds, and how often.
    pub times: Vec<(Series, Vec<(f64, u64)>)>,
    /// What Envoy counted without labels, because it had too many.
    pub unlabelled: BTreeMap<Kind, u64>,
}

impl Reading {
    /// Reads Envoy's answer.
    pub fn parse(answer: &[u8]) -> serde_json::Result<Self> {
        let Answer { numbers, histograms } = Answer::parse(answer)?;
        let mut reading = Self::default();
        for (name, value) in numbers {
            match parse_whole(&name) {
                Some(kind) => drop(reading.wholes.insert(kind, value)),
                None => drop(reading.counts.insert(name, value)),
            }
        }
        for histogram in histograms {
            // In thousandths of milliseconds nothing that Envoy can record is lost.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let times = histogram.totals.iter().map(|bin| ((bin.middle() * 1000.0) as u64, bin.count));
            reading.times.insert(histogram.name, times.collect());
        }
        Ok(reading)
    }

    /// What happened since. What fell was made anew, and so was what was not there before.
    pub fn since(&self, before: &Self) -> Changes {
        let grown = |name: &String, value: u64| {
            let before = before.counts.get(name).copied().unwrap_or(0);
            value.checked_sub(before).unwrap_or(value)
        };
        let counts = self.counts.iter().map(|(name, value)| (name, grown(name, *value)));
        let counts =
            counts.filter(|(_, more)| *more > 0).filter_map(|(name, more)| Some((parse(name)?, more)));
        let times = self.times.iter().map(|(name, times)| (name, recorded(times, before.times.get(name))));
        let times =
            times.filter(|(_, more)| !more.is_empty()).filter_map(|(name, more)| Some((parse(name)?, more)));
        let (counts, times) = (counts.collect::<Vec<_>>(), times.collect());
        Changes { unlabelled: self.unlabelled(before, &counts), counts, times }
    }

    /// Where there is room for more nothing is missing: the two are not read in the same moment, so they differ a little all the time.
    fn unlabelled(&self, before: &Self, counts: &[(Series, u64)]) -> BTreeMap<Kind, u64> {
        let of_requests = self.counts.keys().filter(|name| is_of_requests(name)).count();
        let is_full = |kind: Kind| {
            let there = if kind == Kind::Requests { of_requests } else { self.counts.len() - of_requests };
            there >= usize::try_from(MAX_COUNTERS).unwrap_or(usize::MAX)
        };
        let full = self.wholes.iter().filter(|(kind, _)| is_full(**kind));
        let missing = full.map(|(kind, value)| {
            let before = before.wholes.get(kind).copied().unwrap_or(0);
            let labelled: u64 = counts.iter().filter(|(of, _)| of.kind == *kind).map(|(_, more)| more).sum();
            (*kind, value.saturating_sub(before).saturating_sub(labelled))
        });
        missing.filter(|(_, missing)| *missing > 0).collect()
    }
}

fn recorded(now: &Times, before: Option<&Times>) -> Vec<(f64, u64)> {
    let none = Times::new();
    let before = before.unwrap_or(&none);
    let fell = before.iter().any(|(value, count)| now.get(value).is_none_or(|now| now < count));
    let before = if fell { &none } else { before };
    let more = now.iter().map(|(value, count)| (value, count - before.get(value).unwrap_or(&0)));
    // Far below what a float cannot tell apart any more.
    #[allow(clippy::cast_precision_loss)]
    more.filter(|(_, count)| *count > 0).map(|(value, count)| (*value as f64 / 1000.0, count)).collect()
}
