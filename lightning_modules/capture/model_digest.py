"""What a data set says of the model that it was captured from."""

import hashlib
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


def model_digest(model: nn.Module) -> str:
    """Sha256 of names, types, shapes and bytes of all weights, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


@runtime_checkable
class SaysWhatItIs(Protocol):
    """A model with something to say of itself, as where it was loaded from."""

    def describe(self) -> dict[str, Any]:
        """Plain types; enters the fingerprint of what is captured."""
        ...


def describe_model(model: nn.Module) -> dict[str, Any]:
    """The class of a model, the digest of its weights, and what it says of itself."""
    said = model.describe() if isinstance(model, SaysWhatItIs) else {}
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    return {"class": kind, "params_digest": model_digest(model), **said}
