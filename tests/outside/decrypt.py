#!/usr/bin/env python3
"""Decrypts a CryptoDL result. Written from docs/format.md alone, as a check that it says enough.

    decrypt.py secret.key client.spec result > labels.csv

Plain Python 3.8 without packages; hence it skips the BLAKE3 checksum.
"""
import cmath
import json
import math
import struct
import sys
from itertools import count


def read(path, kind):
    """Digests and payload of a file of this kind."""
    with open(path, "rb") as file:
        data = file.read()
    if len(data) < 120:
        sys.exit(f"{path}: truncated")
    magic, version, actual, digests, length = struct.unpack_from("<8sII64sQ", data)
    if (magic, version, actual) != (b"CRYPTODL", 1, kind):
        sys.exit(f"{path}: not a CryptoDL file of version 1 and kind {kind}")
    if len(data) != 88 + length + 32:
        sys.exit(f"{path}: {len(data)} bytes instead of {88 + length + 32}")
    return digests, data[88:-32]


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


def scores(spec, secret, payload):
    """Scores of every image."""
    out, n = spec["output"], spec["params"]["n"]
    level, values, components, sets, seeded, images = struct.unpack_from("<IIIIIQ", payload)
    expected = (out["level"], out["classes"], out["components"], -(-images // n), 0)
    if (level, values, components, sets, seeded) != expected:
        sys.exit("the result is not what the client spec says")
    limbs = [Limb(n, q) for q in spec["params"]["primes"][:level]]
    keys = [limb.to_entries(secret) for limb in limbs]
    rows = sum(limb.row_length() for limb in limbs)
    if len(payload) != 60 + sets * components * values * rows:
        sys.exit("the result has the wrong length")

    def decrypt(base, value):
        residues, offset = [], 0
        for limb, key in zip(limbs, keys):
            total = [0] * n
            for component in reversed(range(components)):
                start = base + component * values * rows + offset + value * limb.row_length()
                row = limb.unpack(payload[start : start + limb.row_length()])
                total = [(x * s + c) % limb.q for x, s, c in zip(total, key, row)]
            residues.append(limb.to_coefficients(total))
            offset += values * limb.row_length()
        return slots(integers(limbs, residues), out["scale"])

    for first in range(sets):
        base = 60 + first * components * values * rows
        columns = [decrypt(base, value) for value in range(values)]
        yield from list(zip(*columns))[: images - first * n]


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    (key_of, key), (spec_of, spec), (result_of, result) = map(read, sys.argv[1:], (2, 1, 6))
    if not key_of == spec_of == result_of:
        sys.exit("the three files belong to different Programs or parameters")
    spec = json.loads(spec)
    secret = [byte - 256 if byte > 127 else byte for byte in key]
    decimals = min(max(math.floor(-math.log10(max(spec["output"]["noise"], 1e-6))), 0), 6)
    print("index,label," + ",".join(f"score_{c}" for c in range(spec["output"]["classes"])))
    for index, row in enumerate(scores(spec, secret, result)):
        label = row.index(max(row))
        print(index, label, *(f"{score:.{decimals}f}" for score in row), sep=",")


main()
