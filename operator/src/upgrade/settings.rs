//! `spec.upgrade`, parsed: what comes out needs no further check.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use meshwright_api::{Approval, OnInsufficient, Probe, Strategy, Upgrade, UpgradeMode};
use meshwright_core::duration;
use meshwright_decisions::{
    analysis,
    windows::{Schedule, State, Window},
};

use crate::inspection::probe::{Ask, InvalidProbe};

/// Something in `spec.upgrade` that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a duration.
    #[error("{field} {value:?} is not a duration such as 2m or 1h30m")]
    Duration {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// The API's own validation was not asked.
    #[error(
        "spec.upgrade.steps: {after} % does not come after {before} %; each step must ask for more than the one before"
    )]
    Steps {
        /// A step's share.
        before: i32,
        /// The next one's.
        after: i32,
    },
    /// A threshold that every revision, or none, would miss.
    #[error("{field} {value:?} cannot be met: {why}")]
    Threshold {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A probe that is no request.
    #[error("spec.upgrade.analysis.probes: {0}")]
    Probe(#[from] InvalidProbe),
    /// A window that is none.
    #[error("spec.upgrade.windows: {0}")]
    Window(String),
}

/// How upgrades are carried out.
#[derive(Debug, Clone)]
pub struct Settings {
    /// In steps, or at once.
    pub strategy: Strategy,
    /// Newer releases are taken by themselves.
    pub automatic: bool,
    /// When a person must agree.
    pub approval: Approval,
    /// Shares in percent, each with its shortest time.
    pub steps: Vec<(i32, Duration)>,
    /// Most pods above the steady number, in percent of it.
    pub surge_percent: i32,
    /// How long all traffic goes to the new revision before it is the active one.
    pub bake: Duration,
    /// How long the old pods stay ready to go back to.
    pub keep_warm: Duration,
    /// Nothing new is begun.
    pub paused: bool,
    /// The spec is refused, so nothing new is begun either.
    pub refused: bool,
    /// When an automatic upgrade may begin; none is always.
    pub windows: Vec<Window>,
    /// Longest time that a step waits for a verdict.
    pub deadline: Duration,
    /// What to do then.
    pub on_insufficient: OnInsufficient,
    /// What a new revision is held against.
    pub analysis: analysis::Settings,
    /// Requests of our own.
    pub probes: Vec<Probe>,
}

impl Settings {
    /// Checks.
    pub fn parse(upgrade: &Upgrade) -> Result<Self, Error> {
        let mut steps: Vec<(i32, Duration)> = Vec::new();
        for step in &upgrade.steps {
            if let Some((before, _)) = steps.last().filter(|(before, _)| *before >= step.percent) {
                return Err(Error::Steps { before: *before, after: step.percent });
            }
            steps.push((step.percent, time("spec.upgrade.steps.hold", &step.hold)?));
        }
        let analysis = &upgrade.analysis;
        let settings = Self {
            strategy: upgrade.strategy,
            automatic: upgrade.mode == UpgradeMode::Automatic,
            approval: upgrade.approval,
            steps,
            surge_percent: upgrade.surge_percent.max(1),
            bake: time("spec.upgrade.bake", &upgrade.bake)?,
            keep_warm: time("spec.upgrade.keepWarm", &upgrade.keep_warm)?,
            paused: upgrade.paused,
            refused: false,
            windows: windows(upgrade)?,
            deadline: time("spec.upgrade.analysis.deadline", &analysis.deadline)?,
            on_insufficient: analysis.on_insufficient,
            analysis: analysis::Settings {
                max_error_increase: share(
                    "spec.upgrade.analysis.maxErrorIncrease",
                    &analysis.max_error_increase,
                )?,
                max_latency_increase: share(
                    "spec.upgrade.analysis.maxLatencyIncrease",
                    &analysis.max_latency_increase,
                )?,
                min_requests: u64::try_from(analysis.min_requests).unwrap_or(1).max(1),
            },
            probes: probes(&analysis.probes)?,
        };
        settings.longest_hold_fits()?;
        Ok(settings)
    }

    /// When the next window opens; none where one is open, or there are none.
    pub fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        let states: Vec<_> = self.windows.iter().map(|w| w.state(now)).collect();
        let opens = states.iter().map(|s| match s {
            State::Open { .. } => None,
            State::Closed { opens } => Some(*opens),
        });
        let opens: Option<Vec<Timestamp>> = opens.collect();
        opens?.into_iter().min()
    }

    /// As much of it as can be read, and defaults for the rest: what one field says wrongly must not change the others in the middle of
    /// an upgrade.
    pub fn parse_what_can_be(upgrade: &Upgrade) -> Option<Self> {
        let without_windows = Upgrade { windows: Vec::new(), ..upgrade.clone() };
        let mut without_probes = without_windows.clone();
        without_probes.analysis.probes.clear();
        let without_times = Upgrade {
            steps: Upgrade::default().steps,
            bake: Upgrade::default().bake,
            keep_warm: Upgrade::default().keep_warm,
            ..without_probes.clone()
        };
        [upgrade, &without_windows, &without_probes, &without_times, &Upgrade::default()]
            .into_iter()
            .find_map(|upgrade| Self::parse(upgrade).ok())
    }

    /// Why nothing new is begun.
    pub fn held(&self) -> Option<&'static str> {
        match (self.refused, self.paused) {
            (true, _) => Some("the spec to be mended: it is refused as it is"),
            (false, true) => Some("paused by spec.upgrade.paused"),
            (false, false) => None,
        }
    }

    // A step that must last longer than a verdict is waited for would never have one.
    fn longest_hold_fits(&self) -> Result<(), Error> {
        match self.steps.iter().find(|(_, hold)| *hold > self.deadline) {
            Some((_, hold)) => Err(Error::Threshold {
                field: "spec.upgrade.analysis.deadline",
                value: format!("{}s", self.deadline.as_secs()),
                why: if hold.as_secs() > 0 { "a step holds longer than that" } else { "it is no time" },
            }),
            None => Ok(()),
        }
    }
}

