//! How many pods a share of the traffic is.

/// Pods of the new revision that come closest to `percent` beside `steady` pods of the old one: at least one, and at most
/// `surge_percent` of the steady number (rounded up).
pub fn canary_pods(steady: i32, percent: i32, surge_percent: i32) -> i32 {
    let (steady, percent) = (i64::from(steady.max(1)), i64::from(percent.clamp(1, 99)));
    // share = c / (steady + c), so c = steady * p / (100 - p), to the nearest whole pod.
    let wanted = (2 * steady * percent + (100 - percent)) / (2 * (100 - percent));
    i32::try_from(wanted.clamp(1, i64::from(extra(steady, surge_percent)))).unwrap_or(i32::MAX)
}

fn extra(steady: i64, surge_percent: i32) -> i32 {
    let extra = (steady * i64::from(surge_percent.max(1)) + 99) / 100;
    i32::try_from(extra.max(1)).unwrap_or(i32::MAX)
}
