"""`attach_fast`: writes the FAST codes of every sample beside a data set.

Letters: n chunks; h horizon; a action dimensions.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from jax_bridge.demos.chunk_stream import ChunkStream, OnRows
from jax_bridge.fast.failures import CoefficientRangeError
from jax_bridge.fast.files import BPE, tokenizer_files
from jax_bridge.fast.normalised import normalised_chunks
from jax_bridge.fast.target_folder import CODES, INFO, STATISTICS, FastInfo, TargetFolder
from jax_bridge.fast.target_tar import SCHEMA, Codes, read_tar, tar_of
from jax_bridge.fast.tokenizer import FastTokenizer
from jax_bridge.policies.normalisation import NormStats
from jax_bridge.shards.parquet_digest import digested_parquet

OutOfRange = Literal["raise", "clip", "skip"]
"""`clip` moves coefficients to the range and counts; `skip` gives such samples no codes."""


@dataclasses.dataclass(kw_only=True)
class AttachReport:
    """What was written; grows while it runs."""

    shards: int = 0
    kept: int = 0
    """Shards whose codes were there already."""
    samples: int = 0
    clipped: int = 0
    """Samples with coefficients outside the tokenizer's range."""
    left_out: int = 0
    """Samples that have no codes for that reason."""
    lengths: list[int] = dataclasses.field(default_factory=list)
    """Codes of each sample, all shards together."""


class FastWriter:
    """Encodes a data set, a shard at a time; shards that are done are not done again."""

    def __init__(
        self,
        stream: ChunkStream,
        tokenizer: FastTokenizer,
        norm_stats: NormStats,
        out_of_range: OutOfRange = "raise",
    ) -> None:
        """Prepares.

        Args:
            stream: all rows of the data set.
            tokenizer: must be of these sizes, where it says so.
            norm_stats: with percentiles of the actions.
            out_of_range: what is done with coefficients outside the tokenizer's range.

        Raises:
            ValueError: if the tokenizer is of other sizes.
        """
        self._folder = TargetFolder(stream.dataset.path)
        self._stream, self._tokenizer, self._norm_stats = stream, tokenizer, norm_stats
        self._out_of_range: OutOfRange = out_of_range
        sizes = stream.sizes
        _check_sizes(tokenizer, sizes.horizon, sizes.action_dim)
        self.info = FastInfo(
            dataset=stream.dataset.fingerprint,
            tokenizer=json.loads(json.dumps(tokenizer.describe())),
            norm_stats=norm_stats.digest, horizon=sizes.horizon, action_dim=sizes.action_dim,
            delta_mask=stream.delta_mask, out_of_range=out_of_range,
        )  # fmt: skip

    def run(self, on_rows: OnRows | None = None) -> AttachReport:
        """Writes what is missing.

        Raises:
            ValueError: if the folder holds other targets, a chunk does not fit, or the statistics
                are degenerate.
            OSError: if the disk refuses; what is written stays.
        """
        report = AttachReport()
        self._prepare()
        names, of_row = self._stream.dataset.index.codes("shard")
        tables = []
        for number, name in enumerate(names):
            rows = np.flatnonzero(of_row == number).astype(np.int64)
            tables.append(self._shard(str(name), rows, report, on_rows))
        table = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
        self._folder.write(CODES, digested_parquet(table))
        report.samples = len(report.lengths)
        return report

    def _prepare(self) -> None:
        if self._folder.has(INFO):
            self.info.require_same(FastInfo.read(self._folder), self._folder)
        self._folder.write(INFO, self.info.to_bytes())
        if not self._folder.has(BPE):
            for name, content in tokenizer_files(self._tokenizer).items():
                self._folder.write(name, content)
        self._folder.write(STATISTICS, statistics_bytes(self._norm_stats))

    def _shard(
        self, name: str, rows: Int64[np.ndarray, " n"], report: AttachReport, on_rows: OnRows | None
    ) -> pa.Table:
        """Writes one tar, unless it is there; returns keys and codes."""
        keys = self._stream.dataset.index.select(["key"]).take(rows)["key"].to_pylist()
        codes = self._kept(name, keys)
        if codes is not None:
            report.kept += 1
            if on_rows is not None:
                on_rows(len(rows))
        else:
            codes = self._encoded(rows, keys, report, on_rows)
            self._folder.write(f"{name}.tar", tar_of(keys, codes))
            report.shards += 1
        report.lengths += [len(some) for some in codes]
        return pa.table({"key": keys, "codes": codes}, SCHEMA)

    def _kept(self, name: str, keys: Sequence[str]) -> Codes | None:
        """What a tar holds that is whole and has the codes of just these samples."""
        try:
            found, codes = read_tar(self._folder.read(f"{name}.tar"), name)
        except (ValueError, FileNotFoundError):
            return None
        return codes if found == list(keys) else None

    def _encoded(
        self,
        rows: Int64[np.ndarray, " n"],
        keys: Sequence[str],
        report: AttachReport,
        on_rows: OnRows | None,
    ) -> Codes:
        parts, done = [], 0
        for _, chunks in self._stream.part(rows).chunks(on_rows):
            values = normalised_chunks(chunks, self._norm_stats.actions)
            parts.append(self._codes(values, keys[done : done + len(values)], report))
            done += len(values)
        return list(itertools.chain.from_iterable(parts))

    def _codes(
        self, values: Float64[np.ndarray, "n h a"], keys: Sequence[str], report: AttachReport
    ) -> Codes:
        raises = self._out_of_range == "raise"
        try:
            encoded = self._tokenizer.encode(values, out_of_range="raise" if raises else "clip")
        except CoefficientRangeError as error:
            raise ValueError(f"{keys[self._first_bad(values)]}: {error}") from error
        outside = encoded.clipped > 0
        report.clipped += int(outside.sum())
        codes = [some.astype(np.int32) for some in encoded.codes]
        if self._out_of_range == "skip":
            report.left_out += int(outside.sum())
            codes = [some[:0] if bad else some for some, bad in zip(codes, outside, strict=True)]
        return codes

    def _first_bad(self, values: Float64[np.ndarray, "n h a"]) -> int:
        return int(np.argmax(self._tokenizer.encode(values, out_of_range="clip").clipped > 0))


def _check_sizes(tokenizer: FastTokenizer, horizon: int, action_dim: int) -> None:
    learnt = (tokenizer.settings.time_horizon, tokenizer.settings.action_dim)
    for word, known, needed in zip(
        ("steps", "dimensions"), learnt, (horizon, action_dim), strict=True
    ):
        if known is not None and known != needed:
            raise ValueError(
                f"`tokenizer` must be of chunks of {needed} {word}, those of the data set, but got "
                f"one of {known}. Learn one from these data (`vla-lens fast fit`)."
            )


def statistics_bytes(norm_stats: NormStats) -> bytes:
    """The content of `norm_stats.json`."""
    return (json.dumps(norm_stats.to_json(), indent=1) + "\n").encode()
