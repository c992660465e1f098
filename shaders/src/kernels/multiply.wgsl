// Products of ciphertexts: component `t` of `out` is `sum_(i+j=t) a_i b_j`. `a` and `b` may be the same buffer.

struct Params { a: View, b: View, out: View, values: u32, left: u32, right: u32, lanes: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> a: array<u32>;
@group(0) @binding(3) var<storage, read> b: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

override THREADS: u32 = 256;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let limb = limbs[id.z];
    for (var value = id.y; id.x < params.lanes && value < params.values; value += groups.y) {
        for (var t = 0u; t + 1u < params.left + params.right; t++) {
            let end = min(t + 1u, params.left);
            var i = t + 1u - min(t + 1u, params.right);
            var residue = 0u;
            // Two products per reduction.
            for (; i < end; i += 2u) {
                var terms = term(id.z, value, i, t - i, id.x);
                if i + 1u < end {
                    terms = sum(terms, term(id.z, value, i + 1u, t - i - 1u, id.x));
                }
                residue = add_mod(residue, reduce(terms, limb), limb.q);
            }
            out[index(params.out, id.z, value, t, id.x)] = residue;
        }
    }
}

fn term(limb: u32, value: u32, i: u32, j: u32, lane: u32) -> Wide {
    return product(a[index(params.a, limb, value, i, lane)], b[index(params.b, limb, value, j, lane)]);
}
