use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{Error, Schedule, State, Window};

fn window(schedule: &str, duration: &str, zone: &str) -> Window {
    Schedule::parse(schedule, duration, zone).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn opens(window: &Window, now: &str) -> String {
    match window.state(at(now)) {
        State::Closed { opens } => opens.to_string(),
        State::Open { until } => panic!("open until {until}"),
    }
}

fn until(window: &Window, now: &str) -> String {
    match window.state(at(now)) {
        State::Open { until } => until.to_string(),
        State::Closed { opens } => panic!("closed until {opens}"),
    }
}

#[test]
fn a_window_is_open_from_its_time_for_its_duration() {
    let window = window("0 2 * * sat", "4h", "UTC");
    assert_eq!(opens(&window, "2026-11-20T12:00:00Z"), "2026-11-21T02:00:00Z");
    assert_eq!(until(&window, "2026-11-21T02:00:00Z"), "2026-11-21T06:00:00Z");
    assert_eq!(until(&window, "2026-11-21T05:59:59Z"), "2026-11-21T06:00:00Z");
    assert_eq!(opens(&window, "2026-11-21T06:00:00Z"), "2026-11-28T02:00:00Z");
}

#[test]
fn fields_have_lists_ranges_steps_and_names() {
    let lists = window("5,10-20/5 8 * * *", "1m", "UTC");
    for (now, next) in [("08:00", "08:05"), ("08:06", "08:10"), ("08:11", "08:15"), ("08:16", "08:20")] {
        let (now, next) = (format!("2026-01-05T{now}:00Z"), format!("2026-01-05T{next}:00Z"));
        assert_eq!(opens(&lists, &now), next);
    }
    let names = window("0 0 1 JAN,jul *", "1h", "UTC");
    assert_eq!(opens(&names, "2026-02-01T00:00:00Z"), "2026-07-01T00:00:00Z");
    let steps = window("*/20 * * * *", "1m", "UTC");
    assert_eq!(opens(&steps, "2026-01-05T08:21:00Z"), "2026-01-05T08:40:00Z");
    let weekend = window("0 0 * * fri-sun", "1h", "UTC");
    assert_eq!(opens(&weekend, "2026-11-21T12:00:00Z"), "2026-11-22T00:00:00Z", "a Sunday");
    assert_eq!(window("0 0 * * 7", "1h", "UTC"), window("0 0 * * 0", "1h", "UTC"));
}

#[test]
fn either_day_is_enough_where_both_are_restricted() {
    let either = window("0 0 13 * fri", "1h", "UTC");
    assert_eq!(opens(&either, "2026-01-07T00:00:00Z"), "2026-01-09T00:00:00Z", "a Friday");
    assert_eq!(opens(&either, "2026-01-10T00:00:00Z"), "2026-01-13T00:00:00Z", "a thirteenth");
    let both = window("0 0 13 * */5", "1h", "UTC");
    assert_eq!(
        opens(&both, "2026-01-07T00:00:00Z"),
        "2026-02-13T00:00:00Z",
        "a star with a step restricts nothing to cron"
    );
}

#[test]
fn a_leap_day_is_found_years_ahead() {
    let leap = window("0 0 29 2 *", "1h", "UTC");
    assert_eq!(opens(&leap, "2096-03-01T00:00:00Z"), "2104-02-29T00:00:00Z");
}

#[test]
fn a_skipped_time_opens_after_the_gap() {
    let window = window("30 2 * * *", "1h", "Europe/Berlin");
    assert_eq!(opens(&window, "2026-03-28T12:00:00Z"), "2026-03-29T01:30:00Z", "03:30 in summer time");
    assert_eq!(until(&window, "2026-03-29T02:00:00Z"), "2026-03-29T02:30:00Z");
}

#[test]
fn a_time_that_comes_twice_opens_once() {
    let window = window("30 2 * * *", "15m", "Europe/Berlin");
    assert_eq!(opens(&window, "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
    assert_eq!(opens(&window, "2026-10-25T00:50:00Z"), "2026-10-26T01:30:00Z");
}

#[test]
fn a_time_of_every_hour_opens_in_both_hours_that_look_alike() {
    let window = window("30 * * * *", "15m", "Europe/Berlin");
    assert_eq!(opens(&window, "2026-10-25T00:00:00Z"), "2026-10-25T00:30:00Z");
    assert_eq!(opens(&window, "2026-10-25T01:00:00Z"), "2026-10-25T01:30:00Z");
    assert_eq!(opens(&window, "2026-10-25T02:00:00Z"), "2026-10-25T02:30:00Z");
}

#[test]
fn a_day_that_a_zone_left_out_opens_on_the_next() {
    // Samoa crossed the date line.
    let window = window("0 12 30 12 *", "1h", "Pacific/Apia");
    assert_eq!(opens(&window, "2011-12-29T00:00:00Z"), "2011-12-30T22:00:00Z");
    assert_eq!(until(&window, "2011-12-30T22:30:00Z"), "2011-12-30T23:00:00Z");
}

#[test]
fn what_is_wrong_is_said() {
    let error = |schedule: &str| Schedule::parse(schedule, "1h", "UTC").unwrap_err().to_string();
    assert!(error("0 2 * *").contains("4 fields, not 5"), "{}", error("0 2 * *"));
    assert!(
        error("60 2 * * *").contains("minute \"60\": \"60\" is no number from 0 to 59"),
        "{}",
        error("60 2 * * *")
    );
    assert!(error("0 2 * * foo").contains("sun to sat"), "{}", error("0 2 * * foo"));
    assert!(error("0 5-2 * * *").contains("runs backwards"), "{}", error("0 5-2 * * *"));
    assert!(error("*/0 2 * * *").contains("above 0"), "{}", error("*/0 2 * * *"));
    assert!(error("5/10 2 * * *").contains("5-59"), "{}", error("5/10 2 * * *"));
    assert!(error("+5 2 * * *").contains("no number"), "{}", error("+5 2 * * *"));
    assert_eq!(Schedule::parse("30 2 30 2 *", "1h", "UTC"), Err(Error::NeverOpens("30 2 30 2 *".into())));
    assert!(Schedule::parse("0 2 31 4,6,9,11 *", "1h", "UTC").is_err());
    assert_eq!(Schedule::parse("0 2 * * *", "0s", "UTC"), Err(Error::Duration("0s".into())));
    assert_eq!(Schedule::parse("0 2 * * *", "1d", "UTC"), Err(Error::Duration("1d".into())));
    assert_eq!(
        Schedule::parse("0 2 * * *", "1h", "Mars/Olympus"),
        Err(Error::TimeZone("Mars/Olympus".into()))
    );
}

fn field(first: u32, last: u32) -> impl Strategy<Value = String> {
    let value = first..=last;
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => value.clone().prop_map(|v| v.to_string()),
        1 => (2..9_u32).prop_map(|step| format!("*/{step}")),
        2 => (value.clone(), value.clone()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (value.clone(), value).prop_map(|(a, b)| format!("{a},{b}")),
    ]
}

fn schedules() -> impl Strategy<Value = String> {
    (field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6))
        .prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
}

fn zones() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("UTC"),
        Just("Europe/Berlin"),
        Just("America/New_York"),
        Just("Australia/Lord_Howe"),
        Just("Africa/Cairo"),
        Just("Asia/Kathmandu"),
    ]
}

