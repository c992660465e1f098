"""Every network and how it is trained."""

import json
from pathlib import Path

from .network import Activation, Add, BatchNorm, Conv, Dense, Flatten, MaxPool, Pool
from .recipe import Recipe, named

APPROXIMATIONS = json.loads((Path(__file__).resolve().parent.parent / "approximations.json").read_text())


def approximation(name, degree):
    """Coefficients, constant term first, as `cryptodl approx` wrote them; vanishing leading terms are absent."""
    return tuple(APPROXIMATIONS[name]["coefficients"][str(degree)])


MODEL_1 = (
    ("conv1", Conv(20, 5)), ("pool1", Pool(2)), ("conv2", Conv(50, 5)), ("pool2", Pool(2)), ("bn", BatchNorm()),
    ("act", Activation()), ("flatten", Flatten()), ("fc1", Dense(256)), ("fc2", Dense(10)),
)
# Pools stand before the second activation of each pair: they fold into the convolution and leave a quarter of the values.
MODEL_2 = named(
    Conv(16, 3), BatchNorm(), Activation(), Conv(32, 3), Pool(2), BatchNorm(), Activation(),
    Conv(32, 3), BatchNorm(), Activation(), Conv(64, 3), Pool(2), BatchNorm(), Activation(),
    Conv(64, 3, padding=1), BatchNorm(), Activation(), Conv(128, 3, padding=1), Pool(2), BatchNorm(), Activation(),
    Flatten(), Dense(10),
)

# Batch-norm before every activation throughout, also where the original has none: it folds into the map before it.
SWISH = named(
    Conv(20, 5), Pool(2), BatchNorm(), Activation(), Conv(50, 5), Pool(2), BatchNorm(), Activation(),
    Flatten(), Dense(10),
)
CRYPTONETS = named(
    Conv(5, 5, stride=2, padding=1), BatchNorm(), Activation(), Pool(3, 1), Conv(50, 5, stride=2, padding=1),
    Pool(3, 1), Flatten(), Dense(100), BatchNorm(), Activation(), Dense(10),
)
SECUREML = named(
    Flatten(), Dense(128), BatchNorm(), Activation(), Dense(128), BatchNorm(), Activation(), Dense(10),
)
CHABANNE_LIGHT = named(
    Conv(20, 5), Pool(2), Conv(50, 5), Pool(2), Flatten(), Dense(500), BatchNorm(), Activation(), Dense(10),
)
# Wider, for the best accuracy.
BEST = named(
    Conv(20, 3), BatchNorm(), Activation(), Conv(40, 3), Pool(2), BatchNorm(), Activation(),
    Conv(48, 3), BatchNorm(), Activation(), Conv(96, 3), Pool(2), BatchNorm(), Activation(),
    Conv(96, 3, padding=1), BatchNorm(), Activation(), Conv(128, 3, padding=1), Pool(2), BatchNorm(), Activation(),
    Flatten(), Dense(10),
)

# Two blocks, each with a skip over two activations.
RESIDUAL = named(
    Conv(16, 5, 2, padding=2), BatchNorm(), Activation(),
    Conv(16, 3, padding=1), BatchNorm(), Activation(),
    Conv(16, 3, padding=1), Add(("conv3", "act1")), BatchNorm(), Activation(),
    Conv(32, 4, 2, padding=1), BatchNorm(), Activation(),
    Conv(32, 3, padding=1), BatchNorm(), Activation(),
    Conv(32, 3, padding=1), Add(("conv6", "act4")), BatchNorm(), Activation(),
    Flatten(), Dense(10),
)

