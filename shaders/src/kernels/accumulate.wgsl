// `x += factor y` for the components of `y`; the factor is that of the limb and the value's
// channel.

@group(0) @binding(3) var<storage, read> y: array<u32>;
// Factors with their companions, `[limb][channel]`.
@group(0) @binding(4) var<storage, read> factors: array<vec2<u32>>;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let limb = limbs[id.z];
    for (var row = id.y; id.x < params.lanes && row < params.values * params.components; row += groups.y) {
        let value = row / params.components;
        let component = row % params.components;
        let factor = factors[table_index(id.z, value, params.channels, params.positions)];
        let term = multiply_lazy(y[index(params.y, limb.source, value, component, id.x)], factor, limb.q);
        let at = index(params.x, id.z, value, component, id.x);
        // Below 3q.
        x[at] = canonical(x[at] + term, limb.q);
    }
}
