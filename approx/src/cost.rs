//! What an activation of a degree costs under encryption.

use serde::Serialize;

/// Products of ciphertexts, in number and one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Circuit {
    /// Products one after the other: the levels that the activation uses.
    pub depth: usize,
    /// Products of two ciphertexts. Sums and products with constants are not counted.
    pub multiplications: usize,
}

/// Two ways to evaluate a polynomial under encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Horner's rule on the monic polynomial, `((z + c) z + b) z + a`, as the planner runs it: the linear map before absorbs the
    /// leading coefficient, and no product with a constant remains.
    pub horner: Circuit,
    /// The scheme of Paterson and Stockmeyer with the least depth, and the fewest products for it.
    pub paterson_stockmeyer: Circuit,
}

impl Cost {
    /// Of a polynomial of degree `degree`; of a constant or a line it is zero.
    pub fn new(degree: usize) -> Self {
        let products = degree.saturating_sub(1);
        Cost {
            horner: Circuit { depth: products, multiplications: products },
            paterson_stockmeyer: paterson_stockmeyer(degree),
        }
    }
}

/// Powers `z, ..., z^k` and `z^(2k), z^(4k), ...` are made once; a polynomial is then `q(z) z^g + r(z)` with such a power `z^g`, again
/// and again until all that is left has degree at most `k` (Paterson and Stockmeyer, On the number of nonscalar
/// multiplications necessary to evaluate polynomials, 1973, with giant steps that double). The best `k`.
fn paterson_stockmeyer(degree: usize) -> Circuit {
    (1..=degree.max(1)).map(|k| with_baby_steps(degree, k)).min().unwrap_or(Circuit { depth: 0, multiplications: 0 })
}

fn with_baby_steps(degree: usize, k: usize) -> Circuit {
    // best[d]: evaluating any polynomial of degree d once the powers are there.
    let mut best: Vec<(Circuit, usize)> = Vec::new();
    for d in 0..=degree {
        let alone = || (Circuit { depth: log2_ceil(d), multiplications: 0 }, 0);
        let split = |j: u32| {
            let giant = k << j;
            let ((q, q_giants), (r, r_giants)) = (best[d - giant], best[giant - 1]);
            // A constant times a power is no product of ciphertexts.
            let product = usize::from(d > giant);
            let depth = (q.depth.max(log2_ceil(giant)) + product).max(r.depth);
            let multiplications = q.multiplications + r.multiplications + product;
            (Circuit { depth, multiplications }, q_giants.max(r_giants).max(j as usize))
        };
        let total = |(circuit, giants): &(Circuit, usize)| (circuit.depth, circuit.multiplications + giants);
        let choices = (0..usize::BITS).take_while(|&j| d > k && k << j <= d).map(split);
        best.push(choices.min_by_key(total).unwrap_or_else(alone));
    }
    let (circuit, giants) = best[degree];
    // No power above the degree is made.
    let babies = k.min(degree).saturating_sub(1);
    Circuit { multiplications: circuit.multiplications + babies + giants, ..circuit }
}

/// Products one after the other that the `d`-th power takes.
fn log2_ceil(d: usize) -> usize {
    d.max(1).next_power_of_two().ilog2() as usize
}
