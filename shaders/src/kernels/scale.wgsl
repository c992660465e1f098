// `x *= factor`, the limb's factor.

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let limb = limbs[id.z];
    let factor = vec2(limb.factor, limb.companion);
    for (var row = id.y; id.x < params.lanes && row < params.values * params.components; row += groups.y) {
        let at = index(params.x, id.z, row / params.components, row % params.components, id.x);
        x[at] = subtract_once(multiply_lazy(x[at], factor, limb.q), limb.q);
    }
}
