//! Percentiles of a few hundred values.

/// The smallest value that at least `percent` of all values do not exceed; none of none.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn ranks_are_those_of_the_values_themselves() {
        let values: Vec<f64> = (1..=300).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), Some(150.0));
        assert_eq!(percentile(&values, 99.0), Some(297.0));
        assert_eq!(percentile(&values, 100.0), Some(300.0));
        assert_eq!(percentile(&[7.0], 1.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
