//! Releases: which can be gone to from which, as the operator has it.

/// One minor release up or down, or within one.
pub fn is_one_step(from: &str, to: &str) -> bool {
    match (numbers(from), numbers(to)) {
        (Some(from), Some(to)) => from.0 == to.0 && from.1.abs_diff(to.1) <= 1,
        _ => true,
    }
}

/// The newest release that can be gone to from this one; none where it is the newest. `known` has the newest last.
pub fn newer<'a>(known: &'a [String], from: &str) -> Option<&'a str> {
    let newer = |to: &&String| numbers(to) > numbers(from) && is_one_step(from, to);
    known.iter().rev().find(newer).map(String::as_str)
}

/// Whether it came out before the other.
pub fn is_older(version: &str, other: &str) -> bool {
    numbers(version) < numbers(other)
}

fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_release_at_a_time_in_both_directions() {
        assert!(
            is_one_step("0.1.3", "0.2.0") && is_one_step("0.2.0", "0.1.3") && is_one_step("0.2.0", "0.2.9")
        );
        assert!(!is_one_step("0.1.3", "0.3.0") && !is_one_step("0.9.0", "1.0.0"));
    }

    #[test]
    fn the_newest_within_a_step_is_taken() {
        let known = ["0.1.0", "0.2.0", "0.2.10", "0.3.0"].map(str::to_owned);
        assert_eq!(newer(&known, "0.1.0"), Some("0.2.10"));
        assert_eq!(newer(&known, "0.2.10"), Some("0.3.0"));
        assert_eq!(newer(&known, "0.3.0"), None);
        assert_eq!(newer(&[], "0.1.0"), None);
    }
}
