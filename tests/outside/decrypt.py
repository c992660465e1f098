#!/usr/bin/env python3
"""Decrypts a CryptoDL result. Written from docs/format.md alone, as a check that it says enough.

    decrypt.py secret.key client.spec result > scores.csv

It skips the BLAKE3 checksum, which takes plain Python long.
"""
import csv
import json
import struct
import sys
from math import cos, pi

from cryptodl import integers, limbs_of, read, score_unit, slots


def scores(spec, secret, payload):
    """Scores of every image."""
    out, n = spec["output"], spec["params"]["n"]
    level, values, components, k, first, sets, seeded, images = struct.unpack_from("<IIIIIIIQ", payload)
    most = [0 if packing == "spread" else packing["compact"] for packing in (spec["input"]["packing"], out["packing"])]
    together = 1
    while k > 0 and together < 2 ** most[1] and 2 * together * images <= n >> k:
        together *= 2
    expected = (out["level"], -(-out["classes"] // together), out["components"], -(-images // (n >> k)), 0)
    if (level, values, components, sets, seeded) != expected or (first + sets) * values >= 2**32 or k > most[0]:
        sys.exit("the result is not what the client spec says")
    limbs = limbs_of(spec["params"])[:level]
    keys = [limb.to_entries(secret) for limb in limbs]
    rows = sum(limb.row_length() for limb in limbs)
    if len(payload) != 68 + sets * components * values * rows:
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

    for index in range(sets):
        base = 68 + index * components * values * rows
        columns = [decrypt(base, value) for value in range(values)]
        for image in range(min(images - index * n, n >> k)):
            copies = range(image * together, (image + 1) * together)
            yield [
                sum(columns[c % values][b] * cos(c // values * (2 * b + 1) * pi / (2 * together)) for b in copies) / together
                for c in range(out["classes"])
            ]


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    (_, key_params, key), (*spec_of, spec), (*result_of, result) = map(read, sys.argv[1:], (2, 1, 6))
    if not spec_of == result_of or key_params != spec_of[1]:
        sys.exit("the three files belong to different Programs or parameters")
    spec = json.loads(spec)
    secret = [byte - 256 if byte > 127 else byte for byte in key]
    digit, power = score_unit(spec)
    names = spec.get("class_names", [])
    table = csv.writer(sys.stdout, lineterminator="\n")
    columns = ["index", "label"] + ["class"] * bool(names)
    table.writerow(columns + [f"score_{c}" for c in range(spec["output"]["classes"])])
    for index, row in enumerate(scores(spec, secret, result)):
        label = row.index(max(row))
        # Whole numbers of units, written as decimal numbers.
        units = (round(score * 10**-power / digit) * digit for score in row)
        numbers = (x * 10**power if power >= 0 else x / 10**-power for x in units)
        name = [names[label]] if names else []
        table.writerow([index, label, *name, *(f"{x:.{max(-power, 0)}f}" for x in numbers)])


main()
