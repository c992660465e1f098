#!/usr/bin/env python3
"""Makes keys for a CryptoDL client spec. Written from docs/format.md alone.

    keygen.py client.spec secret.key public.key eval.key
"""
import json
import secrets
import struct
import sys

from cryptodl import error, expand, limbs_of, read, ternary, write

PUBLIC_KEY, RELINEARISATION = b"cryptodl uniform v1 public key", b"cryptodl uniform v1 relinearisation key"


def zero(limbs, indices, secret, tag, params, seed, obj):
    """Entries of e - a s in these limbs, with an error of its own and `a` from the seed."""
    e, rows = error(len(secret)), []
    for index in indices:
        limb = limbs[index]
        a, s = expand(tag, params, seed, obj, index, limb), limb.to_entries(secret)
        rows.append([(x - y * z) % limb.q for x, y, z in zip(limb.to_entries(e), a, s)])
    return rows


def pack(limbs, indices, rows):
    return b"".join(limbs[index].pack(row) for index, row in zip(indices, rows))


def relinearisation_key(spec, limbs, secret, params, layout):
    """One entry of the list: its header, and the rows of every digit."""
    chain, level, width = len(spec["params"]["primes"]), layout["level"], layout["digit_primes"]
    indices, seed = [*range(level), *range(chain, len(limbs))], secrets.token_bytes(32)
    entry = struct.pack("<IIII", 1, 0, level, width) + seed
    for digit in range(-(-level // width)):
        rows = zero(limbs, indices, secret, RELINEARISATION, params, seed, digit)
        for index in range(digit * width, min((digit + 1) * width, level)):
            limb, p = limbs[index], 1
            for special in limbs[chain:]:
                p = p * special.q % limb.q
            rows[index] = [(x + p * s * s) % limb.q for x, s in zip(rows[index], limb.to_entries(secret))]
        entry += pack(limbs, indices, rows)
    return entry


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    _, params, spec = read(sys.argv[1], 1)
    spec, no_program = json.loads(spec), bytes(32)
    limbs, secret = limbs_of(spec["params"]), ternary(spec["params"]["n"])
    write(sys.argv[2], 2, no_program, params, bytes(s % 256 for s in secret))
    everywhere, seed = range(len(limbs)), secrets.token_bytes(32)
    b = zero(limbs, everywhere, secret, PUBLIC_KEY, params, seed, 0)
    write(sys.argv[3], 3, no_program, params, seed + pack(limbs, everywhere, b))
    layouts = spec["evaluation_keys"]
    if any(layout["kind"] != "relinearisation" for layout in layouts):
        sys.exit("another kind of evaluation key than this program knows")
    keys = [relinearisation_key(spec, limbs, secret, params, layout) for layout in layouts]
    write(sys.argv[4], 4, no_program, params, struct.pack("<I", len(keys)) + b"".join(keys))


main()
