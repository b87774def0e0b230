"""Action chunks a second into FAST codes and back, on one core.

Run as `python -m benchmarks.fast [--out FILE]`. The other side works as the published processor
does: the DCT of all chunks, then each chunk by itself through the same BPE. Both give the same
codes, which is checked. Chunks are smooth, 50 steps of 7 numbers, with a little noise; the
tokenizer has learnt 2,048 codes from other chunks of the kind.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft

from benchmarks.interleaved import interleave, show

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from jax_bridge.fast.tokenizer import FastTokenizer

WANTED = 5_000
"""Encoded chunks a second that are asked for."""
STEPS, DIMS = 50, 7


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="FAST, encoded and decoded, timed.")
    parser.add_argument("--chunks", type=int, default=4096, help="of a batch")
    parser.add_argument("--learn", type=int, default=10_000, help="chunks to learn from")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the result there as JSON")
    arguments = parser.parse_args()
    one_core()
    result = measure(arguments)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


def one_core() -> None:
    """Keeps this process, and the threads of the BPE, on one core."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Times both sides in turn; prints each figure as soon as it is there."""
    from tokenizers import Tokenizer

    from jax_bridge.fast.learn import learn_tokenizer

    begin = time.perf_counter()
    tokenizer = learn_tokenizer(smooth_chunks(arguments.learn, seed=0))
    learnt = time.perf_counter() - begin
    chunks, bpe = smooth_chunks(arguments.chunks, seed=1), Tokenizer.from_str(tokenizer.to_str())

    def published() -> list[list[int]]:
        return one_by_one(tokenizer, bpe, chunks)

    codes = tokenizer.encode(chunks, out_of_range="clip").codes
    same = [np.array_equal(a, b) for a, b in zip(codes, published(), strict=True)]
    assert all(same), f"{same.count(False)} chunks have other codes"
    tokens = float(np.mean([len(some) for some in codes]))
    print(f"{tokenizer.codes} codes learnt from {arguments.learn:,} chunks in {learnt:.1f} s; "
          f"{tokens:.1f} tokens a chunk of {STEPS * DIMS} numbers", flush=True)  # fmt: skip

    def decode() -> object:
        return tokenizer.decode(codes, steps=STEPS, dims=DIMS, on_error="zeros")

    encoding = interleave(
        {
            "ours": rate(lambda: tokenizer.encode(chunks, out_of_range="clip"), len(chunks)),
            "chunk by chunk, as published": rate(published, len(chunks)),
        },
        arguments.rounds, unit="chunks/s",
    )  # fmt: skip
    show(f"encode, wanted {WANTED:,}", encoding)
    decoding = interleave(
        {"ours, strict": rate(decode, len(chunks))}, arguments.rounds, unit="chunks/s"
    )
    show("decode", decoding)
    return {
        "benchmark": "fast",
        "workload": f"{len(chunks)} chunks of {STEPS} x {DIMS}, {tokenizer.codes} codes, one core",
        "encode": encoding,
        "decode": decoding,
        "wanted": WANTED,
        "tokens_a_chunk": tokens,
        "learning_seconds": learnt,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("numpy", "scipy", "tokenizers")},
        },
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine()},
    }


def smooth_chunks(count: int, *, seed: int) -> np.ndarray:
    """Sums of three slow sines with noise, mostly in [-1, 1]; [count, STEPS, DIMS]."""
    generator = np.random.default_rng(seed)
    time_axis = np.linspace(0, 1, STEPS)[:, None]
    chunks = np.zeros((count, STEPS, DIMS))
    for _ in range(3):
        size, speed, phase = generator.uniform(0, 1, (3, count, 1, DIMS))
        chunks += 0.5 * size * np.sin(2 * np.pi * (1.5 * speed * time_axis + phase))
    return chunks + generator.normal(0, 0.01, chunks.shape)


def rate(work: Callable[[], object], count: int) -> Callable[[], float]:
    """A side: how many chunks a second some work does."""

    def side() -> float:
        begin = time.perf_counter()
        work()
        return count / (time.perf_counter() - begin)

    return side


def one_by_one(tokenizer: "FastTokenizer", bpe: "Tokenizer", chunks: np.ndarray) -> list[list[int]]:
    """The published processor's way: one call of the BPE for each chunk."""
    settings = tokenizer.settings
    spectrum = np.asarray(scipy.fft.dct(chunks, axis=1, norm="ortho"))
    low, high = tokenizer.range
    whole = np.clip(np.around(spectrum * settings.scale), low, high) - settings.min_token
    texts = ("".join(map(chr, row.flatten().astype(int))) for row in whole)
    return [bpe.encode(text, add_special_tokens=False).ids for text in texts]


if __name__ == "__main__":
    main()
