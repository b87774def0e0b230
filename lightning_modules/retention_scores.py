"""What layers of a policy in training still say of their samples: a judge for `ki fit`.

For each layer and each kind of label: the accuracy of a ridge classifier between samples of other
episodes, the share of samples whose nearest class mean (by cosine) is their own, and CKA to the
layer as it was at the first look.

Letters: l layers; n samples; w width; k classes.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from lightning_modules.language.hsic import FEWEST, cka, hsic, kernel

STRENGTH = 0.1
"""Of the ridge, in units of a feature's variance times the number of rows."""


class RetentionScores:
    """Scores layer means; the samples must be the same ones at every look.

    Args:
        labels: by kind (`instruction`, `object`), each sample's label by its key.

    Raises:
        ValueError: if there is no kind of label.
    """

    def __init__(self, labels: Mapping[str, Mapping[str, str]]) -> None:
        if not labels:
            raise ValueError("`labels` must have at least one kind of label, but got none.")
        self._labels = labels
        self._first: dict[str, Float64[np.ndarray, "l n n"]] = {}

    def __call__(
        self, means: Mapping[str, Float[np.ndarray, "l n w"]], keys: tuple[str, ...]
    ) -> dict[str, float]:
        """Scores by name, `instruction_accuracy/prompt/layer03`.

        Raises:
            ValueError: if a sample has no label, or there are too few samples.
        """
        if len(keys) < FEWEST:
            raise ValueError(f"`keys` must name at least {FEWEST} samples, but got {len(keys)}.")
        found: dict[str, float] = {}
        for part, layers in means.items():
            similar = self._cka(part, layers)
            found |= _named(f"cka_to_start/{part}", similar)
            for kind, by_key in self._labels.items():
                missing = [key for key in keys if key not in by_key]
                if missing:
                    raise ValueError(f"`labels` must have {kind} of {missing[0]}, but it has not.")
                _, classes = np.unique([by_key[key] for key in keys], return_inverse=True)
                accuracy, nearest = _decoded(layers, classes, _halves(keys, classes))
                found |= _named(f"{kind}_accuracy/{part}", accuracy)
                found |= _named(f"{kind}_retrieval/{part}", nearest)
        return found

    def _cka(self, part: str, layers: Float[np.ndarray, "l n w"]) -> Float64[np.ndarray, " l"]:
        now = kernel(np.asarray(layers).transpose(1, 0, 2))
        start = self._first.setdefault(part, now)
        return cka(hsic(start, now), hsic(start, start), hsic(now, now))


def _named(name: str, scores: Float64[np.ndarray, " l"]) -> dict[str, float]:
    return {f"{name}/layer{layer:02d}": float(score) for layer, score in enumerate(scores)}


def _halves(keys: tuple[str, ...], classes: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which samples belong to the first half: every second episode of each class."""
    episodes = [key.rpartition("-s")[0] or key for key in keys]
    half = np.zeros(len(keys), bool)
    for number in range(classes.max() + 1):
        own = sorted({episodes[i] for i in np.flatnonzero(classes == number)})
        chosen = set(own[::2])
        for i in np.flatnonzero(classes == number):
            half[i] = episodes[i] in chosen
    return half


def _decoded(
    layers: Float[np.ndarray, "l n w"],
    classes: Int64[np.ndarray, " n"],
    half: Bool[np.ndarray, " n"],
) -> tuple[Float64[np.ndarray, " l"], Float64[np.ndarray, " l"]]:
    """Accuracy of the ridge and of the nearest mean, each half judged by what the other taught.

    Samples of classes that only one half has are left out; NaN where none is left.
    """
    both = np.intersect1d(classes[half], classes[~half])
    kept = np.isin(classes, both)
    hits = np.full((2, len(layers)), np.nan)
    if not len(both):
        return hits[0], hits[1]
    wanted = np.searchsorted(both, classes[kept])
    right = np.zeros((2, len(layers)))
    for layer, features in enumerate(np.asarray(layers, np.float64)):
        for learnt in (half[kept], ~half[kept]):
            known, asked = features[kept][learnt], features[kept][~learnt]
            scale = known.std(0) + 1e-9
            middle = known.mean(0)
            known, asked = (known - middle) / scale, (asked - middle) / scale
            targets = np.eye(len(both))[wanted[learnt]]
            said = [_ridge(known, targets, asked), _nearest(known, targets, asked)]
            right[:, layer] += [(answer == wanted[~learnt]).sum() for answer in said]
    hits = right / kept.sum()
    return hits[0], hits[1]


def _ridge(
    known: Float64[np.ndarray, "m w"],
    targets: Float64[np.ndarray, "m k"],
    asked: Float64[np.ndarray, "q w"],
) -> Int64[np.ndarray, " q"]:
    """Each asked sample's class; solved in the samples' space, which is the smaller one."""
    gram = known @ known.T + STRENGTH * len(known) * np.eye(len(known))
    weights = np.linalg.solve(gram, targets - targets.mean(0))
    return np.argmax(asked @ (known.T @ weights) + targets.mean(0), axis=1)


def _nearest(
    known: Float64[np.ndarray, "m w"],
    targets: Float64[np.ndarray, "m k"],
    asked: Float64[np.ndarray, "q w"],
) -> Int64[np.ndarray, " q"]:
    means = targets.T @ known / targets.sum(0)[:, None]
    means /= np.linalg.norm(means, axis=1, keepdims=True) + 1e-12
    return np.argmax(asked @ means.T, axis=1)
