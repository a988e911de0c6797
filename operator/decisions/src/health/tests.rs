use super::*;

const MIB: u64 = 1024 * 1024;

/// Samples of a replica every five seconds for five minutes, each made from its age.
fn replica(pod: &str, started: i64, make: impl Fn(i64, &mut ReplicaHealth)) -> Vec<ReplicaHealth> {
    (0..=60)
        .map(|n| {
            let at = 1_000_000 + n * 5;
            let mut sample = ReplicaHealth {
                pod: pod.to_owned(),
                at,
                started,
                resident_bytes: 40 * MIB,
                streams_opened: 4,
                open_streams: 4,
                translations: 10,
                translation_seconds: 0.1,
                ..ReplicaHealth::default()
            };
            make(at - 1_000_000, &mut sample);
            sample
        })
        .collect()
}

fn canary(make: impl Fn(i64, &mut ReplicaHealth)) -> Vec<ReplicaHealth> {
    replica("new-0", 1_000_000 - 10, make)
}

fn baseline(make: impl Fn(i64, &mut ReplicaHealth)) -> Vec<ReplicaHealth> {
    replica("old-0", 0, make)
}

fn cause(canary: &[ReplicaHealth], baseline: &[ReplicaHealth]) -> Option<Cause> {
    examine(canary, baseline).map(|finding| finding.cause)
}

#[test]
fn healthy_replicas_have_no_finding() {
    assert_eq!(examine(&canary(|_, _| {}), &baseline(|_, _| {})), None);
    assert_eq!(examine(&[], &[]), None);
    assert_eq!(examine(&canary(|_, _| {}), &[]), None);
}

#[test]
fn a_leak_is_found_within_minutes() {
    let leaks = canary(|age, sample| sample.resident_bytes += age as u64 * MIB / 2);
    let finding = examine(&leaks, &baseline(|_, _| {})).unwrap();
    assert_eq!(finding.cause, Cause::MemoryGrows);
    assert!(finding.reason.contains("from 65 MiB to 190 MiB within 250 s"), "{}", finding.reason);
    let sooner: Vec<_> = leaks.into_iter().filter(|sample| sample.at <= 1_000_000 + 150).collect();
    assert_eq!(cause(&sooner, &[]), Some(Cause::MemoryGrows));
}

#[test]
fn caches_that_fill_are_no_leak() {
    let fills = canary(|age, sample| sample.resident_bytes += (age as u64).min(50) * 2 * MIB);
    assert_eq!(examine(&fills, &baseline(|_, _| {})), None);
}

#[test]
fn one_large_change_is_no_leak() {
    let step = canary(|age, sample| sample.resident_bytes += if age > 150 { 200 * MIB } else { 0 });
    assert_eq!(examine(&step, &baseline(|_, _| {})), None);
}

#[test]
fn growth_that_the_baseline_has_too_is_no_leak() {
    let grows = |age: i64, sample: &mut ReplicaHealth| sample.resident_bytes += age as u64 * MIB / 2;
    assert_eq!(examine(&canary(grows), &baseline(grows)), None);
}

#[test]
fn growth_by_new_streams_is_no_leak() {
    let busy = canary(|age, sample| {
        sample.open_streams += age as u64;
        sample.streams_opened += age as u64;
        sample.resident_bytes += age as u64 * MIB;
    });
    assert_eq!(examine(&busy, &baseline(|_, _| {})), None);
}

#[test]
fn noise_of_an_allocator_is_no_leak() {
    let noise = canary(|age, sample| sample.resident_bytes += (age as u64 * 7919 % 31) * MIB);
    assert_eq!(examine(&noise, &baseline(|_, _| {})), None);
}

/// So many refusals from this age on.
fn refuses(begin: i64, times: u64) -> impl Fn(i64, &mut ReplicaHealth) {
    move |age, sample| sample.configurations_refused = if age >= begin { times } else { 0 }
}

