"""The data sets as the `cryptodl data fetch` command leaves them: raw IDX files, every file checked by digest."""

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
}
HELD_OUT = 5000


@dataclass
class Split:
    """Images N x 1 x 28 x 28 in [0, 1], labels N (int64)."""

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
    """(training split, test split) from a folder with the four raw files."""
    folder = folder or default_folder(dataset)
    raw = {}
    for name, digest in DIGESTS[dataset].items():
        path = folder / name
        if not path.is_file():
            raise SystemExit(f"{path} does not exist; fetch the data set with `cryptodl data fetch {dataset}`, "
                             "or name the folder with its four raw files by --data")
        raw[name] = path.read_bytes()
        found = hashlib.md5(raw[name]).hexdigest()
        if found != digest:
            raise SystemExit(f"{path}: md5 {found}, expected {digest}")

    def split(prefix):
        images = np.frombuffer(raw[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 1, 28, 28)
        labels = np.frombuffer(raw[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8)
        return Split(torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64)))

    return split("train"), split("t10k")
