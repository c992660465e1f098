//! Real slots to ring coefficients and back.

use std::sync::Arc;

use rustdct::{Dct2, Dct3, DctPlanner};

use super::Scale;

/// Encodes N real slots into N coefficients: `v_k = a_0 + 2 sum_(0<j<N) a_j cos(pi j (2k+1) / (2N))`, a
/// Chebyshev series at the Chebyshev nodes (docs/scheme.md, "Slots and encoding"). Encoding is a
/// DCT-II, decoding a DCT-III.
#[derive(Clone)]
pub struct Encoder {
    n: usize,
    dct2: Arc<dyn Dct2<f64>>,
    dct3: Arc<dyn Dct3<f64>>,
}

impl Encoder {
    /// An encoder for `n` slots.
    pub fn new(n: usize) -> Self {
        let mut planner = DctPlanner::new();
        Encoder { n, dct2: planner.plan_dct2(n), dct3: planner.plan_dct3(n) }
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.n
    }

    /// Replaces N slot values by N coefficients at `scale`, each rounded to the nearest integer (half to even). The slots must
    /// be finite and at most `2^51 / scale` in mean magnitude, so that the integers are exact.
    ///
    /// # Panics
    /// If `values` does not have N entries.
    pub fn encode(&self, values: &mut [f64], scale: Scale) {
        assert_eq!(values.len(), self.n, "one value per slot");
        self.dct2.process_dct2(values);
        let factor = scale.value() / self.n as f64;
        values.iter_mut().for_each(|a| *a = nearest_integer(*a * factor));
    }

    /// Replaces N coefficients (as real numbers) by the N slot values that they carry at `scale`.
    ///
    /// # Panics
    /// If `coefficients` does not have N entries.
    pub fn decode(&self, coefficients: &mut [f64], scale: Scale) {
        assert_eq!(coefficients.len(), self.n, "one coefficient per slot");
        let factor = 2.0 / scale.value();
        coefficients.iter_mut().for_each(|a| *a *= factor);
        // rustdct's DCT-III halves its first input, as the series needs.
        self.dct3.process_dct3(coefficients);
    }
}

/// The integer nearest to `x`, half to even, for magnitudes up to 2^51: in `1.5 x 2^52 + x` the last digit stands for one, so that
/// the processor's own rounding does it. `f64::round_ties_even` is the same number, but becomes a call of `rint` where there is no
/// such instruction (x86-64 before SSE 4.1), and that branches on the sign and size of what is encrypted.
fn nearest_integer(x: f64) -> f64 {
    const SHIFT: f64 = 1.5 * (1u64 << 52) as f64;
    (x + SHIFT) - SHIFT
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("n", &self.n).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_round_to_the_nearest_integer_half_to_even(integer in -(1i64 << 51)..1 << 51, log in 0u32..52, part in -0.5..0.5f64) {
            let integer = (integer >> log) as f64;
            for x in [integer, integer + part, integer + 0.5, integer.next_up(), integer.next_down()] {
                prop_assert_eq!(nearest_integer(x), x.round_ties_even(), "{}", x);
            }
        }
    }
}
