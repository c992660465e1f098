"""Known answers of UniformSource, computed from its description alone: BLAKE3 and ChaCha20 written out here.

python3 uniform.py prints the constants of ../ckks_uniform.rs.
"""
import struct

MASK = 0xFFFFFFFF
IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]


def rotl(x, n):
    return (x << n | x >> (32 - n)) & MASK


def blake3(data):
    """BLAKE3 of at most one chunk (1024 bytes)."""
    cv = IV
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
    for i, block in enumerate(blocks):
        last = i + 1 == len(blocks)
        flags = (1 if i == 0 else 0) | ((2 | 8) if last else 0)
        m = list(struct.unpack("<16I", block.ljust(64, b"\0")))
        v = cv + IV[:4] + [0, 0, len(block), flags]

        def g(a, b, c, d, x, y):
            v[a] = (v[a] + v[b] + x) & MASK
            v[d] = rotl(v[d] ^ v[a], 16)
            v[c] = (v[c] + v[d]) & MASK
            v[b] = rotl(v[b] ^ v[c], 20)
            v[a] = (v[a] + v[b] + y) & MASK
            v[d] = rotl(v[d] ^ v[a], 24)
            v[c] = (v[c] + v[d]) & MASK
            v[b] = rotl(v[b] ^ v[c], 25)

        for _ in range(7):
            for k in range(4):
                g(k, k + 4, k + 8, k + 12, m[2 * k], m[2 * k + 1])
            for k in range(4):
                g(k, (k + 1) % 4 + 4, (k + 2) % 4 + 8, (k + 3) % 4 + 12, m[8 + 2 * k], m[9 + 2 * k])
            m = [m[p] for p in (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)]
        cv = [a ^ b for a, b in zip(v[:8], v[8:])]
    return struct.pack("<8I", *cv)


def chacha20_block(key, counter, nonce):
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key), counter, *nonce]
    v = start[:]

    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            v[x] = (v[x] + v[y]) & MASK
            v[z] = rotl(v[z] ^ v[x], n)

    for _ in range(10):
        for k in range(4):
            quarter(k, k + 4, k + 8, k + 12)
        for k in range(4):
            quarter(k, (k + 1) % 4 + 4, (k + 2) % 4 + 8, (k + 3) % 4 + 12)
    return [(a + b) & MASK for a, b in zip(v, start)]


def word(key, obj, limb, t, j):
    return chacha20_block(key, j // 16, (obj, limb, t))[j % 16]


def residue(key, obj, limb, q, j):
    t = 0
    while True:
        w = word(key, obj, limb, t, j) & ((1 << q.bit_length()) - 1)
        if w < q:
            return w, t
        t += 1


def params_digest(n, primes, special):
    words = [n, len(primes), *primes, len(special), *special]
    return blake3(b"cryptodl params v1" + struct.pack(f"<{len(words)}I", *words))


assert blake3(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
assert chacha20_block(bytes(range(32)), 1, struct.unpack("<3I", bytes.fromhex("000000090000004a00000000")))[0] == 0xE4E7F110  # RFC 8439, 2.3.2

# 12289 = 3 * 4096 + 1 has 14 bits: a quarter of the words is rejected. 4 * 16 divides q - 1 for both primes.
N, PRIMES, SPECIAL = 16, [12289], [1073738753]
digest = params_digest(N, PRIMES, SPECIAL)
seed = bytes(range(32))
for tag, obj, limb, q in ((b"ciphertext", 7, 0, 12289), (b"public key", 0, 1, 1073738753), (b"relinearisation key", 2, 0, 12289)):
    key = blake3(b"cryptodl uniform v1 " + tag + digest + seed)
    drawn = [residue(key, obj, limb, q, j) for j in range(N)]
    print(tag.decode(), obj, limb, [r for r, _ in drawn], "rounds", [t for _, t in drawn])
print("digest", digest.hex())
