// `x += constant` in every lane; the constant is that of the limb and the value's channel.

// `[limb][channel]`.
@group(0) @binding(3) var<storage, read> constants: array<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let q = limbs[id.z].q;
    for (var row = id.y; id.x < params.lanes && row < params.values * params.components; row += groups.y) {
        let value = row / params.components;
        let constant = constants[table_index(id.z, value, params.channels, params.positions)];
        let at = index(params.x, id.z, value, row % params.components, id.x);
        x[at] = add_mod(x[at], constant, q);
    }
}
