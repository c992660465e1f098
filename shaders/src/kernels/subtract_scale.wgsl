// `x = (y - x) factor`, the limb's factor. With the negated factor this is `(x - y) factor`.

@group(0) @binding(3) var<storage, read> y: array<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let limb = limbs[id.z];
    let factor = vec2(limb.factor, limb.companion);
    for (var row = id.y; id.x < params.lanes && row < params.values * params.components; row += groups.y) {
        let value = row / params.components;
        let component = row % params.components;
        let at = index(params.x, id.z, value, component, id.x);
        // In (0, 2q); the product takes any number.
        let difference = y[index(params.y, id.z, value, component, id.x)] + limb.q - x[at];
        x[at] = subtract_once(multiply_lazy(difference, factor, limb.q), limb.q);
    }
}
