//! NEON: four lanes; digits are 15 bits wide, one input to a word.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::{Dot, Kernel, Simd};

/// Proof that the machine has NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neon(());

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

/// Calls intrinsics that take and return values only.
macro_rules! intrinsics {
    ($token:ident, $body:expr) => {{
        let _: Neon = $token;
        // SAFETY: the token proves that the machine has the instructions, and no pointers are involved.
        #[allow(unused_unsafe)]
        unsafe {
            $body
        }
    }};
}

impl Simd for Neon {
    const LANES: usize = 4;
    const LAYERS: u32 = 3;
    const LAST_LAYERS: u32 = 4;
    type Array = [u32; 4];
    type V = uint32x4_t;
    /// Lanes 0 and 1, and 2 and 3.
    type Wide = (uint64x2_t, uint64x2_t);

    #[inline(always)]
    fn run<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn compiled<K: Kernel<Neon>>(token: Neon, kernel: K) -> K::Output {
            kernel.compute(token)
        }
        // SAFETY: the token proves that the machine has this feature.
        unsafe { compiled(self, kernel) }
    }

    #[inline(always)]
    fn arrays(x: &[u32]) -> (&[[u32; 4]], &[u32]) {
        x.as_chunks()
    }
    #[inline(always)]
    fn arrays_mut(x: &mut [u32]) -> (&mut [[u32; 4]], &mut [u32]) {
        x.as_chunks_mut()
    }

    #[inline(always)]
    fn splat(self, x: u32) -> uint32x4_t {
        intrinsics!(self, vdupq_n_u32(x))
    }
    #[inline(always)]
    fn load(self, x: &[u32; 4]) -> uint32x4_t {
        // SAFETY: the token proves that the machine has the instruction, which reads the 16 bytes of the array, unaligned.
        unsafe { vld1q_u32(x.as_ptr()) }
    }
    #[inline(always)]
    fn cycle<const PERIOD: usize>(self, words: &[u32; PERIOD]) -> uint32x4_t {
        let at = words.as_ptr();
        // SAFETY: the token proves that the machine has the instructions; each arm reads the `4 PERIOD` bytes of the array,
        // unaligned.
        unsafe {
            match PERIOD {
                2 => {
                    let two = vld1_u32(at);
                    vcombine_u32(two, two)
                }
                4 => vld1q_u32(at),
                _ => unreachable!("2 or 4"),
            }
        }
    }
    #[inline(always)]
    fn store(self, x: uint32x4_t, to: &mut [u32; 4]) {
        // SAFETY: the token proves that the machine has the instruction, which writes the 16 bytes of the array, unaligned.
        unsafe { vst1q_u32(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn add(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        intrinsics!(self, vaddq_u32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        intrinsics!(self, vsubq_u32(a, b))
    }
    #[inline(always)]
    fn min(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        intrinsics!(self, vminq_u32(a, b))
    }
    #[inline(always)]
    fn and(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        intrinsics!(self, vandq_u32(a, b))
    }
    #[inline(always)]
    fn xor(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        intrinsics!(self, veorq_u32(a, b))
    }
    #[inline(always)]
    fn shift_left(self, a: uint32x4_t, bits: u32) -> uint32x4_t {
        intrinsics!(self, vshlq_u32(a, vdupq_n_s32(bits.cast_signed())))
    }
    #[inline(always)]
    fn rotate_left(self, a: uint32x4_t, bits: u32) -> uint32x4_t {
        // A shift to the left by a negative count.
        let right = intrinsics!(self, vshlq_u32(a, vdupq_n_s32(bits.cast_signed() - 32)));
        intrinsics!(self, vorrq_u32(self.shift_left(a, bits), right))
    }
    #[inline(always)]
    fn shift_right_signed(self, a: uint32x4_t, bits: u32) -> uint32x4_t {
        // A shift to the left by a negative count.
        intrinsics!(self, vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(a), vdupq_n_s32(-bits.cast_signed()))))
    }
    #[inline(always)]
    fn mul_low(self, a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        intrinsics!(self, vmulq_u32(a, b))
    }
    #[inline(always)]
    fn mul_high(self, a: uint32x4_t, even: uint32x4_t, odd: uint32x4_t) -> uint32x4_t {
        let (low, high) = self.mul_wide(a, intrinsics!(self, vtrn1q_u32(even, odd)));
        intrinsics!(self, vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)))
    }
    #[inline(always)]
    fn odd(self, a: uint32x4_t) -> uint32x4_t {
        intrinsics!(self, vrev64q_u32(a))
    }

    #[inline(always)]
    fn mul_wide(self, a: uint32x4_t, b: uint32x4_t) -> (uint64x2_t, uint64x2_t) {
        intrinsics!(self, (vmull_u32(vget_low_u32(a), vget_low_u32(b)), vmull_high_u32(a, b)))
    }
    #[inline(always)]
    fn add_wide(self, a: (uint64x2_t, uint64x2_t), b: (uint64x2_t, uint64x2_t)) -> (uint64x2_t, uint64x2_t) {
        intrinsics!(self, (vaddq_u64(a.0, b.0), vaddq_u64(a.1, b.1)))
    }
    #[inline(always)]
    fn low(self, (low, high): (uint64x2_t, uint64x2_t)) -> uint32x4_t {
        intrinsics!(self, vuzp1q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)))
    }
    #[inline(always)]
    fn narrow(self, (low, high): (uint64x2_t, uint64x2_t), bits: u32) -> uint32x4_t {
        let (low, high) = intrinsics!(self, {
            // A shift to the left by a negative count.
            let count = vdupq_n_s64(-i64::from(bits));
            (vshlq_u64(low, count), vshlq_u64(high, count))
        });
        self.low((low, high))
    }

    #[inline(always)]
    fn zip(self, a: uint32x4_t, b: uint32x4_t) -> (uint32x4_t, uint32x4_t) {
        intrinsics!(self, (vzip1q_u32(a, b), vzip2q_u32(a, b)))
    }
    #[inline(always)]
    fn unzip(self, a: uint32x4_t, b: uint32x4_t) -> (uint32x4_t, uint32x4_t) {
        intrinsics!(self, (vuzp1q_u32(a, b), vuzp2q_u32(a, b)))
    }
    #[inline(always)]
    fn reverse(self, a: uint32x4_t) -> uint32x4_t {
        intrinsics!(self, {
            let halves = vrev64q_u32(a);
            vextq_u32::<2>(halves, halves)
        })
    }
}

impl Dot for Neon {
    const TAPS: usize = 1;
    const MAX_TAPS: usize = super::HALF_MAX_TAPS;
    const ROWS: [usize; 4] = [12, 12, 0, 0];
    const DIGIT_BITS: u32 = super::HALF_BITS;
    type Weight = i32;

    fn weight(taps: &[i16]) -> i32 {
        taps[0].into()
    }
    #[inline(always)]
    fn digits(self, [a, ..]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
        intrinsics!(self, {
            let (low, high) = (vandq_u32(a, vdupq_n_u32(0x7fff)), vshrq_n_u32::<15>(a));
            [low, high, high, high]
        })
    }
    #[inline(always)]
    fn dot(self, sum: uint32x4_t, x: uint32x4_t, weight: i32) -> uint32x4_t {
        // Products and sums modulo 2^32 are the same for signed numbers.
        intrinsics!(self, vmlaq_n_u32(sum, x, weight.cast_unsigned()))
    }
}
