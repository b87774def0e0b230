"""Hashes that are the same on every machine, in every version, for ever."""

import hashlib

import numpy as np
from jaxtyping import Int64, UInt64


def stable_hash(*parts: object) -> int:
    """64 bits out of the parts' texts."""
    text = "\x1f".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def mix(numbers: Int64[np.ndarray, " n"], seed: int) -> UInt64[np.ndarray, " n"]:
    """One random-looking 64-bit number for each number.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (SplitMix64).
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = (numbers.astype(np.uint64) + np.uint64(1)) * step + np.uint64(seed)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