# Coefficients of their own for every channel; batch-norm without learned factors, which would be
# the same freedom twice.
OWN, NORM = Activation(per_channel=True), BatchNorm(learned=False)
# Narrow where maps are large and limbs many, wide where they are small and few. The first pool stands
# behind the activation, where the mean of squares says more than the square of a mean; convolutions
# of stride 2 take the place of the others, which see more than means and keep few values to square.
def cifar(*channels):
    """Channels at 31x31 and 15x15, at 7x7, and at 3x3."""
    narrow, *wide = channels
    blocks = [layer for count in wide
              for layer in (Conv(count, 4, 2, padding=1), NORM, OWN, Conv(count, 3, padding=1), NORM, OWN)]
    return named(
        Conv(narrow, 4, padding=1, whitened=True), NORM, OWN, Pool(2), Conv(narrow, 3, padding=1), NORM, OWN,
        *blocks, Pool(3), Flatten(), Dense(10),
    )


CIFAR = cifar(48, 192, 256)
CIFAR_SMALL = cifar(32, 128, 128)


def original(first, *widths):
    layers = [Conv(first, 4, padding=1, whitened=True), MaxPool(2), NORM, OWN, Conv(first, 3, padding=1), NORM, OWN]
    for width in widths:
        layers += [Conv(width, 3, padding=1), MaxPool(2), NORM, OWN, Conv(width, 3, padding=1), NORM, OWN]
    return named(*layers, MaxPool(3), Flatten(), Dense(10))


SQUARE = (0.0, 0.5, 0.2)  # where learned polynomials start
CUBE = (0.0, 0.5, 0.2, 0.02)
DEEP = dict(architecture=MODEL_2, clamp=6.0, bfloat16=True, compile=True)
ORIGINAL = dict(range_weight=0.0, weight_bits=None, clamp=None, grid_epochs=0)  # not a polynomial: plaintext only

CIFAR_10 = dict(
    dataset="cifar10",
    deformation=0.0,
    mirror=True,
    shift=4,
    cutout=12,
    batch=500,
    optimizer="muon",
    learning_rate=0.003,
    range_limit=5.0,
    range_weight=1e-3,
    weight_bits=None,
    ema=0.99,
    fused=True,
    grid_epochs=2,
    grid_bits=(8, 7, 5, 5, 5, 5, 5),
    grid_learning_rate=0.0005,
    tolerance=0.0035,
    exact_statistics=False,
)
CIFAR_10_POLYNOMIAL = dict(
    activation=(0.2, 0.5, 0.2),  # nearest to ReLU for values of the normal distribution
    leading_factor=2.0,
    filter_learning_rate=0.05,
    label_smoothing=0.2,
    epochs=36,
    crop=24,
    crop_epochs=24,
    blend_epochs=2.0,
    second=dict(epochs=24, crop_epochs=16, filter_learning_rate=0.03, learning_rate=0.002, label_smoothing=0.1,
                cutout=8, cutmix=0.5),
    **CIFAR_10,
)

