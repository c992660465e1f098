"""Networks as lists of published layers, and their faster equal form for training.

A list is a line, in which every layer takes the output of the one before, unless a layer names its `inputs`: then it is
a graph, which is trained layer by layer as published.

Between two activations everything is linear, so training replaces a convolution and the average pool behind it by one
strided convolution, two dense layers by one, and two convolutions by one where that saves arithmetic. The kernels are
computed from the layers' weights at every step: the same function and gradient. These merged maps are also what an
encrypted run multiplies by, so noise and rounding of weights act on them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from .fused import beyond, normalised_activation
from .recipe_torch import PolyActivation, rounding_step

# ---------------------------------------------------------------- layers, as published


@dataclass(frozen=True)
class Conv:
    channels: int
    kernel: int
    stride: int = 1
    padding: int | tuple[int, int, int, int] = 0  # on all sides, or top, left, bottom, right
    dilation: int = 1
    groups: int = 1
    whitened: bool = False  # learned in the coordinates of `WhitenedConv`; the first layer of an image only
    inputs: tuple[str, ...] = ()  # name of the layer, or "input" for the image; the layer before if empty


@dataclass(frozen=True)
class Pool:
    kernel: int
    stride: int = 0  # the kernel's size if 0
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaxPool:
    """For originals, never exported."""

    kernel: int
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class GlobalPool:
    """Mean over all positions of a channel."""

    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchNorm:
    learned: bool = True  # factor and shift, else 1 and 0
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Activation:
    """The activation of the recipe: a polynomial, or one of FUNCTIONS."""

    per_channel: bool = False  # coefficients of its own for every channel
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Add:
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Concat:
    """Along the channels."""

    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Flatten:
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dense:
    features: int
    inputs: tuple[str, ...] = ()


class PaddedConv(nn.Conv2d):
    """With zeros above, left, below and right."""

    def __init__(self, *args, sides, **options):
        super().__init__(*args, **options)
        self.sides = sides

    def forward(self, x):
        top, left, bottom, right = self.sides
        return super().forward(F.pad(x, (left, right, top, bottom)))


class WhitenedConv(nn.Module):
    """A convolution that is learned behind a fixed one of 2x2 pixels, and is one convolution for all else.

    The fixed one, `basis`, takes the pixels of a patch to values without correlation and of variance
    1 (Jordan, 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.2). Fine detail, which is faint in
    photographs, is then learned as fast as colour.
    """

    def __init__(self, channels_in, channels, kernel, stride, padding):
        super().__init__()
        inner = 4 * channels_in
        self.register_buffer("basis", torch.eye(inner).view(inner, channels_in, 2, 2))
        self.coordinates = nn.Parameter(torch.randn(channels, inner, kernel - 1, kernel - 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.stride, self.padding = (stride, stride), padding

    @property
    def weight(self):
        """[channels, channels_in, kernel, kernel], as of an ordinary convolution."""
        return F.conv_transpose2d(self.coordinates, self.basis)

    @torch.no_grad()
    def whiten(self, images):
        """Takes the basis from `images` [N, channels_in, rows, columns]."""
        patches = F.unfold(images, 2, stride=5).transpose(1, 2).reshape(-1, self.basis.shape[0]).double()
        values, vectors = torch.linalg.eigh(patches.T.cov())
        # Directions of next to no variance are left faint: they hold what compression left behind.
        self.basis.copy_((vectors / (values + 5e-4).sqrt()).T.reshape(self.basis.shape))

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class Join(nn.Module):
    """A function of several operands."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *operands):
        return self.function(operands)


FUNCTIONS = {"relu": F.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "swish": F.silu}


class Function(nn.Module):
    """A named activation function that is not a polynomial: for originals, never exported."""

    coefficients = None

    def __init__(self, name):
        super().__init__()
        self.function = FUNCTIONS[name]

    def forward(self, z, channels_last=False):
        return self.function(z)


# ---------------------------------------------------------------- network


