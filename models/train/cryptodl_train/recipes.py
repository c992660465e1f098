"""Every network and how it is trained."""

from .network import Activation, BatchNorm, Conv, Dense, Flatten, Pool
from .recipe import Recipe, named

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
DEEP = dict(architecture=MODEL_2, clamp=6.0, bfloat16=True, compile=True)
ORIGINAL = dict(range_weight=0.0, weight_bits=None)

RECIPES = {
    "mnist-1": Recipe(
        title="CNN Model 1 of CryptoDL, learned degree-3 polynomial",
        architecture=MODEL_1,
        activation=(0.0, 0.5, 0.2, 0.02),
    ),
    "mnist-1-square": Recipe(
        title="CNN Model 1 of CryptoDL, learned degree-2 polynomial",
        architecture=MODEL_1,
        activation=(0.0, 0.5, 0.2),
        deformation=0.5,
    ),
    "mnist-2": Recipe(
        title="CNN Model 2 of CryptoDL, learned degree-2 polynomials",
        activation=(0.0, 0.5, 0.2),
        epochs=40,
        **DEEP,
    ),
    "mnist-2-relu": Recipe(
        title="CNN Model 2 of CryptoDL with ReLU",
        activation="relu",
        epochs=25,
        **DEEP, **ORIGINAL,
    ),
    "swish-mnist": Recipe(
        title="Two convolutions with batch-norm and a degree-4 polynomial of Swish",
        architecture=SWISH,
        activation=(0.0607, 0.5, 0.1846, 0.0, -0.00346),
        learned=False,
        epochs=20,
        clamp=5.0,
        bfloat16=True,
        compile=True,
    ),
    "cryptonets": Recipe(
        title="The CryptoNets network, square activations",
        architecture=CRYPTONETS,
        activation=(0.0, 0.5, 0.2),
        epochs=40,
    ),
    "secureml": Recipe(
        title="The SecureML network, two hidden layers of 128, square activations",
        architecture=SECUREML,
        activation=(0.0, 0.5, 0.2),
        epochs=40,
    ),
    "fashion-1": Recipe(
        title="CNN Model 1 of CryptoDL on Fashion-MNIST, learned degree-3 polynomial",
        architecture=MODEL_1,
        activation=(0.0, 0.5, 0.2, 0.02),
        dataset="fashion-mnist",
        deformation=0.2,
        mirror=True,
    ),
}
