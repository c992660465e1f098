"""Writes a trained network as the Rust crate reads it: description, weights, reference outputs, calibration."""

import copy
import io
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from . import data
from .network import Activation, Add, BatchNorm, Concat, Conv, Dense, Flatten, GlobalPool, Pool, integers_of
from .recipe_torch import PolyActivation


ROOT = Path(__file__).resolve().parents[3]
# Words of the command that builds and runs `cryptodl`.
FROM_SOURCE = ["cargo", "run", "--release", "--manifest-path", str(ROOT / "Cargo.toml"), "--"]


def number(x):
    text = f"{x:.9g}"
    return text if any(c in text for c in ".en") else text + ".0"


def numbers(values):
    return "[" + ", ".join(number(v) for v in values) + "]"


def rings(shape, low, high):
    """Eight drawn images that a test can make without the data set: white rings of radius 3 to 10 on black."""
    y, x = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    images = []
    for i in range(8):
        distance = (y - 13).square() + (x - 10 - i).square()
        images.append(((distance >= (2 + i) ** 2) & (distance <= (4 + i) ** 2)).float())
    return (torch.stack(images)[:, None] * (high - low) + low).expand(-1, *shape)


def fields(layer, module):
    """The lines of a layer's table that say what it computes."""
    match layer:
        case Conv(channels, kernel, stride, padding, dilation, groups):
            text = f'kind = "conv2d"\nout_channels = {channels}\nkernel = [{kernel}, {kernel}]'
            if stride != 1:
                text += f"\nstride = [{stride}, {stride}]"
            if isinstance(padding, tuple):
                text += f"\npadding = {list(padding)}"
            elif padding:
                text += f"\npadding = [{padding}, {padding}]"
            if dilation != 1:
                text += f"\ndilation = {dilation}"
            return text + f"\ngroups = {groups}" if groups != 1 else text
        case Pool(kernel, stride):
            text = f'kind = "avg_pool2d"\nkernel = [{kernel}, {kernel}]'
            return text + f"\nstride = [{stride}, {stride}]" if stride and stride != kernel else text
        case BatchNorm():
            return f'kind = "batch_norm"\neps = {module.eps}'
        case GlobalPool():
            return 'kind = "global_avg_pool2d"'
        case Add():
            return 'kind = "add"'
        case Concat():
            return 'kind = "concat"'
        case Activation():
            text = 'kind = "polynomial"'
            if module.coefficients.dim() == 1:  # else they are a tensor among the weights
                text += f"\ncoefficients = {numbers(module.coefficients.tolist())}"
            return text
        case Flatten():
            return 'kind = "flatten"'
        case Dense(features):
            return f'kind = "dense"\nout_features = {features}'


def description(name, recipe, net, score, images):
    """All that is known of the network without a calibration."""
    out = io.StringIO()
    class_names = data.CLASS_NAMES.get(recipe.dataset)
    named = f"class_names = {json.dumps(class_names)}\n" if class_names else ""
    tolerance = f"tolerance = {recipe.tolerance}\n" if recipe.tolerance else ""
    out.write(f"""format = 1
name = "{name}"
title = "{recipe.title}"
dataset = "{recipe.dataset}"
{named}{tolerance}weights = "{name}.safetensors"

[input]
shape = {list(net.shape)}
range = {list(data.RANGES[recipe.dataset])}

[accuracy]
correct = {score}
images = {images}
""")
    for layer_name, layer in net.architecture.items():
        out.write(f'\n[[layer]]\nname = "{layer_name}"\n{fields(layer, getattr(net, layer_name))}\n')
        if layer.inputs:
            out.write(f'inputs = {json.dumps(net.operands[layer_name])}\n')
    return out.getvalue()


@torch.no_grad()
def export(name, recipe, net, images, score, test, folder, cryptodl=FROM_SOURCE):
    """Writes the network to `folder`, calibrated on `images`: NAME.toml, NAME.safetensors,
    NAME.calibration.safetensors and NAME.reference.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(description(name, recipe, net, score, len(test)))
    tensors = {key: value.detach().contiguous().float() for key, value in net.state_dict().items()
               if not key.endswith(("num_batches_tracked", ".rows"))}
    if recipe.grid_epochs:  # the weights are such integers already
        for key, module in net.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                integers, step = integers_of(module.weight, recipe.grid()[key])
                module.weight.copy_(integers * step)
                tensors |= {f"{key}.weight": integers.to(torch.int8), f"{key}.weight_scale": step.view(1)}
    tensors |= {f"{key}.coefficients": module.coefficients.detach().contiguous() for key, module in net.named_modules()
                if isinstance(module, PolyActivation) and module.coefficients.dim() == 2}
    save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.safetensors").chmod(0o644)
    exact = copy.deepcopy(net).double()
    drawn = rings(net.shape, *data.RANGES[recipe.dataset])
    reference = {key: [[round(v, 7) for v in row] for row in exact.predict(x.double()).tolist()]
                 for key, x in (("test_images", test.images[:16]), ("rings", drawn))}
    (folder / f"{name}.reference.json").write_text(json.dumps(reference, indent=1) + "\n")
    calibrate(name, folder, images, data.RANGES[recipe.dataset], cryptodl)


def calibrate(name, folder, images, limits, cryptodl):
    """Measures the network in `folder` on `images`, whose values are within `limits`, with `cryptodl calibrate`.

    The images are rounded to 8 bits, as pictures are. `cryptodl` are the words of the command that
    runs it.
    """
    low, high = limits
    pixels = ((images - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)
    program = shutil.which(cryptodl[0])
    if program is None:
        raise SystemExit(f"{cryptodl[0]} is no command; name `cryptodl` by --cryptodl")
    with tempfile.TemporaryDirectory() as out:
        # The first line of the description names this file.
        np.save(Path(out) / "training-images.npy", pixels.numpy())
        words = [str(Path(program).resolve()), *cryptodl[1:], "calibrate", "--model", str((folder / f"{name}.toml").resolve()),
                 "--data", "training-images.npy", "--images", str(len(pixels)), "--out", "calibrated"]
        subprocess.run(words, check=True, cwd=out)
        for file in (f"{name}.toml", f"{name}.calibration.safetensors"):
            (folder / file).write_bytes((Path(out) / "calibrated" / file).read_bytes())