class Network(nn.Module):
    """Layers by name. `trace` runs them as published, `forward` in merged form."""

    def __init__(self, architecture, activation, learned=True, clamp=None, dtype=torch.float32, shape=(1, 28, 28),
                 leading_factor=None):
        """`architecture` maps layer names to layers, in order. `activation` is a name in FUNCTIONS or
        coefficients. `shape` is that of an image. The others are as in `PolyActivation` and `Map`."""
        super().__init__()
        self.shape = shape
        self.frozen = False  # batch-norm keeps its statistics while training
        self.fused = False  # `forward` takes batch-norm and activation together
        self.share = None  # of the polynomials, where training leads from ReLU to them; a tensor, or all if None
        self.architecture = dict(architecture)
        self.dtype = dtype
        self.operands = operands(self.architecture)
        shapes = {"input": shape}
        modules = {}
        for name, layer in self.architecture.items():
            read = [shapes[source] for source in self.operands[name]]
            shape = read[0]
            match layer:
                case Conv(channels, kernel, stride, padding, whitened=True):
                    modules[name] = WhitenedConv(shape[0], channels, kernel, stride, padding)
                case Conv(channels, kernel, stride, tuple(sides), dilation, groups):
                    modules[name] = PaddedConv(shape[0], channels, kernel, stride, 0, dilation, groups, sides=sides)
                case Conv(channels, kernel, stride, padding, dilation, groups):
                    modules[name] = nn.Conv2d(shape[0], channels, kernel, stride, padding, dilation, groups)
                case GlobalPool():
                    modules[name] = nn.AdaptiveAvgPool2d(1)
                case Add():
                    modules[name] = Join(sum)
                case Concat():
                    modules[name] = Join(lambda values: torch.cat(values, 1))
                case Pool(kernel, stride):
                    modules[name] = nn.AvgPool2d(kernel, stride or kernel)
                case MaxPool(kernel):
                    modules[name] = nn.MaxPool2d(kernel)
                case BatchNorm(affine):
                    norm = nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])
                    norm.weight.requires_grad_(affine)
                    norm.bias.requires_grad_(affine)
                    modules[name] = norm
                case Activation():
                    function = isinstance(activation, str)
                    channels = shape[0] if layer.per_channel and shape[0] > 1 else None
                    modules[name] = Function(activation) if function else PolyActivation(
                        channels, activation, learned=learned, leading_factor=leading_factor, clamp=clamp)
                case Flatten():
                    modules[name] = nn.Flatten()
                case Dense(features):
                    modules[name] = nn.Linear(shape[0], features)
            with torch.no_grad():
                shapes[name] = tuple(modules[name].eval()(*(torch.zeros(1, *size) for size in read)).shape[1:])
            modules[name].train()
        # Activations first: the order of parameters is part of a recipe, since the gradient norm is summed in it.
        for name, layer in sorted(modules.items(), key=lambda item: not isinstance(item[1], PolyActivation)):
            self.add_module(name, layer)
        self.stages = stages(self.architecture) if is_line(self.architecture) else None

    @torch.no_grad()
    def whiten(self, images):
        """Fits the bases of whitened convolutions to `images`."""
        for module in self.modules():
            if isinstance(module, WhitenedConv):
                module.whiten(images)

    @torch.no_grad()
    def without_whitening(self):
        """Makes ordinary convolutions of whitened ones, in place. Returns itself."""
        for name, layer in self.architecture.items():
            if isinstance(layer, Conv) and layer.whitened:
                source = getattr(self, name)
                channels, channels_in, kernel, _ = source.weight.shape
                conv = nn.Conv2d(channels_in, channels, kernel, source.stride, source.padding)
                conv.weight.copy_(source.weight)
                conv.bias.copy_(source.bias)
                setattr(self, name, conv)
                self.architecture[name] = replace(layer, whitened=False)
        return self

    def trace(self, x, perturb=None):
        """Every layer as published, in the values' own precision: a list of (name, input, output).

        The input of a join is all its operands, flattened behind each other. `perturb(weight, name)` is
        added to the weights of convolutions and dense layers.
        """
        values, result = {"input": x}, []
        for name, layer in self.architecture.items():
            module, read = getattr(self, name), [values[source] for source in self.operands[name]]
            if perturb is not None and isinstance(layer, (Conv, Dense)):
                weights = {"weight": module.weight + perturb(module.weight, name)}
                values[name] = torch.func.functional_call(module, weights, tuple(read))
            else:
                values[name] = module(*read)
            x = read[0] if len(read) == 1 else torch.cat([value.flatten(1) for value in read], 1)
            result.append((name, x, values[name]))
        return result

    def predict(self, x):
        return self.trace(x)[-1][2]

    def forward(self, x, perturb=None, bounds=(0.0, float("inf"))):
        """(logits, excess of the activations' inputs).

        The excess is the sum of squares by which they are further than `bounds[1]` from `bounds[0]`.
        `perturb(weight, name)` is added to the weights of each merged map, which its first layer
        names. Batch-norm and the root of the activation's leading coefficient are multiplied into
        them for it. In a graph it is added to those of each layer.
        """
        if self.stages is None:
            trace = self.trace(x, perturb)
            read = [z for name, z, _ in trace if isinstance(self.architecture[name], Activation)]
            return trace[-1][2], sum(beyond(z, bounds).square().sum() for z in read)
        excess = torch.zeros(())
        x = x.permute(0, 2, 3, 1)  # channels last from here on
        for stage in self.stages:
            x = self.linear(stage, x, perturb)
            norm = getattr(self, stage.norm) if stage.norm else None
            if not stage.activation:
                x = x if norm is None else self.normalised(norm, x)
                continue
            activation = getattr(self, stage.activation)
            if self.fused:
                rows = activation.coefficients
                rows = rows.expand(x.shape[-1], -1) if rows is not None else None
                x, own = normalised_activation(norm, rows, self.share, x, bounds, self.frozen)
                excess = excess + own
                continue
            x = x if norm is None else self.normalised(norm, x)
            excess = excess + beyond(x, bounds).square().sum()
            x = activation(x, channels_last=True)
        return x.float(), excess

    def linear(self, stage, x, perturb=None):
        """The maps of a stage."""
        for index, names in enumerate(stage.parts):
            part = self.merged(names)
            if perturb is not None and part.weight is not None:
                gain = torch.ones(())
                if index + 1 == len(stage.parts):
                    gain = self.gain(stage).view(-1, *[1] * (part.weight.dim() - 1))
                part.weight = part.weight + perturb(part.weight * gain, names[0]) / gain
            x = part.apply(x, self.dtype)
        return x

    def gain(self, stage):
        """What an encrypted run multiplies the weights of a stage's last map by, [channels] or [1]:
        batch-norm, and what makes the leading coefficient of the activation 1 or -1."""
        gain = torch.ones(1)
        if stage.norm:
            norm = getattr(self, stage.norm)
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        activation = stage.activation and getattr(self, stage.activation)
        if isinstance(activation, PolyActivation):
            coefficients = activation.coefficients
            gain = gain * coefficients[..., -1].abs() ** (1 / (coefficients.shape[-1] - 1))
        return gain.detach()

    def normalised(self, norm, x):
        rows = x.reshape(-1, x.shape[-1]).float()
        rows = F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias,
                            self.training and not self.frozen, norm.momentum, norm.eps)
        return rows.view(x.shape)

    def before_norm(self, x, last):
        """What reaches the batch-norm of stage `last`: a row for every image and position."""
        x = x.permute(0, 2, 3, 1)
        for stage in self.stages[:last]:
            x = self.linear(stage, x)
            x = self.normalised(getattr(self, stage.norm), x) if stage.norm else x
            x = getattr(self, stage.activation)(x, channels_last=True)
        x = self.linear(self.stages[last], x)
        return x.reshape(-1, x.shape[-1])

    def merged(self, names):
        """The merged map of consecutive linear layers."""
        first = self.architecture[names[0]]
        if isinstance(first, Pool):
            module = getattr(self, names[0])
            return Map(None, None, module.stride, 0, module.kernel_size)
        if isinstance(first, MaxPool):
            return Map(None, None, first.kernel, 0, first.kernel, F.max_pool2d)
        if isinstance(first, Dense):
            weight, bias = None, None
            for name in names:
                layer = getattr(self, name)
                bias = layer.bias if bias is None else layer.bias + layer.weight @ bias
                weight = layer.weight if weight is None else layer.weight @ weight
            return Map(weight, bias)
        kernel, bias, stride = None, None, 1
        for name, pool in convolutions(self.architecture, names):
            conv = getattr(self, name)
            own, own_stride = conv.weight, conv.stride[0]
            if pool:
                size = self.architecture[pool].kernel
                box = torch.full((1, 1, size, size), 1 / size ** 2)
                out, inner = own.shape[:2]
                own = F.conv_transpose2d(own.flatten(0, 1)[:, None], box)
                own = own.view(out, inner, *own.shape[2:])
                own_stride = getattr(self, pool).stride
            if kernel is None:
                kernel, bias, stride = own, conv.bias, own_stride
            else:
                bias = conv.bias + torch.einsum("oikl,i->o", conv.weight, bias)
                kernel, stride = F.conv_transpose2d(own, kernel, stride=stride), stride * own_stride
        return Map(kernel, bias, stride, self.architecture[names[0]].padding)


