// The inner layers, in tiles of 4096 consecutive residues: several polynomials, one, or a part of one. A thread holds sixteen
// residues, in turn 256, 16 and 1 apart; between these rounds they pass through workgroup memory.

const THREADS = 256u;
const TILE = 16u * THREADS;
const LOG_TILE = 12u;
var<workgroup> tile: array<u32, TILE>;

// Where the tile keeps a place. Threads' places differ by 1, 16 or both, and so do their banks: bits 5 to 8 of the place are
// folded into bits 0 to 4. Since this only moves and adds bits modulo 2, `slot(x | y) = slot(x) ^ slot(y)` for disjoint bits.
fn slot(place: u32) -> u32 {
    return place ^ ((place >> 5u) & 15u) ^ ((place >> 4u) & 16u);
}

// Sixteen residues `step` apart, from a place that has zeros in those four bits.
fn from_tile(first: u32, step: u32) -> Sixteen {
    let at = slot(first);
    return Sixteen(
        four_from_tile(at, step),
        four_from_tile(at ^ slot(4u * step), step),
        four_from_tile(at ^ slot(8u * step), step),
        four_from_tile(at ^ slot(12u * step), step),
    );
}

fn four_from_tile(at: u32, step: u32) -> vec4<u32> {
    return vec4(tile[at], tile[at ^ slot(step)], tile[at ^ slot(2u * step)], tile[at ^ slot(3u * step)]);
}

fn to_tile(v: Sixteen, first: u32, step: u32) {
    let at = slot(first);
    four_to_tile(v.a, at, step);
    four_to_tile(v.b, at ^ slot(4u * step), step);
    four_to_tile(v.c, at ^ slot(8u * step), step);
    four_to_tile(v.d, at ^ slot(12u * step), step);
}

fn four_to_tile(v: vec4<u32>, at: u32, step: u32) {
    tile[at] = v.x;
    tile[at ^ slot(step)] = v.y;
    tile[at ^ slot(2u * step)] = v.z;
    tile[at ^ slot(3u * step)] = v.w;
}

// A tile: the part of one polynomial from `origin` on, or the polynomials from `polynomial` on.
struct Tile { limb: u32, polynomial: u32, origin: u32 }

// Polynomials that begin in one tile.
fn polynomials_per_tile() -> u32 {
    return max(1u, TILE >> LOG_N);
}

// Sixteen residues `THREADS` apart, from one of the first `THREADS` places: neighbouring threads' lie side by side.
//
// Four of them lie in one polynomial, because the smallest has `4 THREADS` residues. So polynomials that do not exist are
// skipped four residues at a time. A branch for each residue, or a `return` inside a branch, makes some compilers need minutes
// and gigabytes (SwiftShader), because all of this is inlined into one function.
fn load_16(t: Tile, first: u32) -> Sixteen {
    return Sixteen(
        load_4(t, first),
        load_4(t, first + 4u * THREADS),
        load_4(t, first + 8u * THREADS),
        load_4(t, first + 12u * THREADS),
    );
}

fn load_4(t: Tile, first: u32) -> vec4<u32> {
    var v = vec4(0u);
    if exists(t, first) {
        let at = address(t, first);
        v = vec4(x[at], x[at + THREADS], x[at + 2u * THREADS], x[at + 3u * THREADS]);
    }
    return v;
}

fn store_16(t: Tile, first: u32, v: Sixteen) {
    store_4(t, first, v.a);
    store_4(t, first + 4u * THREADS, v.b);
    store_4(t, first + 8u * THREADS, v.c);
    store_4(t, first + 12u * THREADS, v.d);
}

fn store_4(t: Tile, first: u32, v: vec4<u32>) {
    if exists(t, first) {
        let at = address(t, first);
        x[at] = v.x;
        x[at + THREADS] = v.y;
        x[at + 2u * THREADS] = v.z;
        x[at + 3u * THREADS] = v.w;
    }
}

// Whether a place of a tile belongs to a polynomial: beyond the last one it does not. A tile of one polynomial has no such place.
fn exists(t: Tile, place: u32) -> bool {
    return LOG_N >= LOG_TILE || t.polynomial + (place >> LOG_N) < params.polynomials;
}

// Where a place of a tile lies in `x`.
fn address(t: Tile, place: u32) -> u32 {
    let polynomial = t.polynomial + (place >> LOG_N);
    let lane = t.origin + (place & ((1u << LOG_N) - 1u));
    return params.base + t.limb * params.limb + polynomial * params.polynomial + lane;
}

// Node of the first layer of the round whose residues are `2^log_step` apart, for the block that holds `element`.
fn node(element: u32, log_step: u32) -> u32 {
    let log_block = log_step + 4u;
    return ((1u << LOG_N) | (element & ((1u << LOG_N) - 1u))) >> log_block;
}

// Layers of that round that belong to the columns' pass.
fn skipped(log_step: u32) -> i32 {
    return 8 + i32(log_step) - i32(LOG_N);
}
