"""PyTorch networks that can be computed under encryption: polynomials instead of ReLU, means
instead of maxima, and the training that makes up for it.

    replace_relu(net)
    replace_max_pool(net)
    fine_tune(net, (images, labels), epochs=5, teacher=original)
    model = cryptodl.compile(net, calibration=validation_images)
"""

import contextlib
import copy
import math
import time
import warnings

import torch
import torch.nn.functional as F
from torch import nn

__all__ = [
    "PolyActivation",
    "activation_inputs",
    "export",
    "fine_tune",
    "range_loss",
    "replace_max_pool",
    "replace_relu",
    "rounding_error",
    "rounding_noise",
    "rounding_step",
    "weight_noise",
]

# ReLU in Hermite polynomials, which are orthogonal for inputs of mean 0 and variance 1:
# E[relu] = 1 / sqrt(2 pi), E[relu x] = 1 / 2, E[relu (x^2 - 1)] / 2 = 1 / (2 sqrt(2 pi)).
_MEAN = 1 / math.sqrt(2 * math.pi)
RELU = (_MEAN / 2, 0.5, _MEAN / 2)


class PolyActivation(nn.Module):
    """`c[0] + c[1] z + c[2] z^2 + ...` of every value of [N, channels, ...].

    channels: number of channels, which get coefficients of their own; None for one row for all.
    coefficients: constant term first, where training starts; ReLU's best quadratic by default.
    learned: whether they are trained. Fixed ones are those that `cryptodl approx` prints, for example.
    leading_factor: keeps the last coefficient within this factor of where it started, its sign
        included: start * factor^tanh(u). Bounded coefficients cost less under encryption.
    normalised: first normalises z over the batch (batch-norm without factors), and then z^2 as well:
        every basis function has mean 0 and variance 1 (basis-wise normalisation; Park et al.,
        "AESPA", 2022). Only for degree 2. Both fold into the coefficients.
    clamp: |z|, or (low, high), beyond which values saturate while training, so that a training does
        not explode at its start; None for no limit.

    `rows` is the parameter: a row, or one for each channel, of which the last number is the u above
    where there is a `leading_factor`. `coefficients` are what the polynomial has.
    """

    def __init__(self, channels=None, coefficients=RELU, *, learned=True, leading_factor=None, normalised=False,
                 clamp=None):
        super().__init__()
        rows = torch.tensor(coefficients, dtype=torch.float32)
        if not 3 <= len(rows) <= 9:
            raise ValueError(f"{len(rows)} coefficients: a polynomial of degree 2 to 8 has 3 to 9")
        if normalised and len(rows) != 3:
            raise ValueError("normalised: only for degree 2")
        self.leading, self.leading_factor = float(rows[-1]), leading_factor
        if leading_factor is not None:
            rows[-1] = 0.0  # the u of the docstring
        self.rows = nn.Parameter(rows if channels is None else rows.repeat(channels, 1), requires_grad=learned)
        self.clamp = (-clamp, clamp) if isinstance(clamp, (int, float)) else clamp
        self.normalised = normalised
        if normalised:
            if channels is None:
                raise ValueError("normalised: needs the number of channels")
            self.register_buffer("mean", torch.zeros(channels))
            self.register_buffer("variance", torch.ones(channels))
            self.register_buffer("square_mean", torch.ones(channels))
            self.register_buffer("square_variance", torch.full((channels,), 2.0))

    @property
    def coefficients(self):
        """One row, or [channels, degree + 1]: of z as it comes in evaluation mode."""
        rows = self._rows()
        if not self.normalised:
            return rows
        scale = (self.variance + 1e-5).rsqrt()
        spread = (self.square_variance + 1e-5).rsqrt()
        constant, linear, square = rows.unbind(-1)
        # x = (z - mean) scale; constant + linear x + square (x^2 - square_mean) spread
        a, b = linear * scale, square * spread * scale.square()
        constant = constant - a * self.mean + b * self.mean.square() - square * spread * self.square_mean
        return torch.stack([constant, a - 2 * b * self.mean, b], -1)

    def _rows(self):
        if self.leading_factor is None:
            return self.rows
        leading = self.leading * self.leading_factor ** torch.tanh(self.rows[..., -1:])
        return torch.cat([self.rows[..., :-1], leading], -1)

    def forward(self, z, channels_last=False):
        """Of z [N, channels, ...], or with `channels_last` [N, ..., channels]."""
        if self.training and self.clamp is not None:
            z = z.clamp(*self.clamp)
        if self.normalised and self.training:
            return self._in_batch(z.movedim(-1, 1)).movedim(1, -1) if channels_last else self._in_batch(z)
        y = torch.zeros_like(z)
        for c in self.coefficients.unbind(-1)[::-1]:
            y = y * z + (c if channels_last else self._like(c, z))
        return y

    def _in_batch(self, z):
        """With the batch's own statistics, which are remembered for evaluation mode."""
        constant, linear, square = (self._like(c, z) for c in self._rows().unbind(-1))
        x = F.batch_norm(z, self.mean, self.variance, training=True)
        q = F.batch_norm(x.square(), self.square_mean, self.square_variance, training=True)
        return constant + linear * x + square * q

    @staticmethod
    def _like(c, z):
        return c if c.dim() == 0 else c.view(-1, *[1] * (z.dim() - 2))

    def extra_repr(self):
        channels = "one row" if self.rows.dim() == 1 else f"{len(self.rows)} channels"
        return f"degree {self.rows.shape[-1] - 1}, {channels}"


