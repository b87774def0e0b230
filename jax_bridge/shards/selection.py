"""Which samples: rows of the index that a condition selects."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from jax_bridge.shards.index_table import OWN_TEXTS, IndexTable

Where: TypeAlias = pc.Expression | Mapping[str, Any] | None
"""A pyarrow expression; or column -> value, list of values, `range` or None (is null)."""


def select_rows(metadata: IndexTable, where: Where) -> Int64[np.ndarray, " n"]:
    """Row numbers that fulfil a condition, rising.

    Raises:
        ValueError: if the condition names an unknown column or compares different kinds.
        DamagedShardError: if a column of the index cannot be read.
    """
    if where is None:
        return np.arange(metadata.num_rows, dtype=np.int64)
    if isinstance(where, Mapping):
        mask = np.ones(metadata.num_rows, np.bool_)
        for column, wanted in where.items():
            mask &= _column_mask(metadata, column, wanted)
        return np.flatnonzero(mask).astype(np.int64)
    try:
        return np.flatnonzero(metadata.mask(where)).astype(np.int64)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(
            f"`where` must be an expression over the index's columns "
            f"({', '.join(metadata.column_names)}), but got {where}: {_first_line(error)}."
        ) from error


def _column_mask(metadata: IndexTable, column: str, wanted: Any) -> Bool[np.ndarray, " n"]:
    if column not in metadata.column_names:
        raise ValueError(
            f"`where` must name columns of the index ({', '.join(metadata.column_names)}), but got "
            f"{column!r}."
        )
    if column in OWN_TEXTS or metadata.schema.field(column).type != pa.string():
        return _values_mask(metadata.column(column), column, wanted)
    # Each different text is looked at once, with null behind them, where -1 points to.
    texts, codes = metadata.codes(column)
    kept = _values_mask(pa.chunked_array([pa.array([*texts, None], pa.string())]), column, wanted)
    return kept[codes]


def _values_mask(values: pa.ChunkedArray, column: str, wanted: Any) -> Bool[np.ndarray, " n"]:
    if wanted is None:
        return values.is_null().to_numpy()
    try:
        if isinstance(wanted, range) and wanted.step == 1:
            above = _compare("greater_equal", values, wanted.start)
            mask = _compare("and", above, _compare("less", values, wanted.stop))
        elif isinstance(wanted, list | tuple | set | frozenset | range | np.ndarray):
            plain = [_plain(value) for value in wanted]
            options = pc.SetLookupOptions(value_set=pa.array(plain, values.type))
            mask = pc.call_function("is_in", [values], options)
        else:
            mask = _compare("equal", values, pa.scalar(_plain(wanted), values.type))
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(
            f"`where` must compare {column} with values of type {values.type}, but got "
            f"{wanted!r}: {_first_line(error)}."
        ) from error
    return mask.fill_null(False).to_numpy()


def _compare(function: str, left: Any, right: Any) -> Any:
    # Called by name: pyarrow makes these functions at run time, so that no type checker sees them.
    return pc.call_function(function, [left, right])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
