// Rows of residues of `bits` bits each, least significant bit first; a row of `lanes` residues, a multiple of 32, is
// `lanes bits / 32` words long and follows the one before it.

struct Params { x: View, values: u32, lanes: u32, padding: vec2<u32> }

@group(0) @binding(0) var<uniform> params: Params;

override THREADS: u32 = 256;

// First word of a value's row.
fn row_start(limb: Limb, value: u32) -> u32 {
    return limb.source + value * (params.lanes / 32u * limb.bits);
}
