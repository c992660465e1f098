// What memory allows: copies vectors, neighbouring threads neighbouring ones.

struct Params { count: u32, factor: u32, addend: u32, padding: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<u32>>;

const THREADS = 256u;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) group_count: vec3<u32>) {
    for (var i = id.x; i < params.count; i += group_count.x * THREADS) {
        out[i] = source[i];
    }
}
