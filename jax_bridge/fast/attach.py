"""`attach_fast`: writes the FAST codes of every sample beside a data set.

Letters: n chunks; h horizon; a action dimensions.
"""

import dataclasses
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int32, Int64

from jax_bridge.demos.chunk_stream import ChunkStream, OnRows
from jax_bridge.fast.failures import CoefficientRangeError
from jax_bridge.fast.files import BPE, save_tokenizer
from jax_bridge.fast.normalised import normalised_chunks
from jax_bridge.fast.target_folder import CODES, INFO, MEMBER, STATISTICS, FastInfo, fast_folder
from jax_bridge.fast.tokenizer import FastTokenizer
from jax_bridge.policies.normalisation import NormStats
from jax_bridge.shards import DamagedShardError
from jax_bridge.shards.dataset_folder import mapped
from jax_bridge.shards.file_layer import LOCAL_FILES, write_error
from jax_bridge.shards.tar_layout import END, padded, scan_members, tar_header

OutOfRange = Literal["raise", "clip", "skip"]
"""`clip` moves coefficients to the range and counts; `skip` gives such samples no codes."""
SCHEMA = pa.schema({"key": pa.string(), "codes": pa.large_list(pa.int32())})


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
            ValueError: if the tokenizer is of other sizes, or the data set is at an address.
        """
        self._folder = fast_folder(stream.dataset.path)
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
        try:
            self._prepare()
            names, of_row = self._stream.dataset.index.codes("shard")
            for number, name in enumerate(names):
                rows = np.flatnonzero(of_row == number).astype(np.int64)
                self._shard(str(name), rows, report, on_rows)
            self._gather([str(name) for name in names], report)
        except OSError as error:
            raise write_error(error, self._folder) from error
        return report

    def _prepare(self) -> None:
        if (self._folder / INFO).exists():
            self.info.require_same(FastInfo.read(self._folder / INFO), self._folder)
        self._folder.mkdir(exist_ok=True)
        self._write(INFO, self.info.to_json())
        if not (self._folder / BPE).exists():
            save_tokenizer(self._tokenizer, self._folder)
        self._write(STATISTICS, self._norm_stats.to_json())

    def _write(self, name: str, content: object) -> None:
        text = json.dumps(content, indent=1) + "\n"
        LOCAL_FILES.write_whole(self._folder / name, text.encode())

    def _shard(
        self, name: str, rows: Int64[np.ndarray, " n"], report: AttachReport, on_rows: OnRows | None
    ) -> None:
        path = self._folder / f"{name}.tar"
        keys = self._stream.dataset.index.select(["key"]).take(rows)["key"].to_pylist()
        if _holds(path, keys):
            report.kept += 1
            if on_rows is not None:
                on_rows(len(rows))
            return
        codes = self._encoded(rows, keys, report, on_rows)
        LOCAL_FILES.write_whole(path, b"".join(_tar(keys, codes)))
        report.shards += 1

    def _encoded(
        self,
        rows: Int64[np.ndarray, " n"],
        keys: Sequence[str],
        report: AttachReport,
        on_rows: OnRows | None,
    ) -> list[Int32[np.ndarray, "_"]]:
        parts, done = [], 0
        for _, chunks in self._stream.part(rows).chunks(on_rows):
            values = normalised_chunks(chunks, self._norm_stats.actions)
            parts.append(self._codes(values, keys[done : done + len(values)], report))
            done += len(values)
        return list(itertools.chain.from_iterable(parts))

    def _codes(
        self, values: Float64[np.ndarray, "n h a"], keys: Sequence[str], report: AttachReport
    ) -> list[Int32[np.ndarray, "_"]]:
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

    def _gather(self, names: Sequence[str], report: AttachReport) -> None:
        """Makes `codes.parquet` from the tars."""
        path = self._folder / f".tmp-{CODES}"
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for name in names:
                keys, codes = read_tar(self._folder / f"{name}.tar")
                report.lengths += [len(some) for some in codes]
                writer.write_table(pa.table({"key": keys, "codes": codes}, SCHEMA))
        report.samples = len(report.lengths)
        path.replace(self._folder / CODES)


def _holds(path: Path, keys: Sequence[str]) -> bool:
    """Whether a tar is whole and has the codes of just these samples."""
    try:
        return read_tar(path)[0] == list(keys)
    except (DamagedShardError, ValueError, OSError):
        return False


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


def _tar(keys: Sequence[str], codes: Sequence[Int32[np.ndarray, "_"]]) -> Iterator[bytes]:
    for key, some in zip(keys, codes, strict=True):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, some, version=(1, 0), allow_pickle=False)
        content = buffer.getvalue()
        yield tar_header(f"{key}.{MEMBER}", len(content))
        yield content.ljust(padded(len(content)), b"\0")
    yield END


def read_tar(path: Path) -> tuple[list[str], list[Int32[np.ndarray, "_"]]]:
    """Keys and codes of one tar.

    Raises:
        DamagedShardError: where it is damaged.
        ValueError: if a member is no array of codes.
    """
    keys, codes = [], []
    with mapped(path) as tar:
        for member in scan_members(tar, path.stem):
            content = tar[member.offset : member.offset + member.size]
            some = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
            if some.ndim != 1 or some.dtype != np.int32:
                raise ValueError(f"{path}: {member.name} must be a vector of int32 codes.")
            keys.append(member.key)
            codes.append(some)
    return keys, codes
