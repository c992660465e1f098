//! AVX-512 with byte dot products (VNNI): sixteen lanes; digits are bytes, four inputs to a word.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Dot, Kernel, Simd};

/// Proof that the machine has AVX-512 F, BW, DQ, VL and VNNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        all.then_some(Avx512(()))
    }
}

/// Calls intrinsics that take and return values only.
macro_rules! intrinsics {
    ($token:ident, $body:expr) => {{
        let _: Avx512 = $token;
        // SAFETY: the token proves that the machine has the instructions, and no pointers are involved.
        unsafe { $body }
    }};
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const LAYERS: u32 = 4;
    const LAST_LAYERS: u32 = 4;
    type Array = [u32; 16];
    type V = __m512i;
    type Wide = (__m512i, __m512i);

    #[inline(always)]
    fn run<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn compiled<K: Kernel<Avx512>>(token: Avx512, kernel: K) -> K::Output {
            kernel.compute(token)
        }
        // SAFETY: the token proves that the machine has these features.
        unsafe { compiled(self, kernel) }
    }

    #[inline(always)]
    fn arrays(x: &[u32]) -> (&[[u32; 16]], &[u32]) {
        x.as_chunks()
    }
    #[inline(always)]
    fn arrays_mut(x: &mut [u32]) -> (&mut [[u32; 16]], &mut [u32]) {
        x.as_chunks_mut()
    }

    #[inline(always)]
    fn splat(self, x: u32) -> __m512i {
        intrinsics!(self, _mm512_set1_epi32(x.cast_signed()))
    }
    #[inline(always)]
    fn load(self, x: &[u32; 16]) -> __m512i {
        // SAFETY: the token proves that the machine has the instruction, which reads the 64 bytes of the array, unaligned.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn cycle<const PERIOD: usize>(self, words: &[u32; PERIOD]) -> __m512i {
        let at = words.as_ptr();
        // SAFETY: the token proves that the machine has the instructions; each arm reads the `4 PERIOD` bytes of the array,
        // unaligned.
        unsafe {
            match PERIOD {
                2 => _mm512_set1_epi64(at.cast::<i64>().read_unaligned()),
                4 => _mm512_broadcast_i32x4(_mm_loadu_si128(at.cast())),
                8 => _mm512_broadcast_i64x4(_mm256_loadu_si256(at.cast())),
                16 => _mm512_loadu_si512(at.cast()),
                _ => unreachable!("a power of two from 2 to 16"),
            }
        }
    }
    #[inline(always)]
    fn store(self, x: __m512i, to: &mut [u32; 16]) {
        // SAFETY: the token proves that the machine has the instruction, which writes the 64 bytes of the array, unaligned.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
    }
    #[inline(always)]
    fn gather(self, x: &[u32], indices: &[u32; 16]) -> __m512i {
        let indices = self.load(indices);
        // Indices are read as signed numbers.
        let len = i32::try_from(x.len()).unwrap_or(i32::MAX);
        let within = intrinsics!(self, _mm512_cmplt_epu32_mask(indices, _mm512_set1_epi32(len)));
        assert_eq!(within, 0xffff, "an index beyond {len} words");
        // SAFETY: the token proves that the machine has the instruction, and every index is below the length of `x`.
        unsafe { _mm512_i32gather_epi32::<4>(indices, x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(self, _mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(self, _mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(self, _mm512_min_epu32(a, b))
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(self, _mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(self, _mm512_xor_si512(a, b))
    }
    #[inline(always)]
    fn shift_left(self, a: __m512i, bits: u32) -> __m512i {
        intrinsics!(self, _mm512_sll_epi32(a, _mm_cvtsi32_si128(bits.cast_signed())))
    }
    #[inline(always)]
    fn rotate_left(self, a: __m512i, bits: u32) -> __m512i {
        intrinsics!(self, _mm512_rolv_epi32(a, _mm512_set1_epi32(bits.cast_signed())))
    }
    #[inline(always)]
    fn shift_right_signed(self, a: __m512i, bits: u32) -> __m512i {
        intrinsics!(self, _mm512_sra_epi32(a, _mm_cvtsi32_si128(bits.cast_signed())))
    }
    #[inline(always)]
    fn mul_low(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(self, _mm512_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn mul_high(self, a: __m512i, even: __m512i, odd: __m512i) -> __m512i {
        intrinsics!(self, high_halves(_mm512_mul_epu32(a, even), _mm512_mul_epu32(odd_lanes(a), odd)))
    }
    #[inline(always)]
    fn odd(self, a: __m512i) -> __m512i {
        intrinsics!(self, odd_lanes(a))
    }

    #[inline(always)]
    fn mul_wide(self, a: __m512i, b: __m512i) -> (__m512i, __m512i) {
        intrinsics!(self, (_mm512_mul_epu32(a, b), _mm512_mul_epu32(odd_lanes(a), odd_lanes(b))))
    }
    #[inline(always)]
    fn add_wide(self, a: (__m512i, __m512i), b: (__m512i, __m512i)) -> (__m512i, __m512i) {
        intrinsics!(self, (_mm512_add_epi64(a.0, b.0), _mm512_add_epi64(a.1, b.1)))
    }
    #[inline(always)]
    fn low(self, (even, odd): (__m512i, __m512i)) -> __m512i {
        intrinsics!(self, _mm512_mask_shuffle_epi32::<0xa0>(even, 0xaaaa, odd))
    }
    #[inline(always)]
    fn narrow(self, (even, odd): (__m512i, __m512i), bits: u32) -> __m512i {
        intrinsics!(self, {
            let even = _mm512_srl_epi64(even, _mm_cvtsi32_si128(bits.cast_signed()));
            let odd = _mm512_sll_epi64(odd, _mm_cvtsi32_si128(32 - bits.cast_signed()));
            _mm512_mask_blend_epi32(0xaaaa, even, odd)
        })
    }

    #[inline(always)]
    fn zip(self, a: __m512i, b: __m512i) -> (__m512i, __m512i) {
        intrinsics!(self, {
            let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            (_mm512_permutex2var_epi32(a, first, b), _mm512_permutex2var_epi32(a, second, b))
        })
    }
    #[inline(always)]
    fn unzip(self, a: __m512i, b: __m512i) -> (__m512i, __m512i) {
        intrinsics!(self, {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            (_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, odd, b))
        })
    }
    #[inline(always)]
    fn reverse(self, a: __m512i) -> __m512i {
        intrinsics!(self, {
            let index = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            _mm512_permutexvar_epi32(index, a)
        })
    }
}

/// Odd lanes in even places: by a shuffle, of which a Zen 5 does four in a cycle, and of shifts two.
#[inline]
#[target_feature(enable = "avx512f")]
fn odd_lanes(a: __m512i) -> __m512i {
    _mm512_shuffle_epi32::<0xf5>(a)
}

/// The high halves of products of even and odd lanes.
///
/// As one instruction: compilers make a permutation of two vectors of the intrinsic, which takes twice as long.
#[inline]
#[target_feature(enable = "avx512f")]
fn high_halves(even: __m512i, mut odd: __m512i) -> __m512i {
    // SAFETY: the instruction belongs to AVX-512 F, and changes nothing but its first operand.
    unsafe {
        asm!(
            "vmovshdup {odd}{{{mask}}}, {even}",
            odd = inout(zmm_reg) odd,
            even = in(zmm_reg) even,
            mask = in(kreg) 0x5555_u16,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    odd
}

impl Dot for Avx512 {
    const TAPS: usize = 4;
    const MAX_TAPS: usize = 1 << 16;
    const ROWS: [usize; 4] = [12, 12, 9, 6];
    const DIGIT_BITS: u32 = 8;
    type Weight = u32;

    fn weight(taps: &[i16]) -> u32 {
        super::bytes(taps)
    }
    #[inline(always)]
    fn digits(self, [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        intrinsics!(self, {
            let (bytes, halves) = (_mm512_set1_epi16(0x00ff), _mm512_set1_epi32(0xffff));
            // Where the mask is set the second operand, else the third: even and odd bytes of two inputs together.
            let even_ab = _mm512_ternarylogic_epi32::<0xca>(bytes, a, _mm512_slli_epi32::<8>(b));
            let even_cd = _mm512_ternarylogic_epi32::<0xca>(bytes, c, _mm512_slli_epi32::<8>(d));
            let odd_ab = _mm512_ternarylogic_epi32::<0xca>(bytes, _mm512_srli_epi32::<8>(a), b);
            let odd_cd = _mm512_ternarylogic_epi32::<0xca>(bytes, _mm512_srli_epi32::<8>(c), d);
            [
                _mm512_ternarylogic_epi32::<0xca>(halves, even_ab, _mm512_slli_epi32::<16>(even_cd)),
                _mm512_ternarylogic_epi32::<0xca>(halves, odd_ab, _mm512_slli_epi32::<16>(odd_cd)),
                _mm512_ternarylogic_epi32::<0xca>(halves, _mm512_srli_epi32::<16>(even_ab), even_cd),
                _mm512_ternarylogic_epi32::<0xca>(halves, _mm512_srli_epi32::<16>(odd_ab), odd_cd),
            ]
        })
    }
    #[inline(always)]
    fn dot(self, sum: __m512i, x: __m512i, weight: u32) -> __m512i {
        // The form that wraps: the saturating one would not be exact.
        intrinsics!(self, _mm512_dpbusd_epi32(sum, x, _mm512_set1_epi32(weight.cast_signed())))
    }
}
