//! Search for NTT primes.

use super::{MAX_MODULUS_BITS, RingError};

/// Whether `n` is prime: Miller-Rabin with the bases 2, 3, 5, 7, exact below 3,215,031,751.
pub fn is_prime(n: u32) -> bool {
    if n < 11 || n.is_multiple_of(2) {
        return matches!(n, 2 | 3 | 5 | 7);
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
    n < 3_215_031_751
        && [2, 3, 5, 7].iter().all(|&base| {
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
    super::check_dimension(n)?;
    if !(12..=MAX_MODULUS_BITS).contains(&bits) {
        return Err(RingError::PrimeBits { bits });
    }
    let step = 4 * n as u64;
    let first = ((1u64 << bits) - 1) / step * step + 1;
    let candidates = (0..).map_while(|i| first.checked_sub(i * step)).skip_while(|&c| c >= 1 << bits);
    let primes: Vec<u32> = candidates
        .take_while(|&c| c > 1 << (bits - 1))
        .filter_map(|c| u32::try_from(c).ok().filter(|&c| is_prime(c)))
        .take(count)
        .collect();
    if primes.len() < count {
        return Err(RingError::TooFewPrimes { n, bits, wanted: count, found: primes.len() });
    }
    Ok(primes)
}
