"""Random changes of training images."""

import dataclasses
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


def flip(images, mirrored):
    """Mirrors those images left to right for which `mirrored` [N] is true."""
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def shift(images, reach, generator, crop=0):
    """Moves each image by up to `reach` pixels along either axis.

    What comes in is the image mirrored at its edge. With `crop`, only a square of so many pixels a
    side is kept, which may lie anywhere in the moved image.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (reach,) * 4, mode="reflect")

    def window(size):
        kept = crop or size
        first = torch.randint(size + 2 * reach - kept + 1, (n, 1), generator=generator)
        return first + torch.arange(kept)

    rows, columns = window(height)[:, None, :, None], window(width)[:, None, None, :]
    channels = torch.arange(images.shape[1])[None, :, None, None]
    return padded[torch.arange(n)[:, None, None, None], channels, rows, columns]


def square(images, sides, generator):
    """A square around any pixel of each image, as a mask [N, 1, height, width].

    `sides` is the number of its pixels a side, or one for each image [N, 1]. What lies outside the
    image is cut off.
    """
    n, _, height, width = images.shape

    def inside(size):
        first = torch.randint(size, (n, 1), generator=generator) - sides // 2
        return (torch.arange(size) >= first) & (torch.arange(size) < first + sides)

    return inside(height)[:, None, :, None] & inside(width)[:, None, None, :]


def cut(images, side, generator):
    """Takes a square of `side` pixels out of each image (DeVries and Taylor, 2017).

    The pixels become 0, which is about the mean of photographs.
    """
    return images.masked_fill(square(images, side, generator), 0.0)


def mix(images, targets, share, generator):
    """Puts a square of another image into a `share` of the images, by chance (CutMix, Yun et al., 2019).

    The area of a square is equally distributed from nothing to the whole image, before it is cut off
    at the edge. `targets` [N, classes] become those of both images, as large as what is seen of each.
    """
    n, side = len(images), images.shape[2]
    sides = (torch.rand(n, 1, generator=generator).sqrt() * side).round().long()
    sides[torch.rand(n, generator=generator) >= share] = 0
    other = torch.randperm(n, generator=generator)
    inside = square(images, sides, generator)
    area = inside.to(targets.dtype).mean((2, 3))
    return torch.where(inside, images[other], images), torch.lerp(targets, targets[other], area)


def augment(images, recipe, generator, mirrored=None, crop=0):
    """What `recipe` asks for, drawn anew for every image.

    A recipe that mirrors images mirrors those for which `mirrored` is true, or half of them by
    chance. Training takes every image one way round in one pass and the other in the next (Jordan,
    2024, "94% on CIFAR-10 in 3.29 seconds", section 3.6). With `crop`, squares of so many pixels a
    side are taken out of the images, and the square that is cut out of them is smaller by as much.
    """
    if recipe.mirror:
        images = flip(images, torch.rand(len(images), generator=generator) < 0.5 if mirrored is None else mirrored)
    side = images.shape[2]
    if recipe.shift:
        images = shift(images, recipe.shift, generator, crop)
    if recipe.deformation:
        images = deform(images, recipe.deformation, generator)
    if recipe.cutout:
        images = cut(images, recipe.cutout * images.shape[2] // side, generator)
    return images


def for_calibration(images, recipe, count=10_000):
    """`count` of the images at equal distances, changed as in training.

    A network is surer of the images that it learned than of new ones, and changed ones stand for
    these. The command `cryptodl calibrate` measures on as many.
    """
    if recipe.calibration_deformation is not None:
        recipe = dataclasses.replace(recipe, deformation=recipe.calibration_deformation)
    count, generator = min(count, len(images)), torch.Generator().manual_seed(0)
    rows = torch.arange(count) * len(images) // count
    return torch.cat([augment(images[part], recipe, generator) for part in rows.split(500)])
