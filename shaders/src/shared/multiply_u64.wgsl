// Products in native 64-bit integers.

alias Wide = u64;

fn product(x: u32, y: u32) -> Wide {
    return u64(x) * u64(y);
}

fn sum(x: Wide, y: Wide) -> Wide {
    return x + y;
}

fn low(x: Wide) -> u32 {
    return u32(x & 0xfffffffflu);
}

// `x >> shift`, which fits in 32 bits; `shift` from 0 to 31.
fn shift_right(x: Wide, shift: u32) -> u32 {
    return u32((x >> shift) & 0xfffffffflu);
}

// `x 2^shift`, which fits in 64 bits.
fn shifted(x: u32, shift: u32) -> Wide {
    return u64(x) << shift;
}

// `floor(x y / 2^32)`.
fn high_product(x: u32, y: u32) -> u32 {
    return u32((u64(x) * u64(y)) >> 32u);
}

fn high_product_4(x: vec4<u32>, y: vec4<u32>) -> vec4<u32> {
    return vec4(high_product(x.x, y.x), high_product(x.y, y.y), high_product(x.z, y.z), high_product(x.w, y.w));
}
