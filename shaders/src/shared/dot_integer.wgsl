// Sums of weights times residues in plain 32-bit integers, modulo 2^32, for the lower 15 bits and the upper 15 bits.
//
// Sums start at 2^30, which is at least `256 * 127 * (2^15 - 1)`, so that they stay in [0, 2^31) for 256 taps and are
// recombined without signs; the row's constant takes that off.

alias Sum = vec2<u32>;

const START = 0x40000000u;

// Quads of taps before sums must be added up.
const CHUNK = 64u;

fn arranged(x: vec4<u32>) -> vec4<u32> {
    return x;
}

fn start() -> Sum {
    return Sum(START);
}

// Four rows' sums plus four taps.
fn with_quads(s: Sums, w: vec4<u32>, x: vec4<u32>, planes: u32) -> Sums {
    return Sums(s.a + halves(w.x, x), s.b + halves(w.y, x), s.c + halves(w.z, x), s.d + halves(w.w, x));
}

fn halves(weights: u32, x: vec4<u32>) -> Sum {
    let w = bitcast<vec4<u32>>(unpack4xI8(weights));
    return Sum(dot(w, x & vec4(0x7fffu)), dot(w, x >> vec4(15u)));
}

// The sum modulo the prime. Below 2^31, or below `2^31 + 2^46` for primes of more than 15 bits, hence below `2^(bits + 31)`.
fn residue(s: Sum, limb: Limb) -> u32 {
    return reduce(sum(shifted(s.x, 0u), shifted(select(0u, s.y, limb.bits > 15u), 15u)), limb);
}
