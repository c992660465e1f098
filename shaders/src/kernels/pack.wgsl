// Residues of one component to packed rows; a thread makes a word.

@group(0) @binding(2) var<storage, read> x: array<u32>;
@group(0) @binding(3) var<storage, read_write> packed: array<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let limb = limbs[id.z];
    let words = params.lanes / 32u * limb.bits;
    // The first residue with a bit in this word, and where it begins relative to the word.
    let first = 32u * id.x / limb.bits;
    let start = i32(first * limb.bits) - i32(32u * id.x);
    for (var value = id.y; id.x < words && value < params.values; value += groups.y) {
        var word = 0u;
        var lane = first;
        for (var at = start; at < 32; at += i32(limb.bits)) {
            let residue = x[index(params.x, id.z, value, 0u, lane)];
            word |= select(residue << u32(max(at, 0)), residue >> u32(max(-at, 0)), at < 0);
            lane++;
        }
        packed[row_start(limb, value) + id.x] = word;
    }
}
