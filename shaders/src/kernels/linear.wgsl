// To be written.

struct Params {
    x: View, out: View,
    components: u32, lanes: u32, positions: u32, quads: u32,
    rows: u32, blocks: u32, groups: u32, group_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
@group(0) @binding(4) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> gather: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> constants: array<u32>;

override ROW_GROUPS: u32 = 1;

@compute @workgroup_size(64, ROW_GROUPS)
fn main() { out[0] = x[0] + weights[0].x + gather[0].x + constants[0] + params.lanes + limbs[0].q; }
