"""The data sets as the `cryptodl data fetch` command leaves them, every file checked by digest.

MNIST and Fashion-MNIST are IDX files. CIFAR-10 is five training batches and one test batch of
records: a byte for the label, then three planes (red, green, blue) of 32 x 32 bytes.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

DIGESTS = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    "cifar10": {
        "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
        "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
        "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
        "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
        "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
    },
}
CLASSES = 10  # of every data set
SHAPES = {"mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
# What the bytes 0 and 255 mean to the networks. Those of CIFAR-10 have then a mean near 0, which is
# what a convolution pads with, and a standard deviation near 1.
RANGES = {"mnist": (0.0, 1.0), "fashion-mnist": (0.0, 1.0), "cifar10": (-2.0, 2.0)}
# In the order of the labels; digits are called by their labels.
CLASS_NAMES = {
    "fashion-mnist": ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                      "Ankle boot"],
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
}
HELD_OUT = 5000


@dataclass
class Split:
    """Images N x channels x rows x columns in the range of the data set, labels N (int64)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self):
        return len(self.labels)

    def part(self, start, stop):
        return Split(self.images[start:stop], self.labels[start:stop])


def default_folder(dataset):
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cryptodl" / dataset


def load(dataset, folder=None):
    """(training split, test split) from a folder with the raw files."""
    folder = folder or default_folder(dataset)
    raw = {}
    for name, digest in DIGESTS[dataset].items():
        path = folder / name
        if not path.is_file():
            raise SystemExit(f"{path} does not exist; fetch the data set with `cryptodl data fetch {dataset}`, "
                             "or name the folder with its raw files by --data")
        raw[name] = path.read_bytes()
        found = hashlib.md5(raw[name]).hexdigest()
        if found != digest:
            raise SystemExit(f"{path}: md5 {found}, expected {digest}")
    low, high = RANGES[dataset]

    def split(pixels, labels):
        images = torch.from_numpy(pixels.reshape(-1, *SHAPES[dataset]).astype(np.float32) / 255)
        if (low, high) != (0.0, 1.0):
            images = images.mul_(high - low).add_(low)
        return Split(images, torch.from_numpy(labels.astype(np.int64)))

    if dataset == "cifar10":
        def batches(prefix):
            files = [content for name, content in raw.items() if name.startswith(prefix)]
            records = np.frombuffer(b"".join(files), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
            return split(records[:, 1:], records[:, 0])

        return batches("data_batch"), batches("test_batch")

    def idx(prefix):
        pixels = np.frombuffer(raw[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16)
        return split(pixels, np.frombuffer(raw[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8))

    return idx("train"), idx("t10k")
