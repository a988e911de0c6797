//! Streams through a gateway whose proxies are replaced: how many there are, how long they are watched, and what they come to.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::figures::Figure;
use crate::testing::{End, Stream};

/// Streams of each kind that are opened at a time: enough to be on every pod.
pub const EACH: usize = 6;
/// Of a drain that is not waited for to its end: what ends streams at once has done it by then.
pub const GLIMPSE: Duration = Duration::from_secs(25);

/// What the streams come to; after a whole drain at least one must have met the drain deadline.
///
/// # Errors
/// When one was cut before that, or none met it.
pub fn lived(streams: &[Stream], whole_drain: bool) -> Result<Vec<Figure>> {
    let early: Vec<String> =
        streams.iter().filter(|stream| stream.was_cut_early()).map(ToString::to_string).collect();
    ensure!(early.is_empty(), "{} of {} streams were cut: {early:?}", early.len(), streams.len());
    let outlived: Vec<Duration> =
        streams.iter().filter(|stream| stream.end != End::Ours).filter_map(Stream::outlived).collect();
    ensure!(!whole_drain || !outlived.is_empty(), "no stream met the drain deadline: {streams:?}");
    let mut figures = vec![
        Figure::count("streams", streams.len() as u64, "streams"),
        Figure::count("cut before the drain deadline", 0, "streams"),
    ];
    figures.extend(outlived.into_iter().map(|time| Figure::seconds("lived on in a draining pod", time)));
    Ok(figures)
}
