// What 32-bit integer arithmetic allows: `x = x factor + addend`, over and over.

@compute @workgroup_size(THREADS)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var chains = first(id.x);
    for (var round = 0u; round < params.count; round++) {
        chains = advanced(advanced(advanced(advanced(chains))));
    }
    out[id.x] = total(chains);
}

fn advanced(x: Chains) -> Chains {
    let f = vec4(params.factor);
    let g = vec4(params.addend);
    return Chains(x.a * f + g, x.b * f + g, x.c * f + g, x.d * f + g);
}