#[test]
fn refused_configuration_is_found_unless_the_baseline_has_it_too() {
    let refused = canary(refuses(100, 1));
    let finding = examine(&refused, &baseline(|_, _| {})).unwrap();
    assert_eq!(finding.cause, Cause::ConfigurationRefused);
    assert!(finding.reason.contains("configuration once, the old one's 0 times"), "{}", finding.reason);
    let both = baseline(refuses(105, 1));
    assert_eq!(cause(&refused, &both), None);
    assert_eq!(cause(&canary(refuses(100, 20)), &both), Some(Cause::ConfigurationRefused));
}

#[test]
fn configuration_that_was_refused_a_moment_ago_may_be_refused_by_the_baselines_proxies_too() {
    assert_eq!(cause(&canary(refuses(295, 1)), &baseline(|_, _| {})), None);
    assert_eq!(cause(&canary(refuses(290, 1)), &baseline(|_, _| {})), Some(Cause::ConfigurationRefused));
}

#[test]
fn what_was_refused_before_both_were_seen_or_while_the_baseline_is_not_says_nothing() {
    assert_eq!(cause(&canary(refuses(0, 1)), &baseline(|_, _| {})), None, "and since then mended, perhaps");
    assert_eq!(cause(&canary(refuses(100, 1)), &[]), None);
    let mut away = baseline(|_, _| {});
    away.truncate(20);
    assert_eq!(cause(&canary(refuses(100, 1)), &away), None);
}

#[test]
fn restarts_are_found_and_replaced_pods_are_none() {
    let start = |age: i64| 1_000_000 + age / 100 * 100;
    let crashes = canary(|age, sample| sample.started = start(age));
    assert_eq!(cause(&crashes, &baseline(|_, _| {})), Some(Cause::Restarts));
    assert_eq!(cause(&crashes, &baseline(|age, sample| sample.started = start(age))), None);
    let once = canary(|age, sample| sample.started = if age > 100 { 1_000_100 } else { 999_990 });
    assert_eq!(cause(&once, &baseline(|_, _| {})), None);
    let mut replaced = canary(|_, _| {});
    for (at, sample) in replaced.iter_mut().enumerate() {
        sample.pod = format!("new-{}", at / 20);
    }
    assert_eq!(cause(&replaced, &baseline(|_, _| {})), None);
}

#[test]
fn streams_that_end_again_and_again_are_found_and_new_ones_are_not() {
    let churns = canary(|age, sample| sample.streams_opened += age as u64 / 10);
    assert_eq!(cause(&churns, &baseline(|_, _| {})), Some(Cause::StreamsReopened));
    assert_eq!(cause(&churns, &baseline(|age, sample| sample.streams_opened += age as u64 / 10)), None);
    let grows = canary(|age, sample| {
        sample.streams_opened += age as u64 / 10;
        sample.open_streams += age as u64 / 10;
    });
    assert_eq!(cause(&grows, &baseline(|_, _| {})), None);
    let once = canary(|age, sample| sample.streams_opened += if age > 100 { 4 } else { 0 });
    assert_eq!(cause(&once, &baseline(|_, _| {})), None);
}

#[test]
fn slow_translations_are_found_unless_the_baseline_is_as_slow() {
    let takes = |seconds: f64| {
        move |age: i64, sample: &mut ReplicaHealth| {
            sample.translations += age as u64;
            sample.translation_seconds += age as f64 * seconds;
        }
    };
    assert_eq!(cause(&canary(takes(3.0)), &baseline(takes(0.1))), Some(Cause::TranslationsSlow));
    assert_eq!(cause(&canary(takes(3.0)), &baseline(takes(2.0))), None);
    assert_eq!(cause(&canary(takes(0.5)), &baseline(takes(0.01))), None, "half a second hurts nobody");
    assert_eq!(cause(&canary(takes(3.0)), &baseline(|_, _| {})), None, "nothing to compare with");
}
