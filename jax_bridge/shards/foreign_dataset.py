"""`open_foreign`: reading what there is in somebody else's WebDataset.

Nothing tells how such data was made, which layers its tensors have or which episodes there are, so
there is no fingerprint, no projection and no split: only members, tensors and metadata.
"""

import io
import math
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from jax_bridge.shards.dataset_folder import mapped
from jax_bridge.shards.failures import DamagedShardError
from jax_bridge.shards.foreign_index import foreign_table
from jax_bridge.shards.index_rows import MEMBER, TENSOR, member_column
from jax_bridge.shards.index_table import NO_VALUE, IndexTable
from jax_bridge.shards.remote.address import is_address
from jax_bridge.shards.safetensors_header import parse_header
from jax_bridge.shards.selection import Where, select_rows

Address = str | os.PathLike[str]
_SHOWN = 12


def open_foreign(path: Address | Sequence[Address]) -> "ForeignDataset":
    """Opens tars of any WebDataset; one pass over their headers, nothing is written.

    Args:
        path: a tar, a list of tars, or a folder that has tars in it or in its `shards/`.

    Raises:
        FileNotFoundError: if there is no tar.
        ValueError: if it is an address, which only data sets of our own may have.
        DamagedShardError: if a tar is none, or is cut.
    """
    for one in [path] if isinstance(path, str | os.PathLike) else path:
        if is_address(one):
            raise ValueError(f"`path` must be on this machine, but got {one}. Copy the tars here.")
    tars = _tars(path)
    if not tars:
        raise FileNotFoundError(f"`path` must hold tars of samples, but got {path}, without any.")
    for tar in tars:
        if not tar.is_file():
            raise FileNotFoundError(f"`path` must be a tar that is there, but got {tar}.")
    return ForeignDataset(tars, IndexTable.of(foreign_table(tars)))


def _tars(path: Address | Sequence[Address]) -> list[pathlib.Path]:
    if not isinstance(path, str | os.PathLike):
        return [pathlib.Path(one) for one in path]
    place = pathlib.Path(path)
    if place.is_dir():
        return sorted([*place.glob("*.tar"), *place.glob("shards/*.tar")])
    return [place]


