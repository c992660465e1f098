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

struct Address { at: u32, exists: bool }

// Where a place of a tile lies in `x`; nowhere beyond the last polynomial.
fn address(t: Tile, place: u32) -> Address {
    let start = params.base + t.limb * params.limb;
    if LOG_N >= LOG_TILE {
        return Address(start + t.polynomial * params.polynomial + t.origin + place, true);
    }
    let polynomial = t.polynomial + (place >> LOG_N);
    let lane = place & ((1u << LOG_N) - 1u);
    return Address(start + polynomial * params.polynomial + lane, polynomial < params.polynomials);
}

fn load(t: Tile, place: u32) -> u32 {
    let from_place = address(t, place);
    if from_place.exists {
        return x[from_place.at];
    }
    return 0u;
}

fn store(t: Tile, place: u32, residue: u32) {
    let to_place = address(t, place);
    if to_place.exists {
        x[to_place.at] = residue;
    }
}

// Sixteen residues `THREADS` apart: neighbouring threads' lie side by side.
fn load_16(t: Tile, first: u32) -> Sixteen {
    return Sixteen(
        load_4(t, first),
        load_4(t, first + 4u * THREADS),
        load_4(t, first + 8u * THREADS),
        load_4(t, first + 12u * THREADS),
    );
}

fn load_4(t: Tile, first: u32) -> vec4<u32> {
    return vec4(
        load(t, first),
        load(t, first + THREADS),
        load(t, first + 2u * THREADS),
        load(t, first + 3u * THREADS),
    );
}

fn store_16(t: Tile, first: u32, v: Sixteen) {
    store_4(t, first, v.a);
    store_4(t, first + 4u * THREADS, v.b);
    store_4(t, first + 8u * THREADS, v.c);
    store_4(t, first + 12u * THREADS, v.d);
}

fn store_4(t: Tile, first: u32, v: vec4<u32>) {
    store(t, first, v.x);
    store(t, first + THREADS, v.y);
    store(t, first + 2u * THREADS, v.z);
    store(t, first + 3u * THREADS, v.w);
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
