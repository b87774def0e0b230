"""`open_fast_targets`: the FAST codes of a data set's samples, by row number.

Letters: n rows.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int32, Int64

from jax_bridge.fast.files import BPE, PROCESSOR, parse_tokenizer
from jax_bridge.fast.target_folder import CODES, INFO, STATISTICS, FastInfo, TargetFolder
from jax_bridge.fast.tokenizer import FastTokenizer
from jax_bridge.policies.normalisation import NormStats, parse_norm_stats
from jax_bridge.shards import ShardDataset


class FastTargets:
    """All codes in memory, four bytes each; nothing else of the data set is held."""

    def __init__(
        self,
        folder: TargetFolder,
        info: FastInfo,
        codes: Int32[np.ndarray, " all"],
        bounds: Int64[np.ndarray, "2 n"],
    ) -> None:
        self.folder = folder
        self.info = info
        self._codes = codes
        self._bounds = bounds

    def codes(self, rows: Sequence[int] | np.ndarray) -> list[Int32[np.ndarray, "_"]]:
        """Codes of some samples; empty for one that was left out when they were made."""
        starts, ends = self._bounds[:, np.asarray(rows, np.int64)]
        return [self._codes[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """How many codes each sample of the data set has."""
        return self._bounds[1] - self._bounds[0]

    @property
    def longest(self) -> int:
        """Most codes of a sample."""
        return int(self.lengths.max(initial=0))

    @functools.cached_property
    def tokenizer(self) -> FastTokenizer:
        """What made them."""
        read = self.folder.read
        return parse_tokenizer(read(PROCESSOR), read(BPE), str(self.folder))

    @functools.cached_property
    def norm_stats(self) -> NormStats:
        """How actions were normalised before."""
        return parse_norm_stats(self.folder.read(STATISTICS), f"{self.folder}/{STATISTICS}")

    @property
    def horizon(self) -> int:
        """Actions a chunk."""
        return self.info.horizon

    @property
    def action_dim(self) -> int:
        """Dimensions of an action."""
        return self.info.action_dim

    @property
    def delta_mask(self) -> tuple[bool, ...] | None:
        """Dimensions that are relative to the state; None where all are absolute."""
        return self.info.delta_mask

    def describe(self) -> dict[str, Any]:
        """Digests and sizes, JSON-able."""
        return self.info.to_json()


def open_fast_targets(dataset: ShardDataset) -> FastTargets:
    """The FAST targets beside a data set.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if they are not of this data set, or not of all of its samples.
    """
    folder = TargetFolder(dataset.path)
    if not folder.has(INFO) or not folder.has(CODES):
        raise FileNotFoundError(
            f"`dataset` must have FAST targets, but {folder} has none or unfinished ones. Write "
            f"them with `vla-lens fast attach {dataset.path} --tokenizer DIR --norm_stats FILE`."
        )
    info = FastInfo.read(folder)
    if info.dataset != dataset.fingerprint:
        raise ValueError(
            f"`dataset` must be the one that its FAST targets were made of, but those in {folder} "
            "belong to another one. Remove that folder and run `vla-lens fast attach` again."
        )
    table = read_codes(folder)
    places = _places(dataset, table["key"], folder)
    lists: Any = table["codes"].combine_chunks()
    offsets = np.asarray(lists.offsets, np.int64)
    codes = np.asarray(lists.values, np.int32)
    return FastTargets(folder, info, codes, np.stack([offsets[places], offsets[places + 1]]))


def read_codes(folder: TargetFolder) -> pa.Table:
    """Keys and codes of all samples.

    Raises:
        ValueError: if the table cannot be read.
    """
    try:
        return pq.read_table(pa.BufferReader(folder.read(CODES)), columns=["key", "codes"])
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(
            f"{folder}/{CODES} cannot be read: {error}. Remove it and run `vla-lens fast attach` "
            "again."
        ) from error


def _places(
    dataset: ShardDataset, keys: pa.ChunkedArray, folder: TargetFolder
) -> Int64[np.ndarray, " n"]:
    wanted = dataset.index.column("key").cast(pa.string())
    options = pc.SetLookupOptions(value_set=keys.combine_chunks())
    found: Any = pc.call_function("index_in", [wanted], options)
    missing = found.null_count
    if missing:
        raise ValueError(
            f"`dataset` must have FAST targets for all samples, but {missing} of {len(dataset)} "
            f"have none in {folder}: the data set has grown since. Run `vla-lens fast attach` "
            "again; what is there is kept."
        )
    return found.to_numpy().astype(np.int64)