def _replace(module, kind, make):
    """Replaces every child of one of these kinds, at any depth, by `make(child)`."""
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, make(child))
        else:
            _replace(child, kind, make)
    return module


_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Softplus,
                nn.Sigmoid, nn.Tanh)


def replace_relu(module, make=None):
    """Replaces every activation module by a `PolyActivation`, in place, and returns the module.

    make: called for each, without arguments; by default one row of learned coefficients with
        inputs clamped to 6 while training. Batch-norm should stand before each: polynomials need
        inputs of known size. Activations that are called as functions cannot be seen: make them
        modules.
    """
    make = make or (lambda: PolyActivation(clamp=6.0))
    return _replace(module, _ACTIVATIONS, lambda _: make())


def replace_max_pool(module):
    """Replaces every max-pool by a mean over the same window, in place, and returns the module."""
    def mean(pool):
        if pool.dilation not in (1, (1, 1)):
            raise ValueError(f"{pool}: a mean pool has no dilation; use a strided convolution")
        return nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)

    return _replace(module, nn.MaxPool2d, mean)


class activation_inputs:
    """`with activation_inputs(module) as inputs`: a list that each forward pass fills anew."""

    def __init__(self, module):
        self.module = module

    def __enter__(self):
        inputs = []
        self.hooks = [self.module.register_forward_pre_hook(lambda *_: inputs.clear())]
        for activation in self.module.modules():
            if isinstance(activation, PolyActivation):
                self.hooks.append(activation.register_forward_pre_hook(lambda _, args: inputs.append(args[0])))
        return inputs

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def range_loss(inputs, limit=4.0, centre=0.0):
    """What inputs z of activations have beyond |z - centre| = limit: the sum of squares per image.

    Outside the range on which it was trained a polynomial runs away, and what the planner must
    provide for grows with the largest value. About 1e-3 to 5e-2 of it is added to the loss.
    """
    total = 0.0
    for z in inputs:
        total = total + F.relu((z - centre).abs() - limit).square().sum() / len(z)
    return total


def rounding_step(weight, bits):
    """The step of symmetric integers of so many bits whose largest stands for the largest weight."""
    return weight.detach().abs().max() / (2 ** (bits - 1) - 1)


