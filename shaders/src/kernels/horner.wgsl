// A monic polynomial in Horner form of ciphertexts of two components, all in registers:
// `out = sign (((z + c_(d-1)) z + ... + c_1) z) + c_0` with `d` from 2 to 4 and `d + 1` components.

struct Params {
    z: View, out: View,
    values: u32, degree: u32, negate: u32, lanes: u32,
    channels: u32, positions: u32, padding_0: u32, padding_1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> z: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;
// `c_(d-1), ..., c_0`, `[limb][channel]`.
@group(0) @binding(4) var<storage, read> constants: array<vec4<u32>>;

override THREADS: u32 = 256;

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let limb = limbs[id.z];
    for (var value = id.y; id.x < params.lanes && value < params.values; value += groups.y) {
        let c = constants[table_index(id.z, value, params.channels, params.positions)];
        let z0 = z[index(params.z, id.z, value, 0u, id.x)];
        let z1 = z[index(params.z, id.z, value, 1u, id.x)];
        // (z + c) z, then times z once or twice more; the last component first.
        var u0 = add_mod(z0, c.x, limb.q);
        var u2 = multiply_mod(z1, z1, limb);
        var u1 = two_products(u0, z1, z1, z0, limb);
        u0 = multiply_mod(u0, z0, limb);
        var u3 = 0u;
        var constant = c.y;
        if params.degree > 2u {
            u0 = add_mod(u0, constant, limb.q);
            u3 = multiply_mod(u2, z1, limb);
            u2 = two_products(u1, z1, u2, z0, limb);
            u1 = two_products(u0, z1, u1, z0, limb);
            u0 = multiply_mod(u0, z0, limb);
            constant = c.z;
        }
        if params.degree > 3u {
            u0 = add_mod(u0, constant, limb.q);
            store(value, 4u, id, multiply_mod(u3, z1, limb), limb.q);
            u3 = two_products(u2, z1, u3, z0, limb);
            u2 = two_products(u1, z1, u2, z0, limb);
            u1 = two_products(u0, z1, u1, z0, limb);
            u0 = multiply_mod(u0, z0, limb);
            constant = c.w;
        }
        if params.degree > 2u {
            store(value, 3u, id, u3, limb.q);
        }
        store(value, 2u, id, u2, limb.q);
        store(value, 1u, id, u1, limb.q);
        out[index(params.out, id.z, value, 0u, id.x)] = add_mod(signed(u0, limb.q), constant, limb.q);
    }
}

// Canonical `a b + c d`.
fn two_products(a: u32, b: u32, c: u32, d: u32, limb: Limb) -> u32 {
    return reduce(sum(product(a, b), product(c, d)), limb);
}

fn signed(u: u32, q: u32) -> u32 {
    return select(u, subtract_once(q - u, q), params.negate != 0u);
}

fn store(value: u32, component: u32, id: vec3<u32>, u: u32, q: u32) {
    out[index(params.out, id.z, value, component, id.x)] = signed(u, q);
}
