//! Numbers that a seed decides: a repetition that failed is repeated exactly, whichever session runs it.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The numbers of one repetition of a row with this seed.
    pub fn of_repetition(seed: u64, repetition: u32) -> Self {
        let mut random = Self(seed ^ (u64::from(repetition) << 32));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..n`; 0 of none.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_repetition_has_its_own_numbers_each_time() {
        let of = |seed, repetition| {
            let mut random = Random::of_repetition(seed, repetition);
            [random.below(1000), random.below(1000), random.below(1000)]
        };
        assert_eq!(of(1, 7), of(1, 7));
        assert_ne!(of(1, 7), of(1, 8));
        assert_ne!(of(1, 7), of(2, 7));
        assert_eq!(Random::of_repetition(1, 1).below(0), 0);
    }
}
