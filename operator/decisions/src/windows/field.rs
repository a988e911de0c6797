//! One of the five fields of a schedule.

/// What a field may say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub name: &'static str,
    pub first: u32,
    pub last: u32,
    /// Names of the values from `first` on.
    names: &'static [&'static str],
}

pub(super) const MINUTE: Kind = Kind { name: "minute", first: 0, last: 59, names: &[] };
pub(super) const HOUR: Kind = Kind { name: "hour", first: 0, last: 23, names: &[] };
pub(super) const DAY_OF_MONTH: Kind = Kind { name: "day of month", first: 1, last: 31, names: &[] };
pub(super) const MONTH: Kind = Kind {
    name: "month",
    first: 1,
    last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// Sunday is 0 and 7.
pub(super) const DAY_OF_WEEK: Kind = Kind {
    name: "day of week",
    first: 0,
    last: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// The values that a field allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    bits: u64,
    /// It begins with a star: as cron sees it, it restricts nothing, also when a step follows.
    pub star: bool,
}

impl Field {
    /// The error says what is wrong with which part.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, String> {
        let mut bits = 0;
        for part in text.split(',') {
            bits |= values(part, kind).map_err(|why| format!("{part:?}: {why}"))?;
        }
        Ok(Self { bits, star: text.starts_with('*') })
    }

    pub fn has(self, value: u32) -> bool {
        self.bits >> value & 1 == 1
    }

    /// The values in their order.
    pub fn values(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |value| self.has(*value))
    }
}

/// A value, a range or a star, the latter two with or without a step.
fn values(part: &str, kind: Kind) -> Result<u64, String> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0))),
        None => (part, None),
    };
    let step = match step {
        Some(None) => return Err("a step is a whole number above 0".to_owned()),
        Some(Some(step)) => Some(step),
        None => None,
    };
    let (from, to) = match range.split_once('-') {
        _ if range == "*" => (kind.first, kind.last),
        Some((from, to)) => {
            let (from, to) = (value(from, kind)?, value(to, kind)?);
            // fri-sun and 5-0: a week may end with Sunday.
            (from, if kind.names.len() == 7 && to == 0 && from > 0 { 7 } else { to })
        }
        None if step.is_some() => {
            return Err(format!("a step follows a range, such as {range}-{}", kind.last));
        }
        None => (value(range, kind)?, value(range, kind)?),
    };
    if from > to {
        return Err("the range runs backwards; write two ranges with a comma".to_owned());
    }
    let bits = (from..=to).step_by(step.unwrap_or(1) as usize).fold(0_u64, |bits, value| bits | 1 << value);
    // Sunday has two numbers.
    Ok(if kind.names.len() == 7 { bits & 0x7f | bits >> 7 & 1 } else { bits })
}

fn value(text: &str, kind: Kind) -> Result<u32, String> {
    let named = kind.names.iter().zip(kind.first..).find(|(name, _)| name.eq_ignore_ascii_case(text));
    let value = named.map(|(_, value)| value).or_else(|| number(text));
    value.filter(|value| (kind.first..=kind.last).contains(value)).ok_or_else(|| {
        let names = match kind.names {
            [first, .., last] => format!(", or {first} to {last}"),
            _ => String::new(),
        };
        format!("{text:?} is no number from {} to {}{names}", kind.first, kind.last)
    })
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
