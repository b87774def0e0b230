"""TF-IDF over words: an encoder that needs no download.

Letters: m texts, v words.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return re.findall(r"[a-z0-9]+", text.lower())


class WordVectors:
    """TF-IDF rows of unit length; unknown words are left out.

    Source: smoothed idf and unit length as in scikit-learn's `TfidfVectorizer`.
    """

    digest = ""
    """What it knows comes from the training texts."""

    def __init__(self) -> None:
        self.vocabulary: list[str] = []
        self.idf = np.zeros(0)

    def fit(self, training: Sequence[str]) -> None:
        """Learns the words and how rare they are.

        Raises:
            ValueError: if all texts have the same words.
        """
        found = [set(words_of(text)) for text in training]
        if len(set(map(frozenset, found))) < 2:
            raise ValueError(
                "`target` instruction needs at least 2 instructions with different words among "
                f"the training rows, but got {list(training)[:3]!r}. Select more tasks."
            )
        self.vocabulary = sorted(set().union(*found))
        held = np.array([sum(word in words for words in found) for word in self.vocabulary])
        self.idf = np.log((1 + len(found)) / (1 + held)) + 1

    def embed(self, texts: Sequence[str]) -> Float64[np.ndarray, "m v"]:
        """One row a text; a text of unknown words alone is 0."""
        place = {word: i for i, word in enumerate(self.vocabulary)}
        counts = np.zeros((len(texts), len(place)))
        for row, text in enumerate(texts):
            for word in words_of(text):
                if word in place:
                    counts[row, place[word]] += 1
        weights = counts * self.idf
        return weights / np.maximum(np.linalg.norm(weights, axis=1, keepdims=True), 1e-12)
