//! When an automatic upgrade may begin: a schedule of five fields as in crontab(5), how long it stays open, and a time zone.
//!
//! Fields are minute, hour, day of month, month and day of week; each is a star, a value, a range, a list of those, and ranges
//! and stars may have a step. Months and days of the week have names, Sunday is 0 and 7. Where neither day field begins with a
//! star, a day that meets one of them is enough, as cron has it. Clock changes: a time that is skipped opens as long after the
//! change as it would have been after it began (02:30 opens at 03:30); a time that comes twice opens at its first, unless the
//! hour is a star, when it opens at both. Durations are elapsed time, whatever the clock shows.

mod field;
mod schedule;
#[cfg(test)]
mod tests;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
pub use schedule::Schedule;

/// Why a window is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The schedule is none.
    #[error(
        "schedule {schedule:?} is not understood: {why}; it needs minute, hour, day of month, month and day of week, such as \"0 2 * * sat\""
    )]
    Schedule {
        /// What was written.
        schedule: String,
        /// What is wrong with it.
        why: String,
    },
    /// No day is ever meant.
    #[error("schedule {0:?} never opens: no year has such a day")]
    NeverOpens(String),
    /// The duration is none.
    #[error(
        "duration {0:?} is not understood: it needs hours, minutes or seconds above 0, such as \"4h\" or \"1h30m\""
    )]
    Duration(String),
    /// There is no such time zone.
    #[error("time zone {0:?} is not known: it needs an IANA name, such as \"Europe/Berlin\" or \"UTC\"")]
    TimeZone(String),
}

/// A time that comes again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    schedule: Schedule,
    duration: SignedDuration,
}

/// Whether a window is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is.
    Open {
        /// When it closes, unless it opens again before.
        until: Timestamp,
    },
    /// It is not.
    Closed {
        /// When it opens.
        opens: Timestamp,
    },
}

impl Schedule {
    /// Reads a window from what its user wrote.
    pub fn parse(schedule: &str, duration: &str, time_zone: &str) -> Result<Window, Error> {
        let zone = TimeZone::get(time_zone).map_err(|_| Error::TimeZone(time_zone.to_owned()))?;
        let length = meshwright_core::duration::parse(duration)
            .filter(|length| !length.is_zero())
            .and_then(|length| SignedDuration::try_from(length).ok())
            .ok_or_else(|| Error::Duration(duration.to_owned()))?;
        let parsed = Self::new(schedule, zone)
            .map_err(|why| Error::Schedule { schedule: schedule.to_owned(), why })?;
        if !parsed.opens() {
            return Err(Error::NeverOpens(schedule.to_owned()));
        }
        Ok(Window { schedule: parsed, duration: length })
    }
}

impl Window {
    /// Whether it is open.
    pub fn state(&self, now: Timestamp) -> State {
        // One that opened just as long ago is closed.
        let from = now.saturating_sub(self.duration).unwrap_or(Timestamp::MIN);
        let opened = self.schedule.last(from, now).filter(|opened| *opened > from);
        let after = |opened: Timestamp| opened.saturating_add(self.duration).unwrap_or(Timestamp::MAX);
        match opened {
            Some(opened) => State::Open { until: after(opened) },
            // The end of all time zones' data is the end of time.
            None => State::Closed { opens: self.schedule.next(now).unwrap_or(Timestamp::MAX) },
        }
    }
}
