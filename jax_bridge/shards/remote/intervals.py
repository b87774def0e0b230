"""Sets of byte ranges as sorted arrays of (start, stop)."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int64

Ranges: TypeAlias = Int64[np.ndarray, "_ 2"]
"""Rows of start and stop; sorted and apart from each other where a function says so."""
WASTE = 1 / 16
"""Bytes that may be read in vain for one that is needed."""
FREE_GAP = 256
"""Gaps that are always read, in bytes: a request's own headers are larger."""


def ranges(starts: object, stops: object) -> Ranges:
    """Rows of start and stop, from vectors."""
    return np.stack([np.asarray(starts, np.int64), np.asarray(stops, np.int64)], axis=1)


def nothing() -> Ranges:
    """No bytes."""
    return np.empty((0, 2), np.int64)


def union(some: Ranges) -> Ranges:
    """The same bytes as sorted ranges that do not touch."""
    some = some[some[:, 1] > some[:, 0]]
    if len(some) < 2:
        return some.copy()
    some = some[np.argsort(some[:, 0], kind="stable")]
    reach = np.maximum.accumulate(some[:, 1])
    first = np.concatenate([[True], some[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return ranges(some[first, 0], reach[last])


def missing(need: Ranges, have: Ranges) -> Ranges:
    """The bytes of one set that are not in another; `have` must be a union."""
    need = union(need)
    if not len(need) or not len(have):
        return need
    need = need[~covered(need, have)]
    first = np.searchsorted(have[:, 1], need[:, 0], side="right")
    last = np.searchsorted(have[:, 0], need[:, 1], side="left")
    alone = first >= last
    rest = zip(need[~alone], first[~alone], last[~alone], strict=True)
    bits = [need[alone], *(_outside(row, have[a:b]) for row, a, b in rest)]
    return union(np.concatenate(bits))


def _outside(row: Int64[np.ndarray, "2"], have: Ranges) -> Ranges:
    """What of one range lies outside of ranges that all overlap it."""
    starts = np.concatenate([row[:1], have[:, 1]])
    stops = np.concatenate([have[:, 0], row[1:]])
    bits = ranges(starts, stops)
    return bits[bits[:, 1] > bits[:, 0]]


def covered(need: Ranges, have: Ranges) -> Bool[np.ndarray, " _"]:
    """Which ranges lie wholly in one range of a union."""
    if not len(have):
        return need[:, 1] <= need[:, 0]
    at = np.searchsorted(have[:, 0], need[:, 0], side="right") - 1
    inside = (at >= 0) & (need[:, 1] <= have[at, 1])
    return inside | (need[:, 1] <= need[:, 0])


def coalesce(some: Ranges, longest: int) -> Ranges:
    """Fewer and longer ranges: gaps are filled as long as little is read in vain.

    A gap is filled where it is at most `WASTE` of either range beside it, so that all gaps
    together stay below that share of what is needed, or where it is shorter than the headers of a
    request. What is longer than `longest` is cut.
    """
    some = union(some)
    if len(some) > 1:
        lengths = some[:, 1] - some[:, 0]
        gaps = some[1:, 0] - some[:-1, 1]
        split = gaps > np.maximum(FREE_GAP, np.minimum(lengths[1:], lengths[:-1]) * WASTE)
        firsts = np.concatenate([[True], split])
        lasts = np.concatenate([split, [True]])
        some = ranges(some[firsts, 0], some[lasts, 1])
    counts = np.maximum(1, -(-(some[:, 1] - some[:, 0]) // longest))
    at = np.repeat(some[:, 0], counts) + longest * _count_up(counts)
    return ranges(at, np.minimum(at + longest, np.repeat(some[:, 1], counts)))


def _count_up(counts: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """0 1 2 0 1 for counts 3 and 2."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
