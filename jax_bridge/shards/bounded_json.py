"""JSON from files of others: refused before it is read where its objects would not fit the file.

Python makes up to some forty bytes of objects out of one byte of JSON (`[[],[],` and so on). What
it would make is estimated from above by the letters that begin or divide values.
"""

import json
from collections.abc import Callable
from typing import Any

ROOM = 2**20
"""Bytes of objects that any file may give, however small it is."""
_PER_BYTE, _PER_SIGN = 8, 100
"""Bytes of objects: of a byte of text (four a letter, and decoded once), and of a value."""


def load_json(
    content: bytes,
    *,
    file_bytes: int,
    pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Reads JSON that lies in a larger file.

    Args:
        content: the text.
        file_bytes: of the file around it: its objects may take as much.
        pairs_hook: makes objects, as of `json.loads`.

    Raises:
        ValueError: if it is no JSON, is nested too deeply, or its objects would not fit.
    """
    signs = sum(map(content.count, (b"[", b"{", b",", b":")))
    most = _PER_BYTE * len(content) + _PER_SIGN * signs
    if most > max(ROOM, file_bytes):
        raise ValueError(
            f"its {len(content)} bytes with {signs} brackets, commas and colons may take {most} "
            f"bytes of memory, more than the {max(ROOM, file_bytes)} of the file around it"
        )
    try:
        return json.loads(content, object_pairs_hook=pairs_hook)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
