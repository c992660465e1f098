"""What a recipe can say."""

from dataclasses import dataclass, replace

from .network import Activation, Add, BatchNorm, Concat, Conv, Dense, Flatten, GlobalPool, MaxPool, Pool


@dataclass(frozen=True)
class Recipe:
    title: str
    architecture: tuple[tuple[str, object], ...]
    activation: str | tuple[float, ...]  # function name, or coefficients with the constant term first
    learned: bool = True  # whether the coefficients are trained with the weights
    dataset: str = "mnist"
    folder: str = ""  # of the exported files, inside models/zoo/trained
    deformation: float = 0.6  # strength of the augmentation
    mirror: bool = False
    shift: int = 0  # pixels by which images move while training
    cutout: int = 0  # side of the square of pixels that is taken out of every image while training
    cutmix: float = 0.0  # share of the images that get a square of another one while training
    noise: float = 0.0  # standard deviation of what is added to every pixel while training
    calibration_deformation: float | None = None  # of the images on which it is calibrated; as in training if None
    epochs: int = 45
    crop: int = 0  # side of the squares that the first passes take out of images instead of whole ones; needs `shift`
    crop_epochs: int = 0  # those passes
    # What changes in a second cycle of passes, after which the learning rate rises and falls anew.
    second: dict[str, object] | None = None
    seed: int = 1
    batch: int = 256
    optimizer: str = "adamw"  # or "muon" for convolutions, with Adam for all else
    learning_rate: float = 5e-3
    filter_learning_rate: float = 0.1  # of convolutions under "muon", as a share of their norm
    weight_decay: float = 2e-2
    label_smoothing: float = 0.0
    leading_factor: float | None = None  # leading coefficients stay this near to where they start
    range_centre: float = 0.0
    range_limit: float = 4.0  # inputs z of activations with |z - range_centre| above this are penalised
    range_weight: float = 0.05
    clamp: float | None = None  # |z - range_centre| at which activations saturate while training
    weight_bits: float | None = 5.0  # quantisation noise of the merged maps while training: one step of such integers
    grid_epochs: int = 0  # further passes, with rounded weights; then batch-norm is folded
    grid_bits: int | tuple[int, ...] = 5  # of those integers, sign included; of every map, or of each
    grid_learning_rate: float = 0.02
    ema: float = 0.999
    blend_epochs: float = 0.0  # passes in which activations go from ReLU to polynomials; `fused` only
    tolerance: float | None = None  # labels that may change under encryption, where not the default
    teachers: tuple[str, ...] = ()  # recipes whose mean softened output is a second target
    distillation: float = 0.0  # its share of the loss
    temperature: float = 2.0
    bfloat16: bool = False  # linear maps in bfloat16 while training
    compile: bool = False  # fuse the rest with torch.compile
    fused: bool = False  # batch-norm and activation as one operation, far faster where maps are large; no clamp
    exact_statistics: bool = True  # of batch-norm: stage after stage, else means over batches

    def cycles(self):
        """A recipe for each rise and fall of the learning rate: the first, and the second if there is one."""
        first = replace(self, second=None)
        return [first] if self.second is None else [
            first, replace(first, **{"blend_epochs": 0.0, "seed": self.seed + 1, **self.second})]

    def grid(self):
        """Bits of the integers of every convolution and dense layer, by name."""
        names = [name for name, layer in self.architecture if isinstance(layer, (Conv, Dense))]
        bits = self.grid_bits if isinstance(self.grid_bits, tuple) else (self.grid_bits,) * len(names)
        return dict(zip(names, bits, strict=True))


def named(*layers):
    """Names layers by kind and count: conv1, bn1, act1, pool1, ..., fc1. Their `inputs` use these names."""
    prefixes = {Conv: "conv", Pool: "pool", MaxPool: "pool", GlobalPool: "mean", BatchNorm: "bn", Activation: "act", Add: "add",
                Concat: "concat", Dense: "fc", Flatten: "flatten"}
    counts, result = {}, []
    for layer in layers:
        prefix = prefixes[type(layer)]
        counts[prefix] = counts.get(prefix, 0) + 1
        result.append((prefix if prefix == "flatten" else f"{prefix}{counts[prefix]}", layer))
    return tuple(result)
