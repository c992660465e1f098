"""Random small deformations of grey images."""

import math

import torch
import torch.nn.functional as F

# 28 x 6: bicubic interpolation of 6 control points, as a matrix.
BICUBIC = F.interpolate(torch.eye(6)[None, None], size=(28, 6), mode="bicubic", align_corners=True)[0, 0]


def deform(images, strength, generator):
    """Rotates, scales, shears, shifts and bends every image [N, 1, 28, 28] by its own random amount, bilinear.

    At strength 1: rotation up to 12 degrees, scale and shear up to 0.12, shift up to 2 pixels, elastic displacement of
    6 x 6 control points with a standard deviation of 0.8 pixels.
    """
    n = images.shape[0]

    def uniform(limit, *shape):
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * limit * strength

    angle, shear = uniform(math.radians(12)), uniform(0.12)
    sx, sy = 1 + uniform(0.12), 1 + uniform(0.12)
    shift = uniform(2 * 2.0 / 28, 2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack([
        torch.stack([cos * sx, (shear - sin) * sx, shift[:, 0]], 1),
        torch.stack([sin * sy, cos * sy, shift[:, 1]], 1),
    ], 1)
    grid = F.affine_grid(theta, (n, 1, 28, 28), align_corners=False)
    bend = torch.randn(n, 2, 6, 6, generator=generator) * (0.8 * 2 / 28 * strength)
    grid = grid + (BICUBIC @ bend @ BICUBIC.t()).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, align_corners=False)


def flip(images, generator):
    """Mirrors each image left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
