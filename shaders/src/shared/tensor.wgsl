// Operands. Twins of the structs in params.rs.

struct View { base: u32, limb: u32, value: u32, component: u32 }

fn index(view: View, limb: u32, value: u32, component: u32, lane: u32) -> u32 {
    return view.base + limb * view.limb + value * view.value + component * view.component + lane;
}

struct Limb {
    q: u32, bits: u32, barrett: u32, index: u32,
    factor: u32, companion: u32, source: u32, planes: u32,
    constants: vec4<u32>,
}

@group(0) @binding(1) var<storage, read> limbs: array<Limb>;
