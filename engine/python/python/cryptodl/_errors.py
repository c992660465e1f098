"""What can go wrong. `CryptoDLError` is the base of all of them, `RemoteError` of those of services."""

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

__all__ = [
    "AuthenticationError",
    "CryptoDLError",
    "FormatError",
    "InputError",
    "JobError",
    "ModelError",
    "PlanError",
    "RefusedError",
    "RemoteError",
    "ServerError",
    "SpecChangedError",
    "UnreachableError",
]
