// What packed dot products of bytes allow: `x = x + x . factor`, over and over.

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var chains = first(id.x);
    for (var round = 0u; round < params.count; round++) {
        chains = advanced(advanced(advanced(advanced(chains))));
    }
    out[id.x] = total(chains);
}

fn advanced(x: Chains) -> Chains {
    return Chains(dots(x.a), dots(x.b), dots(x.c), dots(x.d));
}

fn dots(x: vec4<u32>) -> vec4<u32> {
    let f = params.factor;
    let products = vec4(dot4I8Packed(x.x, f), dot4I8Packed(x.y, f), dot4I8Packed(x.z, f), dot4I8Packed(x.w, f));
    return x + bitcast<vec4<u32>>(products);
}
