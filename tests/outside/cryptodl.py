"""What docs/format.md says of files, rings and slots, in plain Python 3.8 without packages.

Written from that page alone, as a check that it says enough. It is slow, and nothing in it runs in constant time.
"""
import cmath
import json
import math
import secrets
import struct
import sys
from itertools import count

MASK = 0xFFFFFFFF
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8


def compress(chaining, block, counter, length, flags):
    """BLAKE3's compression function: the first eight words of its output."""
    v = list(chaining) + list(IV[:4]) + [counter & MASK, counter >> 32, length, flags]
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))

    def mix(a, b, c, d, x, y):
        for word, (r, s) in ((x, (16, 12)), (y, (8, 7))):
            v[a] = (v[a] + v[b] + word) & MASK
            v[d] ^= v[a]
            v[d] = v[d] >> r | v[d] << (32 - r) & MASK
            v[c] = (v[c] + v[d]) & MASK
            v[b] ^= v[c]
            v[b] = v[b] >> s | v[b] << (32 - s) & MASK

    for _ in range(7):
        for i in range(4):
            mix(i, i + 4, i + 8, i + 12, m[2 * i], m[2 * i + 1])
        for i in range(4):
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i], m[9 + 2 * i])
        m = [m[i] for i in PERMUTATION]
    return [x ^ y for x, y in zip(v[:8], v[8:])]


