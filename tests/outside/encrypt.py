#!/usr/bin/env python3
"""Encrypts images for CryptoDL, with the secret or with the public key. Written from docs/format.md alone.

    encrypt.py secret.key|public.key client.spec images.json out

images.json is an array of images, each an array of pixel values in the spec's range.
"""
import json
import secrets
import struct
import sys

from cryptodl import encode, error, expand, integers, limbs_of, read, ternary, write

CIPHERTEXT, PUBLIC_KEY = b"cryptodl uniform v1 ciphertext", b"cryptodl uniform v1 public key"


class Secret:
    """Encryption with the secret key."""

    kind = 2

    def __init__(self, spec, digest, payload):
        self.n, self.digest = spec["params"]["n"], digest
        self.limbs = limbs_of(spec["params"])[: spec["input"]["level"]]
        self.seed = secrets.token_bytes(32)
        coefficients = [byte - 256 if byte > 127 else byte for byte in payload]
        self.keys = [limb.to_entries(coefficients) for limb in self.limbs]

    def encrypt(self, obj, message):
        """Rows [stored component][limb]: only c_0 = m + e - a s is stored."""
        phase, rows = [m + e for m, e in zip(message, error(self.n))], []
        for index, (limb, key) in enumerate(zip(self.limbs, self.keys)):
            a = expand(CIPHERTEXT, self.digest, self.seed, obj, index, limb)
            rows.append(limb.pack([(m - x * s) % limb.q for m, x, s in zip(limb.to_entries(phase), a, key)]))
        return [rows]


class Public:
    """Encryption with the public key, modulo Q P, divided by P."""

    kind = 3

    def __init__(self, spec, digest, payload):
        self.n, level, limbs = spec["params"]["n"], spec["input"]["level"], limbs_of(spec["params"])
        chain = len(spec["params"]["primes"])
        self.seed, key, at = bytes(32), payload[:32], 32
        self.limbs, self.special, self.b, self.a = limbs[:level], limbs[chain:], [], []
        for index, limb in enumerate(limbs):
            # Limbs beyond the level take no part.
            if index < level or index >= chain:
                self.b.append(limb.unpack(payload[at : at + limb.row_length()]))
                self.a.append(expand(PUBLIC_KEY, digest, key, 0, index, limb))
            at += limb.row_length()

    def encrypt(self, _, message):
        u = ternary(self.n)
        return [self.component(key, u, m) for key, m in ((self.b, message), (self.a, [0] * self.n))]

    def component(self, key, u, message):
        """(k u + e - r) / P + m, where r is k u + e modulo P, of least magnitude."""
        e, products = error(self.n), []
        for limb, k in zip(self.limbs + self.special, key):
            product = [x * y % limb.q for x, y in zip(limb.to_entries(u), k)]
            products.append([(x + y) % limb.q for x, y in zip(limb.to_coefficients(product), e)])
        remainder, rows = integers(self.special, products[len(self.limbs) :]), []
        for limb, product in zip(self.limbs, products):
            p = 1
            for special in self.special:
                p = p * special.q % limb.q
            inverse = pow(p, limb.q - 2, limb.q)
            divided = [((x - r) * inverse + m) % limb.q for x, r, m in zip(product, remainder, message)]
            rows.append(limb.pack(limb.to_entries(divided)))
        return rows


def packing(spec, images):
    """The largest k for which all images fit."""
    allowed, k = spec["input"]["packing"], 0
    if allowed != "spread":
        k = allowed["compact"]
        while k > 0 and len(images) > spec["params"]["n"] >> k:
            k -= 1
    return k


def places(n, k):
    """For image b the slots of its leaves 0 .. 2^k."""
    gamma, power, powers = pow(5, n >> k, 4 * n), 1, []
    for _ in range(1 << k):
        powers.append(power)
        power = power * gamma % (4 * n)
    exponents = [[power * (2 * b + 1) % (4 * n) for power in powers] for b in range(n >> k)]
    return [[(min(e, 4 * n - e) - 1) // 2 for e in image] for image in exponents]


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    program, params, spec = read(sys.argv[2], 1)
    spec = json.loads(spec)
    kind = Secret if spec["encryption"] == "secret" else Public
    _, key_params, key = read(sys.argv[1], kind.kind)
    if key_params != params:
        sys.exit("the key belongs to other parameters")
    key = kind(spec, params, key)
    with open(sys.argv[3]) as file:
        images = json.load(file)
    n, (low, high), scale = spec["params"]["n"], spec["input"]["range"], spec["input"]["scale"]
    k, copies = packing(spec, images), 1
    most = spec["output"]["packing"]
    while k > 0 and most != "spread" and copies < 2 ** most["compact"] and 2 * copies * len(images) <= n >> k:
        copies *= 2
    slots, values, sets = places(n, k), -(-len(images[0]) // (1 << k)), -(-len(images) // n)
    level, stored = spec["input"]["level"], 1 if kind is Secret else 2
    payload = struct.pack("<IIIIIIIQ", level, values, 2, k, 0, sets, int(kind is Secret), len(images)) + key.seed
    for index in range(sets):
        part, rows = images[index * n : (index + 1) * n], []
        for value in range(values):
            # Slots without a pixel hold the value of the range that is nearest to zero.
            column = [min(max(0.0, low), high)] * n
            for place, leaves in enumerate(slots[: len(part) * copies]):
                for pixel, slot in zip(part[place // copies][value::values], leaves):
                    column[slot] = pixel
            rows.append(key.encrypt(index * values + value, encode(column, scale)))
        for component in range(stored):
            payload += b"".join(rows[v][component][limb] for limb in range(level) for v in range(values))
    write(sys.argv[4], 5, program, params, payload)


main()