def integers_of(weight, bits):
    """The nearest integers of so many bits, symmetric around 0, and what 1 stands for."""
    step = rounding_step(weight, bits)
    return (weight.detach() / step).round(), step


@torch.no_grad()
def folded(net, bits):
    """The network without batch-norm, whose activations are `z^2 + c`, a constant per channel.

    The weights of every map are integers times one number, of as many bits as `bits` has for its
    layer. Only for lines of layers that are not merged, with activations of degree 2 whose leading
    coefficients are positive.
    """
    architecture = {name: Activation(per_channel=True) if isinstance(layer, Activation) else layer
                    for name, layer in net.architecture.items() if not isinstance(layer, BatchNorm)}
    result = Network(architecture, (0.0, 0.0, 1.0), dtype=net.dtype, shape=net.shape)
    for stage in net.stages:
        for index, names in enumerate(stage.parts):
            if len(names) > 1:
                raise ValueError(f"{names} are merged")
            source, target = getattr(net, names[0]), getattr(result, names[0])
            if isinstance(source, nn.AvgPool2d):
                continue
            factor, shift = torch.ones(1), torch.zeros(1)
            if index + 1 == len(stage.parts):
                factor, shift = net.gain(stage), torch.zeros(1)
                if stage.norm:
                    norm = getattr(net, stage.norm)
                    deviation = (norm.running_var + norm.eps).sqrt()
                    shift = (norm.bias * deviation / norm.weight - norm.running_mean) * factor
                if stage.activation:
                    constant, linear, leading = getattr(net, stage.activation).coefficients.unbind(-1)
                    centre = linear / (2 * leading.sqrt())
                    shift = shift + centre
                    getattr(result, stage.activation).rows[:, 0] = constant - centre.square()
            weight = source.weight * factor.view(-1, *[1] * (source.weight.dim() - 1))
            integers, step = integers_of(weight, bits[names[0]])
            target.weight.copy_(integers * step)
            target.bias.copy_(source.bias * factor + shift)
    return result.eval()


