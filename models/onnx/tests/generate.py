"""Makes ONNX files for the tests: exports of small networks, of the shipped ones, and ONNX's own cases.

    python generate.py fixtures FOLDER     what is committed in models/onnx/tests/fixtures
    python generate.py zoo FOLDER          every shipped network as PyTorch exports it
    python generate.py reference FOLDER    ONNX's reference cases, converted to opset 13

Needs torch, onnx, onnxruntime and onnxscript; `fixtures` also tensorflow and tf2onnx for the
twins from TensorFlow. Beside NAME.onnx lies NAME.images and NAME.scores: raw f32 numbers, images in
channel, row, column order, and the scores that onnxruntime gives them.
"""

import logging
import os
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
TRAINED = Path(__file__).resolve().parents[3] / "models/zoo/trained"


def write_case(folder, name, images, run):
    """`run` maps images to scores."""
    images = np.ascontiguousarray(images, np.float32)
    images.tofile(folder / f"{name}.images")
    np.ascontiguousarray(run(images), np.float32).tofile(folder / f"{name}.scores")


def onnxruntime(path, last=False):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x.transpose(0, 2, 3, 1) if last else x})[0]


# ---------------------------------------------------------------- PyTorch


def export(net, path, shape, exporter):
    """`exporter` is dynamo, legacy, or kept: legacy without folding batch-norm into convolutions."""
    import torch

    example = torch.zeros(2, *shape)
    net.eval()
    if exporter == "dynamo":
        torch.onnx.export(net, (example,), str(path), dynamo=True, external_data=False, verbose=False,
                          dynamic_shapes=({0: torch.export.Dim("images")},))
        return
    mode = torch.onnx.TrainingMode.PRESERVE if exporter == "kept" else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(net, (example,), str(path), dynamo=False, opset_version=18, training=mode,
                      input_names=["image"], output_names=["scores"], dynamic_axes={"image": {0: "images"}})


def small_networks():
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Horner(nn.Module):
        def __init__(self, *coefficients):
            super().__init__()
            self.coefficients = nn.Parameter(torch.tensor(coefficients))

        def forward(self, x):
            y = self.coefficients[-1]
            for c in reversed(self.coefficients[:-1].unbind()):
                y = y * x + c
            return y

    class Line(nn.Module):
        """Convolution, square, pool, dense, a polynomial by Horner's rule, dense."""

        shape = (1, 8, 8)

        def __init__(self):
            super().__init__()
            self.conv, self.fc1, self.fc2 = nn.Conv2d(1, 3, 3), nn.Linear(27, 6), nn.Linear(6, 4)
            self.pool, self.act = nn.AvgPool2d(2), Horner(0.125, 0.5, 0.25, 0.0625)

        def forward(self, x):
            x = self.conv(x)
            x = self.pool(x * x)
            return self.fc2(self.act(self.fc1(x.flatten(1))))

    class Residual(nn.Module):
        """Padded convolutions around a sum, mean over space."""

        shape = (2, 6, 6)

        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.act1, self.act2, self.fc = Horner(0.25, 0.5, 0.375), Horner(-0.5, 0.75, 0.125), nn.Linear(4, 3)

        def forward(self, x):
            x = self.act1(self.conv1(x))
            x = self.act2(self.conv2(x) + x)
            return self.fc(x.mean((2, 3)))

    class Spelled(nn.Module):
        """Powers in several spellings, a view by the batch's size, pads, parts of channels."""

        shape = (2, 7, 7)

        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, groups=2), nn.Conv2d(4, 4, 2, dilation=2)
            self.fc = nn.Linear(64, 3)
            self.register_buffer("scale", torch.tensor([0.5, 0.25, 0.125, 1.0]).view(1, 4, 1, 1))

        def forward(self, x):
            x = self.conv1((x - 0.5) / 0.25)
            x = self.scale * x**2 + torch.square(x) / 4 - x * x * x * 0.0625 + 0.5 * x
            a, b = F.pad(x, (1, 0, 1, 0)).chunk(2, 1)
            x = self.conv2(torch.cat([b, a], 1))
            return F.softmax(self.fc((x.pow(2) + 0.25).view(x.size(0), -1)), 1)

    class Gates(nn.Module):
        """A network that cannot be computed: ReLU."""

        shape = (1, 8, 8)

        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(72, 2)

        def forward(self, x):
            return self.fc(F.relu(self.conv(x)).flatten(1))

    class Colour(nn.Module):
        """Three channels, for images in colour."""

        shape = (3, 8, 8)

        def __init__(self):
            super().__init__()
            self.conv, self.act, self.fc = nn.Conv2d(3, 4, 4, stride=2), Horner(0.0, 0.5, 0.25), nn.Linear(36, 3)

        def forward(self, x):
            return self.fc(self.act(self.conv(x)).flatten(1))

    torch.manual_seed(19)
    return {"line": Line(), "residual": Residual(), "spelled": Spelled(), "relu": Gates(), "colour": Colour()}


