"""A Parquet file that carries the sha256 of itself, so that no flipped bit in it goes unseen.

Page checksums cover the pages alone. The digest stands in the footer's key-value metadata, and
is taken of the file with zeros in its place; readers that do not know it are not disturbed.
"""

import hashlib
import mmap
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KEY = b"vla-lens-sha256"
_PLACEHOLDER = b"0" * 64
_CHUNK = 1 << 22
GROUP_ROWS = 1 << 17
"""Rows that are read together where only some are asked for."""
_MARKER = KEY + b"\x18\x40"
"""The key as it stands in the footer: followed by the head of a text of 64 letters."""


def digested_parquet(table: pa.Table) -> bytes:
    """The file's content."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **writing_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=GROUP_ROWS)
        writer.add_key_value_metadata({KEY.decode(): _PLACEHOLDER.decode()})
    content = bytearray(sink.getvalue())
    place = _place(content)
    assert place is not None
    content[place : place + 64] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def writing_options(schema: pa.Schema) -> dict[str, Any]:
    """How columns are laid out, for pyarrow's `ParquetWriter`.

    Offsets rise and keys share their beginnings with the ones before them, so differences are
    stored; of the rest a column has few different values, so they are numbered.
    """
    deltas: dict[str, str] = {}
    for field in schema:
        if field.name == "key":
            deltas[field.name] = "DELTA_BYTE_ARRAY"
        elif field.name.endswith(".offset") and field.type == pa.int64():
            deltas[field.name] = "DELTA_BINARY_PACKED"
    return {
        "compression": "zstd",
        "write_page_checksum": True,
        "use_dictionary": [name for name in schema.names if name not in deltas],
        "column_encoding": deltas,
    }


def has_digest(content: mmap.mmap | bytes) -> bool:
    """Whether a file carries a digest; those of earlier versions do not."""
    return _place(content) is not None


def is_as_written(content: mmap.mmap | bytes) -> bool:
    """Whether a file that carries a digest has it."""
    place = _place(content)
    if place is None:
        return False
    digest = hashlib.sha256()
    for start in range(0, place, _CHUNK):
        digest.update(content[start : min(start + _CHUNK, place)])
    digest.update(_PLACEHOLDER)
    digest.update(content[place + 64 :])
    return digest.hexdigest().encode() == content[place : place + 64]


def _place(content: mmap.mmap | bytes | bytearray) -> int | None:
    found = content.rfind(_MARKER)
    return None if found < 0 else found + len(_MARKER)
