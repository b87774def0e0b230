"""What a cell's score allows one to conclude, given its controls.

Free of torch, so that reports can be made quickly.
"""

import dataclasses
import math

from lightning_modules.results import CellResult, ControlResult, ProbeResults

DECODABLE = "decodable"
NOT_DECODABLE = "not decodable"
EXPLAINED = "explained by a control"
LEAKY = "leaky"
UNDECIDED = "undecided"
REFUTING = ("shuffled", "untrained", "proprioception", "time")
"""Controls that explain a score away. A random projection does not: what it keeps of the latents
was in the latents."""
LEAK_SHARE = 0.5
"""A control task that is read at least so well, as a share of what the true one gains over the
trivial predictor, was learnt from samples that stand on both sides of the split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """A conclusion in one word, and its reason as a sentence."""

    word: str
    """`decodable`, `not decodable`, `explained by a control`, `leaky` or `undecided`."""
    where: str
    """For whom it holds: `on new episodes`, `on unseen tasks`, `on unseen scenes`."""
    reason: str

    def __str__(self) -> str:
        """The conclusion as a report shows it."""
        about = self.word in (DECODABLE, NOT_DECODABLE)
        return f"{self.word} {self.where}" if about else self.word


WHERE = {"episode": "on new episodes", "task": "on unseen tasks", "suite": "on unseen scenes"}


def betrays_leak(results: ProbeResults, cell: CellResult, shuffled: ControlResult) -> bool:
    """Whether the control task was learnt, which only a leak makes possible."""
    gain = cell.score - results.trivial
    learnt = shuffled.gain.low > 0 and shuffled.gain.value >= LEAK_SHARE * gain
    return learnt and shuffled.gain.value > 0


def explaining_control(cell: CellResult) -> str | None:
    """The control over which the score has the smallest margin, if that may be none at all."""
    margins = {name: control.margin for name, control in cell.controls.items() if name in REFUTING}
    weakest = min(margins, key=lambda name: margins[name].low, default=None)
    return weakest if weakest and not margins[weakest].low > 0 else None


def verdict(results: ProbeResults, cell: CellResult | None = None) -> Verdict:
    """Judges a cell; by default the chosen one.

    Args:
        results: of the test split, or of the validation split where there was no test.
        cell: another cell of the results.
    """
    cell = cell or results.cells[results.chosen]
    where = WHERE.get(results.split_by, "")

    def say(word: str, reason: str) -> Verdict:
        return Verdict(word=word, where=where, reason=reason)

    if results.leaky:
        return say(LEAKY, "Samples of one episode stand in training and in this split.")
    shuffled = cell.controls.get("shuffled")
    if math.isnan(cell.gain[0]):
        return say(UNDECIDED, f"One {results.unit} allows no interval.")
    if shuffled and betrays_leak(results, cell, shuffled):
        return say(
            LEAKY,
            f"Exchanged targets are read with {results.score_name} {shuffled.score.value:.3f}, "
            "which is possible only if this split holds copies of training samples.",
        )
    if not cell.gain[0] > 0:
        return say(
            NOT_DECODABLE,
            f"The {results.score_name} {cell.score:.3f} is not measurably above "
            f"{results.trivial:.3f}, that of a predictor that never looks at the latents.",
        )
    control = explaining_control(cell)
    if control:
        found = cell.controls[control]
        return say(
            EXPLAINED,
            f"The {results.score_name} {cell.score:.3f} is not measurably above "
            f"{found.score.value:.3f}, that of the control {control}.",
        )
    return say(
        DECODABLE,
        f"The {results.score_name} {cell.score:.3f} is above the trivial predictor "
        f"({results.trivial:.3f}) and above every control that was trained.",
    )
