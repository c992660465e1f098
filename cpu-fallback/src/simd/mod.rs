//! Vectors of 32-bit lanes by instruction set. Kernels are written once over [`Simd`] and [`Dot`]; only what differs between
//! machines is here, and with it all unsafe code of the crate.
//!
//! A value of a type that implements [`Simd`] proves that the machine has its instructions: it comes from `detect` only.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod family;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;
#[cfg(test)]
mod tests;

pub use family::Kernels;
pub(crate) use family::with_simd;

/// Vectors of `u32` lanes. Arithmetic is modulo `2^32` unless it says otherwise.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Lanes of a vector, a power of two from 4 to 16.
    const LANES: usize;
    /// Layers of a transform whose operands fit the registers together.
    const LAYERS: u32;
    /// Layers of whole vectors, 2 or 4, that are computed together with those within vectors.
    const LAST_LAYERS: u32;
    /// A vector in memory: `[u32; LANES]`.
    type Array: Copy + Default + AsRef<[u32]> + AsMut<[u32]> + Send + Sync;
    /// A vector in a register.
    type V: Copy;
    /// `LANES` lanes of 64 bits.
    type Wide: Copy;

    /// Runs a kernel compiled for these instructions.
    fn run<K: Kernel<Self>>(self, kernel: K) -> K::Output;

    /// Whole vectors of `x`, and the rest.
    fn arrays(x: &[u32]) -> (&[Self::Array], &[u32]);
    /// Whole vectors of `x`, and the rest.
    fn arrays_mut(x: &mut [u32]) -> (&mut [Self::Array], &mut [u32]);

    fn splat(self, x: u32) -> Self::V;
    fn load(self, x: &Self::Array) -> Self::V;
    /// Word `j % PERIOD` in lane `j`; `PERIOD` is a power of two from 2 to `LANES`.
    fn cycle<const PERIOD: usize>(self, words: &[u32; PERIOD]) -> Self::V;
    fn store(self, x: Self::V, to: &mut Self::Array);
    /// The words of `x` at these indices.
    ///
    /// # Panics
    /// If an index is beyond `x`.
    #[inline(always)]
    fn gather(self, x: &[u32], indices: &Self::Array) -> Self::V {
        let mut words = *indices;
        words.as_mut().iter_mut().for_each(|word| *word = x[*word as usize]);
        self.load(&words)
    }

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// Unsigned minimum.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    fn shift_left(self, a: Self::V, bits: u32) -> Self::V;
    fn rotate_left(self, a: Self::V, bits: u32) -> Self::V;
    /// With copies of the sign.
    fn shift_right_signed(self, a: Self::V, bits: u32) -> Self::V;
    /// Low halves of the products.
    fn mul_low(self, a: Self::V, b: Self::V) -> Self::V;
    /// High halves of the unsigned products of even lanes with those of `even` and of odd lanes with the even lanes of `odd`.
    fn mul_high(self, a: Self::V, even: Self::V, odd: Self::V) -> Self::V;
    /// `a factor - floor(a companion / 2^32) q`; the two companions as for [`Self::mul_high`].
    #[inline(always)]
    fn mul_estimated(self, a: Self::V, factor: Self::V, even: Self::V, odd: Self::V, q: Self::V) -> Self::V {
        self.sub(self.mul_low(a, factor), self.mul_low(self.mul_high(a, even, odd), q))
    }
    /// `x` or `x - m`, the one that is below `m`, for `x < 2m <= 2^32`.
    #[inline(always)]
    fn reduce_once(self, x: Self::V, m: Self::V) -> Self::V {
        self.min(x, self.sub(x, m))
    }
    /// Odd lanes moved to even places; what comes to odd places is unspecified.
    fn odd(self, a: Self::V) -> Self::V;

    /// Unsigned products.
    fn mul_wide(self, a: Self::V, b: Self::V) -> Self::Wide;
    fn add_wide(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    /// The low 32 bits.
    fn low(self, a: Self::Wide) -> Self::V;
    /// Bits `bits .. bits + 32`, for `bits` from 1 to 32.
    fn narrow(self, a: Self::Wide, bits: u32) -> Self::V;

    /// `a_0 b_0 a_1 b_1 ...` in two vectors.
    fn zip(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The inverse of [`Self::zip`].
    fn unzip(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The last lane first.
    fn reverse(self, a: Self::V) -> Self::V;
}

/// What is compiled for each family. `compute` and everything below it that handles vectors is `#[inline(always)]` and calls
/// no closures with vectors in them: a function that is not inlined is compiled for the least machine.
pub(crate) trait Kernel<S: Simd> {
    /// Result.
    type Output;
    /// Computes.
    fn compute(self, s: S) -> Self::Output;
}

/// Sums of products of a residue and a weight of at most 127, without reduction inside.
///
/// Residues are cut into digits, and the digits of up to four inputs share a word, so that one instruction multiplies and
/// adds several products of each lane. Each digit has its own sums (a *plane*).
pub(crate) trait Dot: Simd {
    /// Inputs that share a word, 1 to 4.
    const TAPS: usize;
    /// Products after which sums must be reduced, a multiple of [`Self::TAPS`].
    const MAX_TAPS: usize;
    /// Rows whose sums fill the registers, by planes (from 1).
    const ROWS: [usize; 4];
    /// Bits of a digit.
    const DIGIT_BITS: u32;
    /// Weights of the inputs of one word.
    type Weight: Copy + Default + Send + Sync;

    /// Digits of a residue of `bits` bits.
    fn planes(bits: u32) -> usize {
        bits.div_ceil(Self::DIGIT_BITS) as usize
    }

    /// Weights of up to [`Self::TAPS`] inputs as one word.
    fn weight(taps: &[i16]) -> Self::Weight;
    /// Digits of `TAPS` inputs (the others are ignored), word by word for each plane.
    fn digits(self, inputs: [Self::V; 4]) -> [Self::V; 4];
    /// `sum + x w`, where sums are signed.
    fn dot(self, sum: Self::V, x: Self::V, weight: Self::Weight) -> Self::V;
}

/// Signed bytes as one word, the first in the low bits.
#[cfg(target_arch = "x86_64")]
fn bytes(weights: &[i16]) -> u32 {
    let mut bytes = [0; 4];
    bytes.iter_mut().zip(weights).for_each(|(byte, &weight)| *byte = weight as u8);
    u32::from_le_bytes(bytes)
}

/// Bits of a digit that is a signed 16-bit half.
const HALF_BITS: u32 = 15;

/// [`Dot::MAX_TAPS`] of such digits: `127 * 32767 * 512` and the carry of the plane below stay under `2^31`.
const HALF_MAX_TAPS: usize = 512;

/// [`Dot::digits`] of two inputs to a word, as signed 16-bit halves.
#[inline(always)]
fn digits_of_pairs<S: Simd>(s: S, [a, b, ..]: [S::V; 4]) -> [S::V; 4] {
    let mask = s.splat((1 << HALF_BITS) - 1);
    let word = |a, b| s.xor(a, s.shift_left(b, 16));
    // Residues are below 2^30: no sign comes along.
    let high = word(s.shift_right_signed(a, HALF_BITS), s.shift_right_signed(b, HALF_BITS));
    [word(s.and(a, mask), s.and(b, mask)), high, high, high]
}

/// Signed 16-bit halves as one word, the first in the low bits.
fn halves(weights: &[i16]) -> u32 {
    let half = |i: usize| u32::from(weights.get(i).copied().unwrap_or(0).cast_unsigned());
    half(0) | half(1) << 16
}

/// Repeats a block for the values `0 .. $n` of `$i`, at most 16, as constants: arrays of vectors that are indexed by nothing
/// else stay in registers.
macro_rules! unrolled {
    ($i:ident < $n:expr => $body:block) => {
        $crate::simd::unrolled!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident, $n:expr, $body:block, $($k:literal)*) => {
        $(if $k < $n {
            #[allow(non_upper_case_globals)]
            const $i: usize = $k;
            $body
        })*
    };
}
pub(crate) use unrolled;
