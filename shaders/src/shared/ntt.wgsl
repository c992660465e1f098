struct Params { base: u32, limb: u32, polynomial: u32, polynomials: u32 }

override LOG_N: u32;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read_write> x: array<u32>;
@group(0) @binding(3) var<storage, read> twiddles: array<vec2<u32>>;
