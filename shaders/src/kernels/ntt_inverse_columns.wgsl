// To be written.
@compute @workgroup_size(64)
fn main() { x[0] = limbs[0].q + params.base + twiddles[0].x; }
