//! How long a session may take.

use std::time::Duration;

/// A number with `s`, `m` or `h`, such as `30m`.
///
/// # Errors
/// What is expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is no time: expected a number with s, m or h, such as 30m");
    let unit = text.chars().last().ok_or_else(expected)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(expected()),
    };
    let number: u64 = text.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| expected())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_known_and_required() {
        assert_eq!(parse("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse("45s"), Ok(Duration::from_secs(45)));
        for bad in ["", "30", "m", "-1m", "1d", "99999999999999999999h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
