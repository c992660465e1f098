"""What can go wrong. `CryptoDLError` is the base of all of them."""

from ._native import CryptoDLError, FormatError, InputError, ModelError, PlanError, ServerError

__all__ = ["CryptoDLError", "FormatError", "InputError", "ModelError", "PlanError", "ServerError"]
