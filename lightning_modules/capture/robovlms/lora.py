"""Merging LoRA factors into the weights they belong to: `W + (alpha / r) B A`.

Letters: r rank of the factors, i inputs, o outputs.

Source: Hu et al., 2021, arXiv:2106.09685; names as peft saves them.
"""

import re

from jaxtyping import Float
from torch import Tensor

from lightning_modules.capture.robovlms.tensor_account import TensorAccount, listed

FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<which>[AB])\.(?P<adapter>[^.]+)\.weight")
SAVED = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<adapter>[^.]+)\.(?P<rest>.+)")
ORIGINAL = ".original_module."
BASE = ".base_layer."


def merge_lora(
    tensors: dict[str, Tensor], alpha: float | None, account: TensorAccount
) -> dict[str, Tensor]:
    """The backbone's own tensors, with LoRA in them.

    Args:
        tensors: the backbone's, by name.
        alpha: `lora_alpha` of the training; the checkpoint does not hold it.
        account: where the factors are counted.

    Raises:
        ValueError: if there are factors but no alpha, several adapters, or half of a pair.
    """
    plain: dict[str, Tensor] = {}
    factors: dict[str, dict[str, Tensor]] = {}
    saved: dict[str, Tensor] = {}
    adapters: set[str] = set()
    for name, tensor in tensors.items():
        if match := FACTOR.fullmatch(name):
            factors.setdefault(match["module"], {})[match["which"]] = tensor
            adapters.add(match["adapter"])
            account.lora += 1
        elif match := SAVED.fullmatch(name):
            saved[f"{match['module']}.{match['rest']}"] = tensor
            adapters.add(match["adapter"])
        elif ORIGINAL in name:
            plain.setdefault(name.replace(ORIGINAL, "."), tensor)
        else:
            plain[name.replace(BASE, ".")] = tensor
    if len(adapters) > 1:
        raise ValueError(f"`checkpoint` must have one LoRA adapter, but has {sorted(adapters)}.")
    account.replaced += len(plain.keys() & saved.keys())
    plain |= saved
    for module, pair in factors.items():
        _merge(plain, module, pair, alpha)
    return plain


def _merge(
    plain: dict[str, Tensor], module: str, pair: dict[str, Tensor], alpha: float | None
) -> None:
    name = f"{module}.weight"
    if set(pair) != {"A", "B"} or name not in plain:
        raise ValueError(
            "`checkpoint` must hold both LoRA factors and their base, but for "
            f"{listed([module])} it holds only {', '.join(sorted(pair))}"
            f"{' and the base' if name in plain else ''}."
        )
    if alpha is None:
        raise ValueError(
            "`lora_alpha` must be given for a checkpoint with LoRA, but got None: the file does "
            f"not hold it. It stands in the training's configuration; r is {pair['A'].shape[0]}."
        )
    plain[name] = merged(plain[name], pair["A"], pair["B"], alpha)


def merged(
    weight: Float[Tensor, "o i"], a: Float[Tensor, "r i"], b: Float[Tensor, "o r"], alpha: float
) -> Float[Tensor, "o i"]:
    """One weight with its factors in it, computed in float32, in the weight's own type."""
    change = (alpha / a.shape[0]) * (b.float() @ a.float())
    return (weight.float() + change).to(weight.dtype)
