"""FAST targets against each other: every byte is a function of others, so no flip goes unseen."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from jax_bridge.demos.description import demonstrations_of
from jax_bridge.fast.attach import statistics_bytes
from jax_bridge.fast.files import BPE, PROCESSOR, parse_tokenizer, tokenizer_files
from jax_bridge.fast.target_folder import CODES, INFO, STATISTICS, FastInfo, TargetFolder
from jax_bridge.fast.target_tar import Codes, read_tar, tar_of
from jax_bridge.fast.targets import read_codes
from jax_bridge.policies.normalisation import parse_norm_stats
from jax_bridge.shards import DamagedShardError, ShardDataset
from jax_bridge.shards.parquet_digest import has_digest, is_as_written

AGAIN = "Remove it and run `vla-lens fast attach` again"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetsReport:
    """What was looked at and what is wrong."""

    shards: int
    problems: tuple[DamagedShardError, ...]


def verify_targets(dataset: ShardDataset) -> TargetsReport | None:
    """Checks the FAST targets of a data set; None where it has none.

    Tars are made again from `codes.parquet`, which carries its own digest, and compared byte for
    byte; so are the other files, from what stands in them and in `dataset.json`.

    Args:
        dataset: whose own bytes are checked elsewhere.

    Raises:
        OSError: if they cannot be read.
    """
    folder = TargetFolder(dataset.path)
    there: list[str] = []
    with contextlib.suppress(PermissionError):  # an address that cannot tell what lies there
        there = folder.names()
    if not there and not _has_targets(folder):
        return None
    names, of_row = dataset.index.codes("shard")
    keys = dataset.index["key"].to_pylist()
    by_shard = {
        str(name): [keys[row] for row in np.flatnonzero(of_row == number)]
        for number, name in enumerate(names)
    }
    found = _Checks(folder)
    found.check(INFO, lambda content: _check_info(found, content, dataset))
    found.check(CODES, lambda content: _check_codes(found, content, by_shard))
    for name, own in by_shard.items():
        found.check(f"{name}.tar", functools.partial(_check_tar, found, name, own))
    known = {INFO, CODES, STATISTICS, *(f"{name}.tar" for name in by_shard)}
    for name in sorted(set(there) - known - found.tokenizer_files):
        found.problem(name, "it is no file of these targets. Remove it")
    return TargetsReport(shards=len(by_shard), problems=tuple(found.problems))


def _has_targets(folder: TargetFolder) -> bool:
    """Where nothing may be listed, what is not there looks like what may not be read."""
    try:
        return folder.has(INFO)
    except PermissionError:
        return False


class _Checks:
    """What is wrong so far, and what was learnt on the way."""

    def __init__(self, folder: TargetFolder) -> None:
        self.folder = folder
        self.problems: list[DamagedShardError] = []
        self.codes: dict[str, np.ndarray] | None = None
        """By key, where `codes.parquet` can be trusted."""
        self.tokenizer_files: set[str] = {PROCESSOR, BPE}

    def problem(self, name: str, reason: str, offset: int | None = None) -> None:
        """Notes what is wrong with a file."""
        self.problems.append(DamagedShardError(f"{reason}.", shard=f"fast/{name}", offset=offset))

    def check(self, name: str, look: Callable[[bytes], None]) -> None:
        """Looks at a file; what its reading raises becomes a problem."""
        try:
            look(self.folder.read(name))
        except FileNotFoundError:
            self.problem(name, "the file is missing. Run `vla-lens fast attach` again")
        except DamagedShardError as error:
            self.problem(name, f"{error.reason} {AGAIN}", error.offset)
        except ValueError as error:
            self.problem(name, f"{str(error).rstrip('.')}. {AGAIN}")

    def same(self, name: str, due: bytes, content: bytes) -> None:
        """Notes where a file is not what it should be."""
        if content == due:
            return
        size = min(len(content), len(due))
        unequal = np.frombuffer(content[:size], np.uint8) != np.frombuffer(due[:size], np.uint8)
        offset = int(np.argmax(unequal)) if unequal.any() else size
        self.problem(name, f"a byte is not what was written. {AGAIN}", offset)


def _check_info(found: _Checks, content: bytes, dataset: ShardDataset) -> None:
    info = FastInfo.read(found.folder)
    found.same(INFO, info.to_bytes(), content)
    sizes = demonstrations_of(dataset.info, dataset.path)
    mine = (dataset.fingerprint, sizes.horizon, sizes.action_dim)
    if mine != (info.dataset, info.horizon, info.action_dim):
        found.problem(INFO, f"it speaks of another data set. {AGAIN}")
    found.check(STATISTICS, lambda text: _check_statistics(found, text, info))
    found.check(
        PROCESSOR,
        lambda settings: found.check(BPE, lambda bpe: _check_tokenizer(found, settings, bpe, info)),
    )


def _check_statistics(found: _Checks, content: bytes, info: FastInfo) -> None:
    norm_stats = parse_norm_stats(content, STATISTICS)
    found.same(STATISTICS, statistics_bytes(norm_stats), content)
    if norm_stats.digest != info.norm_stats:
        found.problem(STATISTICS, f"its numbers are not those of {INFO}. {AGAIN}")


def _check_tokenizer(found: _Checks, settings: bytes, bpe: bytes, info: FastInfo) -> None:
    tokenizer = parse_tokenizer(settings, bpe, str(found.folder))
    if tokenizer.describe() != info.tokenizer:
        found.problem(BPE, f"the tokenizer is not that of {INFO}. {AGAIN}")
    for name, due in tokenizer_files(tokenizer).items():
        found.tokenizer_files.add(name)
        found.check(name, functools.partial(found.same, name, due))


def _check_codes(found: _Checks, content: bytes, by_shard: dict[str, list[str]]) -> None:
    if has_digest(content) and not is_as_written(content):
        found.problem(CODES, f"it does not have its digest. {AGAIN}")
        return
    table = read_codes(found.folder)
    keys = table["key"].to_pylist()
    if keys != list(itertools.chain.from_iterable(by_shard.values())):
        found.problem(
            CODES, "it is not of just the data set's samples. Run `vla-lens fast attach` again"
        )
    lists: Any = table["codes"].combine_chunks()
    offsets, values = np.asarray(lists.offsets), np.asarray(lists.values, np.int32)
    spans = zip(keys, offsets[:-1], offsets[1:], strict=True)
    found.codes = {key: values[start:end] for key, start, end in spans}


def _check_tar(found: _Checks, name: str, keys: list[str], content: bytes) -> None:
    stored, codes = read_tar(content, name)
    if stored != keys:
        found.problem(f"{name}.tar", f"it has not just the samples of its shard. {AGAIN}")
        return
    known = found.codes or {}
    due: Codes = [known.get(key, own) for key, own in zip(keys, codes, strict=True)]
    found.same(f"{name}.tar", tar_of(keys, due), content)
