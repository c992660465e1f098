//! Inputs that follow from a seed.

use crate::backend::MAX_WEIGHT;

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators").
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A residue, every fourth at a border.
    pub(super) fn residue(&mut self, q: u32) -> u32 {
        match self.below(16) {
            0 => 0,
            1 => 1,
            2 => q - 1,
            3 => q / 2 + self.below(2) as u32,
            _ => self.below(q.into()) as u32,
        }
    }

    pub(super) fn weight(&mut self) -> i16 {
        self.below(2 * MAX_WEIGHT as u64 + 1) as i16 - MAX_WEIGHT
    }

    pub(super) fn constant(&mut self) -> f64 {
        let magnitude = (self.next() >> 11) as f64 * [1.0, 1024.0][self.below(2) as usize];
        if self.below(2) == 0 { -magnitude } else { magnitude }
    }
}
