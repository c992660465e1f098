#!/usr/bin/env python3
"""Plaintext PyTorch beside encrypted inference: the same network as published, images and threads, in one run.

    python benches/plaintext.py mnist-1 [--images 8192] [--threads 2] [--binary target/release/cryptodl] [--json FILE]

Needs the packages of models/train/requirements.txt, the data set in the cache (`cryptodl data fetch`) and a release build.
PyTorch computes the layers one by one in fp32, eager mode, with the polynomial as the activation and, as a second peer, with
ReLU in its place (its labels mean nothing then; only its time counts). Of several batch sizes the fastest counts. Plaintext
and encrypted computations alternate, so that a noisy machine disturbs both alike; medians count. An encrypted computation is
what the server does: from the uploaded file in memory to the result, `compute` of `cryptodl run`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "models/train"))
from cryptodl_train import data  # noqa: E402

BATCHES = (32, 128, 512, 2048, 8192)


def horner(x, coefficients):
    """sum coefficients[i] x^i, elementwise."""
    y = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        y.mul_(x).add_(coefficient)
    return y


def layer(description, tensors):
    """The function that a layer of a model file is."""
    name, kind = description["name"], description["kind"]
    part = {key.split(".")[1]: tensor for key, tensor in tensors.items() if key.split(".")[0] == name}
    if kind == "conv2d":
        stride, padding = description.get("stride", 1), description.get("padding", 0)
        return lambda x: functional.conv2d(x, part["weight"], part.get("bias"), stride, padding)
    if kind == "dense":
        return lambda x: functional.linear(x, part["weight"], part.get("bias"))
    if kind == "batch_norm":
        return lambda x: functional.batch_norm(
            x, part["running_mean"], part["running_var"], part.get("weight"), part.get("bias"), eps=description.get("eps", 1e-5)
        )
    if kind in ("avg_pool2d", "sum_pool2d"):
        kernel, stride = description["kernel"], description.get("stride", description["kernel"])
        divisor = 1 if kind == "sum_pool2d" else None
        return lambda x: functional.avg_pool2d(x, kernel, stride, divisor_override=divisor)
    if kind == "polynomial":
        return lambda x: horner(x, description["coefficients"])
    if kind == "flatten":
        return lambda x: x.flatten(1)
    if kind in ("identity", "dropout"):
        return lambda x: x
    raise SystemExit(f"{name}: this script does not know layers of kind {kind}")


def network(description, tensors, relu):
    """Images in the network's input range (N x 1 x 28 x 28) to scores (N x classes)."""
    layers = [functional.relu if relu and d["kind"] == "polynomial" else layer(d, tensors) for d in description["layer"]]

    def forward(x):
        for step in layers:
            x = step(x)
        return x

    return forward


@torch.inference_mode()
def classify(forward, images, batch):
    """(seconds, labels)"""
    start = time.perf_counter()
    labels = torch.cat([forward(part).argmax(1) for part in images.split(batch)])
    return time.perf_counter() - start, labels


def encrypted(arguments, schedule):
    """The report of one `cryptodl run`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [arguments.binary, "run", "--model", arguments.model, "--schedule", schedule, "--images", str(arguments.images),
                   "--threads", str(arguments.threads), "--repeat", str(arguments.repeat), "--backend", "cpu",
                   "--json", report]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(report.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a shipped model, for example mnist-1")
    parser.add_argument("--images", type=int, default=8192, help="the first images of the test set [default: 8192]")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch and of cryptodl [default: 2]")
    parser.add_argument("--rounds", type=int, default=5, help="alternations of plaintext and encrypted runs [default: 5]")
    parser.add_argument("--repeat", type=int, default=3, help="computations in each of them [default: 3]")
    parser.add_argument("--schedule", nargs="+", default=["auto", "layered"], choices=["auto", "layered"])
    parser.add_argument("--binary", default=str(ROOT / "target/release/cryptodl"))
    parser.add_argument("--json", metavar="FILE", help="write every measurement as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    zoo = ROOT / "models/zoo"
    description = tomllib.loads((zoo / f"{arguments.model}.toml").read_text())
    tensors = load_file(zoo / description["weights"])
    test = data.load(description["dataset"])[1]
    low, high = description["input"]["range"]
    images = (low + (high - low) * test.images)[: arguments.images].contiguous()
    truth = test.labels[: arguments.images]

    peers = {"fp32 eager": network(description, tensors, False), "fp32 eager, ReLU": network(description, tensors, True)}
    seconds, labels, batches = {}, {}, {}
    for peer, forward in peers.items():
        trials = {batch: min(classify(forward, images, batch)[0] for _ in range(2)) for batch in BATCHES}
        batches[peer] = min(trials, key=trials.get)
        seconds[peer] = []
    ours = {schedule: [] for schedule in arguments.schedule}
    reports = {}
    for _ in range(arguments.rounds):
        for peer, forward in peers.items():
            for _ in range(arguments.repeat):
                elapsed, labels[peer] = classify(forward, images, batches[peer])
                seconds[peer].append(elapsed)
        for schedule in arguments.schedule:
            reports[schedule] = encrypted(arguments, schedule)
            ours[schedule] += reports[schedule]["compute_repetitions"]

    plain = statistics.median(seconds["fp32 eager"])
    print(f"{arguments.model}, {len(images)} images, {arguments.threads} threads; medians of {arguments.rounds * arguments.repeat}\n")
    print("| what | seconds | of PyTorch's time | images/s | accuracy |")
    print("|---|---|---|---|---|")
    for peer, measured in seconds.items():
        median = statistics.median(measured)
        accuracy = "" if "ReLU" in peer else f"{(labels[peer] == truth).double().mean().item():.2%}"
        print(f"| PyTorch {torch.__version__} {peer}, batches of {batches[peer]} | {median:.3f} | {median / plain:.2f} "
              f"| {len(images) / median:.0f} | {accuracy} |")
    for schedule, measured in ours.items():
        median = statistics.median(measured)
        print(f"| encrypted, {schedule} | {median:.3f} | {median / plain:.2f} | {len(images) / median:.0f} "
              f"| {reports[schedule]['encrypted']['accuracy']:.2%} |")
    if arguments.json:
        record = {"model": arguments.model, "images": len(images), "threads": arguments.threads, "torch": torch.__version__,
                  "batches": batches, "plaintext_seconds": seconds, "encrypted_seconds": ours, "reports": reports}
        Path(arguments.json).write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
