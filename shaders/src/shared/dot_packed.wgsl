// Sums of weights times residues with packed dot products of signed bytes, a plane of bytes at a time.
//
// A residue is `sum_b (d_b + 128) 256^b` with signed bytes `d_b = byte_b - 128`; what the 128 adds depends on the weights alone
// and is part of the row's constant. Sums start at 2^30, which is at least `65536 * 127 * 128`, so that they never leave
// [0, 2^31) and are recombined without signs; the row's constant takes that off, too.

alias Sum = vec4<i32>;

const START = 0x40000000u;

// Quads of taps before sums must be added up: all of them.
const CHUNK = 16384u;

// Four residues to four planes of four bytes each.
fn arranged(x: vec4<u32>) -> vec4<u32> {
    let even = (x.xz & vec2(0x00ff00ffu)) | ((x.yw & vec2(0x00ff00ffu)) << vec2(8u));
    let odd = ((x.xz >> vec2(8u)) & vec2(0x00ff00ffu)) | (x.yw & vec2(0xff00ff00u));
    return vec4(
        (even.x & 0xffffu) | (even.y << 16u),
        (odd.x & 0xffffu) | (odd.y << 16u),
        (even.x >> 16u) | (even.y & 0xffff0000u),
        (odd.x >> 16u) | (odd.y & 0xffff0000u),
    ) ^ vec4(0x80808080u);
}

fn start() -> Sum {
    return Sum(i32(START));
}

// Four rows' sums plus four taps. All threads take the same branch; small primes save the last plane.
fn with_quads(s: Sums, w: vec4<u32>, x: vec4<u32>, planes: u32) -> Sums {
    if planes > 3u {
        return Sums(
            s.a + four_planes(w.x, x),
            s.b + four_planes(w.y, x),
            s.c + four_planes(w.z, x),
            s.d + four_planes(w.w, x),
        );
    }
    return Sums(
        s.a + three_planes(w.x, x),
        s.b + three_planes(w.y, x),
        s.c + three_planes(w.z, x),
        s.d + three_planes(w.w, x),
    );
}

fn four_planes(w: u32, x: vec4<u32>) -> Sum {
    return Sum(dot4I8Packed(w, x.x), dot4I8Packed(w, x.y), dot4I8Packed(w, x.z), dot4I8Packed(w, x.w));
}

fn three_planes(w: u32, x: vec4<u32>) -> Sum {
    return Sum(dot4I8Packed(w, x.x), dot4I8Packed(w, x.y), dot4I8Packed(w, x.z), 0);
}

// The sum modulo the prime. Below `2^31 (256^planes - 1) / 255`, hence below `2^(bits + 31)`.
fn residue(s: Sum, limb: Limb) -> u32 {
    let u = bitcast<vec4<u32>>(s);
    let third = select(0u, u.z, limb.planes > 2u);
    let fourth = select(0u, u.w, limb.planes > 3u);
    return reduce(sum(sum(shifted(u.x, 0u), shifted(u.y, 8u)), sum(shifted(third, 16u), shifted(fourth, 24u))), limb);
}
