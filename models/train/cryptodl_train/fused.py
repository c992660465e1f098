"""Batch-norm, activation and range penalty in one operation, with few passes over memory.

What PyTorch compiles of the separate layers takes as long as the convolutions do: it walks down one
channel after the other of values that lie side by side. Here sums are over the positions of an
image first, which stay in the cache, and the backward pass computes again what it can.
"""

import torch
import torch.nn.functional as F

# Every shape of a network is compiled for itself.
torch._dynamo.config.recompile_limit = 64


def over_positions(z):
    """Sum per channel of [images, ..., channels]."""
    return z.flatten(1, -2).sum(1).sum(0) if z.dim() > 2 else z.sum(0)


def moments(z, about):
    """(mean, variance) per channel; `about` is a guess of the mean, which keeps the variance exact."""
    count = z.numel() // z.shape[-1]
    z = z - about
    mean = over_positions(z) / count
    return about + mean, over_positions(z * z) / count - mean * mean


def value(x, coefficients, share):
    """The polynomial with these coefficients [channels, degree + 1], or ReLU without any.

    With a `share` below 1 it is that share of the polynomial, and ReLU for the rest.
    """
    if coefficients is None:
        return F.relu(x)
    y = torch.zeros_like(x)
    for c in coefficients.unbind(1)[::-1]:
        y = y * x + c
    return y if share is None else share * y + (1 - share) * F.relu(x)


def slope(x, coefficients, share):
    if coefficients is None:
        return (x > 0).to(x.dtype)
    y = torch.zeros_like(x)
    for power, c in reversed(list(enumerate(coefficients.unbind(1)))[1:]):
        y = y * x + power * c
    return y if share is None else share * y + (1 - share) * (x > 0).to(x.dtype)


def beyond(x, bounds):
    """By how much x is outside; with its sign."""
    centre, limit = bounds
    return x - x.clamp(centre - limit, centre + limit)


def outputs(z, mean, rate, coefficients, share, bounds):
    x = (z - mean) * rate
    return value(x, coefficients, share), over_positions(beyond(x, bounds).square()).sum()


def gradient(grad, penalty, x, coefficients, share, bounds):
    """With respect to x."""
    return grad * slope(x, coefficients, share) + 2 * penalty * beyond(x, bounds)


def sums(grad, penalty, z, mean, rate, coefficients, share, bounds):
    """What the gradients of statistics and coefficients need."""
    x = (z - mean) * rate
    inner = gradient(grad, penalty, x, coefficients, share, bounds)
    learned = grad if share is None else share * grad
    powers = [over_positions(learned * x ** k) for k in range(coefficients.shape[1])] if coefficients is not None else []
    return over_positions(inner), over_positions(inner * x), powers


def input_gradient(grad, penalty, z, mean, rate, coefficients, share, bounds, sum_, sum_x):
    """Of batch-norm with the batch's own statistics (Ioffe and Szegedy, 2015, section 3)."""
    count = z.numel() // z.shape[-1]
    x = (z - mean) * rate
    inner = gradient(grad, penalty, x, coefficients, share, bounds)
    return rate * (inner - sum_ / count - x * (sum_x / count))


COMPILED = {f: torch.compile(f, dynamic=False) for f in (moments, outputs, sums, input_gradient)}


class NormActivation(torch.autograd.Function):
    """(activation of batch-normalised z, sum of squares by which normalised z is out of bounds).

    `z` is [images, ..., channels]. `coefficients` and `share` are as in `value`. `mean` and `variance` are
    fixed, or with `own` a guess: the batch's own are used and returned.
    """

    @staticmethod
    def forward(ctx, z, coefficients, share, mean, variance, eps, bounds, own):
        if own:
            mean, variance = COMPILED[moments](z, mean)
        rate = torch.rsqrt(variance + eps)
        y, excess = COMPILED[outputs](z, mean, rate, coefficients, share, bounds)
        ctx.save_for_backward(z, coefficients, share, mean, rate)
        ctx.bounds, ctx.own = bounds, own
        ctx.mark_non_differentiable(mean, variance)
        return y, excess, mean, variance

    @staticmethod
    def backward(ctx, grad, penalty, *_):
        z, coefficients, share, mean, rate = ctx.saved_tensors
        grad = grad.contiguous()
        sum_, sum_x, powers = COMPILED[sums](grad, penalty, z, mean, rate, coefficients, share, ctx.bounds)
        if not ctx.own:
            sum_, sum_x = torch.zeros_like(sum_), torch.zeros_like(sum_)
        inner = COMPILED[input_gradient](grad, penalty, z, mean, rate, coefficients, share, ctx.bounds, sum_, sum_x)
        return inner, torch.stack(powers, 1) if powers else None, *[None] * 6


def normalised_activation(norm, coefficients, share, z, bounds, frozen):
    """(activation, excess) of the batch-norm layer `norm`, whose statistics follow in training."""
    own = norm.training and not frozen
    y, excess, mean, variance = NormActivation.apply(
        z, coefficients, share, norm.running_mean.clone(), norm.running_var.clone(), norm.eps, bounds, own)
    if own:
        with torch.no_grad():
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance, norm.momentum)
    return y, excess
