"""Neural networks on data that nobody can read.

A client encrypts images; a server that has a trained network classifies them without decrypting;
the client decrypts the labels.

    model = cryptodl.compile(network, calibration=validation_images)     # a PyTorch module or ONNX file
    labels = model.predict(test_images, fhe="execute")                   # both roles in one process

    model.save("my-network")                                             # for the server
    client = cryptodl.Client("my-network/client.spec", "keys")           # elsewhere
    request = client.encrypt(test_images)
    response = cryptodl.Server("my-network").run(request, client.evaluation_key())
    labels = client.decrypt(response)

Where the server is a service that `cryptodl serve` runs, the client is

    client = cryptodl.Client.remote("https://predict.example.org", "mnist-1", "keys", token=token)
    labels = client.predict(test_images).labels

Images are float32 numpy arrays of shape [N, channels, rows, columns], with the values that the
network takes.
"""

from ._native import (
    AuthenticationError,
    CryptoDLError,
    FormatError,
    InputError,
    JobError,
    ModelError,
    PlanError,
    RefusedError,
    RemoteError,
    ServerError,
    SpecChangedError,
    UnreachableError,
)
from ._model import Model, compile, load
from ._roles import Client, Decrypted, RemoteClient, Server

__all__ = [
    "AuthenticationError",
    "Client",
    "CryptoDLError",
    "Decrypted",
    "FormatError",
    "InputError",
    "JobError",
    "Model",
    "ModelError",
    "PlanError",
    "RefusedError",
    "RemoteClient",
    "RemoteError",
    "Server",
    "ServerError",
    "SpecChangedError",
    "UnreachableError",
    "compile",
    "load",
]
