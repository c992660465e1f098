// The inner layers, in tiles of 4096 consecutive residues: several polynomials, one, or a part of one. A thread holds sixteen
// residues, in turn 256, 16 and 1 apart; between these rounds they pass through workgroup memory.

const THREADS = 256u;
var<workgroup> tile: array<u32, 16 * THREADS>;

// Distances of a thread's residues are powers of two: bits 5 to 8 of the place, folded into the bank, keep threads apart.
fn slot(place: u32) -> u32 {
    return place ^ ((place >> 5u) & 15u) ^ ((place >> 4u) & 16u);
}

fn from_tile(first: u32, step: u32) -> Sixteen {
    return Sixteen(
        four_from_tile(first, step),
        four_from_tile(first + 4u * step, step),
        four_from_tile(first + 8u * step, step),
        four_from_tile(first + 12u * step, step),
    );
}

fn four_from_tile(first: u32, step: u32) -> vec4<u32> {
    return vec4(
        tile[slot(first)],
        tile[slot(first + step)],
        tile[slot(first + 2u * step)],
        tile[slot(first + 3u * step)],
    );
}

fn to_tile(v: Sixteen, first: u32, step: u32) {
    four_to_tile(v.a, first, step);
    four_to_tile(v.b, first + 4u * step, step);
    four_to_tile(v.c, first + 8u * step, step);
    four_to_tile(v.d, first + 12u * step, step);
}

fn four_to_tile(v: vec4<u32>, first: u32, step: u32) {
    tile[slot(first)] = v.x;
    tile[slot(first + step)] = v.y;
    tile[slot(first + 2u * step)] = v.z;
    tile[slot(first + 3u * step)] = v.w;
}

// Polynomials that begin in one tile.
fn polynomials_per_tile() -> u32 {
    return max(1u, 4096u >> LOG_N);
}

// Where an element of a tile lies in `x`; `row` counts tiles' worth of polynomials. Beyond the last polynomial: none.
struct Address { at: u32, exists: bool }

fn address(limb: u32, row: u32, element: u32) -> Address {
    let polynomial = row * polynomials_per_tile() + (element >> LOG_N);
    let at = params.base + limb * params.limb + polynomial * params.polynomial + (element & ((1u << LOG_N) - 1u));
    return Address(at, polynomial < params.polynomials);
}

fn load(limb: u32, row: u32, element: u32) -> u32 {
    let place = address(limb, row, element);
    if place.exists {
        return x[place.at];
    }
    return 0u;
}

fn store(limb: u32, row: u32, element: u32, residue: u32) {
    let place = address(limb, row, element);
    if place.exists {
        x[place.at] = residue;
    }
}

// Sixteen elements 256 apart: neighbouring threads' lie side by side.
fn load_16(limb: u32, row: u32, first: u32) -> Sixteen {
    return Sixteen(
        load_4(limb, row, first),
        load_4(limb, row, first + 4u * THREADS),
        load_4(limb, row, first + 8u * THREADS),
        load_4(limb, row, first + 12u * THREADS),
    );
}

fn load_4(limb: u32, row: u32, first: u32) -> vec4<u32> {
    return vec4(
        load(limb, row, first),
        load(limb, row, first + THREADS),
        load(limb, row, first + 2u * THREADS),
        load(limb, row, first + 3u * THREADS),
    );
}

fn store_16(limb: u32, row: u32, first: u32, v: Sixteen) {
    store_4(limb, row, first, v.a);
    store_4(limb, row, first + 4u * THREADS, v.b);
    store_4(limb, row, first + 8u * THREADS, v.c);
    store_4(limb, row, first + 12u * THREADS, v.d);
}

fn store_4(limb: u32, row: u32, first: u32, v: vec4<u32>) {
    store(limb, row, first, v.x);
    store(limb, row, first + THREADS, v.y);
    store(limb, row, first + 2u * THREADS, v.z);
    store(limb, row, first + 3u * THREADS, v.w);
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
