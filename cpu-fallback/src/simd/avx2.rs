//! AVX2: eight lanes; digits are 15 bits wide, two inputs to a word, or with byte dot products (AVX-VNNI) bytes, four to a word.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::{Dot, Kernel, Simd};

/// Proof that the machine has AVX2, and AVX-VNNI where `VNNI`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2<const VNNI: bool>(());

impl<const VNNI: bool> Avx2<VNNI> {
    pub(crate) fn detect() -> Option<Self> {
        let vnni = || is_x86_feature_detected!("avxvnni");
        (is_x86_feature_detected!("avx2") && (!VNNI || vnni())).then_some(Avx2(()))
    }
}

/// Calls intrinsics that take and return values only.
macro_rules! intrinsics {
    ($token:ident, $body:expr) => {{
        let _: Avx2<_> = $token;
        // SAFETY: the token proves that the machine has the instructions, and no pointers are involved.
        unsafe { $body }
    }};
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    const LAYERS: u32 = 3;
    const LAST_LAYERS: u32 = 4;
    type Array = [u32; 8];
    type V = __m256i;
    type Wide = (__m256i, __m256i);

    #[inline(always)]
    fn run<K: Kernel<Self>>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2")]
        fn compiled<const VNNI: bool, K: Kernel<Avx2<VNNI>>>(token: Avx2<VNNI>, kernel: K) -> K::Output {
            kernel.compute(token)
        }
        #[target_feature(enable = "avx2,avxvnni")]
        fn compiled_with_vnni<const VNNI: bool, K: Kernel<Avx2<VNNI>>>(token: Avx2<VNNI>, kernel: K) -> K::Output {
            kernel.compute(token)
        }
        // SAFETY: the token proves that the machine has these features, AVX-VNNI where `VNNI`.
        unsafe { if VNNI { compiled_with_vnni(self, kernel) } else { compiled(self, kernel) } }
    }

    #[inline(always)]
    fn arrays(x: &[u32]) -> (&[[u32; 8]], &[u32]) {
        x.as_chunks()
    }
    #[inline(always)]
    fn arrays_mut(x: &mut [u32]) -> (&mut [[u32; 8]], &mut [u32]) {
        x.as_chunks_mut()
    }

    #[inline(always)]
    fn splat(self, x: u32) -> __m256i {
        intrinsics!(self, _mm256_set1_epi32(x.cast_signed()))
    }
    #[inline(always)]
    fn load(self, x: &[u32; 8]) -> __m256i {
        // SAFETY: the token proves that the machine has the instruction, which reads the 32 bytes of the array, unaligned.
        unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn cycle<const PERIOD: usize>(self, words: &[u32; PERIOD]) -> __m256i {
        let at = words.as_ptr();
        // SAFETY: the token proves that the machine has the instructions; each arm reads the `4 PERIOD` bytes of the array,
        // unaligned.
        unsafe {
            match PERIOD {
                2 => _mm256_set1_epi64x(at.cast::<i64>().read_unaligned()),
                4 => _mm256_broadcastsi128_si256(_mm_loadu_si128(at.cast())),
                8 => _mm256_loadu_si256(at.cast()),
                _ => unreachable!("a power of two from 2 to 8"),
            }
        }
    }
    #[inline(always)]
    fn store(self, x: __m256i, to: &mut [u32; 8]) {
        // SAFETY: the token proves that the machine has the instruction, which writes the 32 bytes of the array, unaligned.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) }
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        intrinsics!(self, _mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        intrinsics!(self, _mm256_sub_epi32(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256i, b: __m256i) -> __m256i {
        intrinsics!(self, _mm256_min_epu32(a, b))
    }
    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        intrinsics!(self, _mm256_and_si256(a, b))
    }
    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        intrinsics!(self, _mm256_xor_si256(a, b))
    }
    #[inline(always)]
    fn shift_left(self, a: __m256i, bits: u32) -> __m256i {
        intrinsics!(self, _mm256_sll_epi32(a, _mm_cvtsi32_si128(bits.cast_signed())))
    }
    #[inline(always)]
    fn rotate_left(self, a: __m256i, bits: u32) -> __m256i {
        intrinsics!(self, {
            let right = _mm256_srl_epi32(a, _mm_cvtsi32_si128(32 - bits.cast_signed()));
            _mm256_or_si256(self.shift_left(a, bits), right)
        })
    }
    #[inline(always)]
    fn shift_right_signed(self, a: __m256i, bits: u32) -> __m256i {
        intrinsics!(self, _mm256_sra_epi32(a, _mm_cvtsi32_si128(bits.cast_signed())))
    }
    #[inline(always)]
    fn mul_low(self, a: __m256i, b: __m256i) -> __m256i {
        intrinsics!(self, _mm256_mullo_epi32(a, b))
    }
    #[inline(always)]
    fn mul_high(self, a: __m256i, even: __m256i, odd: __m256i) -> __m256i {
        intrinsics!(self, {
            let (even, odd) = (_mm256_mul_epu32(a, even), _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), odd));
            _mm256_blend_epi32::<0xaa>(_mm256_srli_epi64::<32>(even), odd)
        })
    }
    #[inline(always)]
    fn odd(self, a: __m256i) -> __m256i {
        intrinsics!(self, _mm256_srli_epi64::<32>(a))
    }

    #[inline(always)]
    fn mul_wide(self, a: __m256i, b: __m256i) -> (__m256i, __m256i) {
        intrinsics!(
            self,
            (_mm256_mul_epu32(a, b), _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b)),)
        )
    }
    #[inline(always)]
    fn add_wide(self, a: (__m256i, __m256i), b: (__m256i, __m256i)) -> (__m256i, __m256i) {
        intrinsics!(self, (_mm256_add_epi64(a.0, b.0), _mm256_add_epi64(a.1, b.1)))
    }
    #[inline(always)]
    fn low(self, (even, odd): (__m256i, __m256i)) -> __m256i {
        intrinsics!(self, _mm256_blend_epi32::<0xaa>(even, _mm256_slli_epi64::<32>(odd)))
    }
    #[inline(always)]
    fn narrow(self, (even, odd): (__m256i, __m256i), bits: u32) -> __m256i {
        intrinsics!(self, {
            let even = _mm256_srl_epi64(even, _mm_cvtsi32_si128(bits.cast_signed()));
            let odd = _mm256_sll_epi64(odd, _mm_cvtsi32_si128(32 - bits.cast_signed()));
            _mm256_blend_epi32::<0xaa>(even, odd)
        })
    }

    #[inline(always)]
    fn zip(self, a: __m256i, b: __m256i) -> (__m256i, __m256i) {
        intrinsics!(self, {
            let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            (_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high))
        })
    }
    #[inline(always)]
    fn unzip(self, a: __m256i, b: __m256i) -> (__m256i, __m256i) {
        intrinsics!(self, {
            let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
            let even = _mm256_castps_si256(_mm256_shuffle_ps::<0x88>(a, b));
            let odd = _mm256_castps_si256(_mm256_shuffle_ps::<0xdd>(a, b));
            (_mm256_permute4x64_epi64::<0xd8>(even), _mm256_permute4x64_epi64::<0xd8>(odd))
        })
    }
    #[inline(always)]
    fn reverse(self, a: __m256i) -> __m256i {
        intrinsics!(self, _mm256_permutevar8x32_epi32(a, _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0)))
    }
}

