// `acc[c] += digit key[c]` for both components of the accumulator: the inner product of a key switch. One row of the key
// serves all values.

struct Params { acc: View, digit: View, key: View, values: u32, lanes: u32, padding: vec2<u32> }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> acc: array<u32>;
@group(0) @binding(3) var<storage, read> digit: array<u32>;
@group(0) @binding(4) var<storage, read> key: array<u32>;

override THREADS: u32 = 256;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if id.x >= params.lanes {
        return;
    }
    let limb = limbs[id.z];
    let key0 = key[index(params.key, limb.source, 0u, 0u, id.x)];
    let key1 = key[index(params.key, limb.source, 0u, 1u, id.x)];
    for (var value = id.y; value < params.values; value += groups.y) {
        let factor = digit[index(params.digit, id.z, value, 0u, id.x)];
        let at0 = index(params.acc, id.z, value, 0u, id.x);
        let at1 = index(params.acc, id.z, value, 1u, id.x);
        acc[at0] = add_mod(acc[at0], multiply_mod(factor, key0, limb), limb.q);
        acc[at1] = add_mod(acc[at1], multiply_mod(factor, key1, limb), limb.q);
    }
}
