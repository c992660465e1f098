#!/usr/bin/env python3
"""What three graphics cards should take for each kernel and model, from counted work and data sheets: a prediction to test.

    python3 benches/predict.py REPORT.json... [--measured GPU.json...]

REPORT.json is what `cryptodl bench --json` wrote on any machine: only its counts of work are used, no time. With --measured, reports
of the same kind from a card stand beside the prediction. Writes Markdown to standard output. Standard library only.

The ceiling of a part is the longest of: its bytes over the card's bandwidth, its dot products of four bytes, and its other
instructions, each over the rate at which all multiprocessors issue them. Instructions per residue are those that shaders/README.md
counts. The prediction is twice the ceiling, which is the goal for untuned kernels; a model adds the upload of its first set and a
tenth of a millisecond for each step that must be submitted. Masks, which the host draws, and later uploads overlap.
"""

import argparse
import json
from dataclasses import dataclass
from math import ceil, log2

EFFICIENCY = 0.5
SUBMISSION = 1e-4


@dataclass
class Card:
    name: str
    bandwidth: float  # bytes per second
    dots: float  # packed dot products of four bytes per second
    multiplications: float  # 32-bit integer multiplications per second
    additions: float  # other 32-bit integer instructions per second
    bus: float  # bytes per second from the host


def nvidia(name, multiprocessors, clock, bandwidth, bus):
    """64 integer lanes in each multiprocessor for all three (CUDA's table of throughputs, compute capability 8.x and 9.0)."""
    rate = 64 * multiprocessors * clock
    return Card(name, bandwidth, rate, rate, rate, bus)


CARDS = [
    nvidia("H200", 132, 1.75e9, 4.8e12, 50e9),
    nvidia("RTX 4090", 128, 2.5e9, 1.008e12, 25e9),
    # 96 units of 64 lanes; 32-bit multiplications at a quarter of the rate.
    Card("RX 7900 XTX", 0.96e12, 96 * 64 * 2.3e9, 96 * 16 * 2.3e9, 96 * 64 * 2.3e9, 25e9),
]


@dataclass
class Work:
    bytes: float = 0
    dots: float = 0
    multiplications: float = 0
    additions: float = 0

    def __add__(self, other):
        return Work(*(a + b for a, b in zip(vars(self).values(), vars(other).values())))

    def ceiling(self, card):
        issued = self.multiplications / card.multiplications + self.additions / card.additions
        return max(self.bytes / card.bandwidth, self.dots / card.dots + issued)


def transforms(count, n):
    """Two passes over memory; N/2 log N butterflies of 3 multiplications and 6 other instructions, and as much for folding."""
    butterflies = count * n * (log2(n) / 2 + 1)
    return Work(16 * count * n, 0, 3 * butterflies, 6 * butterflies)


def kernel(row, bits):
    name = row["kernel"]
    if name in ("forward_ntt", "inverse_ntt"):
        return transforms(row["items"], row["n"])
    if name == "expand":
        return Work(row["bytes"], 0, 0, 61 * row["bytes"] / 4)
    if name == "unpack":
        return Work(row["bytes"], 0, 0, 12 * row["bytes"] / (4 + bits / 8))
    if name == "linear":
        return Work(row["bytes"], row["multiply_adds"] * ceil(bits / 8) / 4)
    return None


def model(measured):
    """Parts of one computation of all sets: (name, work)."""
    run = measured["run"]
    sets, params = run["batches"], run["params"]
    bits = ceil(log2(params["primes"][0]))
    parts = []
    for part in measured["parts"]:
        if part["name"] in ("masks", "pack"):
            continue
        layer = next((layer for layer in run["layers"]
                      if layer["name"] == part["name"] and abs(layer["seconds"] - part["seconds"]) < 1e-12), None)
        work = Work(part["bytes"], part["multiply_adds"] * ceil(bits / 8) / 4)
        if part["name"] == "expand":
            work.additions = 61 * part["bytes"] / 4
        if layer:
            work += transforms(layer["ntts"] * sets, params["n"])
        parts.append((part["name"], work))
    return parts, run["bytes"]["upload"] / sets, sets


def milliseconds(seconds):
    return f"{1e3 * seconds:.3g}"


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("reports", nargs="+")
    parser.add_argument("--measured", nargs="+", default=[])
    arguments = parser.parse_args()
    reports, measured = ([json.load(open(path)) for path in paths] for paths in (arguments.reports, arguments.measured))
    kernels = {(row["kernel"], row["shape"]): row["seconds"] for report in measured for row in report["rows"]}
    models = {(m["run"]["model"], m["schedule"]): m["run"]["seconds"]["compute"] for r in measured for m in r["models"]}
    last = ["measured, ms"] if measured else []

    print("Milliseconds; the ceiling first, then the prediction, which is twice as long.\n")
    print("## Kernels\n")
    rows = []
    networks = {entry["run"]["model"]: ceil(log2(entry["run"]["params"]["primes"][0]))
                for report in reports for entry in report["models"]}
    for report in reports:
        for row in report["rows"]:
            network = row["shape"].split(" ")[0] if row["kernel"] == "linear" else None
            bits = networks.get(network, 24)
            work = kernel(row, bits)
            name = f"{row['kernel']}, {row['shape']}"
            # Others are packed like these.
            if work is None or (network and network not in networks) or any(name == known[0] for known in rows):
                continue
            if row["kernel"] in ("unpack", "expand") and "x 24 bits" not in row["shape"]:
                continue
            ceilings = [work.ceiling(card) for card in CARDS]
            rows.append([name] + [f"{milliseconds(c)}, {milliseconds(c / EFFICIENCY)}" for c in ceilings])
            if measured:
                seconds = kernels.get((row["kernel"], row["shape"]))
                rows[-1].append(milliseconds(seconds) if seconds else "")
    table(["kernel"] + [card.name for card in CARDS] + last, rows)

    print("## Models, `compute` of the whole batch\n")
    rows = []
    for report in reports:
        for entry in report["models"]:
            parts, upload, sets = model(entry)
            run = entry["run"]
            row = [f"{run['model']} {entry['schedule']}, {run['images']} images"]
            for card in CARDS:
                least = sum(work.ceiling(card) for _, work in parts)
                fixed = upload / card.bus + SUBMISSION * sets * len(parts)
                row.append(f"{milliseconds(least)}, {milliseconds(least / EFFICIENCY + fixed)}")
            if measured:
                seconds = models.get((run["model"], entry["schedule"]))
                row.append(milliseconds(seconds) if seconds else "")
            rows.append(row)
    table(["network"] + [card.name for card in CARDS] + last, rows)


main()
