"""The codes of one shard as a tar, and all of them as one table.

Letters: n samples.
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Int32

from jax_bridge.fast.target_folder import MEMBER
from jax_bridge.shards.tar_layout import END, padded, scan_members, tar_header

SCHEMA = pa.schema({"key": pa.string(), "codes": pa.large_list(pa.int32())})
"""Of `codes.parquet`."""
Codes = list[Int32[np.ndarray, "_"]]
HEAD = 128
"""Bytes of a NumPy file before its numbers."""


def tar_of(keys: Sequence[str], codes: Codes) -> bytes:
    """The tar's content, a function of keys and codes alone."""
    return b"".join(_pieces(keys, codes))


def _pieces(keys: Sequence[str], codes: Codes) -> Iterator[bytes]:
    for key, some in zip(keys, codes, strict=True):
        content = _array(some)
        yield tar_header(f"{key}.{MEMBER}", len(content))
        yield content.ljust(padded(len(content)), b"\0")
    yield END


def _array(codes: Int32[np.ndarray, "_"]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, codes, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_tar(content: bytes, name: str) -> tuple[list[str], Codes]:
    """Keys and codes of one tar.

    Raises:
        DamagedShardError: where it is damaged.
        ValueError: if a member is no array of codes.
    """
    keys, codes = [], []
    for member in scan_members(content, name):
        array = content[member.offset : member.offset + member.size]
        # The head is a function of the length: nothing that came from a file is parsed.
        some = np.frombuffer(array[HEAD : HEAD + (len(array) - HEAD) // 4 * 4], "<i4")
        if _array(some) != array:
            raise ValueError(f"{member.name} must be a vector of int32 codes")
        keys.append(member.key)
        codes.append(some)
    return keys, codes
