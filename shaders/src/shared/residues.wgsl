// Arithmetic modulo primes below 2^30.

// [0, 2q) to [0, q), or with 2q for q, [0, 4q) to [0, 2q): an unsigned difference below zero is large.
fn subtract_once(x: u32, q: u32) -> u32 {
    return min(x, x - q);
}

// Canonical sum of canonical residues.
fn add_mod(x: u32, y: u32, q: u32) -> u32 {
    return subtract_once(x + y, q);
}

// Canonical residue of a number in [0, 4q).
fn canonical(x: u32, q: u32) -> u32 {
    return subtract_once(subtract_once(x, 2u * q), q);
}
