"""JSON with one spelling for one value."""

import json
from typing import Any

import numpy as np


def canonical_json(value: object) -> str:
    """Sorted keys, no spaces, UTF-8; numpy scalars and arrays become numbers and lists.

    Raises:
        ValueError: if something inside has no JSON form (NaN and infinity have none either).
    """
    try:
        return json.dumps(
            value,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
            default=_plain,
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a value has no JSON form: {error}.") from error


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r}")
