// `x = y`: windows to windows.

@group(0) @binding(3) var<storage, read> y: array<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var row = id.y; id.x < params.lanes && row < params.values * params.components; row += groups.y) {
        let value = row / params.components;
        let component = row % params.components;
        x[index(params.x, id.z, value, component, id.x)] = y[index(params.y, id.z, value, component, id.x)];
    }
}
