// Second pass of the inverse transform: numbers in [0, 2q) to canonical residues in coefficient order. Four layers, and the
// unfolding layer `a_k = (g_k + iota g_(N-k)) / 2N`, `a_0 = g_0 / N`.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if id.x >= 1u << (LOG_N - 5u) {
        return;
    }
    let limb = limbs[id.z];
    let start = table_start(limb.index);
    let round = round_at(start, 1u);
    for (var p = id.y; p < params.polynomials; p += groups.y) {
        let first = params.base + id.z * params.limb + p * params.polynomial;
        let left = scaled(inverse_round(column(first + id.x), round, 0, limb.q), start, 0u, limb.q);
        let right = scaled(inverse_round(column(first + partner(id.x)), round, 0, limb.q), start, 0u, limb.q);
        let other = mirrored(id.x, scaled(left, start, 1u, limb.q), scaled(right, start, 1u, limb.q), left.a.x);
        store_column(first + id.x, canonical_sum(left, other.left, limb.q));
        store_column(first + partner(id.x), canonical_sum(right, other.right, limb.q));
    }
}

// Times one of the constants `1 / 2N` and `iota`, in [0, 2q).
fn scaled(v: Sixteen, start: u32, constant: u32, q: u32) -> Sixteen {
    let w = four(twiddles[start + (1u << LOG_N) + constant]);
    return Sixteen(
        multiply_lazy_4(v.a, w, q),
        multiply_lazy_4(v.b, w, q),
        multiply_lazy_4(v.c, w, q),
        multiply_lazy_4(v.d, w, q),
    );
}

fn canonical_sum(v: Sixteen, w: Sixteen, q: u32) -> Sixteen {
    return Sixteen(canonical_4(v.a + w.a, q), canonical_4(v.b + w.b, q), canonical_4(v.c + w.c, q), canonical_4(v.d + w.d, q));
}
