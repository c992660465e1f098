//! Reproducible numbers for estimates and simulations.

/// A small generator for reproducible estimates; nothing secret comes near it.
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// 1 or -1.
    pub fn sign(&mut self) -> f64 {
        if self.word() >> 63 == 0 { 1.0 } else { -1.0 }
    }

    /// So many of them.
    pub fn signs(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| self.sign()).collect()
    }
}
