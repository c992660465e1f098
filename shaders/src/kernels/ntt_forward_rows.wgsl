// Second pass of the forward transform: numbers in [0, 4q) to canonical residues in evaluation order.

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
        var v = load_16(t, thread);
        if skipped(8u) < 4 {
            v = forward_round(v, round_at(start, node(origin, 8u)), skipped(8u), q);
        }
        to_tile(v, thread, 256u);
        workgroupBarrier();
        v = forward_round(from_tile(second, 16u), round_at(start, node(origin + second, 4u)), skipped(4u), q);
        to_tile(v, second, 16u);
        workgroupBarrier();
        let i = ((origin + 16u * thread) & ((1u << LOG_N) - 1u)) / 16u;
        v = forward_round(from_tile(16u * thread, 1u), last_round(start, i), 0, q);
        v = Sixteen(canonical_4(v.a, q), canonical_4(v.b, q), canonical_4(v.c, q), canonical_4(v.d, q));
        to_tile(v, 16u * thread, 1u);
        workgroupBarrier();
        // The next turn writes what this one reads here, place by place: no barrier.
        store_16(t, thread, from_tile(thread, 256u));
    }
}
