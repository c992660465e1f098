"""The optimizer Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/).

The momentum of every convolution's gradient becomes the nearest matrix whose singular values are
about 1. Each direction then learns at the same pace, which networks of quadratics need more than
others: the gradients of their few largest values drown all others.
"""

import torch

# a x + b x^3 + c x^5 takes singular values between 0 and 1 to between 0.7 and 1.2 in a few steps.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix, steps=3):
    """Roughly the nearest matrix with orthonormal rows or columns, whichever are fewer."""
    a, b, c = QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Groups with `orthogonal` are filters [channels, ...] that a batch-norm follows.

    Their norm is free; it is kept at the root of the number of channels, so that the learning rate
    is a share of it. All other groups take Adam (Kingma and Ba, 2015, algorithm 1).
    """

    def __init__(self, groups, lr, momentum=0.8, betas=(0.9, 0.98), eps=1e-8):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "orthogonal": False})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            update = self.filters_update if group["orthogonal"] else self.adam_update
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * update(p, self.state[p], group))

    def filters_update(self, p, state, group):
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].mul_(group["momentum"]).add_(p.grad)
        p.mul_(len(p) ** 0.5 / p.norm())
        return orthogonal((p.grad + group["momentum"] * momentum).flatten(1)).view_as(p)

    def adam_update(self, p, state, group):
        if "step" not in state:
            state |= {"step": 0, "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        state["step"] += 1
        first, second = group["betas"]
        mean = state["mean"].lerp_(p.grad, 1 - first) / (1 - first ** state["step"])
        square = state["square"].lerp_(p.grad.square(), 1 - second) / (1 - second ** state["step"])
        return mean / (square.sqrt() + group["eps"])
