// Products modulo a prime below 2^30.

// `x w mod q` in [0, 2q) for any `x`; `twiddle` is `w` in [0, q) with Shoup's companion `floor(w 2^32 / q)`.
fn multiply_lazy(x: u32, twiddle: vec2<u32>, q: u32) -> u32 {
    return x * twiddle.x - high_product(x, twiddle.y) * q;
}

// Canonical residue of a number below `2^(bits + 31)`, hence also of the sum of two products of residues. Of the quotient,
// each truncation loses less than 1: of the dividend, of the reciprocal, and of their product. So the rest is below 3q.
fn reduce(x: Wide, limb: Limb) -> u32 {
    let quotient = high_product(shift_right(x, limb.bits - 1u), limb.barrett);
    return canonical(low(x) - quotient * limb.q, limb.q);
}

// Canonical product of residues.
fn multiply_mod(x: u32, y: u32, limb: Limb) -> u32 {
    return reduce(product(x, y), limb);
}
