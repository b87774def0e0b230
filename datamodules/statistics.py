"""Mean and standard deviation of every feature over the training rows, in one cached pass.

Letters: b batch, c cells, d width.
"""

import dataclasses
import hashlib
import os
import uuid
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Float, Float64
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureStatistics:
    """By what features are centred and scaled."""

    mean: Float[Tensor, "c d"]
    std: Float[Tensor, "c d"]
    """1 where a feature never varies."""
    constant: int
    """How many features never vary."""


AT_ONCE = 2**18
"""Numbers that are held in float64 together: few enough to stay in a processor's cache."""


class Moments:
    """Running mean and sum of squared deviations in float64; batches may come in any sizes.

    Source: Chan, Golub & LeVeque (1979), the pairwise update of the variance.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Float64[Tensor, "c d"] | None = None
        self.squares: Float64[Tensor, "c d"] | None = None

    def update(self, features: Float[Tensor, "b c d"]) -> None:
        """Adds one batch."""
        n, mean, squares = batch_moments(features)
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = n, mean, squares
            return
        delta, total = mean - self.mean, self.count + n
        self.mean = self.mean + delta * (n / total)
        self.squares = self.squares + squares + delta.square() * (self.count * n / total)
        self.count = total

    def statistics(self) -> FeatureStatistics:
        """The result; a feature that varies by less than its own rounding counts as constant."""
        assert self.mean is not None
        assert self.squares is not None
        std = (self.squares / self.count).sqrt()
        constant = std <= 1e-7 * self.mean.abs()
        std = torch.where(constant, torch.ones_like(std), std)
        return FeatureStatistics(
            mean=self.mean.float(), std=std.float(), constant=int(constant.sum())
        )


def batch_moments(
    features: Float[Tensor, "b c d"],
) -> tuple[int, Float64[Tensor, "c d"], Float64[Tensor, "c d"]]:
    """Number, mean and sum of squared deviations of one batch."""
    flat, n = features.flatten(1), len(features)
    mean = torch.empty(flat.shape[1], dtype=torch.float64, device=flat.device)
    squares = torch.empty_like(mean)
    step = max(1, AT_ONCE // n)
    for start in range(0, len(mean), step):
        part = slice(start, start + step)
        values = flat[:, part].double()
        mean[part] = values.mean(0)
        squares[part] = values.sub_(mean[part]).square_().sum(0)
    return n, mean.view(features.shape[1:]), squares.view(features.shape[1:])


def feature_statistics(batches: Iterable[Float[Tensor, "b c d"]]) -> FeatureStatistics:
    """Reads the stream once; at least one batch."""
    moments = Moments()
    for features in batches:
        moments.update(features)
    return moments.statistics()


def cache_folder() -> Path:
    """Where statistics are kept: `$VLA_LENS_CACHE`, else the user's cache folder."""
    given = os.environ.get("VLA_LENS_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vla-lens"


def statistics_file(folder: Path, *parts: str) -> Path:
    """The file of a selection; `parts` say which data and which rows and cells."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return folder / "statistics" / f"{digest[:32]}.safetensors"


def save_statistics(path: Path, statistics: FeatureStatistics) -> None:
    """Writes the file at once or not at all; where nothing can be written, warns and goes on."""
    part = path.with_suffix(f".{uuid.uuid4().hex}.part")
    tensors = {
        "mean": statistics.mean,
        "std": statistics.std,
        "constant": torch.tensor(statistics.constant),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"The features' statistics are not kept for the next run: {error}. "
            "Set $VLA_LENS_CACHE to a folder that can be written.",
            stacklevel=2,
        )


def load_statistics(path: Path) -> FeatureStatistics | None:
    """Reads the file, or returns None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError):
        return None
    return FeatureStatistics(
        mean=tensors["mean"], std=tensors["std"], constant=int(tensors["constant"])
    )