@dataclass
class Map:
    """A map on channels-last values: convolution (weight of four axes), dense (two) or pool (none)."""

    weight: torch.Tensor | None
    bias: torch.Tensor | None
    stride: int = 1
    padding: int = 0
    pool: int = 0
    pooling: Callable = F.avg_pool2d

    def apply(self, x, dtype):
        if self.weight is None:
            # Of cropped images the last map may be smaller than what is pooled of whole ones.
            size = min(self.pool, x.shape[1])
            return self.pooling(x.permute(0, 3, 1, 2), size, self.stride).permute(0, 2, 3, 1).contiguous()
        weight, bias, x = self.weight.to(dtype), self.bias.to(dtype), x.to(dtype)
        if self.weight.dim() == 2:
            if x.dim() == 4:  # weights are in channel, row, column order
                n, height, width, channels = x.shape
                weight = weight.view(-1, channels, height * width).transpose(1, 2).reshape(len(weight), -1)
            return F.linear(x.reshape(len(x), -1), weight, bias)
        size = weight.shape[2]
        if weight.shape[1] == 1 and self.padding == 0:  # one channel: a product with the windows
            windows = x[..., 0].unfold(1, size, self.stride).unfold(2, size, self.stride)
            n, height, width = windows.shape[:3]
            return torch.addmm(bias, windows.reshape(-1, size * size), weight.flatten(1).t()).view(n, height, width, -1)
        if weight.shape[1] == 3:  # convolutions of four channels are five times as fast
            x, weight = F.pad(x, (0, 1)), F.pad(weight, (0, 0, 0, 0, 0, 1))
        elif self.stride == 2 and size == 4 and self.padding == 1:
            return without_stride(x, weight, bias)
        y = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, self.stride, self.padding)
        return y.permute(0, 2, 3, 1)


