"""What a grid of probes achieved on one split, with its uncertainty and its yardsticks.

Free of torch, so that reports and figures can be made quickly.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.cell import Cell
from lightning_modules.metrics.estimate import Estimate

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlResult:
    """A control beside a cell."""

    score: Estimate
    gain: Estimate
    """The control's score minus the trivial predictor's, on the same draws."""
    margin: Estimate
    """The cell's score minus the control's, on the same draws; beside the shuffled control this is
    the selectivity of Hewitt & Liang (2019)."""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "ControlResult":
        """Reads what `to_json` of the results wrote."""
        return cls(**{word: Estimate.from_json(entry[word]) for word in entry})


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeLength:
    """How short an online code of the training labels becomes with a cell's latents.

    Source: Voita & Titov (2020), Information-Theoretic Probing with Minimum Description Length.
    """

    bits: float
    uniform: float
    """Bits of the uniform code, which needs no latents."""
    samples: int

    @property
    def compression(self) -> float:
        """How many times shorter than the uniform code; 1 or less means that nothing was read."""
        return self.uniform / self.bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepScore:
    """The score of a cell in one stretch of the rollout."""

    step: int
    """Its first environment step."""
    samples: int
    score: Estimate
    margin: Estimate
    """The score minus that of the strongest yardstick in this stretch, on the same draws."""
    beside: str
    """Which one that is: a control's name, or `trivial`."""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "StepScore":
        """Reads what `to_json` of the results wrote."""
        read = {word: Estimate.from_json(entry[word]) for word in ("score", "margin")}
        return cls(**{**entry, **read})


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimilarityMatrix:
    """Cosines of the chosen cell's readings to the instructions' embeddings, both centred."""

    names: tuple[str, ...]
    read: tuple[tuple[float | None, ...], ...]
    """Row: the true instruction; None where the split has none of its samples."""
    perfect: tuple[tuple[float | None, ...], ...]
    """Cosines of the embeddings themselves."""
    control: tuple[tuple[float | None, ...], ...] = ()
    """The readings of the probe that was trained on exchanged instructions."""
    low: tuple[tuple[float | None, ...], ...] = ()
    """Lower ends of the 95 % intervals of `read`; None where one unit holds the instruction."""
    high: tuple[tuple[float | None, ...], ...] = ()

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "SimilarityMatrix":
        """Reads what `to_json` of the results wrote."""
        words = ("read", "perfect", "control", "low", "high")
        rows = {word: tuple(tuple(row) for row in entry.get(word, ())) for word in words}
        return cls(names=tuple(entry["names"]), **rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellResult:
    """One probe on one split."""

    cell: Cell
    score: float
    interval: Interval
    """95 % interval of the score, by bootstrap over the split's units; NaN with fewer than two."""
    gain: Interval
    """The same of the score minus the trivial predictor's, on the same draws."""
    loss: float
    balanced_accuracy: float | None
    best_epoch: int
    """The epoch whose weights are used; -1 if none was better than the start."""
    validation_loss: float | None
    """None where the grid was never validated."""
    by_task: dict[str, float]
    """The score on the samples of each task of the split."""
    controls: dict[str, ControlResult] = dataclasses.field(default_factory=dict)
    """By the control's name."""
    metrics: dict[str, Estimate] = dataclasses.field(default_factory=dict)
    """Further metrics by name."""
    code: CodeLength | None = None
    """None where no online code was trained."""
    p_value: float | None = None
    """How often permuted labels score as high, one-sided; None without a permutation test."""
    p_corrected: float | None = None
    """How often the best of all cells scores as high with permuted labels."""
    null_score: float | None = None
    """Mean score with permuted labels."""
    penalty: float | None = None
    """Of a closed form, as chosen on the validation split; None where the probe was trained."""
    by_step: tuple[StepScore, ...] = ()
    """The score by stretch of the rollout; empty where there is one only."""

    @property
    def selectivity(self) -> Estimate | None:
        """The score minus that on the control task; None where it was not trained."""
        shuffled = self.controls.get("shuffled")
        return shuffled.margin if shuffled else None

    @property
    def best_control(self) -> tuple[str, ControlResult] | None:
        """The control with the highest score."""
        ordered = sorted(self.controls.items(), key=lambda item: -item[1].score.value)
        return ordered[0] if ordered else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeResults:
    """All probes on one split."""

    split: str
    target: str
    score_name: str
    """`accuracy` or `cosine`."""
    samples: int
    episodes: int
    unit: str
    """What was drawn for the intervals: `episode`, `task` or `suite`, as the split keeps them."""
    units: int
    trivial: float
    """Score of the majority class or mean vector of the training rows."""
    trivial_interval: Interval
    chance: float
    """1/classes, or 0 for a cosine."""
    classes: tuple[str, ...]
    cells: tuple[CellResult, ...]
    chosen: int
    """The cell with the lowest validation loss: the test data had no say in the choice."""
    confusion: tuple[tuple[int, ...], ...]
    """Of the chosen cell: true class, then predicted class; empty for vectors."""
    task_intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    """Of the chosen cell: 95 % interval of the score on each task, its episodes drawn; NaN where
    there is one episode."""
    reliability: tuple[dict[str, Any], ...] = ()
    """Of the chosen cell: confidence, accuracy and samples of each bin of stated probability, and
    the 95 % interval of the accuracy; None where one unit fills the bin."""
    control_reliability: tuple[dict[str, Any], ...] = ()
    """The same of the probe that was trained on exchanged targets."""
    class_recall: dict[str, Estimate] = dataclasses.field(default_factory=dict)
    """Of the chosen cell: which share of each class that occurs was recognised."""
    control_recall: dict[str, float] = dataclasses.field(default_factory=dict)
    """The same of the probe that was trained on exchanged targets."""
    similarity: SimilarityMatrix | None = None
    """Of the chosen cell, where the targets are embeddings of a few instructions."""
    split_by: str = "episode"
    """What the split keeps together; `sample` leaks."""
    permutation: str = ""
    """What was done with permuted labels: `refit` (every probe solved anew) or `held_out` (the
    probe's predictions compared with the labels of other units); empty without a test."""
    permutations: int = 0
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    """Controls that the data could not give, and why."""

    @property
    def leaky(self) -> bool:
        """Whether samples of one episode stand on both sides of the split."""
        return self.split_by == "sample"

    def to_json(self) -> dict[str, Any]:
        """Plain types; NaN becomes null."""
        return json.loads(json.dumps(dataclasses.asdict(self)), parse_constant=lambda _: None)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "ProbeResults":
        """Reads what `to_json` wrote; leaves out what another version wrote besides."""
        names = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in entry.items() if name in names}
        values["cells"] = tuple(_cell_result(cell) for cell in entry["cells"])
        values["trivial_interval"] = _interval(entry["trivial_interval"])
        values["classes"] = tuple(entry["classes"])
        values["confusion"] = tuple(tuple(row) for row in entry["confusion"])
        intervals = entry.get("task_intervals", {})
        values["task_intervals"] = {task: _interval(ends) for task, ends in intervals.items()}
        for word in ("reliability", "control_reliability"):
            values[word] = tuple(entry.get(word, ()))
        recall = entry.get("class_recall", {})
        values["class_recall"] = {name: Estimate.from_json(e) for name, e in recall.items()}
        similarity = entry.get("similarity")
        values["similarity"] = similarity and SimilarityMatrix.from_json(similarity)
        return cls(**values)


def _interval(pair: list[float | None]) -> Interval:
    low, high = (float("nan") if value is None else value for value in pair)
    return low, high


def _cell_result(entry: Mapping[str, Any]) -> CellResult:
    values = {**entry, "cell": Cell.from_json(entry["cell"])}
    values |= {word: _interval(entry[word]) for word in ("interval", "gain")}
    controls, metrics = entry.get("controls", {}), entry.get("metrics", {})
    values["controls"] = {name: ControlResult.from_json(c) for name, c in controls.items()}
    values["code"] = CodeLength(**entry["code"]) if entry.get("code") else None
    values["by_step"] = tuple(StepScore.from_json(e) for e in entry.get("by_step", ()))
    values["metrics"] = {name: Estimate.from_json(e) for name, e in metrics.items()}
    return CellResult(**values)


def load_results(path: Path) -> ProbeResults:
    """Reads a result file that a run wrote."""
    return ProbeResults.from_json(json.loads(path.read_text(encoding="utf-8")))
