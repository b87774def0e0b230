"""How members stand in a tar: POSIX ustar headers that hold nothing but name and size.

Source: POSIX.1-1988 ustar; the order of members is the table in the format's description.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from jax_bridge.shards.failures import DamagedShardError

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_MEMBER_BYTES = 8**11 - 1

MEMBER_ORDER: tuple[str, ...] = (
    "json",
    "latents.safetensors",
    "robot.safetensors",
    "base.jpg",
    "base.png",
    "left_wrist.jpg",
    "left_wrist.png",
    "right_wrist.jpg",
    "right_wrist.png",
    "context.safetensors",
)


class Member(NamedTuple):
    """Where one member of a sample lies."""

    key: str
    suffix: str
    """What follows the key's dot: `json`, `latents.safetensors`, ..."""
    offset: int
    """Of its first byte in the tar."""
    size: int

    @property
    def name(self) -> str:
        """Its file name in the tar."""
        return f"{self.key}.{self.suffix}"

    @property
    def end(self) -> int:
        """Offset behind its padding."""
        return self.offset + padded(self.size)


@runtime_checkable
class Readable(Protocol):
    """Bytes that can be sliced: an mmap or bytes."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: slice, /) -> bytes: ...


def padded(size: int) -> int:
    """Bytes that a member of this size takes in the tar, header not counted."""
    return -(-size // BLOCK) * BLOCK


def member_rank(suffix: str) -> tuple[int, str]:
    """Sorts members of one sample into the table's order; unknown ones follow by name."""
    known = suffix in MEMBER_ORDER
    return (MEMBER_ORDER.index(suffix) if known else len(MEMBER_ORDER), suffix)


def tar_header(name: str, size: int) -> bytes:
    """The 512 bytes before a regular file: mode 644, owner 0, mtime 0.

    Raises:
        ValueError: if name or size do not fit into a ustar header.
    """
    encoded = name.encode("ascii")
    if len(encoded) > 100:
        raise ValueError(f"`name` must have at most 100 letters, but got {name!r}.")
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise ValueError(f"{name} must be smaller than 8 GiB, but got {size} bytes.")
    fields = (
        encoded.ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        b"%011o\0" % size,
        b"00000000000\0",
        b" " * 8,
        b"0",
        bytes(100),
        b"ustar\x0000",
        bytes(64),
        b"0000000\0",
        b"0000000\0",
    )
    header = bytearray(b"".join(fields).ljust(BLOCK, b"\0"))
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def scan_members(tar: Readable, shard: str, *, stop: int | None = None) -> Iterator[Member]:
    """Walks the members of a tar without touching their content.

    Args:
        tar: the whole file.
        shard: its name, for messages.
        stop: where members end; None asks for the two zero blocks that end a tar.

    Raises:
        DamagedShardError: at a header that is none, and where the file ends too early.
    """
    position, length = 0, len(tar)
    while stop is None or position < stop:
        header = tar[position : position + BLOCK]
        if stop is None and header == END[:BLOCK]:
            _require_end(tar, shard, position)
            return
        if len(header) < BLOCK:
            raise DamagedShardError(
                f"the tar ends after {length} bytes, without its end blocks; it was cut.",
                shard=shard,
                offset=length,
            )
        name, size = _parse_header(header, shard, position)
        key, _, suffix = name.rpartition("/")[2].partition(".")
        member = Member(name[: len(name) - len(suffix) - 1], suffix, position + BLOCK, size)
        if not key or not suffix:
            raise DamagedShardError(
                f"member name {name!r} is not <key>.<suffix>.", shard=shard, offset=position
            )
        if member.end > length:
            raise DamagedShardError(
                f"needs {member.end} bytes, but the tar has {length}; it was cut.",
                shard=shard,
                key=member.key,
                member=suffix,
                offset=length,
            )
        yield member
        position = member.end


def _require_end(tar: Readable, shard: str, position: int) -> None:
    for start in range(position, len(tar), 1 << 20):
        block = tar[start : start + (1 << 20)]
        if block.count(0) != len(block):
            raise DamagedShardError(
                "bytes follow the end of the tar.", shard=shard, offset=position
            )
    if len(tar) - position < len(END):
        raise DamagedShardError("the tar's end blocks are cut.", shard=shard, offset=len(tar))


def _parse_header(header: bytes, shard: str, position: int) -> tuple[str, int]:
    try:
        checksum = int(header[148:156].split(b"\0")[0], 8)
        size = int(header[124:136].split(b"\0")[0], 8)
        name = header[:100].split(b"\0")[0].decode("utf-8")
        prefix = header[345:500].split(b"\0")[0].decode("utf-8")
    except ValueError as error:
        raise DamagedShardError("no tar header is here.", shard=shard, offset=position) from error
    if checksum != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]) or size < 0:
        raise DamagedShardError("the tar header's checksum is wrong.", shard=shard, offset=position)
    if header[156:157] not in (b"0", b"\0"):
        raise DamagedShardError(
            f"entry type {header[156:157]!r} of {name!r} is not a regular file.",
            shard=shard,
            offset=position,
        )
    return (f"{prefix}/{name}" if prefix else name), size


def group_by_key(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Members that stand together and share a key, as WebDataset groups them."""
    group: list[Member] = []
    for member in members:
        if group and member.key != group[0].key:
            yield group
            group = []
        group.append(member)
    if group:
        yield group
