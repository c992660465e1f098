// Number-theoretic transforms: sixteen residues of a thread through four layers of butterflies.
//
// Roots are numbered like the nodes of a binary heap: node `m + i` splits block `i` of `m`, its blocks are split by nodes
// `2 (m + i)` and `2 (m + i) + 1`. So a round is told by the node of its first layer.

struct Params { base: u32, limb: u32, polynomial: u32, polynomials: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<u32>;
// For each limb of the basis: nodes `1 .. N/16` in order; node `(N/16 + i) 2^d + h - 2^d` of the last round, where `2^d` is
// the leading bit of `h < 16`, at `h N/16 + i`; three constants of the folding layer at `N`, and room for a fourth.
@group(0) @binding(3) var<storage, read> twiddles: array<vec2<u32>>;

// Binary logarithm of the dimension, 10 to 16.
override LOG_N: u32;

// Element `4 i + j` of sixteen is `j` of the i-th vector.
struct Sixteen { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }

// Four factors with their companions.
struct Factors { factor: vec4<u32>, companion: vec4<u32> }

// Roots of a round: first layer, second, third, and even and odd ones of the fourth.
struct Round { first: Factors, second_0: Factors, second_1: Factors, third: Factors, fourth_0: Factors, fourth_1: Factors }

fn four(twiddle: vec2<u32>) -> Factors {
    return Factors(vec4(twiddle.x), vec4(twiddle.y));
}

fn join(a: vec2<u32>, b: vec2<u32>, c: vec2<u32>, d: vec2<u32>) -> Factors {
    return Factors(vec4(a.x, b.x, c.x, d.x), vec4(a.y, b.y, c.y, d.y));
}

// The twiddles of limb `limb` begin here.
fn table_start(limb: u32) -> u32 {
    return limb * ((1u << LOG_N) + 4u);
}

// Roots of a round that is not the last, from its first node.
fn round_at(start: u32, node: u32) -> Round {
    let n4 = start + 4u * node;
    let n8 = start + 8u * node;
    return Round(
        four(twiddles[start + node]),
        four(twiddles[start + 2u * node]),
        four(twiddles[start + 2u * node + 1u]),
        join(twiddles[n4], twiddles[n4 + 1u], twiddles[n4 + 2u], twiddles[n4 + 3u]),
        join(twiddles[n8], twiddles[n8 + 2u], twiddles[n8 + 4u], twiddles[n8 + 6u]),
        join(twiddles[n8 + 1u], twiddles[n8 + 3u], twiddles[n8 + 5u], twiddles[n8 + 7u]),
    );
}

// Roots of block `i` of the last round, where neighbours lie side by side.
fn last_round(start: u32, i: u32) -> Round {
    let step = 1u << (LOG_N - 4u);
    let at = start + i;
    return Round(
        four(twiddles[at + step]),
        four(twiddles[at + 2u * step]),
        four(twiddles[at + 3u * step]),
        join(twiddles[at + 4u * step], twiddles[at + 5u * step], twiddles[at + 6u * step], twiddles[at + 7u * step]),
        join(twiddles[at + 8u * step], twiddles[at + 10u * step], twiddles[at + 12u * step], twiddles[at + 14u * step]),
        join(twiddles[at + 9u * step], twiddles[at + 11u * step], twiddles[at + 13u * step], twiddles[at + 15u * step]),
    );
}

// Element `4 i + j` to place `4 j + i`.
fn transposed(v: Sixteen) -> Sixteen {
    return Sixteen(
        vec4(v.a.x, v.b.x, v.c.x, v.d.x),
        vec4(v.a.y, v.b.y, v.c.y, v.d.y),
        vec4(v.a.z, v.b.z, v.c.z, v.d.z),
        vec4(v.a.w, v.b.w, v.c.w, v.d.w),
    );
}

// `multiply_lazy` four times.
fn multiply_lazy_4(x: vec4<u32>, w: Factors, q: u32) -> vec4<u32> {
    return x * w.factor - high_product_4(x, w.companion) * q;
}

fn subtract_once_4(x: vec4<u32>, q: u32) -> vec4<u32> {
    return min(x, x - q);
}

// Canonical residues of numbers in [0, 4q).
fn canonical_4(x: vec4<u32>, q: u32) -> vec4<u32> {
    return subtract_once_4(subtract_once_4(x, 2u * q), q);
}

struct Pair { x: vec4<u32>, y: vec4<u32> }

// [0, 4q) in and out.
fn forward_butterfly(x: vec4<u32>, y: vec4<u32>, w: Factors, q: u32) -> Pair {
    let u = subtract_once_4(x, 2u * q);
    let v = multiply_lazy_4(y, w, q);
    return Pair(u + v, u + 2u * q - v);
}

// [0, 2q) in and out.
fn inverse_butterfly(x: vec4<u32>, y: vec4<u32>, w: Factors, q: u32) -> Pair {
    return Pair(subtract_once_4(x + y, 2u * q), multiply_lazy_4(x + 2u * q - y, w, q));
}

// A round without its first `skip` layers, which may be negative.
fn forward_round(start: Sixteen, round: Round, skip: i32, q: u32) -> Sixteen {
    var v = start;
    if skip < 1 {
        let ac = forward_butterfly(v.a, v.c, round.first, q);
        let bd = forward_butterfly(v.b, v.d, round.first, q);
        v = Sixteen(ac.x, bd.x, ac.y, bd.y);
    }
    if skip < 2 {
        let ab = forward_butterfly(v.a, v.b, round.second_0, q);
        let cd = forward_butterfly(v.c, v.d, round.second_1, q);
        v = Sixteen(ab.x, ab.y, cd.x, cd.y);
    }
    v = transposed(v);
    if skip < 3 {
        let ac = forward_butterfly(v.a, v.c, round.third, q);
        let bd = forward_butterfly(v.b, v.d, round.third, q);
        v = Sixteen(ac.x, bd.x, ac.y, bd.y);
    }
    let ab = forward_butterfly(v.a, v.b, round.fourth_0, q);
    let cd = forward_butterfly(v.c, v.d, round.fourth_1, q);
    return transposed(Sixteen(ab.x, ab.y, cd.x, cd.y));
}

// The layers in the opposite order, with inverse roots; the last `skip` layers are left out.
fn inverse_round(start: Sixteen, round: Round, skip: i32, q: u32) -> Sixteen {
    var v = transposed(start);
    let ab = inverse_butterfly(v.a, v.b, round.fourth_0, q);
    let cd = inverse_butterfly(v.c, v.d, round.fourth_1, q);
    v = Sixteen(ab.x, ab.y, cd.x, cd.y);
    if skip < 3 {
        let ac = inverse_butterfly(v.a, v.c, round.third, q);
        let bd = inverse_butterfly(v.b, v.d, round.third, q);
        v = Sixteen(ac.x, bd.x, ac.y, bd.y);
    }
    v = transposed(v);
    if skip < 2 {
        let ab = inverse_butterfly(v.a, v.b, round.second_0, q);
        let cd = inverse_butterfly(v.c, v.d, round.second_1, q);
        v = Sixteen(ab.x, ab.y, cd.x, cd.y);
    }
    if skip < 1 {
        let ac = inverse_butterfly(v.a, v.c, round.first, q);
        let bd = inverse_butterfly(v.b, v.d, round.first, q);
        v = Sixteen(ac.x, bd.x, ac.y, bd.y);
    }
    return v;
}
