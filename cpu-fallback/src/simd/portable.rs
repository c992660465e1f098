//! Four lanes in plain Rust, which compilers turn into the vectors that every 64-bit machine has. Weighted sums are exact in
//! `f64`: `127 * 2^30 * 65536 <= 2^53`.

use std::array::from_fn;

use super::{Dot, Kernel, Simd};
use crate::kernels::reduce::SumReducer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portable;

const LANES: usize = 4;
type V = [u32; LANES];

/// Adding `1.5 * 2^52` rounds to an integer, which then stands in two's complement in the low bits.
const ROUND: f64 = (3u64 << 51) as f64;

/// `from_fn` over the lanes.
#[inline(always)]
fn lanes<T>(f: impl Fn(usize) -> T) -> [T; LANES] {
    from_fn(f)
}

impl Simd for Portable {
    const LANES: usize = LANES;
    const LAYERS: u32 = 2;
    const LAST_LAYERS: u32 = 2;
    type Array = V;
    type V = V;
    type Wide = [u64; LANES];

    /// Not inlined, as the kernels of the other families, which have their own target features.
    #[inline(never)]
    fn run<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        kernel.compute(self)
    }

    #[inline(always)]
    fn arrays(x: &[u32]) -> (&[V], &[u32]) {
        x.as_chunks()
    }
    #[inline(always)]
    fn arrays_mut(x: &mut [u32]) -> (&mut [V], &mut [u32]) {
        x.as_chunks_mut()
    }

    #[inline(always)]
    fn splat(self, x: u32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &V) -> V {
        *x
    }
    #[inline(always)]
    fn cycle<const PERIOD: usize>(self, words: &[u32; PERIOD]) -> V {
        lanes(|i| words[i % PERIOD])
    }
    #[inline(always)]
    fn store(self, x: V, to: &mut V) {
        *to = x;
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        lanes(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        lanes(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        lanes(|i| a[i].min(b[i]))
    }
    #[inline(always)]
    fn and(self, a: V, b: V) -> V {
        lanes(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn xor(self, a: V, b: V) -> V {
        lanes(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn shift_left(self, a: V, bits: u32) -> V {
        lanes(|i| a[i] << bits)
    }
    #[inline(always)]
    fn rotate_left(self, a: V, bits: u32) -> V {
        lanes(|i| a[i].rotate_left(bits))
    }
    #[inline(always)]
    fn shift_right_signed(self, a: V, bits: u32) -> V {
        lanes(|i| (a[i].cast_signed() >> bits).cast_unsigned())
    }
    #[inline(always)]
    fn mul_low(self, a: V, b: V) -> V {
        // In 64 bits: SSE2 has no 32-bit low product.
        lanes(|i| (u64::from(a[i]) * u64::from(b[i])) as u32)
    }
    #[inline(always)]
    fn mul_high(self, a: V, even: V, odd: V) -> V {
        let factors = [even[0], odd[0], even[2], odd[2]];
        lanes(|i| ((u64::from(a[i]) * u64::from(factors[i])) >> 32) as u32)
    }
    #[inline(always)]
    fn odd(self, a: V) -> V {
        [a[1], a[1], a[3], a[3]]
    }

    #[inline(always)]
    fn mul_wide(self, a: V, b: V) -> [u64; LANES] {
        lanes(|i| u64::from(a[i]) * u64::from(b[i]))
    }
    #[inline(always)]
    fn add_wide(self, a: [u64; LANES], b: [u64; LANES]) -> [u64; LANES] {
        lanes(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn low(self, a: [u64; LANES]) -> V {
        a.map(|a| a as u32)
    }
    #[inline(always)]
    fn narrow(self, a: [u64; LANES], bits: u32) -> V {
        a.map(|a| (a >> bits) as u32)
    }

    #[inline(always)]
    fn zip(self, a: V, b: V) -> (V, V) {
        ([a[0], b[0], a[1], b[1]], [a[2], b[2], a[3], b[3]])
    }
    #[inline(always)]
    fn unzip(self, a: V, b: V) -> (V, V) {
        ([a[0], a[2], b[0], b[2]], [a[1], a[3], b[1], b[3]])
    }
    #[inline(always)]
    fn reverse(self, a: V) -> V {
        lanes(|i| a[LANES - 1 - i])
    }
}

impl Dot for Portable {
    const TAPS: usize = 1;
    const MAX_TAPS: usize = 1 << 16;
    const ROWS: [usize; 4] = [5, 0, 0, 0];
    const DIGIT_BITS: u32 = 32;
    const BIAS: u32 = 0;
    type Weight = f64;
    type Sum = [f64; LANES];

    fn weight(taps: &[i16]) -> f64 {
        taps[0].into()
    }
    #[inline(always)]
    fn digits(self, inputs: [V; 4]) -> [V; 4] {
        inputs
    }
    #[inline(always)]
    fn zero(self) -> [f64; LANES] {
        [0.0; LANES]
    }
    #[inline(always)]
    fn dot(self, sum: [f64; LANES], x: V, weight: f64) -> [f64; LANES] {
        // Going through `i32` vectorises everywhere and is exact below 2^31.
        lanes(|i| sum[i] + f64::from(x[i].cast_signed()) * weight)
    }
    #[inline(always)]
    fn residue<const PLANES: usize>(self, reducer: &SumReducer, sums: [[f64; LANES]; PLANES], offset: V) -> V {
        let q = reducer.modulus.value();
        let residue = |sum: f64| {
            // sum / q is below 2^44 and rounds to a neighbouring integer e; e q differs from sum by less than q, hence is
            // exact, and so is their difference.
            let e = (sum * reducer.inverse + ROUND) - ROUND;
            let centred = (sum - e * f64::from(q) + ROUND).to_bits() as u32;
            centred.min(centred.wrapping_add(q))
        };
        lanes(|i| reducer.modulus.add(residue(sums[0][i]), offset[i]))
    }
}