fn probes(probes: &[Probe]) -> Result<Vec<Probe>, Error> {
    for probe in probes {
        Ask::new(probe.port, &probe.host, &probe.path)?;
    }
    Ok(probes.to_vec())
}

fn windows(upgrade: &Upgrade) -> Result<Vec<Window>, Error> {
    let parse = |w: &meshwright_api::Window| {
        let schedule = Schedule::parse(&w.schedule, &w.duration, &w.time_zone);
        schedule.map_err(|e| Error::Window(format!("{:?} {} {}: {e}", w.schedule, w.duration, w.time_zone)))
    };
    upgrade.windows.iter().map(parse).collect()
}

// "0.5%" is 0.005. Nothing at all is a bar that noise alone would miss.
fn share(field: &'static str, text: &str) -> Result<f64, Error> {
    let wrong = |why| Error::Threshold { field, value: text.to_owned(), why };
    let number = text.strip_suffix('%').and_then(|n| n.parse::<f64>().ok());
    match number {
        Some(number) if number > 0.0 => Ok(number / 100.0),
        Some(_) => Err(wrong("two equal revisions differ by more than nothing; allow at least 0.01%")),
        None => Err(wrong("it is not a percentage such as 0.5%")),
    }
}

fn time(field: &'static str, text: &str) -> Result<Duration, Error> {
    duration::parse(text).ok_or_else(|| Error::Duration { field, value: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Upgrade)) -> String {
        let mut upgrade = Upgrade::default();
        change(&mut upgrade);
        Settings::parse(&upgrade).unwrap_err().to_string()
    }

    #[test]
    fn defaults_can_be_carried_out() {
        let settings = Settings::parse(&Upgrade::default()).unwrap();
        assert_eq!(settings.steps.iter().map(|s| s.0).collect::<Vec<_>>(), [10, 25, 50]);
        assert_eq!(settings.keep_warm, Duration::from_secs(600));
        assert!((settings.analysis.max_error_increase - 0.005).abs() < 1e-9);
    }

    #[test]
    fn one_wrong_field_changes_no_other() {
        let mut upgrade = Upgrade::default();
        upgrade.analysis.max_error_increase = "5%".to_owned();
        upgrade.windows = vec![meshwright_api::Window {
            schedule: "0 2 * * 0".into(),
            duration: "1h".into(),
            time_zone: "Europe/Berln".into(),
        }];
        assert!(Settings::parse(&upgrade).is_err());
        let errors =
            |upgrade: &Upgrade| Settings::parse_what_can_be(upgrade).unwrap().analysis.max_error_increase;
        assert!((errors(&upgrade) - 0.05).abs() < 1e-9);
        upgrade.bake = "soon".to_owned();
        assert!((errors(&upgrade) - 0.05).abs() < 1e-9);
        upgrade.analysis.max_error_increase = "much".to_owned();
        assert!((errors(&upgrade) - 0.005).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_met_is_refused_with_the_field() {
        assert!(refused(|u| u.steps[1].percent = 10).contains("10 % does not come after 10 %"));
        assert!(refused(|u| u.analysis.max_error_increase = "0%".into()).contains("maxErrorIncrease"));
        assert!(refused(|u| u.steps[0].hold = "1h".into()).contains("holds longer"));
        assert!(refused(|u| u.bake = "soon".into()).contains("spec.upgrade.bake"));
        let probe = |path: &str| {
            serde_json::from_value(
                serde_json::json!({"namespace": "a", "gateway": "a", "host": "a.example", "path": path}),
            )
        };
        Settings::parse(&Upgrade::default()).unwrap();
        assert!(refused(|u| u.analysis.probes = vec![probe("/a#b").unwrap()]).contains("/a#b"));
        let never = meshwright_api::Window {
            schedule: "0 0 30 2 *".into(),
            duration: "1h".into(),
            time_zone: "UTC".into(),
        };
        assert!(refused(|u| u.windows = vec![never]).contains("0 0 30 2 *"));
    }
}