def tensorflow_twin(name, net):
    """The same network with channels last, as a function of TensorFlow; None if there is no twin."""
    import tensorflow as tf

    weight = {key: value.detach().numpy() for key, value in net.state_dict().items()}
    conv = lambda x, at, pad: tf.nn.bias_add(
        tf.nn.conv2d(x, weight[f"{at}.weight"].transpose(2, 3, 1, 0), 1, pad), weight[f"{at}.bias"])
    dense = lambda x, at: tf.matmul(x, weight[f"{at}.weight"].T) + weight[f"{at}.bias"]

    def polynomial(x, at):
        *others, y = weight[f"{at}.coefficients"]
        for c in reversed(others):
            y = y * x + c
        return y

    def line(x):
        x = tf.square(conv(x, "conv", "VALID"))
        x = tf.nn.avg_pool2d(x, 2, 2, "VALID")
        # The flatten has channels last, so the rows of the weights have too.
        rows = weight["fc1.weight"].reshape(6, 3, 3, 3).transpose(0, 2, 3, 1).reshape(6, 27)
        x = tf.matmul(tf.reshape(x, (-1, 27)), rows.T) + weight["fc1.bias"]
        return dense(polynomial(x, "act"), "fc2")

    def residual(x):
        x = polynomial(conv(x, "conv1", "SAME"), "act1")
        x = polynomial(conv(x, "conv2", "SAME") + x, "act2")
        return dense(tf.reduce_mean(x, (1, 2)), "fc")

    return {"line": line, "residual": residual}.get(name)


def fixtures(folder):
    for name, net in small_networks().items():
        images = np.random.default_rng(7).random((8, *net.shape), np.float32)
        for exporter in ("legacy", "dynamo"):
            path = folder / f"{name}.{exporter}.onnx"
            export(net, path, net.shape, exporter)
        # A softmax at the end is left out by the importer, so scores are before it.
        def scores(x):
            import torch
            from torch.nn import functional as F

            keep, F.softmax = F.softmax, lambda x, _: x
            try:
                return net(torch.from_numpy(x)).detach().numpy()
            finally:
                F.softmax = keep

        write_case(folder, name, images, onnxruntime(path) if name != "spelled" else scores)
        try:
            import tensorflow as tf
            import tf2onnx
        except ImportError:
            print("no tensorflow: no twins")
            continue
        twin = tensorflow_twin(name, net)
        if twin:
            channels, height, width = net.shape
            signature = [tf.TensorSpec((None, height, width, channels), tf.float32, name="image")]
            path = folder / f"{name}.tensorflow.onnx"
            tf2onnx.convert.from_function(tf.function(twin), signature, opset=17, output_path=str(path))
            scores = np.fromfile(folder / f"{name}.scores", np.float32).reshape(8, -1)
            print(name, "twin differs by", np.abs(onnxruntime(path, last=True)(images) - scores).max())


# ---------------------------------------------------------------- shipped networks


