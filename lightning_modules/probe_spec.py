"""What a probe grid must know about its data; saved in the checkpoint as plain types."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from datamodules.cell import Cell
from datamodules.feature_source import SourceSpec
from datamodules.target_spec import TargetSpec
from lightning_modules.probe_group import GroupSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    """The sources, the groups of cells and the target of a grid of probes."""

    sources: tuple[SourceSpec, ...]
    """Of the batch's features."""
    groups: tuple[GroupSpec, ...]
    """Those that are asked about first, then the controls."""
    target: TargetSpec
    fingerprint: str
    """Of how the data set was made."""
    split: dict[str, Any]
    """How its rows are split."""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are asked about, over all fields."""
        return tuple(cell for group in self.groups if group.is_main for cell in group.cells)

    @property
    def prefixes(self) -> bool:
        """Whether there are probes on prefixes of the training units: an online code."""
        return any(group.prefix for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        """Plain types, which `torch.load(weights_only=True)` reads."""
        return {
            "sources": [source.to_json() for source in self.sources],
            "groups": [group.to_json() for group in self.groups],
            "target": self.target.to_json(),
            "fingerprint": self.fingerprint,
            "split": self.split,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "ProbeSpec":
        """Reads what `to_json` wrote."""
        return cls(
            sources=tuple(SourceSpec.from_json(source) for source in entry["sources"]),
            groups=tuple(GroupSpec.from_json(group) for group in entry["groups"]),
            target=TargetSpec.from_json(entry["target"]),
            fingerprint=entry.get("fingerprint", ""),
            split=entry.get("split", {}),
        )

    def check_data(self, other: "ProbeSpec") -> None:
        """Refuses data that this grid of probes cannot read, or that it was trained on in part.

        Raises:
            ValueError: if cells, widths or target differ, or the same data are split otherwise.
        """
        pairs = (
            ("cells", [c.name for c in self.cells], [c.name for c in other.cells]),
            ("kinds of features", *([s.kind for s in x.sources] for x in (self, other))),
            ("widths", *([s.width for s in x.sources] for x in (self, other))),
            ("target", self.target.name, other.target.name),
            ("classes", self.target.classes, other.target.classes),
            ("target size", self.target.size, other.target.size),
        )
        for word, mine, given in pairs:
            if mine != given:
                raise ValueError(
                    f"`data` must have the {word} that the checkpoint was trained on, "
                    f"{shorten(mine)}, but got {shorten(given)}. Choose the same selection "
                    "(the run's config.yaml holds it) or fit a new probe."
                )
        if self.target.made_by != other.target.made_by:
            raise ValueError(
                f"`encoder` must give instructions the vectors that they had in training, by "
                f"{self.target.made_by}, but got {other.target.made_by}. Give that encoder, or fit "
                "a new probe."
            )
        if self.target.basis != other.target.basis:
            raise ValueError(
                f"`data` must give target {self.target.name} the meaning that it had in training, "
                "but got other training samples, from which it would be estimated anew. Choose "
                "the same selection (the run's config.yaml holds it) or fit a new probe."
            )
        if self.fingerprint == other.fingerprint and self.split != other.split:
            raise ValueError(
                f"`data` must be split as in training, {self.split}, but got {other.split}: "
                "samples that were trained on would be tested. Leave the split as it was, or fit "
                "a new probe."
            )


def shorten(value: object, limit: int = 120) -> str:
    """The value as text, cut in the middle where it is long."""
    text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 30]} … {text[-25:]}"
