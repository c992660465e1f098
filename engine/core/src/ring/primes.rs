//! Search for NTT primes.

use super::{MAX_MODULUS_BITS, RingError};

/// Factors that are tried first: most composites have one, and a remainder is cheaper than a power.
const SMALL: [u32; 11] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31];

/// Whether `n` is prime: division by small primes, then Miller-Rabin with the bases 2, 7 and 61, exact below 4,759,123,141
/// (Jaeschke, 1993).
pub fn is_prime(n: u32) -> bool {
    if let Some(&factor) = SMALL.iter().find(|&&factor| n.is_multiple_of(factor)) {
        return n == factor;
    }
    if n < 37 * 37 {
        return n > 1;
    }
    let modulus = u64::from(n);
    let pow = |base: u64, mut exponent: u64| {
        let (mut square, mut result) = (base % modulus, 1);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * square % modulus;
            }
            square = square * square % modulus;
            exponent >>= 1;
        }
        result
    };
    let twos = (n - 1).trailing_zeros();
    let odd = u64::from(n - 1) >> twos;
    [2, 7, 61].iter().all(|&base| {
        let mut x = pow(base, odd);
        if x == 1 || x == modulus - 1 {
            return true;
        }
        (1..twos).any(|_| {
            x = x * x % modulus;
            x == modulus - 1
        })
    })
}

/// The `count` largest primes `q = 1 (mod 4n)` below `2^bits`, descending.
///
/// # Errors
/// `bits` above 30, `n` no power of two, or fewer than `count` such primes above `2^(bits-1)`.
pub fn ntt_primes(n: usize, bits: u32, count: usize) -> Result<Vec<u32>, RingError> {
    let primes = largest_ntt_primes(n, bits, count)?;
    if primes.len() < count {
        return Err(RingError::TooFewPrimes { n, bits, wanted: count, found: primes.len() });
    }
    Ok(primes)
}

/// As [`ntt_primes`], but those that there are where there are fewer than `most`.
///
/// # Errors
/// `bits` above 30, or `n` no power of two.
pub fn largest_ntt_primes(n: usize, bits: u32, most: usize) -> Result<Vec<u32>, RingError> {
    super::check_dimension(n)?;
    if !(12..=MAX_MODULUS_BITS).contains(&bits) {
        return Err(RingError::PrimeBits { bits });
    }
    let step = 4 * n as u64;
    let first = ((1u64 << bits) - 1) / step * step + 1;
    let candidates = (0..).map_while(|i| first.checked_sub(i * step)).skip_while(|&c| c >= 1 << bits);
    let primes = candidates
        .take_while(|&c| c > 1 << (bits - 1))
        .filter_map(|c| u32::try_from(c).ok().filter(|&c| is_prime(c)))
        .take(most);
    Ok(primes.collect())
}
