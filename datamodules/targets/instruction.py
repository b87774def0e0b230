"""The instruction that the policy read, as a vector of its words.

A small encoder that needs no download: TF-IDF over words, centred, and reduced by SVD; all of it
estimated from the distinct instructions of the training rows alone.

Letters: m distinct instructions, v words, k dimensions.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64

from datamodules.clusters import first_places
from datamodules.target_spec import TargetSpec
from datamodules.targets.target import Rows
from jax_bridge.shards import ShardDataset

MOST_DIMENSIONS = 64
SMALLEST_SHARE = 1e-6
"""Directions with a smaller share of the largest singular value are rounding, not words."""


def words_of(instruction: str) -> list[str]:
    """Lower-case words and numbers."""
    return re.findall(r"[a-z0-9]+", instruction.lower())


class WordVectors:
    """TF-IDF and SVD of instructions.

    Source: smoothed idf and unit length as in scikit-learn's `TfidfVectorizer`; latent semantic
    analysis, Deerwester et al. (1990).
    """

    def __init__(self, instructions: Sequence[str]) -> None:
        """Learns words, weights and directions from distinct instructions."""
        found = [set(words_of(text)) for text in instructions]
        self.vocabulary = sorted(set().union(*found))
        place = {word: i for i, word in enumerate(self.vocabulary)}
        df = np.zeros(len(place))
        for words in found:
            df[[place[word] for word in sorted(words)]] += 1
        self.idf = np.log((1 + len(found)) / (1 + df)) + 1
        weights = self.weights(instructions)
        self.mean = weights.mean(0)
        _, sizes, directions = np.linalg.svd(weights - self.mean, full_matrices=False)
        keep = sizes > SMALLEST_SHARE * max(sizes[0], 1e-12)
        directions = directions[keep][:MOST_DIMENSIONS]
        # The sign of a singular vector is arbitrary; this one does not depend on the machine.
        largest = np.abs(directions).argmax(1)
        self.directions = directions * np.sign(
            directions[np.arange(len(directions)), largest, None]
        )

    def weights(self, instructions: Sequence[str]) -> Float64[np.ndarray, "m v"]:
        """TF-IDF rows of unit length; unknown words are left out."""
        place = {word: i for i, word in enumerate(self.vocabulary)}
        counts = np.zeros((len(instructions), len(place)))
        for row, text in enumerate(instructions):
            for word in words_of(text):
                if word in place:
                    counts[row, place[word]] += 1
        weights = counts * self.idf
        return weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)

    def encode(self, instructions: Sequence[str]) -> Float32[np.ndarray, "m k"]:
        """Vectors of unit length, centred on the training instructions."""
        vectors = (self.weights(instructions) - self.mean) @ self.directions.T
        length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return (vectors / length).astype(np.float32)


class Instruction:
    """The instruction's vector."""

    needs_seen_tasks = False

    def __init__(self) -> None:
        self.codes = np.zeros(0, np.int64)
        self.table = np.zeros((0, 0), np.float32)

    def fit(self, dataset: ShardDataset, *, rows: Rows, training: Rows) -> TargetSpec:
        """Fits the encoder on the training rows and encodes every instruction of the data set.

        Raises:
            ValueError: if the training rows hold fewer than two different instructions.
        """
        given, codes = dataset.index.codes("instruction")
        texts, places = first_places([*given, ""])
        self.codes = places[codes]
        known = sorted(texts[code] for code in np.unique(self.codes[training]))
        if len({frozenset(words_of(text)) for text in known}) < 2:
            raise ValueError(
                "`target` instruction needs at least 2 instructions with different words among "
                f"the training rows, but got {known[:3]!r}. Select more tasks."
            )
        self.table = WordVectors(known).encode(texts)
        selected = np.unique(self.codes[rows])
        return TargetSpec(
            name="instruction",
            objective="cosine",
            size=self.table.shape[1],
            trivial=tuple(self.table[self.codes[training]].mean(0).tolist()),
            table=tuple(tuple(vector) for vector in self.table[selected].tolist()),
            table_names=tuple(texts[code] for code in selected),
            basis=hashlib.sha256("\n".join(known).encode()).hexdigest(),
        )

    def values(self, dataset: ShardDataset, rows: Rows) -> Float32[np.ndarray, "b k"]:
        """Vectors."""
        return self.table[self.codes[rows]]
