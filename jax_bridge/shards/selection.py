"""Which samples: rows of the index that a condition selects."""

import functools
import operator
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from jax_bridge.shards.index_table import IndexTable

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
        each = [_condition(metadata, column, wanted) for column, wanted in where.items()]
        where = functools.reduce(operator.and_, each, pc.scalar(True))
    try:
        return np.flatnonzero(metadata.mask(where)).astype(np.int64)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(
            f"`where` must be an expression over the index's columns "
            f"({', '.join(metadata.column_names)}), but got {where}: {_first_line(error)}."
        ) from error


def _condition(metadata: IndexTable, column: str, wanted: Any) -> pc.Expression:
    if column not in metadata.column_names:
        raise ValueError(
            f"`where` must name columns of the index ({', '.join(metadata.column_names)}), but got "
            f"{column!r}."
        )
    kind, values = metadata.schema.field(column).type, pc.field(column)
    if wanted is None:
        return values.is_null()
    try:
        if isinstance(wanted, range) and wanted.step == 1:
            bounds = [pa.scalar(bound, kind) for bound in (wanted.start, wanted.stop)]
            return (values >= bounds[0]) & (values < bounds[1])
        if isinstance(wanted, list | tuple | set | frozenset | range | np.ndarray):
            return values.isin(pa.array([_plain(value) for value in wanted], kind))
        return values == pa.scalar(_plain(wanted), kind)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(
            f"`where` must compare {column} with values of type {kind}, but got "
            f"{wanted!r}: {_first_line(error)}."
        ) from error


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
