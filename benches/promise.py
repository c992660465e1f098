"""Trains small quadratic networks as a stranger would, and measures whether the planner keeps its promise for them.

    python3 benches/promise.py --cryptodl target/release/cryptodl --out benches/results/DATE-promise

Needs numpy, and MNIST in the cache of `cryptodl data fetch mnist`. Every network goes the whole way: a description without any
calibration, `calibrate` on the training images, `plan`, and `run` on all 10,000 test images. Seeds are fixed.
"""

import argparse
import json
import struct
import subprocess
from pathlib import Path

import numpy as np

# Layers: ("conv", channels, kernel, stride), ("bn",), ("square",) for x^2, ("quadratic", a, b, c) for a + b x + c x^2,
# ("pool", size), ("flatten",), ("dense", features).
NETWORKS = {
    # The network of the first user's report: no batch-norm, so that values after x^2 are always positive.
    "stranger": [("conv", 8, 5, 2), ("square",), ("conv", 16, 5, 2), ("square",), ("flatten",), ("dense", 10)],
    "random-1": [("conv", 6, 5, 1), ("pool", 2), ("bn",), ("quadratic", 0.1, 0.5, 0.2), ("flatten",), ("dense", 10)],
    "random-2": [("conv", 10, 7, 3), ("quadratic", 0.0, 0.6, 0.1), ("flatten",), ("dense", 48), ("square",), ("dense", 10)],
    "random-3": [("flatten",), ("dense", 64), ("square",), ("dense", 32), ("square",), ("dense", 10)],
    "random-4": [("conv", 8, 3, 2), ("bn",), ("square",), ("conv", 12, 3, 2), ("bn",), ("square",),
                 ("conv", 16, 3, 1), ("bn",), ("square",), ("flatten",), ("dense", 10)],
    "random-5": [("conv", 5, 5, 2), ("bn",), ("quadratic", 0.0, 0.4, 0.3), ("conv", 20, 3, 1), ("pool", 2),
                 ("quadratic", 0.2, 0.5, 0.1), ("flatten",), ("dense", 40), ("bn",), ("square",), ("dense", 10)],
}


def read_idx(path):
    data = path.read_bytes()
    axes = data[3]
    shape = struct.unpack(f">{axes}I", data[4:4 + 4 * axes])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def windows(x, kernel, stride):
    view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]
    n, c, h, w = view.shape[:4]
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * kernel * kernel), (n, h, w)


