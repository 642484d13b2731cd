//! Chance from a seed: SplitMix64 (Steele, Lea, Flood 2014), small, fast and the same everywhere.
//! **Invariant:** equal seeds, equal numbers.

/// A stream of numbers that follows from its seed alone.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Returns the stream of a seed.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// Returns an independent stream for one concern, so that what one part draws moves no other.
    pub fn stream(seed: u64, label: u64) -> Self {
        let mut rng = Rng(seed ^ label.wrapping_mul(0xd6e8_feb8_6659_fd93));
        Rng(rng.next())
    }

    /// Returns 64 bits.
    #[expect(clippy::should_implement_trait, reason = "an endless stream, never iterated")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias of a 64-bit product is far below anything a simulation could notice.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// Returns an index below `len`; 0 if `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Returns a number from `low` to `high`, both inclusive.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `per_million` times in a million.
    pub fn chance(&mut self, per_million: u64) -> bool {
        per_million > 0 && self.below(1_000_000) < per_million
    }

    /// Returns one of the items.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// Returns the position of a weight, drawn by weight.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut draw = self.below(weights.iter().sum());
        for (index, &weight) in weights.iter().enumerate() {
            if draw < weight {
                return index;
            }
            draw -= weight;
        }
        0
    }

    /// Returns a delay in nanoseconds: mostly near `typical`, now and then a hundred times as long.
    pub fn delay(&mut self, typical: u64) -> u64 {
        let scale = [1, 1, 1, 2, 5, 10, 100][self.weighted(&[40, 20, 20, 10, 6, 3, 1])];
        self.below(2 * typical * scale + 1)
    }
}
