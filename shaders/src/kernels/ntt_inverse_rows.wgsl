// First pass of the inverse transform: canonical residues in evaluation order to numbers in [0, 2q).

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let limb = limbs[group.z];
    let q = limb.q;
    let start = table_start(limb.index);
    let origin = group.x * TILE;
    // A thread's first place in the second round.
    let second = (thread & 0xf0u) * 16u + (thread & 15u);
    let step = groups.y * polynomials_per_tile();
    for (var p = group.y * polynomials_per_tile(); p < params.polynomials; p += step) {
        let t = Tile(group.z, p, origin);
        to_tile(load_16(t, thread), thread, 256u);
        workgroupBarrier();
        let i = ((origin + 16u * thread) & ((1u << LOG_N) - 1u)) / 16u;
        var v = inverse_round(from_tile(16u * thread, 1u), last_round(start, i), 0, q);
        to_tile(v, 16u * thread, 1u);
        workgroupBarrier();
        v = inverse_round(from_tile(second, 16u), round_at(start, node(origin + second, 4u)), skipped(4u), q);
        to_tile(v, second, 16u);
        workgroupBarrier();
        // The next turn writes what this one reads here, place by place: no barrier.
        v = from_tile(thread, 256u);
        if skipped(8u) < 4 {
            v = inverse_round(v, round_at(start, node(origin, 8u)), skipped(8u), q);
        }
        store_16(t, thread, v);
    }
}
