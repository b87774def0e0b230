"""`fit_tokenizer`: a FAST tokenizer from a data set, and how well it does on other episodes.

Letters: n chunks; h horizon; a action dimensions.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int64

from jax_bridge.demos.chunk_stream import ChunkStream, OnRows
from jax_bridge.fast.coefficients import rounding_bound
from jax_bridge.fast.learn import MARGIN, learn_tokenizer
from jax_bridge.fast.normalised import KIND, normalised_chunks
from jax_bridge.fast.tokenizer import FastTokenizer
from jax_bridge.policies.normalisation import EPSILON, NormStats, unnormalise
from jax_bridge.shards import split_rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitPlan:
    """How a tokenizer is learnt."""

    scale: float = 10.0
    """Coefficients a unit of action; more is finer, and longer."""
    vocab_size: int = 2048
    """Most codes."""
    margin: float = MARGIN
    """By which share of itself the range is made wider at either end."""
    held_out: float = 0.1
    """Share of the episodes that it is judged by and does not learn from."""
    most_chunks: int = 200_000
    """Chunks that are held in memory, of either part."""
    seed: int = 0
    """Of the choice of episodes and chunks."""

    def __post_init__(self) -> None:
        for name in ("scale", "vocab_size", "most_chunks"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, but got {getattr(self, name)}.")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"`held_out` must lie in [0, 1), but got {self.held_out}.")
        if self.margin < 0:
            raise ValueError(f"`margin` must not be negative, but got {self.margin}.")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """How a tokenizer does on some chunks."""

    lengths: Int64[np.ndarray, " n"]
    """Codes of each chunk."""
    naive: int
    """Tokens of a chunk where each number is one."""
    rms_error: Float64[np.ndarray, " a"]
    """Root mean square of decoded minus true actions, in robot units."""
    largest_error: Float64[np.ndarray, " a"]
    bound: Float64[np.ndarray, " a"]
    """What rounding alone can do, in robot units."""
    clipped: int
    """Chunks with coefficients outside the range."""
    undecodable: int
    """Chunks whose codes the strict decoder refuses."""
    codes_used: int
    """Different codes."""

    @property
    def compression(self) -> float:
        """Naive tokens for one of FAST's."""
        return self.naive / float(self.lengths.mean())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A tokenizer, and how it does."""

    tokenizer: FastTokenizer
    learnt: Judged
    """On the chunks that it learnt from."""
    held_out: Judged | None
    """On chunks of other episodes; None where there are too few episodes."""


def fit_tokenizer(
    stream: ChunkStream, norm_stats: NormStats, plan: FitPlan, on_rows: OnRows | None = None
) -> Fit:
    """Learns from some episodes, judges by the others.

    Raises:
        ValueError: if the statistics are degenerate, or the vocabulary is too small.
    """
    chosen = _chosen_rows(stream, plan)
    parts = [_chunks(stream, norm_stats, rows, on_rows) for rows in chosen]
    tokenizer = learn_tokenizer(
        parts[0], scale=plan.scale, vocab_size=plan.vocab_size, margin=plan.margin
    )
    judged = [judge(tokenizer, part, norm_stats) if len(part) else None for part in parts]
    assert judged[0] is not None
    return Fit(tokenizer=tokenizer, learnt=judged[0], held_out=judged[1])


def judge(
    tokenizer: FastTokenizer, chunks: Float64[np.ndarray, "n h a"], norm_stats: NormStats
) -> Judged:
    """Encodes and decodes normalised chunks."""
    _, steps, dims = chunks.shape
    encoded = tokenizer.encode(chunks, out_of_range="clip")
    decoded = tokenizer.decode(encoded.codes, steps=steps, dims=dims, on_error="zeros")
    good = np.array([error is None for error in decoded.errors])
    true, found = (
        unnormalise(some, norm_stats.actions, KIND) for some in (chunks, decoded.actions)
    )
    error = (found - true)[good] if good.any() else np.full((1, steps, dims), np.nan)
    low, high = norm_stats.actions.pair(KIND)
    return Judged(
        lengths=np.array([len(codes) for codes in encoded.codes], np.int64),
        naive=steps * dims,
        rms_error=np.sqrt(np.square(error).mean((0, 1))),
        largest_error=np.abs(error).max((0, 1)),
        bound=rounding_bound(steps, tokenizer.settings.scale) * (high - low + EPSILON)[:dims] / 2,
        clipped=int((encoded.clipped > 0).sum()),
        undecodable=decoded.failed,
        codes_used=len(np.unique(np.concatenate(encoded.codes))),
    )


def _chosen_rows(stream: ChunkStream, plan: FitPlan) -> list[Int64[np.ndarray, "_"]]:
    fractions = (1 - plan.held_out, plan.held_out, 0.0)
    split = split_rows(stream.dataset.index, fractions=fractions, seed=plan.seed)
    parts = [np.intersect1d(split[name], stream.rows) for name in ("train", "val")]
    if not len(parts[0]):
        parts = [stream.rows, stream.rows[:0]]
    generator = np.random.default_rng(plan.seed)
    return [
        np.sort(generator.choice(rows, plan.most_chunks, replace=False))
        if len(rows) > plan.most_chunks
        else rows
        for rows in parts
    ]


def _chunks(
    stream: ChunkStream,
    norm_stats: NormStats,
    rows: Int64[np.ndarray, "_"],
    on_rows: OnRows | None,
) -> Float64[np.ndarray, "n h a"]:
    found = [
        normalised_chunks(chunks, norm_stats.actions)
        for _, chunks in stream.part(rows).chunks(on_rows)
    ]
    sizes = stream.sizes
    return np.concatenate([np.empty((0, sizes.horizon, sizes.action_dim)), *found])
