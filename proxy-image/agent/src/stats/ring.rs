//! The slots of the last hour.

use std::collections::BTreeMap;

use meshwright_proto::reports::Slot;

use super::slot;

/// How many slots an hour has.
const LENGTH: i64 = 720;

/// Slots in which something happened, by their start.
#[derive(Debug, Default)]
pub struct Ring(BTreeMap<i64, Slot>);

impl Ring {
    /// Adds to what is known of the slot and forgets what is too old, or, after the clock was set back, not yet.
    pub fn add(&mut self, slot: Slot, now: i64) {
        let start = slot.start;
        if !slot::is_empty(&slot) {
            slot::add(self.0.entry(start).or_insert_with(|| Slot { start, ..Slot::default() }), slot);
        }
        self.0.retain(|start, _| *start > now - LENGTH * slot::SECONDS && *start <= now);
    }

    /// From this slot on, which may have grown, or all; the newest last.
    pub fn since(&self, start: Option<i64>) -> Vec<Slot> {
        self.0.range(start.unwrap_or(i64::MIN)..).map(|(_, slot)| slot.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(start: i64, success: u64) -> Slot {
        Slot { start, success, latency: [(3, success)].into(), ..Slot::default() }
    }

    fn starts(ring: &Ring, since: Option<i64>) -> Vec<i64> {
        ring.since(since).iter().map(|slot| slot.start).collect()
    }

    #[test]
    fn slots_grow_and_empty_ones_are_left_out() {
        let mut ring = Ring::default();
        for more in [slot(10, 1), slot(15, 2), Slot { start: 20, ..Slot::default() }, slot(15, 3)] {
            ring.add(more, 25);
        }
        assert_eq!(ring.since(None), [slot(10, 1), slot(15, 5)]);
        assert_eq!(starts(&ring, Some(15)), [15]);
        assert_eq!(starts(&ring, Some(16)), [0; 0]);
    }

    #[test]
    fn an_hour_is_kept() {
        let mut ring = Ring::default();
        for start in (5..=36_000).step_by(5) {
            ring.add(slot(start, 1), start + 5);
        }
        assert_eq!(ring.since(None).len(), 719, "the slot of this moment is missing yet");
        ring.add(Slot { start: 38_000, ..Slot::default() }, 38_005);
        assert_eq!(starts(&ring, None)[0], 34_410, "what is old goes without news, too");
    }

    #[test]
    fn a_clock_that_is_set_leaves_no_slots_of_the_future() {
        let mut ring = Ring::default();
        ring.add(slot(1_000_000, 1), 1_000_005);
        ring.add(slot(5000, 2), 5005);
        assert_eq!(starts(&ring, None), [5000]);
        ring.add(slot(1_000_000, 3), 1_000_005);
        assert_eq!(starts(&ring, None), [1_000_000]);
    }
}
