"""What the planner wants to know about a network's values, measured on the training images."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from .network import Polynomial

BINS = 256


@dataclass
class Histogram:
    low: float
    high: float
    counts: np.ndarray

    @classmethod
    def empty(cls, low, high):
        return cls(low, high, np.zeros(BINS, np.int64))

    def add(self, values):
        self.counts += np.histogram(values, bins=BINS, range=(self.low, self.high))[0]


@dataclass
class Calibration:
    rms: dict[str, float]  # of every layer's input
    ranges: dict[str, tuple[float, float]]  # of the image ("input") and of every layer's output
    histograms: dict[str, Histogram]  # of every activation's input
    margins: Histogram  # largest minus second largest logit


@torch.no_grad()
def calibrate(net, images, change=None):
    """Calibration on `images`; the margins on what `change(images, generator)` makes of them.

    A network is surer of the images that it learned than of new ones.
    """
    net.eval()
    squares, sizes, ranges, margins = {}, {}, {}, []
    generator = torch.Generator().manual_seed(0)
    for x in images.split(500):
        trace = net.trace(x)
        for name, a, b in trace:
            squares[name] = squares.get(name, 0.0) + float(a.double().square().sum())
            sizes[name] = sizes.get(name, 0) + a.numel()
        for name, b in [("input", x), *((name, b) for name, _, b in trace)]:
            low, high = ranges.get(name, (math.inf, -math.inf))
            ranges[name] = (min(low, float(b.min())), max(high, float(b.max())))
        logits = net.predict(change(x, generator)) if change else trace[-1][2]
        top = logits.topk(2, 1).values
        margins.append((top[:, 0] - top[:, 1]).numpy())
    margins = np.concatenate(margins)
    margin_histogram = Histogram.empty(0.0, float(margins.max()))
    margin_histogram.add(margins)
    before = {name: read[0] for name, read in net.operands.items() if isinstance(getattr(net, name), Polynomial)}
    histograms = {name: Histogram.empty(*ranges[previous]) for name, previous in before.items()}
    for x in images.split(500):
        for name, z, _ in net.trace(x):
            if name in histograms:
                histograms[name].add(z.double().numpy())
    rms = {name: math.sqrt(squares[name] / sizes[name]) for name in squares}
    return Calibration(rms, ranges, histograms, margin_histogram)
