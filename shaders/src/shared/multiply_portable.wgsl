// Products in 32-bit integers, from 16-bit halves.

struct Wide { low: u32, high: u32 }

// `floor(x y / 2^32)`. The middle sum is at most `2 (2^16 - 1) + (2^16 - 1)^2 = 2^32 - 1`.
fn high_product(x: u32, y: u32) -> u32 {
    let x0 = x & 0xffffu;
    let x1 = x >> 16u;
    let y0 = y & 0xffffu;
    let y1 = y >> 16u;
    let cross = x0 * y1;
    let middle = ((x0 * y0) >> 16u) + (cross & 0xffffu) + x1 * y0;
    return x1 * y1 + (cross >> 16u) + (middle >> 16u);
}

fn product(x: u32, y: u32) -> Wide {
    return Wide(x * y, high_product(x, y));
}

fn sum(x: Wide, y: Wide) -> Wide {
    let low = x.low + y.low;
    return Wide(low, x.high + y.high + u32(low < x.low));
}

fn low(x: Wide) -> u32 {
    return x.low;
}

// `x >> shift`, which fits in 32 bits; `shift` from 0 to 31.
fn shift_right(x: Wide, shift: u32) -> u32 {
    return (x.low >> shift) | ((x.high << 1u) << (31u - shift));
}

// `x 2^shift`, which fits in 64 bits; `shift` from 0 to 31.
fn shifted(x: u32, shift: u32) -> Wide {
    return Wide(x << shift, (x >> 1u) >> (31u - shift));
}

fn high_product_4(x: vec4<u32>, y: vec4<u32>) -> vec4<u32> {
    return vec4(high_product(x.x, y.x), high_product(x.y, y.y), high_product(x.z, y.z), high_product(x.w, y.w));
}
