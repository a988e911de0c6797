//! The days and times of a schedule in its time zone.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::field::{DAY_OF_MONTH, DAY_OF_WEEK, Field, HOUR, MINUTE, MONTH};

/// Days after which the calendar repeats itself, days of the week included.
const CYCLE: usize = 146_097;
/// A time that the clock skips is moved on by as much; a zone that crossed the date line skipped a whole day.
const MOVED_DAYS: i64 = 2;

/// When windows open, as cron understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    minute: Field,
    hour: Field,
    day_of_month: Field,
    month: Field,
    day_of_week: Field,
    zone: TimeZone,
}

impl Schedule {
    /// The error says which field is wrong and why.
    pub(super) fn new(text: &str, zone: TimeZone) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minute, hour, day_of_month, month, day_of_week] = fields[..] else {
            return Err(format!("it has {} fields, not 5", fields.len()));
        };
        let field = |text, kind: super::field::Kind| {
            Field::parse(text, kind).map_err(|why| format!("{} {why}", kind.name))
        };
        Ok(Self {
            minute: field(minute, MINUTE)?,
            hour: field(hour, HOUR)?,
            day_of_month: field(day_of_month, DAY_OF_MONTH)?,
            month: field(month, MONTH)?,
            day_of_week: field(day_of_week, DAY_OF_WEEK)?,
            zone,
        })
    }

    /// Whether there is a day on which it opens.
    pub(super) fn opens(&self) -> bool {
        jiff::civil::date(2000, 1, 1).series(jiff::Span::new().days(1)).take(CYCLE).any(|day| self.on(day))
    }

    /// cron's rule: where both day fields restrict, one of them is enough.
    fn on(&self, day: Date) -> bool {
        let of_month = self.day_of_month.has(day.day().unsigned_abs().into());
        let of_week = self.day_of_week.has(day.weekday().to_sunday_zero_offset().unsigned_abs().into());
        let days = if self.day_of_month.star || self.day_of_week.star {
            of_month && of_week
        } else {
            of_month || of_week
        };
        days && self.month.has(day.month().unsigned_abs().into())
    }

    /// The moments at which it opens on a day, in their order.
    fn openings(&self, day: Date) -> Vec<Timestamp> {
        if !self.on(day) {
            return Vec::new();
        }
        let times =
            self.hour.values().flat_map(|hour| self.minute.values().map(move |minute| (hour, minute)));
        let mut openings: Vec<Timestamp> =
            times.flat_map(|(hour, minute)| self.at(day, hour, minute)).flatten().collect();
        openings.sort_unstable();
        openings.dedup();
        openings
    }

    /// A time that the clock shows twice is the first of both, unless it is one of every hour: that hour is another one. A time
    /// that the clock skips is as long after the last time before the gap as if there were none.
    fn at(&self, day: Date, hour: u32, minute: u32) -> [Option<Timestamp>; 2] {
        let time = day.at(hour as i8, minute as i8, 0, 0);
        let ambiguous = self.zone.to_ambiguous_timestamp(time);
        let twice = self.hour.star && matches!(ambiguous.offset(), AmbiguousOffset::Fold { .. });
        let later = if twice { ambiguous.later().ok() } else { None };
        [ambiguous.compatible().ok(), later]
    }

    fn day(&self, at: Timestamp) -> Date {
        at.to_zoned(self.zone.clone()).date()
    }

    /// The last moment at which it opened, from one moment to another, both included.
    pub(super) fn last(&self, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
        let (first, mut day) = (back(self.day(from), MOVED_DAYS), on(self.day(to), 1));
        let mut found: Option<Timestamp> = None;
        while day >= first {
            let openings = self.openings(day);
            found = found.max(openings.into_iter().rfind(|opening| (from..=to).contains(opening)));
            if found.is_some_and(|found| day <= back(self.day(found), MOVED_DAYS)) {
                break;
            }
            let Ok(before) = day.yesterday() else { break };
            day = before;
        }
        found
    }

    /// The first moment after this one at which it opens.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut day = back(self.day(after), MOVED_DAYS);
        for _ in 0..CYCLE {
            if let Some(found) = self.openings(day).into_iter().find(|opening| *opening > after) {
                // A day before may have been moved behind this one, never the other way round.
                return Some(
                    self.openings(on(day, 1))
                        .into_iter()
                        .find(|o| *o > after)
                        .map_or(found, |o| o.min(found)),
                );
            }
            day = day.tomorrow().ok()?;
        }
        None
    }
}

fn back(day: Date, days: i64) -> Date {
    day.saturating_sub(jiff::Span::new().days(days))
}

fn on(day: Date, days: i64) -> Date {
    day.saturating_add(jiff::Span::new().days(days))
}
