// One balanced digit of the centred residue modulo one prime, reduced modulo each target prime.
//
// The centred residue plus half of the base at every digit but the last has digits that are not negative: they are
// its bits, less that half.

struct Params {
    x: View, out: View,
    values: u32, components: u32, lanes: u32, q: u32,
    width: u32, shift: u32, offset: u32, last: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

const THREADS = 256u;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var row = id.y; id.x < params.lanes && row < params.values * params.components; row += groups.y) {
        let value = row / params.components;
        let component = row % params.components;
        let residue = x[index(params.x, 0u, value, component, id.x)];
        let centred = residue - select(0u, params.q, residue > params.q / 2u);
        // The shift keeps the sign.
        var digit = bitcast<u32>(bitcast<i32>(centred + params.offset) >> params.shift);
        if params.last == 0u {
            let base = 1u << params.width;
            digit = (digit & (base - 1u)) - base / 2u;
        }
        // Below zero, a digit is large as an unsigned number, and smaller with the prime.
        out[index(params.out, id.z, value, component, id.x)] = min(digit, digit + limbs[id.z].q);
    }
}