def shipped(path):
    """A module of the description at `path`, with the names of its layers."""
    import torch
    from safetensors.torch import load_file
    from torch import nn
    from torch.nn import functional as F

    description = tomllib.loads(path.read_text())
    tensors = load_file(path.with_name(description["weights"]))
    for name in [name for name in tensors if name.endswith("_scale")]:  # of weights that are integers
        weight = name.removesuffix("_scale")
        tensors[weight] = tensors[weight].float() * tensors.pop(name)

    class Polynomial(nn.Module):
        def __init__(self, coefficients):
            super().__init__()
            c = torch.as_tensor(coefficients, dtype=torch.float32)
            # A row for each channel.
            self.register_buffer("c", c if c.dim() == 1 else c.T[:, :, None, None])

        def forward(self, x):
            y = self.c[-1]
            for c in reversed(self.c[:-1].unbind()):
                y = y * x + c
            return y

    class Padded(nn.Module):
        def __init__(self, conv, sides):
            super().__init__()
            self.conv, self.sides = conv, sides

        def forward(self, x):
            top, left, bottom, right = self.sides
            return self.conv(F.pad(x, (left, right, top, bottom)))

    class Network(nn.Module):
        shape = tuple(description["input"]["shape"])
        range = description["input"]["range"]

        def __init__(self):
            super().__init__()
            with torch.no_grad():
                values = {"input": torch.zeros(1, *self.shape)}
                before = "input"
                self.reads = {}
                for layer in description["layer"]:
                    name = layer["name"]
                    self.reads[name] = layer.get("inputs", [before])
                    self.add_module(name, self.module(layer, values[self.reads[name][0]].shape))
                    getattr(self, name).eval()
                    values[name] = self.apply_layer(name, values)
                    before = name
            self.last = before

        def module(self, layer, shape):
            name, kind = layer["name"], layer["kind"]
            def fill(module):
                own = f"{name}."
                state = {key.removeprefix(own): value for key, value in tensors.items() if key.startswith(own)}
                module.load_state_dict(module.state_dict() | state)
                return module
            match kind:
                case "conv2d":
                    pad = layer.get("padding", [0, 0])
                    conv = fill(nn.Conv2d(shape[1], layer["out_channels"], layer["kernel"], layer.get("stride", 1),
                                          pad if len(pad) == 2 else 0, layer.get("dilation", 1), layer.get("groups", 1),
                                          bias=f"{name}.bias" in tensors))
                    return conv if len(pad) == 2 else Padded(conv, pad)
                case "avg_pool2d":
                    return nn.AvgPool2d(layer["kernel"], layer.get("stride"))
                case "global_avg_pool2d":
                    return nn.AdaptiveAvgPool2d(1)
                case "batch_norm":
                    norm = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
                    return fill(norm(shape[1], layer.get("eps", 1e-5)))
                case "polynomial":
                    return Polynomial(layer.get("coefficients", tensors.get(f"{name}.coefficients")))
                case "flatten":
                    return nn.Flatten()
                case "dense":
                    return fill(nn.Linear(shape[1], layer["out_features"], bias=f"{name}.bias" in tensors))
                case "add":
                    return Sum()
            raise ValueError(kind)

        def apply_layer(self, name, values):
            return getattr(self, name)(*(values[source] for source in self.reads[name]))

        def forward(self, x):
            values = {"input": x}
            for name in self.reads:
                values[name] = self.apply_layer(name, values)
            return values[self.last]

    class Sum(nn.Module):
        def forward(self, *values):
            return sum(values[1:], values[0])

    return Network().eval()


def zoo(folder):
    for path in sorted(TRAINED.glob("**/*.toml")):
        net = shipped(path)
        target = folder / f"{path.stem}.onnx"
        export(net, target, net.shape, "kept")
        low, high = net.range
        pixels = np.random.default_rng(11).integers(0, 256, (1000, *net.shape)).astype(np.float32)
        images = pixels / 255 * (high - low) + low
        write_case(folder, path.stem, images, onnxruntime(target))
        print(path.stem)


# ---------------------------------------------------------------- ONNX's own cases


def reference(folder):
    import onnx
    import onnxruntime as ort
    from onnx import helper, numpy_helper, version_converter

    data = Path(onnx.__file__).parent / "backend/test/data"
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for case in sorted((data / kind).iterdir()):
            name = f"{kind}-{case.name.removeprefix('test_')}"
            model = onnx.load(case / "model.onnx")
            try:
                model = version_converter.convert_version(model, 13)
            except Exception as error:
                print(name, "cannot be converted:", error)
            onnx.save(model, folder / f"{name}.onnx")
            weights = {tensor.name for tensor in model.graph.initializer}
            inputs = [value.name for value in model.graph.input if value.name not in weights]
            read = lambda path: numpy_helper.to_array(onnx.load_tensor(path))
            try:
                values = {key: read(case / "test_data_set_0" / f"input_{i}.pb") for i, key in enumerate(inputs)}
                # The scores are what goes into a last softmax.
                last = model.graph.node[-1]
                if last.op_type in ("Softmax", "LogSoftmax"):
                    cut = onnx.ModelProto()
                    cut.CopyFrom(model)
                    del cut.graph.node[-1]
                    del cut.graph.output[:]
                    cut.graph.output.append(helper.make_tensor_value_info(last.input[0], 1, None))
                    cut.ir_version = min(cut.ir_version, 10)
                    scores = ort.InferenceSession(cut.SerializeToString()).run(None, values)[0]
                else:
                    scores = read(case / "test_data_set_0/output_0.pb")
                if len(inputs) == 1 and values[inputs[0]].dtype in (np.float32, np.float64):
                    write_case(folder, name, values[inputs[0]], lambda _: scores)
            except Exception as error:
                print(name, "has no values:", str(error)[:100])


if __name__ == "__main__":
    task, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    {"fixtures": fixtures, "zoo": zoo, "reference": reference}[task](folder)
