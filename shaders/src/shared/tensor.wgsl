// Operands. Twins of the structs in params.rs.

struct View { base: u32, limb: u32, value: u32, component: u32 }

fn index(view: View, limb: u32, value: u32, component: u32, lane: u32) -> u32 {
    return view.base + limb * view.limb + value * view.value + component * view.component + lane;
}

// The place in a table `[limb][channel]` of what is for a value: a channel has `positions` values.
// Most tables have one channel, where nothing is divided.
fn table_index(limb: u32, value: u32, channels: u32, positions: u32) -> u32 {
    var channel = 0u;
    if channels > 1u {
        channel = value / positions;
    }
    return limb * channels + channel;
}

struct Limb {
    q: u32, bits: u32, barrett: u32, index: u32,
    factor: u32, companion: u32, source: u32, planes: u32,
    constant: u32, padding_0: u32, padding_1: u32, padding_2: u32,
}

@group(0) @binding(1) var<storage, read> limbs: array<Limb>;