class ForeignDataset:
    """Members, tensors and metadata of tars that nobody described."""

    def __init__(self, tars: Sequence[pathlib.Path], index: IndexTable) -> None:
        self.tars = list(tars)
        self.index = index
        """One row per sample: `key`, the tar's number as `shard`, what its `.json` says, and
        where its members and tensors lie."""

    def __len__(self) -> int:
        return self.index.num_rows

    @property
    def metadata(self) -> IndexTable:
        """The index without the columns that say where things lie."""
        return self.index.drop(
            [n for n in self.index.column_names if n.startswith((MEMBER, TENSOR))]
        )

    @property
    def members(self) -> list[str]:
        """What samples have, by suffix: `jpg`, `cls`, `latents.safetensors`."""
        return [
            name.removeprefix(MEMBER).removesuffix(".offset")
            for name in self.index.column_names
            if name.startswith(MEMBER) and name.endswith(".offset")
        ]

    @property
    def fields(self) -> list[str]:
        """What `read` gives: `latents.NAME` of `.latents.safetensors`, `x` of `.x.npy`."""
        tensors = [
            name.removeprefix(TENSOR).removesuffix(".offset")
            for name in self.index.column_names
            if name.startswith(TENSOR) and name.endswith(".offset")
        ]
        arrays = [m.removesuffix(".npy") for m in self.members if m.endswith("npy")]
        return sorted({*tensors, *arrays})

    def select(self, where: Where = None) -> Int64[np.ndarray, " n"]:
        """Row numbers that fulfil a condition over the metadata.

        Raises:
            ValueError: if the condition names an unknown column or compares different kinds.
        """
        return select_rows(self.metadata, where)

    def read_member(
        self, member: str, *, where: Where = None, rows: Sequence[int] | np.ndarray | None = None
    ) -> list[bytes]:
        """The bytes of one member of some samples.

        Args:
            member: its suffix, `jpg`.
            where: which samples; see `select`.
            rows: which samples, by row number; not together with `where`.

        Raises:
            ValueError: if no sample has such a member, or one of these has not.
        """
        member = member.removeprefix(".")
        if member not in self.members:
            raise ValueError(
                f"`member` must be one that the samples have, but got {member!r}: "
                f"{self._lack(member)}."
            )
        chosen = self._chosen(where, rows)
        offsets = self.index.integers(member_column(member, "offset"), chosen)
        sizes = self.index.integers(member_column(member, "bytes"), chosen)
        for row, offset in zip(chosen, offsets, strict=True):
            if offset == NO_VALUE:
                raise self._damaged(int(row), member, f"the sample has no .{member} member.")
        shards = self.index.take(chosen).column("shard").to_pylist()
        found: list[bytes] = [b""] * len(chosen)
        for shard in sorted(set(shards)):
            with mapped(self.tars[int(shard)]) as tar:
                for i in np.flatnonzero([name == shard for name in shards]):
                    found[i] = tar[int(offsets[i]) : int(offsets[i] + sizes[i])]
        return found

    def read(
        self, field: str, *, where: Where = None, rows: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """A tensor of some samples, [n, ...]; one of `fields`. Nothing is ever unpickled.

        Raises:
            ValueError: if there is no such field, if samples differ in its shape, or one has none.
        """
        if field not in self.fields:
            named = field if "." in field else f"{field}.npy"
            raise ValueError(
                f"`field` must be one of {_listed(self.fields)}, but got {field!r}: "
                f"{self._lack('latents.safetensors' if '.' in field else named)}."
            )
        chosen = self._chosen(where, rows)
        member = self.member_of(field)
        arrays: list[np.ndarray] = []
        for row, content in zip(chosen, self.read_member(member, rows=chosen), strict=True):
            try:
                one = _field_value(content, field, member)
            except (ValueError, KeyError) as error:
                raise self._damaged(int(row), member, f"{error}.") from error
            if arrays and (one.dtype, one.shape) != (arrays[0].dtype, arrays[0].shape):
                text = f"{field} is {one.dtype} {one.shape}, but {arrays[0].dtype} "
                text += f"{arrays[0].shape} in the first sample. Read such samples apart."
                raise self._damaged(int(row), member, text)
            arrays.append(one)
        return np.stack(arrays) if arrays else np.empty((0,), np.float32)

    def member_of(self, field: str) -> str:
        """The member that holds one of `fields`: of several safetensors the longest that fits."""
        array = field if field == "npy" else f"{field}.npy"
        if array in self.members:
            return array
        return max((m for m in self.members if field.startswith(f"{_stem(m)}.")), key=len)

    def rows_with(self, member: str) -> Int64[np.ndarray, " n"]:
        """The samples that have a member."""
        every = np.arange(len(self))
        return every[self.index.integers(member_column(member, "offset"), every) != NO_VALUE]

    def _chosen(
        self, where: Where, rows: Sequence[int] | np.ndarray | None
    ) -> Int64[np.ndarray, " n"]:
        if rows is None:
            return self.select(where)
        if where is not None:
            raise ValueError("`rows` must be None where `where` is given, but got both.")
        chosen = np.asarray(rows).astype(np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise ValueError(f"`rows` must lie in [0, {len(self)}), but got {chosen}.")
        return chosen

    def _lack(self, member: str) -> str:
        return f"there is no .{member} member; members are {_listed(f'.{m}' for m in self.members)}"

    def _damaged(self, row: int, member: str, reason: str) -> DamagedShardError:
        sample = self.index.take([row])
        tar = self.tars[int(sample.column("shard")[0].as_py())]
        key = sample.column("key")[0].as_py()
        return DamagedShardError(reason, shard=str(tar), key=key, member=member)


def _stem(member: str) -> str:
    return member.removesuffix(".safetensors")


def _field_value(content: bytes, field: str, member: str) -> np.ndarray:
    if member.endswith("npy"):
        return array_of(content)
    name = field.removeprefix(f"{_stem(member)}.")
    entry = parse_header(content, len(content))[name]
    part = content[entry.start : entry.start + entry.size]
    return np.frombuffer(part, entry.dtype).reshape(entry.shape)


def array_of(content: bytes) -> np.ndarray:
    """The array of an `.npy` file; its header is believed only where the size agrees.

    Raises:
        ValueError: if it is no array of numbers or of another size than its header says.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"the .npy version {version} is not known")
    read = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
    shape, by_column, dtype = read(file)
    rest = content[file.tell() :]
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"the .npy header claims {dtype} {shape}, but {len(rest)} bytes follow")
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if by_column else "C")


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return (", ".join(shown[:_SHOWN]) or "none") + more