class Network:
    """Layers with parameters, a forward pass that remembers, and a backward pass."""

    def __init__(self, layers, rng):
        self.layers = layers
        self.parameters, self.running = {}, {}
        shape = (1, 28, 28)
        for i, (kind, *numbers) in enumerate(layers):
            if kind == "conv":
                channels, kernel, stride = numbers
                taps = shape[0] * kernel * kernel
                self.parameters[f"{i}.weight"] = rng.normal(0, 1 / np.sqrt(taps), (channels, taps))
                self.parameters[f"{i}.bias"] = np.zeros(channels)
                side = (shape[1] - kernel) // stride + 1
                self.parameters[f"{i}.shape"] = (channels, shape[0], kernel, kernel)
                shape = (channels, side, side)
            elif kind == "pool":
                shape = (shape[0], shape[1] // numbers[0], shape[2] // numbers[0])
            elif kind == "bn":
                self.parameters[f"{i}.weight"], self.parameters[f"{i}.bias"] = np.ones(shape[0]), np.zeros(shape[0])
                self.running[i] = [np.zeros(shape[0]), np.ones(shape[0])]
            elif kind == "flatten":
                shape = (int(np.prod(shape)),)
            elif kind == "dense":
                self.parameters[f"{i}.weight"] = rng.normal(0, 1 / np.sqrt(shape[0]), (numbers[0], shape[0]))
                self.parameters[f"{i}.bias"] = np.zeros(numbers[0])
                shape = (numbers[0],)

    def forward(self, x, training=False):
        self.memory = []
        for i, (kind, *numbers) in enumerate(self.layers):
            if kind == "conv":
                columns, (n, h, w) = windows(x, numbers[1], numbers[2])
                self.memory.append((columns, x.shape))
                y = columns @ self.parameters[f"{i}.weight"].T + self.parameters[f"{i}.bias"]
                x = y.reshape(n, h, w, -1).transpose(0, 3, 1, 2)
            elif kind == "pool":
                k = numbers[0]
                self.memory.append(x.shape)
                side = x.shape[2] // k * k
                x = x[:, :, :side, :side].reshape(*x.shape[:2], side // k, k, side // k, k).mean((3, 5))
            elif kind == "bn":
                axes = (0, 2, 3)[:x.ndim - 1]
                wide = (slice(None),) + (None,) * (x.ndim - 2)
                mean, var = (x.mean(axes), x.var(axes)) if training else self.running[i]
                if training:
                    for kept, seen in zip((0, 1), (mean, var)):
                        self.running[i][kept] = 0.95 * self.running[i][kept] + 0.05 * seen
                scale = 1 / np.sqrt(var + 1e-5)
                normal = (x - mean[wide]) * scale[wide]
                self.memory.append((normal, scale, axes, wide))
                x = normal * self.parameters[f"{i}.weight"][wide] + self.parameters[f"{i}.bias"][wide]
            elif kind in ("square", "quadratic"):
                a, b, c = numbers or (0.0, 0.0, 1.0)
                self.memory.append((x, b, c))
                x = a + b * x + c * x * x
            elif kind == "flatten":
                self.memory.append(x.shape)
                x = x.reshape(len(x), -1)
            elif kind == "dense":
                self.memory.append(x)
                x = x @ self.parameters[f"{i}.weight"].T + self.parameters[f"{i}.bias"]
        return x

    def backward(self, g):
        slopes = {}
        for i, (kind, *numbers) in reversed(list(enumerate(self.layers))):
            memory = self.memory[i]
            if kind == "conv":
                columns, shape = memory
                rows = g.transpose(0, 2, 3, 1).reshape(-1, g.shape[1])
                slopes[f"{i}.weight"], slopes[f"{i}.bias"] = rows.T @ columns, rows.sum(0)
                if i == 0:
                    break
                kernel, stride = numbers[1], numbers[2]
                back = (rows @ self.parameters[f"{i}.weight"]).reshape(*g.shape[:1], *g.shape[2:], shape[1], kernel, kernel)
                x = np.zeros(shape)
                for dy in range(kernel):
                    for dx in range(kernel):
                        x[:, :, dy:dy + stride * g.shape[2]:stride, dx:dx + stride * g.shape[3]:stride] += (
                            back[..., dy, dx].transpose(0, 3, 1, 2))
                g = x
            elif kind == "pool":
                k, x = numbers[0], np.zeros(memory)
                side = memory[2] // k * k
                x[:, :, :side, :side] = g.repeat(k, 2).repeat(k, 3) / (k * k)
                g = x
            elif kind == "bn":
                normal, scale, axes, wide = memory
                slopes[f"{i}.weight"], slopes[f"{i}.bias"] = (g * normal).sum(axes), g.sum(axes)
                g = g * self.parameters[f"{i}.weight"][wide]
                g = scale[wide] * (g - g.mean(axes)[wide] - normal * (g * normal).mean(axes)[wide])
            elif kind in ("square", "quadratic"):
                x, b, c = memory
                g = g * (b + 2 * c * x)
            elif kind == "flatten":
                g = g.reshape(memory)
            elif kind == "dense":
                slopes[f"{i}.weight"], slopes[f"{i}.bias"] = g.T @ memory, g.sum(0)
                g = g @ self.parameters[f"{i}.weight"]
        return slopes

    def train(self, images, labels, epochs, rng, rate=2e-3, batch=100):
        first = {name: 0.0 for name in self.parameters}
        second = dict(first)
        step = 0
        total = epochs * len(images) // batch
        for _ in range(epochs):
            for rows in rng.permutation(len(images)).reshape(-1, batch):
                scores = self.forward(images[rows], training=True)
                p = np.exp(scores - scores.max(1, keepdims=True))
                p /= p.sum(1, keepdims=True)
                p[np.arange(batch), labels[rows]] -= 1
                slopes = self.backward(p / batch)
                norm = np.sqrt(sum((slope ** 2).sum() for slope in slopes.values()))
                step += 1
                for name, slope in slopes.items():
                    slope = slope * min(1.0, 1.0 / norm)
                    first[name] = 0.9 * first[name] + 0.1 * slope
                    second[name] = 0.999 * second[name] + 0.001 * slope ** 2
                    move = first[name] / (1 - 0.9 ** step) / (np.sqrt(second[name] / (1 - 0.999 ** step)) + 1e-8)
                    self.parameters[name] = self.parameters[name] - rate * (1 - 0.9 * step / total) * move

    def export(self, name, folder):
        text = (f'format = 1\nname = "{name}"\ntitle = "a stranger\'s quadratic network"\ndataset = "mnist"\n'
                f'weights = "{name}.safetensors"\n\n[input]\nshape = [1, 28, 28]\nrange = [0.0, 1.0]\n')
        tensors = {}
        for i, (kind, *numbers) in enumerate(self.layers):
            text += f'\n[[layer]]\nname = "l{i}"\n'
            if kind == "conv":
                channels, kernel, stride = numbers
                text += (f'kind = "conv2d"\nout_channels = {channels}\nkernel = [{kernel}, {kernel}]\n'
                         f'stride = [{stride}, {stride}]\n')
                tensors[f"l{i}.weight"] = self.parameters[f"{i}.weight"].reshape(self.parameters[f"{i}.shape"])
                tensors[f"l{i}.bias"] = self.parameters[f"{i}.bias"]
            elif kind == "pool":
                text += f'kind = "avg_pool2d"\nkernel = [{numbers[0]}, {numbers[0]}]\n'
            elif kind == "bn":
                text += 'kind = "batch_norm"\neps = 1e-5\n'
                tensors[f"l{i}.weight"], tensors[f"l{i}.bias"] = (self.parameters[f"{i}.{p}"] for p in ("weight", "bias"))
                tensors[f"l{i}.running_mean"], tensors[f"l{i}.running_var"] = self.running[i]
            elif kind in ("square", "quadratic"):
                text += f'kind = "polynomial"\ncoefficients = {list(numbers or (0.0, 0.0, 1.0))}\n'
            elif kind == "flatten":
                text += 'kind = "flatten"\n'
            elif kind == "dense":
                text += f'kind = "dense"\nout_features = {numbers[0]}\n'
                tensors[f"l{i}.weight"], tensors[f"l{i}.bias"] = (self.parameters[f"{i}.{p}"] for p in ("weight", "bias"))
        (folder / f"{name}.toml").write_text(text)
        header, data = {}, b""
        for key, value in tensors.items():
            raw = np.ascontiguousarray(value, "<f4").tobytes()
            header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        head = json.dumps(header).encode()
        head += b" " * (-len(head) % 8)
        (folder / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cryptodl", default="target/release/cryptodl", help="the binary")
    parser.add_argument("--out", type=Path, required=True, help="folder for networks and report")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--calibrated", type=Path, nargs="*", default=[], help="more calibrated models (.toml or names)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=10000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    def cryptodl(*words):
        return subprocess.run([arguments.cryptodl, *map(str, words)], capture_output=True, text=True)

    data = Path(cryptodl("data", "path", "mnist").stdout.strip())
    images = read_idx(data / "train-images-idx3-ubyte").astype(np.float64)[:, None] / 255
    labels = read_idx(data / "train-labels-idx1-ubyte")
    models = []
    for seed, (name, layers) in enumerate(NETWORKS.items()):
        if name not in arguments.networks:
            continue
        rng = np.random.default_rng(seed)
        network = Network(layers, rng)
        network.train(images, labels, arguments.epochs, rng)
        network.export(name, arguments.out)
        done = cryptodl("calibrate", "--model", arguments.out / f"{name}.toml", "--data", "mnist", "--out",
                        arguments.out / "calibrated")
        print(done.stdout or done.stderr, flush=True)
        models.append(arguments.out / "calibrated" / f"{name}.toml")

    rows = []
    for model in [*models, *arguments.calibrated]:
        done = cryptodl("run", "--model", model, "--images", arguments.images, "--json", "-")
        if done.returncode:
            rows.append(f"| `{model.stem}` | refused: {done.stderr.strip()} |")
            print(rows[-1], flush=True)
            continue
        run = json.loads(done.stdout)
        noise, changed = run["noise"], run["labels_changed"]
        rows.append(
            f"| `{run['model']}` | {run['params']['n']}, {run['params']['limbs']} "
            f"| {100 * run['encrypted']['accuracy']:.2f} / {100 * run['plaintext']['accuracy']:.2f} % "
            f"| {noise['predicted_log2']:.2f} / {noise['measured_log2']:.2f} "
            f"| {noise['predicted_median_log2']:.2f} / {noise['measured_median_log2']:.2f} "
            f"| {noise['predicted_rounding_log2']:.2f} / {noise['measured_rounding_log2']:.2f} "
            f"| {100 * changed['predicted']:.3f} / {100 * changed['measured']:.3f} % "
            f"| {'warned' if 'warning' in done.stderr else 'kept'} |")
        print(rows[-1], flush=True)
    report = [f"# The promise, predicted / measured on {arguments.images} test images", "",
              "Noise is log2 of the root mean square on a score: without the hundredth of the images where it is largest, of the",
              "median image, and of weight rounding alone.", "",
              "| network | N, limbs | accuracy encrypted / plain | noise | median | rounding | labels changed | promise |",
              "|---|---|---|---|---|---|---|---|", *rows]
    (arguments.out / "report.md").write_text("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
