//! Four lanes that compilers turn into the vectors which every 64-bit machine has: plain Rust, but for one instruction that they
//! do not find. Digits are 15 bits wide, two inputs to a word.

use std::array::from_fn;

use super::{Dot, Kernel, Simd};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portable;

impl Portable {
    /// Every machine can run it.
    pub(crate) fn detect() -> Option<Self> {
        Some(Portable)
    }
}

const LANES: usize = 4;
type V = [u32; LANES];

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
    fn mul_estimated(self, a: V, factor: V, even: V, odd: V, q: V) -> V {
        let estimate = self.mul_high(a, even, odd);
        // In 64 bits, and cut to 32 once: see `mul_low`.
        lanes(|i| {
            let product = u64::from(a[i]) * u64::from(factor[i]);
            product.wrapping_sub(u64::from(estimate[i]) * u64::from(q[i])) as u32
        })
    }
    #[inline(always)]
    fn reduce_once(self, x: V, m: V) -> V {
        // `x - m` is from -2^31 to below 2^31, and its sign says which; a minimum takes more instructions.
        lanes(|i| {
            let less = x[i].wrapping_sub(m[i]);
            less.wrapping_add(m[i] & (less.cast_signed() >> 31).cast_unsigned())
        })
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
    const TAPS: usize = 2;
    const MAX_TAPS: usize = super::HALF_MAX_TAPS;
    const ROWS: [usize; 4] = [12, 6, 0, 0];
    const DIGIT_BITS: u32 = super::HALF_BITS;
    type Weight = u32;

    fn weight(taps: &[i16]) -> u32 {
        super::halves(taps)
    }
    #[inline(always)]
    fn digits(self, inputs: [V; 4]) -> [V; 4] {
        super::digits_of_pairs(self, inputs)
    }
    #[inline(always)]
    fn dot(self, sum: V, x: V, weight: u32) -> V {
        self.add(sum, multiply_halves(x, [weight; LANES]))
    }
}

/// The sum of the products of the lower and of the higher signed halves, lane by lane.
#[inline(always)]
fn multiply_halves(a: V, b: V) -> V {
    // Compilers do not find this one instruction, which every x86-64 machine has.
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_madd_epi16};
        use std::mem::transmute;
        // SAFETY: SSE2 belongs to x86-64; `V` and `__m128i` are 128 bits of which all values are valid.
        #[allow(unsafe_code)]
        unsafe {
            transmute::<__m128i, V>(_mm_madd_epi16(transmute::<V, __m128i>(a), transmute::<V, __m128i>(b)))
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    multiply_halves_in_rust(a, b)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
pub(super) fn multiply_halves_in_rust(a: V, b: V) -> V {
    let low = |x: u32| i32::from(x as i16);
    let high = |x: u32| x.cast_signed() >> 16;
    lanes(|i| (low(a[i]) * low(b[i])).wrapping_add(high(a[i]) * high(b[i])).cast_unsigned())
}
