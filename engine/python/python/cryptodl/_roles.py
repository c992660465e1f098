"""The two roles, each in a process of its own where it matters."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import _native
from ._progress import Progress, reported

PROGRAM, SPEC = "server.program", "client.spec"


@dataclass(frozen=True)
class Decrypted:
    """What a client learns of each image.

    labels: uint32 [N], the class with the largest score.
    scores: float64 [N, classes], rounded so coarsely that none of their noise is seen.
    doubtful: bool [N], whether a score lies far outside the calibrated range.
    class_names: names of the classes, or none.
    """

    labels: NDArray[np.uint32]
    scores: NDArray[np.float64]
    doubtful: NDArray[np.bool_]
    class_names: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The name of each image's class, or its number where classes have no names."""
        return [self.class_names[label] if self.class_names else str(label) for label in self.labels]


class Client:
    """Encrypts images for one Program and decrypts its results. It never sees the model.

    spec: the public description of the Program: a file that `Model.save` wrote, or its bytes. It may
        come from a stranger; everything in it is checked.
    key_dir: folder of the keys, which are made if it has none, as `cryptodl keygen` writes them.
        `secret/` must not leave this machine. With None the keys are new and in memory only.
    max_key_size: bytes; a spec that asks for larger keys is refused before they are made.

    A client is pickled as its spec and the name of the folder.
    """

    def __init__(
        self,
        spec: bytes | bytearray | memoryview | str | os.PathLike[str],
        key_dir: str | os.PathLike[str] | None,
        *,
        max_key_size: int = 256 << 20,
    ) -> None:
        self._spec = bytes(spec) if isinstance(spec, (bytes, bytearray, memoryview)) else Path(spec).read_bytes()
        self._key_dir = None if key_dir is None else Path(key_dir)
        self._native = _native.Client(self._spec, self._key_dir, max_key_size)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._key_dir is None:
            raise TypeError("a client whose keys are in memory only is not pickled: give it a key_dir")
        return type(self), (self._spec, self._key_dir)

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, rows and columns of an image."""
        return tuple(self._native.shape)

    @property
    def range(self) -> tuple[float, ...]:
        """The least and the largest value of a pixel."""
        return tuple(self._native.range)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, or none."""
        return tuple(self._native.class_names)

    def evaluation_key(self) -> bytes:
        """The public keys, for the server: it computes and masks with them, and decrypts nothing."""
        return self._native.evaluation_key()

    def encrypt(self, images: NDArray[np.float32], progress: Progress = True) -> bytes:
        """A request for the server.

        images: float32 [N, channels, rows, columns] in the client's `range`. They are read where
            they lie, so they must not be changed meanwhile.
        """
        with reported(progress, "encrypt") as callback:
            return self._native.encrypt(images, callback)

    def decrypt(self, response: bytes, progress: Progress = True) -> Decrypted:
        """What the server's response says. Nothing of it may go back to the server.

        FormatError: it is damaged, or belongs to other keys or another Program.
        """
        return _decrypted(self._native, response, progress)

    @staticmethod
    def remote(
        url: str,
        model: str,
        key_dir: str | os.PathLike[str],
        *,
        token: str | None = None,
        ca: str | os.PathLike[str] | None = None,
        accept_new_spec: bool = False,
        keep: bool = False,
        max_size: int = 4 << 30,
        patience: float = 300.0,
    ) -> "RemoteClient":
        """A client of a model that a service offers, which `cryptodl serve` runs elsewhere.

        The service sends its client spec, and everything in it is checked. The first time, keys are
        made for it and it is kept beside them; from then on a service that sends another one is
        refused. This does what `cryptodl query` does, with the same files.

        url: such as "https://predict.example.org"; http for this machine only.
        model: one of those that it serves.
        key_dir: folder of the keys for this model of this service.
        token: what the operator gave you; by default the environment variable CRYPTODL_TOKEN.
        ca: file with certificates in PEM that are trusted instead of the system's.
        accept_new_spec: go on with a client spec that has changed, if the keys fit it, and keep it.
        keep: leave results with the service until they expire, instead of deleting them after they
            were fetched.
        max_size: bytes of keys, and of a request, that a spec may ask for.
        patience: seconds for which a service that does not answer, or is full, is asked again.

        Raises SpecChangedError where the spec is another one, AuthenticationError where the token is
        refused or the service's certificate is not trusted, UnreachableError where there is no
        answer, and RefusedError where the service says no. All of them are RemoteErrors.
        """
        token = os.environ.get("CRYPTODL_TOKEN") if token is None else token
        authority = None if ca is None else Path(ca).read_bytes()
        native = _native.Remote(
            url,
            model,
            Path(key_dir),
            token=token,
            authority=authority,
            patience=patience,
            accept_new_spec=accept_new_spec,
            keep=keep,
            max_size=max_size,
        )
        return RemoteClient(native)


