"""Trains networks of other packages on one thread in some minutes, and exports them to ONNX.

    python peers.py lola FOLDER       LoLA as Orion defines it, on MNIST
    python peers.py resnet FOLDER     a ResNet of torchvision's class, on Fashion-MNIST

Needs torch, torchvision and onnxscript. The data set is read from the cache of `cryptodl data
fetch`. In FOLDER lie afterwards NAME.onnx, its external data if the exporter made some, the images
that were held out (NAME.held-out.npy, 8-bit pixels), and NAME.flags: what the file does not say, as
flags of `cryptodl import`.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

HELD_OUT = 5000
EPOCHS = {"lola": 12, "resnet": 6}
DATASET = {"lola": "mnist", "resnet": "fashion-mnist"}
# Mean and standard deviation of the training pixels from 0 to 1, as torchvision's Normalize takes
# them.
NORMALISE = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530)}
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


class Square(nn.Module):
    def forward(self, x):
        return x * x


class Quadratic(nn.Module):
    """What stands for a ReLU: a polynomial whose coefficients are learned. It remembers by how much inputs are beyond 4."""

    def __init__(self):
        super().__init__()
        self.c, self.beyond = nn.Parameter(torch.tensor([0.2, 0.5, 0.2])), 0.0

    def forward(self, x):
        if self.training:
            self.beyond = self.beyond + (x.abs() - 4).relu().square().mean()
        return self.c[0] + x * (self.c[1] + self.c[2] * x)


def lola():
    """The network of `models/lola.py` of Orion (github.com/baahl-nyu/orion, commit 8ac27fc), in plain PyTorch:
    a convolution of 5x5 with stride 2 and padding 2 to 5 maps, dense layers of 100 and 10, and batch-norm before each
    of the two squares. It follows LoLa of Brutzkus, Elisha and Gilad-Bachrach (ICML 2019)."""
    return nn.Sequential(
        nn.Conv2d(1, 5, 5, stride=2, padding=2), nn.BatchNorm2d(5), Square(), nn.Flatten(),
        nn.Linear(980, 100), nn.BatchNorm1d(100), Square(), nn.Linear(100, 10))


def resnet():
    """torchvision's ResNet of basic blocks, cut to two stages of one block, half as wide, for one channel. Its own
    methods build the stages. ReLUs become polynomials, and the maximum pool an average pool."""
    from torchvision.models.resnet import BasicBlock, ResNet

    net = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    net.inplanes = 32
    net.conv1, net.bn1 = nn.Conv2d(1, 32, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(32)
    net.layer1, net.layer2 = net._make_layer(BasicBlock, 32, 1), net._make_layer(BasicBlock, 64, 1, stride=2)
    net.layer3 = net.layer4 = nn.Identity()
    net.fc = nn.Linear(64, 10)
    net.relu, net.maxpool = Quadratic(), nn.AvgPool2d(3, stride=2, padding=1)
    for block in (net.layer1[0], net.layer2[0]):
        block.relu = Quadratic()
    return net


def idx(folder, name, header):
    return np.frombuffer((folder / name).read_bytes(), np.uint8, offset=header)


def load(dataset):
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "cryptodl" / dataset

    def split(prefix):
        images = idx(folder, f"{prefix}-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28)
        return images, torch.from_numpy(idx(folder, f"{prefix}-labels-idx1-ubyte", 8).astype(np.int64))

    return split("train"), split("t10k")


def moved(x):
    """Every image of a batch moved by up to two pixels along either axis."""
    n, _, height, width = x.shape
    padded = F.pad(x, (2, 2, 2, 2), value=float(x.min()))
    rows, columns = (torch.randint(5, (n, 1)) + torch.arange(size) for size in (height, width))
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def accuracy(net, images, labels):
    net.eval()
    with torch.no_grad():
        right = sum(int((net(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500)))
    return right / len(labels)


def train(name, folder):
    dataset = DATASET[name]
    mean, std = NORMALISE[dataset]
    (pixels, labels), (test_pixels, test_labels) = load(dataset)
    seen = lambda p: (torch.from_numpy(p.astype(np.float32)) / 255 - mean) / std
    images, labels = seen(pixels[:-HELD_OUT]), labels[:-HELD_OUT]
    torch.manual_seed(1)
    net = {"lola": lola, "resnet": resnet}[name]()
    quadratics = [layer for layer in net.modules() if isinstance(layer, Quadratic)]
    batch, epochs, start = 128, EPOCHS[name], time.monotonic()
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 4e-3, epochs=epochs, steps_per_epoch=len(images) // batch, pct_start=0.2)
    for epoch in range(epochs):
        net.train()
        for rows in torch.randperm(len(images))[:len(images) // batch * batch].split(batch):
            x = moved(images[rows])
            if dataset == "fashion-mnist":
                x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
            loss = F.cross_entropy(net(x), labels[rows])
            # Large values cost modulus (docs/calibration.md, "What to change in training").
            for layer in quadratics:
                loss, layer.beyond = loss + layer.beyond, 0.0
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        print(f"{name}: pass {epoch + 1} of {epochs}, loss {loss.item():.3f}, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{name}: {accuracy(net, seen(test_pixels), test_labels):.2%} of the test images in PyTorch", flush=True)

    # The default exporter of today.
    torch.onnx.export(net.eval(), (images[:2],), str(folder / f"{name}.onnx"), dynamo=True, verbose=False,
                      dynamic_shapes=({0: torch.export.Dim("images")},))
    np.save(folder / f"{name}.held-out.npy", pixels[-HELD_OUT:])
    flags = f"--mean {mean} --std {std}"
    if dataset == "fashion-mnist":
        (folder / f"{name}.labels").write_text("\n".join(CLASSES) + "\n")
        # Nine in ten are right, so many labels are a matter of chance.
        flags += f" --labels {folder / name}.labels --tolerance 3%"
    (folder / f"{name}.flags").write_text(flags + "\n")


if __name__ == "__main__":
    task, target = sys.argv[1], Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(task, target)
