"""From a network to what a server computes."""

import os
import tempfile
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._native import InputError
from ._progress import Progress, reported
from ._roles import PROGRAM, SPEC, Client, Opened

# Fewer images say too little of how many labels will change.
FEW_IMAGES = 1000
FHE = ("execute", "simulate", "disable")


class Model:
    """A network that was planned for encrypted computation. `compile` and `load` make it."""

    def __init__(self, network: _native.Model, program: _native.Program) -> None:
        self._network, self._program = network, program
        self._client: Client | None = None
        self._opened: Opened | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The network's name."""
        return self._network.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, rows and columns of an image."""
        return tuple(self._network.shape)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, or none."""
        return tuple(self._network.class_names)

    @property
    def plan(self) -> str | None:
        """The schedule, parameters, sizes and predicted cost, in words; none for a saved model."""
        return self._program.report

    @property
    def spec(self) -> bytes:
        """The public description that clients need."""
        return self._program.spec()

    def predict(
        self,
        x: NDArray[np.float32],
        fhe: Literal["execute", "simulate", "disable"] = "execute",
        progress: Progress = True,
    ) -> NDArray[np.uint32]:
        """Labels of images, uint32 [N].

        x: float32 [N, channels, rows, columns].
        fhe: "execute" encrypts, computes and decrypts, with keys that are in this object only;
            "simulate" computes with the Program's integers and adds noise of the predicted size,
            without encryption; "disable" is the network as it was, in floating point.
        """
        if fhe == "disable":
            return self._network.scores(x).argmax(1).astype(np.uint32)
        if fhe == "simulate":
            return self._program.simulate(x).argmax(1).astype(np.uint32)
        if fhe != "execute":
            raise ValueError(f"fhe={fhe!r}: one of {', '.join(FHE)} is needed")
        client, server = self._both_roles()
        request = client.encrypt(x, progress)
        with reported(progress, "compute") as callback:
            response = server.run(request, client.evaluation_key(), progress=callback)
        return client.decrypt(response, progress).labels

    def _both_roles(self) -> tuple[Client, _native.Server]:
        """A client and a server in one process: only who has model and images anyway does this."""
        with self._lock:
            if self._client is None:
                self._client = Client(self.spec, None)
            if self._opened is None or self._opened.elsewhere():
                self._opened = Opened(self._program.to_bytes())
            return self._client, self._opened.server

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes a folder for the server: the Program, the network, and `client.spec` for clients.

        The command line takes it, too: `cryptodl run --model FOLDER`.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._network.save(folder)
        for name, contents in ((PROGRAM, self._program.to_bytes()), (SPEC, self.spec)):
            # A server that starts meanwhile finds the old file or the new one.
            temporary = folder / f".{name}.new"
            temporary.write_bytes(contents)
            temporary.replace(folder / name)

    def __getstate__(self) -> NoReturn:
        raise TypeError("a model is not pickled: save it, and pickle the folder's name or a Server of it")


def compile(
    module_or_onnx: Any,
    calibration: NDArray[np.float32] | None,
    tolerance: float | None = None,
    *,
    name: str | None = None,
    class_names: Sequence[str] = (),
    input_range: tuple[float, float] | None = None,
    security: int = 128,
    batch: int | None = None,
    circuit_privacy: tuple[int, int] | None = None,
) -> Model:
    """A model of a PyTorch module or an ONNX file, or of a network that ships, by its name.

    calibration: float32 [N, channels, rows, columns], at least 1,000 images as they will come, and
        not those that the network was trained on. Ranges, noise and margins are measured on them.
        None for a network that ships, which was measured.
    tolerance: share of labels that may change, such as 0.002. By default what the network's
        description states, or 0.0015.
    class_names: one for each output.
    input_range: (low, high), which all pixel values are in; by default that of the calibration
        images. Images outside it are refused.
    security: 128, 192 or 256 bits.
    batch: how many images requests will have; a few are packed into fewer ciphertexts.
    circuit_privacy: (sets, bits), see SECURITY.md.

    Raises ModelError where a layer cannot be computed under encryption, and PlanError where no
    parameters fit; both say what to change.
    """
    network = _network(module_or_onnx, calibration, name, input_range)
    network = network.changed(class_names=list(class_names) or None, tolerance=tolerance)
    if calibration is not None:
        if len(calibration) < FEW_IMAGES:
            warnings.warn(
                f"{len(calibration)} calibration images are few: how many labels change is then guessed "
                f"rather than measured; take {FEW_IMAGES} or more",
                stacklevel=2,
            )
        network = network.calibrated(calibration)
    program = network.plan(security=security, batch=batch, circuit_privacy=circuit_privacy)
    return Model(network, program)


def load(folder: str | os.PathLike[str]) -> Model:
    """The model that `Model.save` wrote. It was planned once and is not planned again."""
    folder = Path(folder)
    network = _native.Model.load(str(folder))
    return Model(network, _native.Program.from_bytes((folder / PROGRAM).read_bytes()))


def _network(
    source: Any, calibration: Any, name: str | None, input_range: tuple[float, float] | None
) -> _native.Model:
    file = isinstance(source, (str, Path))
    if file and Path(source).suffix != ".onnx":
        return _native.Model.load(str(source))
    if not isinstance(calibration, np.ndarray) or calibration.ndim != 4 or len(calibration) == 0:
        raise InputError("calibration: a numpy array of dtype float32 and shape [N, channels, rows, columns] is needed")
    shape = list(calibration.shape[1:])
    low, high = (calibration.min(), calibration.max()) if input_range is None else input_range
    pixels = [float(low), float(high)]
    if file:
        return _native.Model.from_onnx(Path(source), name or Path(source).stem, pixels, shape)
    from .torch import export

    with tempfile.TemporaryDirectory(prefix="cryptodl-onnx-") as folder:
        path = Path(folder) / "network.onnx"
        export(source, path, shape)
        return _native.Model.from_onnx(path, name or type(source).__name__, pixels, shape)
