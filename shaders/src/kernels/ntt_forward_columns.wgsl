// First pass of the forward transform: canonical residues in coefficient order to numbers in [0, 4q). Folding layer
// `g_0 = a_0`, `g_k = a_k - iota a_(N-k)`, and four layers.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    if id.x >= 1u << (LOG_N - 5u) {
        return;
    }
    let limb = limbs[id.z];
    let start = table_start(limb.index);
    let round = round_at(start, 1u);
    let iota = four(twiddles[start + (1u << LOG_N)]);
    for (var p = id.y; p < params.polynomials; p += groups.y) {
        let first = params.base + id.z * params.limb + p * params.polynomial;
        let left = column(first + id.x);
        let right = column(first + partner(id.x));
        let other = mirrored(id.x, left, right, 0u);
        store_column(first + id.x, forward_round(fold(left, other.left, iota, limb.q), round, 0, limb.q));
        store_column(first + partner(id.x), forward_round(fold(right, other.right, iota, limb.q), round, 0, limb.q));
    }
}

fn fold(v: Sixteen, other: Sixteen, iota: Factors, q: u32) -> Sixteen {
    return Sixteen(
        fold_4(v.a, other.a, iota, q),
        fold_4(v.b, other.b, iota, q),
        fold_4(v.c, other.c, iota, q),
        fold_4(v.d, other.d, iota, q),
    );
}

// In (0, 3q).
fn fold_4(v: vec4<u32>, other: vec4<u32>, iota: Factors, q: u32) -> vec4<u32> {
    return v + 2u * q - multiply_lazy_4(other, iota, q);
}