RECIPES = {
    "cifar-10": Recipe(
        title="Six convolutions, learned degree-2 polynomials per channel",
        architecture=CIFAR,
        **CIFAR_10_POLYNOMIAL,
    ),
    "cifar-10-small": Recipe(
        title="Six convolutions of fewer channels, learned degree-2 polynomials per channel",
        architecture=CIFAR_SMALL,
        **CIFAR_10_POLYNOMIAL,
    ),
    "cifar-10-original-relu": Recipe(
        title="Six convolutions with ReLU and max-pools",
        architecture=original(64, 256, 256),
        activation="relu",
        filter_learning_rate=0.1,
        label_smoothing=0.2,
        epochs=10,
        **{**CIFAR_10, **ORIGINAL},
    ),
    "mnist-1": Recipe(
        title="CNN Model 1 of CryptoDL, learned degree-3 polynomial",
        architecture=MODEL_1,
        activation=CUBE,
        calibration_deformation=0.0,
    ),
    "mnist-1-square": Recipe(
        title="CNN Model 1 of CryptoDL, learned degree-2 polynomial",
        architecture=MODEL_1,
        activation=SQUARE,
        deformation=0.5,
        calibration_deformation=0.0,
    ),
    "mnist-2": Recipe(
        title="CNN Model 2 of CryptoDL, learned degree-2 polynomials",
        activation=SQUARE,
        epochs=40,
        **DEEP,
    ),
    "mnist-2-original-relu": Recipe(
        title="CNN Model 2 of CryptoDL with ReLU",
        activation="relu",
        epochs=20,
        **{**DEEP, **ORIGINAL},
    ),
    "mnist-2-original-sigmoid": Recipe(
        title="CNN Model 2 of CryptoDL with Sigmoid",
        activation="sigmoid",
        epochs=10,
        **{**DEEP, **ORIGINAL},
    ),
    "mnist-2-original-tanh": Recipe(
        title="CNN Model 2 of CryptoDL with Tanh",
        activation="tanh",
        epochs=10,
        **{**DEEP, **ORIGINAL},
    ),
    "mnist-2-sigmoid": Recipe(
        title="CNN Model 2 of CryptoDL, degree-3 polynomial of Sigmoid",
        activation=(0.0, *approximation("sigmoid", 3)[1:]),  # less 1/2: see README
        learned=False,
        epochs=12,
        calibration_deformation=0.3,
        weight_bits=4.5,
        **DEEP,
    ),
    "mnist-2-tanh": Recipe(
        title="CNN Model 2 of CryptoDL, degree-3 polynomial of Tanh",
        activation=approximation("tanh", 3),
        learned=False,
        epochs=12,
        weight_bits=4.5,
        **DEEP,
    ),
    "mnist-best": Recipe(
        title="A wider CNN Model 2, learned degree-2 polynomials",
        activation=SQUARE,
        epochs=25,
        teachers=("mnist-2", "mnist-2-original-relu"),
        distillation=0.5,
        **{**DEEP, "architecture": BEST},
    ),
    "mnist-res": Recipe(
        title="A residual network, learned degree-2 polynomials",
        architecture=RESIDUAL,
        activation=SQUARE,
        epochs=25,
        clamp=6.0,
    ),
    "swish-mnist": Recipe(
        title="Two convolutions with batch-norm and a degree-4 polynomial of Swish",
        architecture=SWISH,
        activation=approximation("swish", 4),
        learned=False,
        epochs=30,
        clamp=5.0,
        bfloat16=True,
        compile=True,
    ),
    "cryptonets": Recipe(
        title="The CryptoNets network, learned degree-2 polynomials",
        architecture=CRYPTONETS,
        activation=SQUARE,
        epochs=40,
    ),
    "secureml": Recipe(
        title="The SecureML network, two hidden layers of 128, learned degree-2 polynomials",
        architecture=SECUREML,
        activation=SQUARE,
        epochs=40,
    ),
    "chabanne-light": Recipe(
        title="The light network of Chabanne et al., Taylor polynomial of degree 2",
        architecture=CHABANNE_LIGHT,
        activation=approximation("relu-taylor", 2),
        learned=False,
        epochs=20,
    ),
    "fashion-1": Recipe(
        title="CNN Model 1 of CryptoDL on Fashion-MNIST, learned degree-3 polynomial",
        architecture=MODEL_1,
        activation=CUBE,
        dataset="fashion-mnist",
        deformation=0.1,
        mirror=True,
        weight_bits=4.5,  # its margins are small: rounded weights would change too many labels
    ),
}

# Table 1 of CryptoDL: methods 1 to 4 at degree 2, method 5 at degrees 3 to 8.
TABLE_1 = [(method, 2, method) for method in ("least-squares", "taylor", "chebyshev", "modified-chebyshev")]
TABLE_1 += [("derivative", degree, f"derivative-{degree}") for degree in range(3, 9)]
RECIPES |= {
    f"mnist-1-{suffix}": Recipe(
        title=f"CNN Model 1 of CryptoDL, ReLU by {method.replace('-', ' ')}, degree {degree}",
        architecture=MODEL_1,
        activation=approximation(f"relu-{method}", degree),
        learned=False,
        folder="table-1",
        deformation=0.3,
        epochs=15,
        range_centre=-1.0,
        clamp=5.0,
    )
    for method, degree, suffix in TABLE_1
}
