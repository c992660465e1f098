//! The transform of the conjugate-invariant ring from its definition, with `%` and nothing precomputed.

use cryptodl_core::ring::NttTable;

/// Values at `psi^(4k+1)`, in the order of [`NttTable::forward`]: index `t` holds the one with `k = bitrev(t)`.
pub(super) fn forward(table: &NttTable, a: &mut [u32]) {
    let q = u64::from(table.modulus().value());
    let (n, psi) = (a.len(), u64::from(table.psi()));
    let iota = power(psi, n as u64, q);
    // Fold: g_j = a_j - iota a_(n-j), so that g(psi^(4k+1)) = a_0 + sum a_j (psi^(4k+1)^j + psi^(4k+1)^-j).
    let g: Vec<u64> =
        (0..n).map(|j| if j == 0 { a[0].into() } else { (at(a, j) + (q - iota) * at(a, n - j)) % q }).collect();
    // g(psi^(4k+1)) = sum_j (g_j psi^j) (psi^4)^(jk).
    let values = cyclic(&twist(&g, psi, q), power(psi, 4, q), q);
    (0..n).for_each(|t| a[t] = values[bit_reverse(t, n)] as u32);
}

/// The inverse of [`forward`].
pub(super) fn inverse(table: &NttTable, a: &mut [u32]) {
    let q = u64::from(table.modulus().value());
    let (n, psi) = (a.len(), u64::from(table.psi()));
    let (iota, inverse_psi) = (power(psi, n as u64, q), power(psi, q - 2, q));
    let (half, inverse_n) = (q.div_ceil(2), power(n as u64, q - 2, q));
    let values: Vec<u64> = (0..n).map(|k| at(a, bit_reverse(k, n))).collect();
    let untwisted = twist(&cyclic(&values, power(inverse_psi, 4, q), q), inverse_psi, q);
    let g: Vec<u64> = untwisted.iter().map(|x| x * inverse_n % q).collect();
    // Unfold: a_j = (g_j + iota g_(n-j)) / 2.
    a[0] = g[0] as u32;
    (1..n).for_each(|j| a[j] = ((g[j] + iota * g[n - j]) % q * half % q) as u32);
}

/// `sum_j x_j omega^(jk)` for every `k`, natural order in and out: radix 2, decimation in time.
fn cyclic(x: &[u64], omega: u64, q: u64) -> Vec<u64> {
    let n = x.len();
    let mut y: Vec<u64> = (0..n).map(|j| x[bit_reverse(j, n)]).collect();
    let mut size = 2;
    while size <= n {
        let step = power(omega, (n / size) as u64, q);
        for block in y.chunks_exact_mut(size) {
            let mut w = 1;
            for i in 0..size / 2 {
                let (u, v) = (block[i], block[i + size / 2] * w % q);
                block[i] = (u + v) % q;
                block[i + size / 2] = (u + q - v) % q;
                w = w * step % q;
            }
        }
        size *= 2;
    }
    y
}

/// `x_j root^j`.
fn twist(x: &[u64], root: u64, q: u64) -> Vec<u64> {
    let powers = std::iter::successors(Some(1), |p| Some(p * root % q));
    x.iter().zip(powers).map(|(x, p)| x * p % q).collect()
}

fn at(a: &[u32], j: usize) -> u64 {
    a[j].into()
}

fn power(base: u64, exponent: u64, q: u64) -> u64 {
    match exponent {
        0 => 1,
        e if e % 2 == 0 => power(base * base % q, e / 2, q),
        e => power(base, e - 1, q) * base % q,
    }
}

fn bit_reverse(t: usize, n: usize) -> usize {
    t.reverse_bits() >> (usize::BITS - n.trailing_zeros())
}