def without_stride(x, weight, bias):
    """A 4x4 convolution of stride 2 and padding 1 as one of 2x2 on patches of 2x2 positions.

    The gradient of the former is ten times as slow.
    """
    n, height, width, channels = x.shape
    rows, columns = height // 2 + 1, width // 2 + 1
    x = F.pad(x, (0, 0, 1, 2 * columns - width - 1, 1, 2 * rows - height - 1))
    x = x.view(n, rows, 2, columns, 2, channels).permute(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, 4 * channels)
    weight = weight.view(len(weight), channels, 2, 2, 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(-1, 4 * channels, 2, 2)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)


# ---------------------------------------------------------------- merging


@dataclass(frozen=True)
class Stage:
    """Linear layers, in parts that become one map each, then batch-norm and activation (layer names, None if absent)."""

    parts: tuple[tuple[str, ...], ...]
    norm: str | None
    activation: str | None


def operands(architecture):
    """Names of what each layer reads: "input" is the image."""
    names = ["input", *architecture]
    return {name: layer.inputs or (before,) for before, (name, layer) in zip(names, architecture.items())}


def is_line(architecture):
    """Whether every layer takes the one before, and is of a kind that merging knows."""
    def plain(layer):
        match layer:
            case Conv(_, _, _, padding, dilation, groups):
                return isinstance(padding, int) and dilation == groups == 1
        return not isinstance(layer, (GlobalPool, Add, Concat))
    return all(plain(layer) and not layer.inputs for layer in architecture.values())


def stages(architecture):
    result, linear, norm = [], [], None
    for name, layer in architecture.items():
        if isinstance(layer, BatchNorm):
            norm = name
        elif isinstance(layer, Activation):
            result.append(Stage(parts(architecture, linear), norm, name))
            linear, norm = [], None
        elif not isinstance(layer, Flatten):
            if norm is not None:
                raise ValueError(f"{name} follows the batch-norm {norm}; an activation must")
            linear.append(name)
    result.append(Stage(parts(architecture, linear), norm, None))
    return result


def parts(architecture, names):
    """Groups: convolution and pool behind it; all convolutions while the input has one channel; all dense layers."""
    groups = []
    for name in names:
        layer = architecture[name]
        if groups:
            kinds = [type(architecture[other]) for other in groups[-1]]
            joins = (
                isinstance(layer, Dense) and kinds[-1] is Dense
                or isinstance(layer, Pool) and kinds[-1] is Conv and architecture[groups[-1][-1]].stride == 1
                or isinstance(layer, Conv) and kinds[-1] is Pool and kinds[0] is Conv and layer.padding == 0
                and groups[-1][0] == next(iter(architecture))
            )
            if joins:
                groups[-1].append(name)
                continue
        groups.append([name])
    return tuple(tuple(group) for group in groups)


def convolutions(architecture, names):
    """(convolution, pool behind it or None) pairs."""
    return [(name, following if following and isinstance(architecture[following], Pool) else None)
            for name, following in zip(names, [*names[1:], None]) if isinstance(architecture[name], Conv)]