def rounding_noise(weight, bits):
    """Noise of the size that rounding to so many bits makes: uniform, up to half a step, drawn anew."""
    return (torch.rand_like(weight) - 0.5) * rounding_step(weight, bits)


def rounding_error(weight, bits):
    """What rounding to so many bits adds to a weight, as a constant.

    So `weight + rounding_error(weight, bits)` is rounded, and its gradient passes as if it were not
    (straight-through).
    """
    step = rounding_step(weight, bits)
    return ((weight / step).round() * step - weight).detach()


class weight_noise:
    """`with weight_noise(module, bits)`: weights have the noise of rounding to so many bits.

    A network that was trained so loses little when the planner rounds its weights, and integers of
    fewer bits are cheaper. The noise is drawn anew whenever the block is entered, and is gone after it.
    """

    def __init__(self, module, bits):
        self.weights = [m.weight for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        self.bits = bits

    def __enter__(self):
        self.before = [weight.detach().clone() for weight in self.weights]
        with torch.no_grad():
            for weight in self.weights:
                weight.add_(rounding_noise(weight, self.bits))

    def __exit__(self, *_):
        with torch.no_grad():
            for weight, before in zip(self.weights, self.before):
                weight.copy_(before)


def fine_tune(
    module,
    data,
    epochs,
    *,
    teacher=None,
    augment=None,
    learning_rate=2e-3,
    batch=256,
    weight_decay=1e-2,
    range_weight=1e-2,
    range_limit=4.0,
    bits=6,
    distillation=0.7,
    temperature=2.0,
    seed=None,
    log=print,
):
    """Trains a network after its activations and pools were replaced, and returns it in evaluation mode.

    data: (images float32 [N, channels, rows, columns], labels int64 [N]).
    teacher: the original network; its softened output is the share `distillation` of the target.
    augment: images -> images, drawn anew for every batch.
    range_weight, range_limit: see `range_loss`.
    bits: see `weight_noise`; None for none.
    seed: of order and noise; None takes torch's generator as it is.
    """
    if seed is not None:
        torch.manual_seed(seed)
    images, labels = data
    if teacher is not None:
        teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
    decayed = [p for p in module.parameters() if p.requires_grad and p.dim() > 1]
    others = [p for p in module.parameters() if p.requires_grad and p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}], lr=learning_rate)
    steps = max(1, len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps * epochs, pct_start=0.2)
    with activation_inputs(module) as inputs:
        for epoch in range(epochs):
            start, total = time.time(), 0.0
            module.train()
            for index in torch.randperm(len(images))[: steps * batch].split(batch):
                x, target = images[index], labels[index]
                x = augment(x) if augment is not None else x
                with weight_noise(module, bits) if bits else contextlib.nullcontext():
                    logits = module(x)
                    loss = F.cross_entropy(logits, target)
                    total += float(loss.detach())
                    if teacher is not None:
                        with torch.no_grad():
                            soft = F.softmax(teacher(x) / temperature, 1)
                        divergence = F.kl_div(F.log_softmax(logits / temperature, 1), soft, reduction="batchmean")
                        loss = (1 - distillation) * loss + distillation * temperature**2 * divergence
                    loss = loss + range_weight * range_loss(inputs, range_limit)
                    optimizer.zero_grad()
                    loss.backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimizer.step()
                schedule.step()
            log(f"epoch {epoch + 1}: loss {total / steps:.4f}, {time.time() - start:.0f} s")
    return module.eval()


def export(module, path, shape):
    """Writes the network as ONNX, in evaluation mode, for images of this shape (channels, rows, columns).

    Needs the package `onnx`, as PyTorch's exporters do.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError("PyTorch exports networks with the package onnx: pip install onnx") from error
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # The newer exporter needs another package, and writes what becomes the same network.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(module, (torch.zeros(1, *shape),), str(path), dynamo=False, input_names=["images"],
                              output_names=["scores"], dynamic_axes={"images": {0: "n"}, "scores": {0: "n"}})
    finally:
        module.train(was_training)
