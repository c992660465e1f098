// Packed rows to residues of one component. `refused` becomes 1 if a residue is not below its prime; it is never cleared.

@group(0) @binding(2) var<storage, read> packed: array<u32>;
@group(0) @binding(3) var<storage, read_write> x: array<u32>;
@group(0) @binding(4) var<storage, read_write> refused: atomic<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let limb = limbs[id.z];
    let bit = id.x * limb.bits;
    let shift = bit % 32u;
    for (var value = id.y; id.x < params.lanes && value < params.values; value += groups.y) {
        let word = row_start(limb, value) + bit / 32u;
        var residue = packed[word] >> shift;
        if shift + limb.bits > 32u {
            residue |= packed[word + 1u] << (32u - shift);
        }
        residue &= (1u << limb.bits) - 1u;
        if residue >= limb.q {
            atomicStore(&refused, 1u);
        }
        x[index(params.x, id.z, value, 0u, id.x)] = residue;
    }
}
