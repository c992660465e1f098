"""Real digits, and a model that is planned once."""

import gzip
import os
import subprocess
from pathlib import Path

import cryptodl
import numpy as np
import pytest


def _folder():
    """The raw files of MNIST, as `cryptodl data fetch mnist` leaves them."""
    if "CRYPTODL_MNIST" in os.environ:
        return Path(os.environ["CRYPTODL_MNIST"])
    return Path(subprocess.run(["cryptodl", "data", "fetch", "mnist"], check=True, capture_output=True,
                               text=True).stdout.strip())


def _read(name, header):
    path = _folder() / name
    raw = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    return np.frombuffer(raw, np.uint8, offset=header)


@pytest.fixture(scope="session")
def digits():
    """(float32 [10000, 1, 28, 28] from 0 to 1, labels)."""
    images = _read("t10k-images-idx3-ubyte", 16).reshape(-1, 1, 28, 28).astype(np.float32) / 255
    return images, _read("t10k-labels-idx1-ubyte", 8)


@pytest.fixture(scope="session")
def model():
    return cryptodl.compile("mnist-1-square", calibration=None)


@pytest.fixture(scope="session")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "digits"
    model.save(folder)
    return folder


@pytest.fixture(scope="session")
def client(saved, tmp_path_factory):
    return cryptodl.Client(saved / "client.spec", tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def binary():
    if "CRYPTODL_BINARY" not in os.environ:
        pytest.skip("CRYPTODL_BINARY names no command line")
    return os.environ["CRYPTODL_BINARY"]