class RemoteClient:
    """A client of a service: `Client.remote` makes it. The secret key never leaves this machine."""

    def __init__(self, native: _native.Remote) -> None:
        self._native = native

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, rows and columns of an image."""
        return tuple(self._native.client.shape)

    @property
    def range(self) -> tuple[float, ...]:
        """The least and the largest value of a pixel."""
        return tuple(self._native.client.range)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, or none."""
        return tuple(self._native.client.class_names)

    def predict(self, images: NDArray[np.float32], progress: Progress = True) -> Decrypted:
        """Has images classified by the service, which cannot see them.

        images: float32 [N, channels, rows, columns] in the client's `range`. They are encrypted while
            they are sent, and must not be changed meanwhile.
        progress: is told of each step from its beginning: sending, computing, fetching, decrypting.

        An upload or download that is interrupted goes on where it was, also when the service was
        killed and started again meanwhile. Nothing is sent after the decryption, whether it went
        well or not. Ctrl-C ends the call; a job that was accepted then goes on at the service, and
        its result expires there.

        Raises JobError where the job failed or was cancelled, and what `Client.remote` raises.
        """
        with reported(progress, "send") as callback:
            job = self._native.send(images, callback)
        with reported(progress, "compute") as callback:
            self._native.wait(job, callback)
        with reported(progress, "fetch") as callback:
            response = self._native.fetch(job, len(images), callback)
        return _decrypted(self._native.client, response, progress)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client of a service is not pickled, because it holds a token: open it where it is needed")


def _decrypted(client: _native.Client, response: bytes, progress: Progress) -> Decrypted:
    with reported(progress, "decrypt") as callback:
        labels, scores, doubtful = client.decrypt(response, callback)
    return Decrypted(labels, scores, doubtful, tuple(client.class_names))


class Server:
    """Computes on requests. It has no secret and cannot decrypt.

    folder: what `Model.save` wrote, of which only `server.program` is read; or such a file.
    device: "auto", "cpu", "gpu", or a part of a GPU's name.
    threads: of the host; one per core by default.
    memory_budget: bytes for ciphertexts; two thirds of the free memory by default.

    A server is pickled as its folder and options, and opened again where it arrives.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        device: str = "auto",
        *,
        threads: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        self._arguments = (Path(folder), device, threads, memory_budget)
        self._opened = self._open()

    def _open(self) -> "Opened":
        folder, device, threads, memory_budget = self._arguments
        program = folder / PROGRAM if folder.is_dir() else folder
        return Opened(program.read_bytes(), device, threads, memory_budget)

    @property
    def _native(self) -> _native.Server:
        if self._opened.elsewhere():
            self._opened = self._open()
        return self._opened.server

    def __reduce__(self) -> tuple[Any, ...]:
        return _server, self._arguments

    @property
    def device(self) -> str:
        """What computes."""
        return self._native.device

    @property
    def program(self) -> str:
        """The digest of the Program."""
        return self._native.program

    def run(
        self, request: bytes, evaluation_key: bytes, deterministic: bool = False, progress: Progress = True
    ) -> bytes:
        """The response to a request.

        It is masked, so that it tells the client no equations in the weights. With `deterministic`
        it is not, and equal requests have equal responses: for tests only.
        """
        with reported(progress, "compute") as callback:
            return self._native.run(request, evaluation_key, deterministic, callback)


class Opened:
    """The native server of a Program's bytes, with the process that it is in.

    A process that was forked has neither its threads nor its device, and opens another.
    """

    _abandoned: list[_native.Server] = []

    def __init__(
        self, program: bytes, device: str = "auto", threads: int | None = None, memory_budget: int | None = None
    ) -> None:
        self.process = os.getpid()
        self.server = _native.Server(program, device, threads, memory_budget)
        if self.server.fallback:
            warnings.warn(f"the CPU computes, because the GPU cannot be used: {self.server.fallback}", stacklevel=4)

    def elsewhere(self) -> bool:
        """Whether this is another process, which then keeps the server only so that nothing ends it."""
        if self.process == os.getpid():
            return False
        Opened._abandoned.append(self.server)
        return True


def _server(folder: Path, device: str, threads: int | None, memory_budget: int | None) -> Server:
    return Server(folder, device, threads=threads, memory_budget=memory_budget)
