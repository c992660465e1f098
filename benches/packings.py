"""Where few images are cheaper packed compactly, as the planner says and as measured.

For every network and batch, `cryptodl run` encrypts, computes and decrypts the batch with either packing, a few times in
turns; the median counts. What a client waits for is these times and the bytes at so many megabits in a second; evaluation
keys are shared out over 16 requests, as the planner does. The crossover is the batch from which spreading costs less,
between measured batches in proportion to their logarithms. A network that cannot be packed compactly in a batch is beyond
its crossover there.

    benches/packings.py target/release/cryptodl mnist-1 mnist-2 > table.md
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REQUESTS_PER_KEY = 16


def cryptodl(binary, command, name, batch, packing, extra=()):
    """What `command --json` says."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = [binary, command, "--model", name, "--batch", str(batch), "--packing", packing, "--json", report, *extra]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr}")
        return json.loads(report.read_text())


def crossover(batches, differences):
    """The batch at which `spread - compact` goes from positive to negative; the last one if it never does."""
    before = None
    for batch, difference in zip(batches, differences):
        if difference <= 0:
            if before is None:
                return batch
            at, other = before
            share = other / (other - difference)
            return math.exp(math.log(at) + share * (math.log(batch) - math.log(at)))
        before = batch, difference
    return batches[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("network", nargs="+")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 256, 512, 1024, 2048, 3072, 4096])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--megabits", type=float, default=100.0)
    args = parser.parse_args()
    print(f"| network | images | chosen | up and down, MB: compact | spread | seconds: compact | spread | with "
          f"{args.megabits:g} Mbit/s: compact | spread |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in args.network:
        rows = []
        for batch in args.batches:
            chosen = cryptodl(args.binary, "plan", name, batch, "auto")["program"]
            plans = {packing: cryptodl(args.binary, "plan", name, batch, packing) for packing in ("compact", "spread")}
            names = [packing for packing, plan in plans.items() if plan["program"] == chosen]
            times = {packing: [] for packing in plans}
            for _ in range(args.repeat):
                for packing in plans:
                    run = cryptodl(args.binary, "run", name, batch, packing, ("--images", batch))
                    times[packing].append(sum(run["seconds"][part] for part in ("encrypt", "compute", "decrypt")))
            seconds = {packing: statistics.median(values) for packing, values in times.items()}
            size = {packing: plan["bytes"]["upload"] + plan["bytes"]["download"]
                    + plan["bytes"]["eval_key"] / REQUESTS_PER_KEY for packing, plan in plans.items()}
            wait = {packing: seconds[packing] + 8 * size[packing] / (1e6 * args.megabits) for packing in plans}
            same = plans["compact"]["program"] == plans["spread"]["program"]
            print(f"| {name} | {batch} | {'spread' if same else ' or '.join(names) or 'another'} | "
                  f"{size['compact'] / 1e6:.2f} | {size['spread'] / 1e6:.2f} | {seconds['compact']:.3f} | "
                  f"{seconds['spread']:.3f} | {wait['compact']:.3f} | {wait['spread']:.3f} |", flush=True)
            rows.append((batch, names, {what: 0.0 if same else values["spread"] - values["compact"]
                                        for what, values in (("bytes", size), ("seconds", seconds), ("wait", wait))}))
        batches = [batch for batch, _, _ in rows]
        chosen = max((batch for batch, names, _ in rows if "compact" in names and "spread" not in names), default=0)
        found = {what: crossover(batches, [row[2][what] for row in rows]) for what in ("bytes", "seconds", "wait")}
        print(f"{name}: packed compactly up to {chosen} images; cheaper so up to {found['bytes']:.0f} by bytes, "
              f"{found['seconds']:.0f} by time, {found['wait']:.0f} by both", file=sys.stderr)


if __name__ == "__main__":
    main()