def blake3(data):
    """The 32-byte digest."""

    def tree(start, stop, first, root):
        if stop - start <= 1024:
            chaining, blocks = list(IV), list(range(start, stop, 64)) or [start]
            for at in blocks:
                block = data[at : min(at + 64, stop)]
                flags = (CHUNK_START if at == blocks[0] else 0) | (CHUNK_END | root if at == blocks[-1] else 0)
                chaining = compress(chaining, block, first, len(block), flags)
            return chaining
        # The left subtree is the largest power of two of chunks that leaves something for the right one.
        left = 1 << (((stop - start - 1) // 1024).bit_length() - 1)
        middle = start + 1024 * left
        parts = tree(start, middle, first, 0) + tree(middle, stop, first + left, 0)
        return compress(IV, struct.pack("<16I", *parts), 0, 64, PARENT | root)

    return struct.pack("<8I", *tree(0, len(data), 0, ROOT))


def chacha20(key, nonce, words):
    """Words of the key stream of RFC 8439, block counter from 0; the nonce is three words."""
    out = []
    for block in range(-(-words // 16)):
        start = list(struct.unpack("<4I", b"expand 32-byte k")) + list(struct.unpack("<8I", key)) + [block, *nonce]
        x = start[:]

        def quarter(a, b, c, d):
            for p, q, r, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[p] = (x[p] + x[q]) & MASK
                x[r] ^= x[p]
                x[r] = x[r] >> (32 - turn) | x[r] << turn & MASK

        for _ in range(10):
            for i in range(4):
                quarter(i, i + 4, i + 8, i + 12)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        out += [(a + b) & MASK for a, b in zip(x, start)]
    return out[:words]


def ternary(n):
    """Coefficients of a ternary element."""
    return [secrets.randbelow(3) - 1 for _ in range(n)]


def error(n):
    """Centred binomial: the difference of two sums of 21 bits."""
    ones = lambda: bin(secrets.randbits(21)).count("1")
    return [ones() - ones() for _ in range(n)]


def expand(tag, params_digest, seed, obj, limb_index, limb):
    """A uniform element in one limb."""
    key = blake3(tag + params_digest + seed)
    out, mask = [None] * limb.n, (1 << limb.bits) - 1
    for draw in count():
        words = chacha20(key, (obj, limb_index, draw), limb.n)
        out = [word & mask if x is None and word & mask < limb.q else x for x, word in zip(out, words)]
        if None not in out:
            return out


def read(path, kind):
    """Digests and payload of a file of this kind: those of the Program (zero in keys) and of the parameters."""
    with open(path, "rb") as file:
        data = file.read()
    if len(data) < 120:
        sys.exit(f"{path}: truncated")
    magic, version, actual, program, params, length = struct.unpack_from("<8sII32s32sQ", data)
    if (magic, version, actual) != (b"CRYPTODL", 2, kind):
        sys.exit(f"{path}: not a CryptoDL file of version 2 and kind {kind}")
    if len(data) != 88 + length + 32:
        sys.exit(f"{path}: {len(data)} bytes instead of {88 + length + 32}")
    if kind in (2, 3, 4) and program != bytes(32):
        sys.exit(f"{path}: a key that names a Program")
    return program, params, data[88:-32]


def write(path, kind, program, params, payload):
    """A whole file."""
    data = struct.pack("<8sII32s32sQ", b"CRYPTODL", 2, kind, program, params, len(payload)) + payload
    with open(path, "wb") as file:
        file.write(data + blake3(data))


def limbs_of(params):
    """The chain's limbs, then the special ones."""
    return [Limb(params["n"], q) for q in params["primes"] + params["special_primes"]]


def fourier(a, powers, reduce):
    """sum_j a[j] w^(jk) for all k, where powers[i] = w^i for i < len(a) / 2."""
    if len(a) == 1:
        return a
    even, odd = (fourier(half, powers[::2], reduce) for half in (a[::2], a[1::2]))
    terms = [x * w for x, w in zip(odd, powers)]
    return [reduce(x + y) for x, y in zip(even, terms)] + [reduce(x - y) for x, y in zip(even, terms)]


class Limb:
    """Arithmetic modulo one prime."""

    def __init__(self, n, q):
        self.n, self.q, self.bits = n, q, q.bit_length()
        roots = (pow(x, (q - 1) // (4 * n), q) for x in count(2))
        self.psi = next(root for root in roots if pow(root, 2 * n, q) == q - 1)
        self.iota = pow(self.psi, n, q)
        width = n.bit_length() - 1
        self.reversed = [int(format(t, f"0{width}b")[::-1], 2) for t in range(n)]

    def powers(self, base, length):
        out = [1]
        while len(out) < length:
            out.append(out[-1] * base % self.q)
        return out

    def transform(self, a, omega):
        return fourier(a, self.powers(omega, self.n // 2), lambda x: x % self.q)

    def to_entries(self, a):
        g = [a[0]] + [a[j] - self.iota * a[self.n - j] for j in range(1, self.n)]
        twisted = [x * w % self.q for x, w in zip(g, self.powers(self.psi, self.n))]
        values = self.transform(twisted, pow(self.psi, 4, self.q))
        return [values[k] for k in self.reversed]

    def to_coefficients(self, entries):
        back = pow(self.psi, self.q - 2, self.q)
        sums = self.transform([entries[t] for t in self.reversed], pow(back, 4, self.q))
        inverse_n, half = pow(self.n, self.q - 2, self.q), (self.q + 1) // 2
        g = [x * w * inverse_n % self.q for x, w in zip(sums, self.powers(back, self.n))]
        return [g[0]] + [(g[j] + self.iota * g[self.n - j]) * half % self.q for j in range(1, self.n)]

    def pack(self, entries):
        out = bytearray()
        for start in range(0, self.n, 8):
            eight = sum(x << i * self.bits for i, x in enumerate(entries[start : start + 8]))
            out += eight.to_bytes(self.bits, "little")
        return bytes(out)

    def row_length(self):
        return self.n * self.bits // 8

    def unpack(self, row):
        mask, out = (1 << self.bits) - 1, []
        for start in range(0, len(row), self.bits):
            eight = int.from_bytes(row[start : start + self.bits], "little")
            out += [eight >> (i * self.bits) & mask for i in range(8)]
        if max(out) >= self.q:
            sys.exit(f"a residue is not below its prime {self.q}")
        return out


def integers(limbs, residues):
    """The integers of least magnitude with these residues, [limb][coefficient]."""
    product = math.prod(limb.q for limb in limbs)
    others = [product // limb.q for limb in limbs]
    weights = [other * pow(other, limb.q - 2, limb.q) for other, limb in zip(others, limbs)]
    sums = (sum(r * w for r, w in zip(column, weights)) % product for column in zip(*residues))
    return [x - product if 2 * x > product else x for x in sums]


def slots(a, scale):
    """The slots: a cosine series, as the real part of a Fourier transform of twice the length."""
    n = len(a)
    terms = [a[0]] + [2 * x for x in a[1:]]
    shifted = [x * cmath.exp(1j * math.pi * j / (2 * n)) for j, x in enumerate(terms)] + [0] * n
    powers = [cmath.exp(1j * math.pi * i / n) for i in range(n)]
    return [x.real / scale for x in fourier(shifted, powers, lambda x: x)[:n]]


def encode(values, scale):
    """The integers that carry these slots: the inverse of `slots`, rounded."""
    n = len(values)
    powers = [cmath.exp(-1j * math.pi * i / n) for i in range(n)]
    sums = fourier(list(values) + [0] * n, powers, lambda x: x)[:n]
    turned = (x * cmath.exp(-1j * math.pi * j / (2 * n)) for j, x in enumerate(sums))
    return [round(scale / n * x.real) for x in turned]


def score_unit(spec):
    """The unit that scores are rounded to."""
    n, scale = spec["params"]["n"], spec["output"]["scale"]
    secret, error, half = (2 * n - 1) * 2 / 3, (2 * n - 1) * 10.5, (2 * n - 1) / 12
    components = spec["output"]["components"]
    moments = [math.prod(range(1, 2 * t, 2)) * secret**t for t in range(components)]
    masks = sum(error * (m * secret + m + next_m) for m, next_m in zip(moments, moments[1:]))
    least = math.sqrt(masks + half * sum(moments)) / scale
    bound = 8 * max(spec["output"]["noise"], least)
    units = ((digit, power) for power in count(-6) for digit in (1, 2, 5))
    return next((d, p) for d, p in units if (d * 10**p if p >= 0 else d / 10**-p) >= bound)
