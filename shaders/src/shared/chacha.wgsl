// The ChaCha20 block function (RFC 8439).

struct Block { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }

fn rotate(x: vec4<u32>, bits: u32) -> vec4<u32> {
    return (x << vec4(bits)) | (x >> vec4(32u - bits));
}

// Four quarter rounds, on the columns of the state.
fn quarter_rounds(s: Block) -> Block {
    var a = s.a + s.b;
    var d = rotate(s.d ^ a, 16u);
    var c = s.c + d;
    var b = rotate(s.b ^ c, 12u);
    a += b;
    d = rotate(d ^ a, 8u);
    c += d;
    b = rotate(b ^ c, 7u);
    return Block(a, b, c, d);
}

// Sixteen words of the keystream; `last` is the counter and the nonce.
fn chacha20(key0: vec4<u32>, key1: vec4<u32>, last: vec4<u32>) -> Block {
    let start = Block(vec4(0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u), key0, key1, last);
    var s = start;
    for (var i = 0; i < 10; i++) {
        s = quarter_rounds(s);
        // Diagonals become columns, and back.
        s = quarter_rounds(Block(s.a, s.b.yzwx, s.c.zwxy, s.d.wxyz));
        s = Block(s.a, s.b.wxyz, s.c.zwxy, s.d.yzwx);
    }
    return Block(s.a + start.a, s.b + start.b, s.c + start.c, s.d + start.d);
}
