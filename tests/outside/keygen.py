#!/usr/bin/env python3
"""Makes keys for a CryptoDL client spec. Written from docs/format.md alone.

    keygen.py client.spec secret.key public.key eval.key
"""
import json
import secrets
import struct
import sys

from cryptodl import error, expand, limbs_of, read, ternary, write

PUBLIC_KEY = b"cryptodl uniform v1 public key"
KINDS = {
    "relinearisation": (1, b"cryptodl uniform v1 relinearisation key"),
    "automorphism": (2, b"cryptodl uniform v1 automorphism key"),
    "power": (3, b"cryptodl uniform v1 relinearisation key"),
}


def zero(limbs, indices, entries, tag, params, seed, obj):
    """Entries of e - a t in these limbs, with an error of its own and `a` from the seed; `entries(limb)` are those of t."""
    first = entries(limbs[indices[0]])
    e, rows = error(len(first)), []
    for index in indices:
        limb = limbs[index]
        a, t = expand(tag, params, seed, obj, index, limb), entries(limb)
        rows.append([(x - y * z) % limb.q for x, y, z in zip(limb.to_entries(e), a, t)])
    return rows


def before(entries, element):
    """Entries of what X -> X^element takes to the element with these entries."""
    n, out = len(entries), [0] * len(entries)
    bits = n.bit_length() - 1

    def bitrev(u):
        return int(f"{u:0{bits}b}"[::-1], 2)

    for u in range(n):
        out[bitrev((element * bitrev(u) + (element - 1) // 4) % n)] = entries[u]
    return out


def pack(limbs, indices, rows):
    return b"".join(limbs[index].pack(row) for index, row in zip(indices, rows))


def evaluation_key(spec, limbs, secret, params, layout):
    """One entry of the list: its header, and the rows of every digit."""
    chain, level, width = len(spec["params"]["primes"]), layout["level"], layout["digit_primes"]
    parts, (kind, tag) = layout.get("prime_parts", 1), KINDS[layout["kind"]]
    element = layout.get("element", 0)
    power = 1 if element else layout.get("power", 2)

    def under(limb):
        entries = limb.to_entries(secret)
        return before(entries, element) if element else entries

    indices, seed = [*range(level), *range(chain, len(limbs))], secrets.token_bytes(32)
    entry = struct.pack("<IIII", kind, layout.get("power", element), level, width + 65536 * (parts - 1)) + seed
    for digit in range(-(-level // width) * parts):
        rows, first = zero(limbs, indices, under, tag, params, seed, digit), digit // parts * width
        for index in range(first, min(first + width, level)):
            limb = limbs[index]
            factor = 2 ** (-(-limb.q.bit_length() // parts) * (digit % parts))
            for special in limbs[chain:]:
                factor = factor * special.q % limb.q
            source = [pow(s, power, limb.q) for s in limb.to_entries(secret)]
            rows[index] = [(x + factor * s) % limb.q for x, s in zip(rows[index], source)]
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
    b = zero(limbs, everywhere, lambda limb: limb.to_entries(secret), PUBLIC_KEY, params, seed, 0)
    write(sys.argv[3], 3, no_program, params, seed + pack(limbs, everywhere, b))
    layouts = spec["evaluation_keys"]
    keys = [evaluation_key(spec, limbs, secret, params, layout) for layout in layouts]
    write(sys.argv[4], 4, no_program, params, struct.pack("<I", len(keys)) + b"".join(keys))


main()
