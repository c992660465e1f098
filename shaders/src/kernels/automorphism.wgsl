// The image under an automorphism: lane `t` is lane `bitrev(g bitrev(t) + (g - 1) / 4)` of the operand.

struct Params {
    x: View, out: View,
    values: u32, components: u32, log_n: u32, element: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

const THREADS = 256u;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let lanes = 1u << params.log_n;
    // Products and sums modulo 2^32 are right modulo the number of lanes, a smaller power of two.
    let place = params.element * bit_reversed(id.x) + params.element / 4u;
    let source = bit_reversed(place & (lanes - 1u));
    for (var row = id.y; id.x < lanes && row < params.values * params.components; row += groups.y) {
        let value = row / params.components;
        let component = row % params.components;
        out[index(params.out, id.z, value, component, id.x)] = x[index(params.x, id.z, value, component, source)];
    }
}

fn bit_reversed(lane: u32) -> u32 {
    return reverseBits(lane) >> (32u - params.log_n);
}
