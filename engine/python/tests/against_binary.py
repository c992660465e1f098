#!/usr/bin/env python3
"""The package's time beside the command line's, in turns: `predict(fhe="execute")` of 8,192 digits with
`mnist-2`, and what `cryptodl run` states for encrypting, computing and decrypting them.

    python engine/python/tests/against_binary.py BINARY MNIST [REPORT.json]
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import cryptodl
import numpy as np

IMAGES, ROUNDS = 8192, 3


def main():
    binary, folder, report = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    pixels = np.frombuffer((folder / "t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    images = pixels.reshape(-1, 1, 28, 28)[:IMAGES].astype(np.float32) / 255
    labels = np.frombuffer((folder / "t10k-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)[:IMAGES]
    model = cryptodl.compile("mnist-2", calibration=None)
    # Keys are made and memory is taken from the system once, on both sides.
    predicted = model.predict(images)
    times = {"package": [], "binary": []}
    for _ in range(ROUNDS):
        start, cpu = time.monotonic(), time.process_time()
        predicted = model.predict(images)
        times["package"].append({"wall": time.monotonic() - start, "cpu": time.process_time() - cpu})
        command = [binary, "run", "--model", "mnist-2", "--images", str(IMAGES), "--repeat", "2", "--json", "-"]
        ran = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        seconds = ran["seconds"]
        times["binary"].append({
            "wall": seconds["encrypt"] + ran["compute_repetitions"][1] + seconds["decrypt"],
            "encrypt": seconds["encrypt"], "compute": ran["compute_repetitions"][1], "decrypt": seconds["decrypt"]})
    middle = {who: median(one["wall"] for one in all_of_it) for who, all_of_it in times.items()}
    found = {
        "model": "mnist-2", "images": IMAGES, "cores": os.cpu_count(), "load": os.getloadavg(),
        "accuracy": float((predicted == labels).mean()), "times": times, "median": middle,
        "ratio": middle["package"] / middle["binary"],
    }
    print(json.dumps(found, indent=2))
    if report:
        Path(report[0]).write_text(json.dumps(found, indent=2) + "\n")
    assert found["accuracy"] > 0.99
    assert found["ratio"] <= 1.1, "more than 10 % slower than the command line"


if __name__ == "__main__":
    main()
