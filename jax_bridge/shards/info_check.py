"""Whether `dataset.json` holds the kinds of values that it must, before anybody believes them."""

from collections.abc import Mapping
from typing import Any

from jax_bridge.shards.safetensors_header import MAX_TENSOR_BYTES, SAFE_NAMES

_KINDS: dict[str, tuple[type, ...]] = {
    "fields": (dict,),
    "capture": (dict,),
    "model": (dict,),
    "environment": (dict,),
    "seed": (int,),
    "instruction_overrides": (dict, type(None)),
}
_FIELD: dict[str, tuple[type, ...]] = {
    "shape": (int,),
    "axes": (str,),
    "layers": (int,),
    "flow_times": (int, float),
}


def check_info(content: Mapping[str, Any], path: str) -> None:
    """Refuses what has the right names and the wrong kinds.

    Raises:
        ValueError: naming the file and the entry.
    """
    try:
        _check_kinds(content)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _check_kinds(content: Mapping[str, Any]) -> None:
    for name, kinds in _KINDS.items():
        if name in content and type(content[name]) not in kinds:
            raise ValueError(f"`{name}` must be {_words(kinds)}, but got {_short(content[name])}.")
    for name, entry in content.get("fields", {}).items():
        _check_field(name, entry)


def _check_field(name: str, entry: object) -> None:
    if not isinstance(entry, dict) or not {"dtype", "shape", "axes"} <= set(entry) <= {
        "dtype",
        *_FIELD,
    }:
        raise ValueError(f"field {name[:80]} must be described in full, but got {_short(entry)}.")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in SAFE_NAMES:
        raise ValueError(
            f"`dtype` of field {name[:80]} must be one of {', '.join(sorted(SAFE_NAMES))}, but got "
            f"{_short(entry['dtype'])}."
        )
    for axis, kinds in _FIELD.items():
        values = entry.get(axis)
        if values is None and axis in ("layers", "flow_times"):
            continue
        if not isinstance(values, list) or any(type(value) not in kinds for value in values):
            raise ValueError(
                f"`{axis}` of field {name[:80]} must be a list of {_words(kinds)}, but got "
                f"{_short(values)}."
            )
    size = 8
    for axis in entry["shape"]:
        size *= max(1, axis)
        if axis < 0 or size > MAX_TENSOR_BYTES or len(entry["shape"]) > 32:
            raise ValueError(
                f"`shape` of field {name[:80]} must be that of a tensor, but got "
                f"{_short(entry['shape'])}."
            )


def _words(kinds: tuple[type, ...]) -> str:
    return " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
