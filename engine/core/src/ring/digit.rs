//! Digits of residues below a prime's own size.

use super::Modulus;

/// Most digits in which one prime is cut. The least prime has 12 bits, so each has at least three.
pub const MAX_PARTS: usize = 4;

/// One of the balanced digits in which the centred residue modulo a prime is written.
///
/// With `w = ceil(log2 q / parts)` a residue's centred representative `c`, `|c| < q / 2`, is
/// `sum_h d_h 2^(w h)`: `d_h` is in `[-2^(w-1), 2^(w-1))` for all but the last `h`, which takes what is left, at
/// most `2^(w-1) + 1` in magnitude. Key switching multiplies such digits where a special prime is smaller
/// than the primes of the chain (docs/scheme.md, "Key switching").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimeDigit {
    q: u32,
    part: u32,
    parts: u32,
    width: u32,
}

impl PrimeDigit {
    /// Digit `part` of `parts` of residues modulo `modulus`.
    ///
    /// # Panics
    /// Unless `part < parts <= MAX_PARTS`.
    pub fn new(modulus: Modulus, part: usize, parts: usize) -> Self {
        assert!(part < parts && parts <= MAX_PARTS, "part {part} of {parts}");
        let (part, parts) = (part as u32, parts as u32);
        PrimeDigit { q: modulus.value(), part, parts, width: modulus.bits().div_ceil(parts) }
    }

    /// The prime of the residues.
    pub fn prime(self) -> u32 {
        self.q
    }

    /// `w`.
    pub fn width(self) -> u32 {
        self.width
    }

    /// By how many bits a residue is shifted: the weight of the digit is 2 to this power.
    pub fn shift(self) -> u32 {
        self.width * self.part
    }

    /// What makes all digits but the last non-negative: `2^(w-1)` at each.
    pub fn offset(self) -> u32 {
        (0..self.parts - 1).map(|h| 1 << (self.width * h + self.width - 1)).sum()
    }

    /// Whether it is the last digit, which has no bound of its own.
    pub fn is_last(self) -> bool {
        self.part + 1 == self.parts
    }

    /// The digit of a canonical residue.
    #[inline(always)]
    pub fn of(self, residue: u32) -> i32 {
        // Both branches are computed: the time does not depend on the residue.
        let centred = residue as i32 - (self.q & 0u32.wrapping_sub(u32::from(residue > self.q / 2))) as i32;
        let shifted = (centred + self.offset() as i32) >> self.shift();
        let half = 1 << (self.width - 1);
        if self.is_last() { shifted } else { (shifted & (2 * half - 1)) - half }
    }
}
