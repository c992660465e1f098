#!/usr/bin/env python3
"""Plaintext PyTorch on the images that encrypted inference classifies: what `cryptodl bench` runs beside it.

    python benches/plaintext.py MODEL --data FOLDER [--images 8192] [--threads 2]

Needs the packages of models/train/requirements.txt; FOLDER has the files of the model's data set (`cryptodl data path`).
PyTorch computes the layers one by one in fp32, eager mode, with the polynomial as the activation and, as a second peer, with
ReLU in its place (its labels mean nothing then; only its time counts). Of several batch sizes the fastest counts.

Speaks JSON, one object a line. First what is measured: {"torch": version, "threads": k, "peers": [{"name", "batch",
"accuracy"}]}. Then, for every line on standard input, which holds a number of repetitions, {"seconds": [[...], ...]}: of each
repetition, for each peer. It ends with its input, and computes nothing unasked: whoever asks can let others take turns.
"""

import argparse
import json
import sys
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
    """sum coefficients[i] x^i, elementwise; a coefficient is a number, or one of each channel."""
    y = torch.zeros_like(x).add_(coefficients[-1])
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
        coefficients = description.get("coefficients")
        if coefficients is None:  # a row of the tensor for each channel
            coefficients = part["coefficients"].T[:, :, None, None].unbind()
        return lambda x: horner(x, coefficients)
    if kind == "flatten":
        return lambda x: x.flatten(1)
    if kind in ("identity", "dropout"):
        return lambda x: x
    raise SystemExit(f"{name}: this script does not know layers of kind {kind}")


def network(description, tensors, relu):
    """Images in the network's input range (N x channels x rows x columns) to scores (N x classes)."""
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


def say(record):
    print(json.dumps(record), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a shipped model, for example mnist-1, or a .toml file")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="where the files of the data set are")
    parser.add_argument("--images", type=int, default=8192, help="the first images of the test set [default: 8192]")
    parser.add_argument("--threads", type=int, default=2, help="[default: 2]")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    shipped = ROOT / "models/zoo/trained" / f"{arguments.model}.toml"
    path = Path(arguments.model) if arguments.model.endswith(".toml") else shipped
    description = tomllib.loads(path.read_text())
    tensors = load_file(path.parent / description["weights"])
    for name in [name for name in tensors if name.endswith("_scale")]:  # of weights that are integers
        weight = name.removesuffix("_scale")
        tensors[weight] = tensors[weight].float() * tensors.pop(name)
    test = data.load(description["dataset"], Path(arguments.data))[1]
    (low, high), (black, white) = description["input"]["range"], data.RANGES[description["dataset"]]
    images = (low + (high - low) / (white - black) * (test.images[: arguments.images] - black)).contiguous()
    truth = test.labels[: arguments.images]

    peers, networks = [], []
    for name, relu in (("fp32 eager", False), ("fp32 eager, ReLU", True)):
        forward = network(description, tensors, relu)
        # Larger batches than there are images are all the same.
        batches = {min(batch, len(images)) for batch in BATCHES}
        trials = {batch: min(classify(forward, images, batch)[0] for _ in range(2)) for batch in batches}
        batch = min(trials, key=trials.get)
        labels = classify(forward, images, batch)[1]
        accuracy = None if relu else (labels == truth).double().mean().item()
        peers.append({"name": name, "batch": batch, "accuracy": accuracy})
        networks.append(forward)
    say({"torch": torch.__version__, "threads": torch.get_num_threads(), "peers": peers})
    for line in sys.stdin:
        repetitions = range(int(line))
        say({"seconds": [[classify(forward, images, peer["batch"])[0] for _ in repetitions]
                         for peer, forward in zip(peers, networks)]})


if __name__ == "__main__":
    main()
