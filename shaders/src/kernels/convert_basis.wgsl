// The centred representative modulo the product of the source primes, reduced modulo each target prime: balanced mixed-radix
// digits `d_i`, `|d_i| <= (q_i - 1) / 2`, then `sum_i d_i (q_0 ... q_(i-1))`. Digits are kept as `d_i + 2^30`, which the lazy
// product takes; what this adds to a sum is taken off with the limb's `constants.x`.
//
// `limbs` holds the sources, then the targets; `weights` a row for each: `q_0 ... q_(j-1)` for all sources `j` (in row `i` of a
// source, entry `i` is the inverse of the product).

struct Params {
    x: View, out: View,
    sources: u32, targets: u32, values: u32, components: u32,
    lanes: u32, padding_0: u32, padding_1: u32, padding_2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
@group(0) @binding(4) var<storage, read> weights: array<vec2<u32>>;

const THREADS = 64u;
const MAX_SOURCES = 8u;
const OFFSET = 1u << 30u;

// Every thread has a column of its own.
var<workgroup> digits: array<u32, MAX_SOURCES * THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var row = id.y; id.x < params.lanes && row < params.values * params.components; row += groups.y) {
        let value = row / params.components;
        let component = row % params.components;
        for (var i = 0u; i < params.sources; i++) {
            let limb = limbs[i];
            let residue = x[index(params.x, i, value, component, id.x)];
            // (0, 4q), for the lazy product.
            let rest = residue + 2u * limb.q - weighted_sum(i, i, thread, limb.q) + limb.constant;
            let digit = subtract_once(multiply_lazy(rest, weights[i * params.sources + i], limb.q), limb.q);
            digits[i * THREADS + thread] = OFFSET + digit - select(0u, limb.q, digit > limb.q / 2u);
        }
        for (var target_limb = 0u; target_limb < params.targets; target_limb++) {
            let row_of_weights = params.sources + target_limb;
            let limb = limbs[row_of_weights];
            let residue = weighted_sum(row_of_weights, params.sources, thread, limb.q) + limb.constant;
            out[index(params.out, target_limb, value, component, id.x)] = canonical(residue, limb.q);
        }
    }
}

// The first `count` digits plus `2^30` each, weighted with a row of `weights`: in [0, 2q).
fn weighted_sum(row: u32, count: u32, thread: u32, q: u32) -> u32 {
    var total = 0u;
    for (var j = 0u; j < count; j++) {
        let term = multiply_lazy(digits[j * THREADS + thread], weights[row * params.sources + j], q);
        total = subtract_once(total + term, 2u * q);
    }
    return total;
}
