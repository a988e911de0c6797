//! Random numbers of the shapes that traffic has.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A source of random numbers, the same for the same seed.
#[derive(Debug, Clone)]
pub(super) struct Random(SmallRng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// Between 0 and 1.
    pub fn uniform(&mut self) -> f64 {
        self.0.random()
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Mean 0, standard deviation 1.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Events when so many are expected.
    pub fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean > 50.0 {
            // The difference from the true distribution is far below what any test here could see.
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let (mut probability, mut events) = ((-mean).exp(), 0);
        let mut left = self.uniform();
        while left > probability && events < 200 {
            left -= probability;
            events += 1;
            probability *= mean / events as f64;
        }
        events
    }

    /// A size of 1 or more with this mean.
    pub fn geometric(&mut self, mean: f64) -> u64 {
        if mean <= 1.0 {
            return 1;
        }
        1 + ((1.0 - self.uniform()).ln() / (1.0 - 1.0 / mean).ln()) as u64
    }
}

/// A quantity that wanders around 0 and remembers where it was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wander {
    deviation: f64,
    memory: f64,
    pub now: f64,
}

impl Wander {
    /// `seconds`: after which a deviation has faded to a third; a step of [`Wander::go`] is a slot.
    pub fn new(deviation: f64, seconds: f64, random: &mut Random) -> Self {
        let memory = (-5.0 / seconds).exp();
        Self { deviation, memory, now: deviation * random.normal() }
    }

    pub fn go(&mut self, random: &mut Random) {
        if self.deviation > 0.0 {
            let fresh = self.deviation * (1.0 - self.memory * self.memory).sqrt();
            self.now = self.now * self.memory + fresh * random.normal();
        }
    }
}

/// Something that comes and goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spell {
    every: f64,
    lasting: f64,
    pub on: bool,
}

impl Spell {
    /// Mean seconds between two of them, and their mean length; `every` 0 is never.
    pub fn new(every: f64, lasting: f64, random: &mut Random) -> Self {
        let on = every > 0.0 && random.chance(lasting / (every + lasting));
        Self { every, lasting, on }
    }

    pub fn go(&mut self, random: &mut Random) {
        if self.every > 0.0 {
            let mean = if self.on { self.lasting } else { self.every };
            if random.chance(1.0 - (-5.0 / mean).exp()) {
                self.on = !self.on;
            }
        }
    }
}
