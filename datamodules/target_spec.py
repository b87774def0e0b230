"""What a probe is to predict, in plain types: it travels from the data into the checkpoint."""

import dataclasses
from collections.abc import Mapping
from typing import Any

NEARLY_ONE = 0.95
"""Vectors whose mean pairwise cosine is above this nearly coincide."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """Name, size, objective and trivial prediction of a target."""

    name: str
    """The word of `--data.target`."""
    objective: str
    """The objective that suits it: a name of the registry in `lightning_modules.objectives`."""
    size: int
    """Classes, or dimensions of the vector."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty for a vector."""
    trivial: tuple[float, ...]
    """What a predictor that never looks at the latents would say: the share of each class
    among the training rows, or the mean training vector."""
    table: tuple[tuple[float, ...], ...] = ()
    """Every vector that the target can be (one an instruction), where these are few; a reading is
    judged by which of them it is nearest to."""
    table_names: tuple[str, ...] = ()
    """What each row of the table stands for."""
    basis: str = ""
    """Digest of the training data that the values were estimated from (words, means); empty where
    they stand for themselves."""
    dimensions: tuple[str, ...] = ()
    """Names of a vector's dimensions, where they have any."""
    pairwise_cosine: float | None = None
    """Of embeddings: mean cosine of pairs of different training instructions, before centring."""
    encoder: str = ""
    """Of embeddings: which encoder made them."""
    encoder_digest: str = ""
    """Of embeddings: digest of the encoder's files; empty where it has none."""

    def __post_init__(self) -> None:
        if len(self.trivial) != self.size:
            raise ValueError(
                f"`trivial` must hold {self.size} numbers, but got {len(self.trivial)}."
            )

    @property
    def untrained(self) -> tuple[str, ...]:
        """Classes without a training row: a probe can never say them."""
        shares = zip(self.classes, self.trivial, strict=False)
        return tuple(name for name, share in shares if share == 0)

    @property
    def made_by(self) -> str:
        """What decides an encoder's vectors: its files where it has any, else its name."""
        return f"files {self.encoder_digest[:12]}" if self.encoder_digest else self.encoder

    @property
    def collapsed(self) -> bool:
        """Whether the embeddings nearly coincide, so that a raw cosine says nothing."""
        return self.pairwise_cosine is not None and self.pairwise_cosine > NEARLY_ONE

    @property
    def notes(self) -> tuple[str, ...]:
        """What one must know to read scores on this target, as sentences."""
        if not self.collapsed:
            return ()
        return (
            f"Targets collapsed: the embeddings of different instructions by {self.encoder} "
            f"have a mean cosine of {self.pairwise_cosine:.4f}. Raw cosines say nothing here; "
            "targets are centred, so that a constant answer scores near 0.",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        entry = dataclasses.asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in entry.items()}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "TargetSpec":
        """Reads what `to_json` wrote."""
        words = ("classes", "trivial", "dimensions", "table_names")
        tuples = {word: tuple(entry.get(word, ())) for word in words}
        tuples["table"] = tuple(tuple(row) for row in entry.get("table", ()))
        return cls(**{**entry, **tuples})