impl Dot for Avx2<false> {
    const TAPS: usize = 2;
    const MAX_TAPS: usize = super::HALF_MAX_TAPS;
    const ROWS: [usize; 4] = [10, 6, 0, 0];
    const DIGIT_BITS: u32 = super::HALF_BITS;
    type Weight = u32;

    fn weight(taps: &[i16]) -> u32 {
        super::halves(taps)
    }
    #[inline(always)]
    fn digits(self, inputs: [__m256i; 4]) -> [__m256i; 4] {
        super::digits_of_pairs(self, inputs)
    }
    #[inline(always)]
    fn dot(self, sum: __m256i, x: __m256i, weight: u32) -> __m256i {
        intrinsics!(self, _mm256_add_epi32(sum, _mm256_madd_epi16(x, _mm256_set1_epi32(weight.cast_signed()))))
    }
}

impl Dot for Avx2<true> {
    const TAPS: usize = 4;
    const MAX_TAPS: usize = 1 << 16;
    const ROWS: [usize; 4] = [12, 6, 4, 2];
    const DIGIT_BITS: u32 = 8;
    type Weight = u32;

    fn weight(taps: &[i16]) -> u32 {
        super::bytes(taps)
    }
    #[inline(always)]
    fn digits(self, [a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
        intrinsics!(self, {
            let bytes = _mm256_set1_epi16(0x00ff);
            // Where the mask is set the second operand, else the first: even and odd bytes of two inputs together.
            let even_ab = _mm256_blendv_epi8(_mm256_slli_epi32::<8>(b), a, bytes);
            let even_cd = _mm256_blendv_epi8(_mm256_slli_epi32::<8>(d), c, bytes);
            let odd_ab = _mm256_blendv_epi8(b, _mm256_srli_epi32::<8>(a), bytes);
            let odd_cd = _mm256_blendv_epi8(d, _mm256_srli_epi32::<8>(c), bytes);
            [
                _mm256_blend_epi16::<0xaa>(even_ab, _mm256_slli_epi32::<16>(even_cd)),
                _mm256_blend_epi16::<0xaa>(odd_ab, _mm256_slli_epi32::<16>(odd_cd)),
                _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<16>(even_ab), even_cd),
                _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<16>(odd_ab), odd_cd),
            ]
        })
    }
    #[inline(always)]
    fn dot(self, sum: __m256i, x: __m256i, weight: u32) -> __m256i {
        // The form that wraps: the saturating one would not be exact.
        intrinsics!(self, _mm256_dpbusd_avx_epi32(sum, x, _mm256_set1_epi32(weight.cast_signed())))
    }
}
