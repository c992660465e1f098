"""Writes a trained network as the Rust crate reads it: description, weights, reference outputs."""

import copy
import io
import json
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from . import data
from .network import Activation, Add, BatchNorm, Concat, Conv, Dense, Flatten, GlobalPool, Polynomial, Pool


ROOT = Path(__file__).resolve().parents[3]
# Words of the command that builds and runs `cryptodl`.
FROM_SOURCE = ["cargo", "run", "--release", "--manifest-path", str(ROOT / "Cargo.toml"), "--"]


def number(x):
    text = f"{x:.9g}"
    return text if any(c in text for c in ".en") else text + ".0"


def numbers(values):
    return "[" + ", ".join(number(v) for v in values) + "]"


def integer_lines(values, width=16):
    rows = [values[i:i + width] for i in range(0, len(values), width)]
    return "[\n" + "".join("  " + ", ".join(str(int(v)) for v in row) + ",\n" for row in rows) + "]"


def rings(shape, low, high):
    """Eight drawn images that a test can make without the data set: white rings of radius 3 to 10 on black."""
    y, x = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    images = []
    for i in range(8):
        distance = (y - 13).square() + (x - 10 - i).square()
        images.append(((distance >= (2 + i) ** 2) & (distance <= (4 + i) ** 2)).float())
    return (torch.stack(images)[:, None] * (high - low) + low).expand(-1, *shape)


def fields(layer, module, range_):
    """The lines of a layer's table that say what it computes; `range_` is that of its input."""
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
            text = 'kind = "polynomial"\n'
            if module.coefficients.dim() == 1:  # else they are a tensor among the weights
                text += f"coefficients = {numbers(module.coefficients.tolist())}\n"
            return text + f"range = {numbers(range_)}"
        case Flatten():
            return 'kind = "flatten"'
        case Dense(features):
            return f'kind = "dense"\nout_features = {features}'


def description(name, recipe, net, calibration, score, images):
    out = io.StringIO()
    out.write(f"""# Written by models/train/train.py {name}; calibration is on the training images.
format = 1
name = "{name}"
title = "{recipe.title}"
dataset = "{recipe.dataset}"
weights = "{name}.safetensors"

[input]
shape = {list(net.shape)}
range = {list(data.RANGES[recipe.dataset])}

[accuracy]
correct = {score}
images = {images}
""")
    previous = None
    for layer_name, layer in net.architecture.items():
        read = net.operands[layer_name]
        range_ = calibration.ranges.get(read[0])
        out.write(f'\n[[layer]]\nname = "{layer_name}"\n{fields(layer, getattr(net, layer_name), range_)}\n')
        if layer.inputs:
            out.write(f'inputs = {json.dumps(read)}\n')
        out.write(f'input_rms = {number(calibration.rms[layer_name])}\n')
        out.write(f'output_range = {numbers(calibration.ranges[layer_name])}\n')
        if layer_name in calibration.histograms:
            histogram = calibration.histograms[layer_name]
            out.write(f'\n[layer.histogram]\nlow = {number(histogram.low)}\nhigh = {number(histogram.high)}\n'
                      f'counts = {integer_lines(histogram.counts)}\n')
        previous = layer_name
    margins = calibration.margins
    out.write(f'\n[output]\nrange = {numbers(calibration.ranges[previous])}\n\n'
              f'[output.margins]\nlow = 0.0\nhigh = {number(margins.high)}\ncounts = {integer_lines(margins.counts)}\n')
    return out.getvalue()


@torch.no_grad()
def export(name, recipe, net, calibration, score, test, folder, cryptodl=FROM_SOURCE):
    """Writes NAME.toml, NAME.safetensors and NAME.reference.json to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(description(name, recipe, net, calibration, score, len(test)))
    tensors = {key: value.detach().contiguous().float() for key, value in net.state_dict().items()
               if not key.endswith(("num_batches_tracked", ".rows"))}
    tensors |= {f"{key}.coefficients": module.coefficients.detach().contiguous() for key, module in net.named_modules()
                if isinstance(module, Polynomial) and module.coefficients.dim() == 2}
    save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.safetensors").chmod(0o644)
    exact = copy.deepcopy(net).double()
    drawn = rings(net.shape, *data.RANGES[recipe.dataset])
    reference = {key: [[round(v, 7) for v in row] for row in exact.predict(x.double()).tolist()]
                 for key, x in (("test_images", test.images[:16]), ("rings", drawn))}
    (folder / f"{name}.reference.json").write_text(json.dumps(reference, indent=1) + "\n")
    calibrate(name, folder, cryptodl)


def calibrate(name, folder, cryptodl):
    """Adds the per-image calibration with the program itself.

    The program measures it on the network as its planner folds it. `cryptodl` are the words of the
    command that runs it.
    """
    with tempfile.TemporaryDirectory() as out:
        model = str(folder / f"{name}.toml")
        subprocess.run([*cryptodl, "calibrate", "--model", model, "--keep-ranges", "--out", out], check=True)
        for file in (f"{name}.toml", f"{name}.calibration.safetensors"):
            (folder / file).write_bytes((Path(out) / file).read_bytes())