/// Moments of some years, many of them near changes of the clock.
fn moments() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        1_700_000_000..2_000_000_000_i64,
        1_774_700_000..1_774_900_000_i64,
        1_792_800_000..1_793_000_000_i64,
    ]
    .prop_map(|second| Timestamp::from_second(second).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_makes_it_panic(schedule in ".{0,40}", duration in "[0-9hms]{0,12}", zone in ".{0,20}") {
        let _ = Schedule::parse(&schedule, &duration, &zone);
    }

    #[test]
    fn it_is_closed_until_it_opens_and_open_at_that_moment(schedule in schedules(), zone in zones(), now in moments()) {
        let window = window(&schedule, "7m", zone);
        if let State::Closed { opens } = window.state(now) {
            prop_assert!(opens > now);
            let before = opens - SignedDuration::from_secs(1);
            prop_assert_eq!(window.state(before), State::Closed { opens });
            let until = opens + SignedDuration::from_mins(7);
            prop_assert_eq!(window.state(opens), State::Open { until });
        }
    }

    #[test]
    fn it_is_open_until_it_closes(schedule in schedules(), zone in zones(), now in moments()) {
        let window = window(&schedule, "90m", zone);
        if let State::Open { until } = window.state(now) {
            prop_assert!(until > now);
            let last = until - SignedDuration::from_secs(1);
            let open = matches!(window.state(last), State::Open { .. });
            prop_assert!(open, "{}", last);
        }
    }

    #[test]
    fn without_clock_changes_the_schedule_is_what_the_clock_shows(
        hour in 0..24_u32, minute in 0..60_u32, now in moments(),
    ) {
        let window = window(&format!("{minute} {hour} * * *"), "1h", "Asia/Kathmandu");
        let clock = now.in_tz("Asia/Kathmandu").unwrap();
        let since = (i64::from(clock.hour()) * 60 + i64::from(clock.minute()) - i64::from(hour * 60 + minute))
            .rem_euclid(24 * 60);
        prop_assert_eq!(matches!(window.state(now), State::Open { .. }), since < 60);
    }
}
