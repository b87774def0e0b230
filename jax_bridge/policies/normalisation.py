"""Normalisation of robot state and actions by the statistics that a checkpoint was trained with.

Two kinds: `z_score`, (x - mean) / (std + 1e-6), for π0; `quantile`, which maps the 1st and 99th
percentile to -1 and 1, for π0.5. Neither clips. The statistics are float64, and so are results.

Source: openpi, `src/openpi/transforms.py` and `src/openpi/shared/normalize.py`.
Letters: d dimensions of a state or action; b any leading axes.
"""

import dataclasses
import hashlib
import json
from typing import Any

import fsspec
import numpy as np
from jaxtyping import Float, Float64

EPSILON = 1e-6
"""Keeps a dimension that never moves from dividing by zero."""

NORMALISATIONS: dict[str, tuple[str, str]] = {
    "z_score": ("mean", "std"),
    "quantile": ("q01", "q99"),
}
"""The kinds, and which rows of the statistics each one reads."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FieldStatistics:
    """Statistics of one quantity, a number a dimension, in robot units."""

    name: str
    """`state` or `actions`."""
    mean: Float64[np.ndarray, " d"]
    std: Float64[np.ndarray, " d"]
    q01: Float64[np.ndarray, " d"] | None = None
    """1st percentile; None where the file has no percentiles."""
    q99: Float64[np.ndarray, " d"] | None = None
    """99th percentile."""

    def to_json(self) -> dict[str, list[float] | None]:
        """The entry of a `norm_stats.json`."""
        rows = {"mean": self.mean, "std": self.std, "q01": self.q01, "q99": self.q99}
        return {key: None if row is None else row.tolist() for key, row in rows.items()}

    def pair(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """The two rows that this kind of normalisation reads.

        Raises:
            ValueError: if the kind is unknown, or the file had no percentiles.
        """
        if kind not in NORMALISATIONS:
            raise ValueError(
                f"`kind` must be one of {', '.join(NORMALISATIONS)}, but got {kind!r}."
            )
        first, second = (getattr(self, key) for key in NORMALISATIONS[kind])
        if first is None or second is None:
            raise ValueError(
                f"`norm_stats` must hold q01 and q99 of {self.name} for quantile normalisation, "
                "but got only mean and std. Recompute them with openpi's compute_norm_stats."
            )
        return first, second


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NormStats:
    """What a `norm_stats.json` holds."""

    state: FieldStatistics
    actions: FieldStatistics

    def to_json(self) -> dict[str, dict[str, dict[str, list[float] | None]]]:
        """The content of a `norm_stats.json`, as openpi writes and reads it."""
        return {"norm_stats": {f.name: f.to_json() for f in (self.state, self.actions)}}

    @property
    def digest(self) -> str:
        """sha256 of all numbers, the same wherever the file lies."""
        numbers = {field.name: field.to_json() for field in (self.state, self.actions)}
        return hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()


def normalise(
    values: Float[np.ndarray, "*b d"], statistics: FieldStatistics | None, kind: str
) -> Float[np.ndarray, "*b d"]:
    """Robot units to model units; identity without statistics.

    Values may have fewer dimensions than the statistics: the first ones are meant.

    Raises:
        ValueError: if they have more.
    """
    if statistics is None:
        return values
    first, second = statistics.pair(kind)
    width = values.shape[-1]
    if width > first.shape[0]:
        raise ValueError(
            f"`{statistics.name}` must have at most {first.shape[0]} dimensions, those of its "
            f"normalisation statistics, but got {width}. Give the norm_stats of this robot."
        )
    first, second = first[:width], second[:width]
    if kind == "z_score":
        return (values - first) / (second + EPSILON)
    return (values - first) / (second - first + EPSILON) * 2.0 - 1.0


def unnormalise(
    values: Float[np.ndarray, "*b d"], statistics: FieldStatistics | None, kind: str
) -> Float[np.ndarray, "*b d"]:
    """Model units to robot units; identity without statistics.

    Dimensions beyond the statistics are padding; it is not meant for a robot. Quantiles leave
    it as it is, the z-score takes its mean for 0 and its deviation for 1.

    Raises:
        ValueError: if the values have fewer dimensions than the statistics.
    """
    if statistics is None:
        return values
    first, second = statistics.pair(kind)
    size = first.shape[0]
    if values.shape[-1] < size:
        raise ValueError(
            f"`{statistics.name}` must have at least {size} dimensions, those of its "
            f"normalisation statistics, but got {values.shape[-1]}."
        )
    head, padding = values[..., :size], values[..., size:]
    if kind == "z_score":
        head, padding = head * (second + EPSILON) + first, padding * np.float64(1.0 + EPSILON)
    else:
        head = (head + 1.0) / 2.0 * (second - first + EPSILON) + first
    return np.concatenate([head, padding], axis=-1)


def load_norm_stats(address: str) -> NormStats:
    """Reads a `norm_stats.json` from a path or any fsspec address.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not such a file; says which entry is missing or misshapen.
    """
    try:
        with fsspec.open(address, "rb") as file:
            text: bytes = file.read()  # pyright: ignore[reportAttributeAccessIssue]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"`norm_stats` must be a norm_stats.json, but got {address!r}, which does not exist."
        ) from error
    return parse_norm_stats(text, address)


def parse_norm_stats(text: bytes, address: str) -> NormStats:
    """What the text of a `norm_stats.json` holds.

    Raises:
        ValueError: if it is not such a file; says which entry is missing or misshapen.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"`norm_stats` must be JSON, but got {address!r}: {error}.") from error
    entries = content.get("norm_stats") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise ValueError(
            f"`norm_stats` must have the key 'norm_stats' at its top, but got {address!r} without."
        )
    return NormStats(
        state=_read_field(entries, "state", address),
        actions=_read_field(entries, "actions", address),
    )


def _read_field(entries: dict[str, Any], name: str, address: str) -> FieldStatistics:
    """One quantity's statistics from the file's entries."""
    entry = entries.get(name)
    if not isinstance(entry, dict):
        raise ValueError(
            f"`norm_stats` must hold {name!r}, but got {address!r} with only {sorted(entries)}."
        )
    rows: dict[str, np.ndarray | None] = {}
    for key in ("mean", "std", "q01", "q99"):
        if entry.get(key) is None and key in ("q01", "q99"):
            rows[key] = None
            continue
        rows[key] = _read_row(entry.get(key), f"{name}.{key}", address)
    sizes = {key: row.shape[0] for key, row in rows.items() if row is not None}
    if len(set(sizes.values())) != 1:
        raise ValueError(
            f"`norm_stats` must give {name} equally many dimensions in every row, but got {sizes} "
            f"in {address!r}."
        )
    return FieldStatistics(name=name, **rows)  # pyright: ignore[reportArgumentType]


def _read_row(row: Any, name: str, address: str) -> Float64[np.ndarray, " d"]:
    """One row of numbers."""
    if row is None:
        raise ValueError(f"`norm_stats` must hold {name}, but got {address!r} without.")
    try:
        values = np.asarray(row, np.float64)
    except (TypeError, ValueError):
        values = np.zeros(())
    # A robot whose state was not recorded has a state of no dimensions.
    empty = values.size == 0 and not name.startswith("state.")
    if values.ndim != 1 or empty or not np.isfinite(values).all():
        raise ValueError(
            f"`norm_stats` must hold a list of finite numbers as {name}, but got "
            f"{str(row)[:80]} in {address!r}."
        )
    return values
