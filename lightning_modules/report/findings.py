"""The sentences of a report: what the numbers say, warn of, and do not show."""

from lightning_modules.figures.control_bars import control_word
from lightning_modules.figures.style import trivial_word
from lightning_modules.report.run_record import RunRecord
from lightning_modules.results import CellResult, ProbeResults
from lightning_modules.verdict import (
    DECODABLE,
    EXPLAINED,
    LEAKY,
    NOT_DECODABLE,
    UNDECIDED,
    verdict,
)

FEW_UNITS = 6
"""Below this many, intervals are known to be too narrow, though they are widened for few units."""
LEVEL = 0.05
"""Corrected p-values below this are counted."""
PERMUTED: dict[str, str] = {
    "refit": "every probe was solved anew for each permutation of the labels of whole {unit}s",
    "held_out": "the probes stayed as they are, and their predictions on held-out {unit}s were "
    "compared with the labels of other {unit}s",
}
"""What was done with the permuted labels."""


def span(cell: CellResult, unit: str) -> str:
    """The score with its interval."""
    low, high = cell.interval
    if low != low:
        return f"{cell.score:.3f} (no interval: all samples are of one {unit})"
    return f"{cell.score:.3f} (95 % interval {low:.3f} to {high:.3f})"


VERDICTS: dict[str, str] = {
    DECODABLE: "A linear probe can read {target} here, {where}, better than without looking.",
    NOT_DECODABLE: "The probe does not read {target} measurably better {where} than a predictor "
    "that never looks at the latents.",
    EXPLAINED: "What the probe reads of {target} needs no latents of this policy to explain it.",
    LEAKY: "These scores say nothing about new episodes.",
    UNDECIDED: "It cannot be told whether {target} can be read here.",
}
"""The opening sentence of each verdict."""


def above_trivial(results: ProbeResults) -> int:
    """How many cells beat the trivial predictor with their whole interval."""
    return sum(cell.gain[0] > 0 for cell in results.cells)


def plain_words(results: ProbeResults) -> list[str]:
    """What the numbers say."""
    chosen, word = results.cells[results.chosen], trivial_word(results.score_name)
    trivial = f"{word} alone: {results.trivial:.3f}, chance: {results.chance:.3f}"
    found = verdict(results)
    opening = VERDICTS[found.word].format(target=results.target, where=found.where)
    count, cells = above_trivial(results), len(results.cells)
    lines = [
        f"{opening} {found.reason} At {chosen.cell.words}, the cell with the lowest validation "
        f"loss, its {results.score_name} on the {results.split} split is "
        f"{span(chosen, results.unit)}; {trivial}.",
        f"{count} of {cells} cells lie above the trivial predictor with their whole interval. "
        "The intervals are for one cell at a time: among many cells a few stand out by luck.",
        f"The numbers rest on {results.samples} samples of {results.episodes} episodes. For the "
        f"intervals whole {results.unit}s were drawn, {results.units} of them, because samples "
        f"of one {results.unit} resemble each other.",
    ]
    lines += permutation_words(results) + control_words(results)
    if chosen.interval[0] == chosen.interval[1]:
        lines.append(
            f"An interval without width means that every {results.unit} gave the same score, not "
            f"that nothing is uncertain: after {results.units} {results.unit}s without an "
            f"exception, up to {min(1.0, 3 / results.units):.0%} exceptions are still compatible "
            "with it (rule of three)."
        )
    return lines


def permutation_words(results: ProbeResults) -> list[str]:
    """What the permutation test says, and how it was made."""
    if not results.permutation:
        return []
    chosen = results.cells[results.chosen]
    below = sum((cell.p_corrected or 0) < LEVEL for cell in results.cells)
    count = f"{below} {'cell has' if below == 1 else 'cells have'}"
    how = PERMUTED[results.permutation].format(unit=results.unit)
    return [
        f"Permutation test ({results.permutations} permutations): {how}. In the chosen cell "
        f"permuted labels give a {results.score_name} of {chosen.null_score:.3f} on average and "
        f"reach its score with p = {chosen.p_value:.4f}; the best of all {len(results.cells)} "
        f"cells reaches it with p = {chosen.p_corrected:.4f}. {count} a corrected p "
        f"below {LEVEL}."
    ]


def control_words(results: ProbeResults) -> list[str]:
    """What the controls of the chosen cell say."""
    chosen, lines = results.cells[results.chosen], []
    if chosen.controls:
        listed = "; ".join(f"{control_word(n)} {c.score}" for n, c in chosen.controls.items())
        lines.append(f"Controls of the same cell, trained in the same pass: {listed}.")
    selectivity = chosen.selectivity
    if selectivity is not None:
        lines.append(
            f"Selectivity (the score minus that on exchanged targets): {selectivity}. A probe that "
            "learns exchanged targets as well has memorised episodes, or the split leaks."
        )
    if chosen.code is not None:
        lines.append(
            f"With these latents the training labels can be sent in {chosen.code.bits:.0f} bits "
            f"in place of {chosen.code.uniform:.0f}: {chosen.code.compression:.2f} times shorter "
            "(online code)."
        )
    left = "; ".join(f"{control_word(name)}: {why}" for name, why in results.left_out.items())
    return [*lines, f"Controls that were left out: {left}."] if left else lines


def warnings_of(run: RunRecord) -> list[str]:
    """What a reader must know before anything else."""
    results, data = run.results, run.data
    lines = []
    if data.get("leaky"):
        lines.append(
            "Leaky split: samples of one episode stand in training and in this split. The scores "
            "say little about new episodes."
        )
    if results.split != "test":
        lines.append(
            "Validation split: the epoch of each cell was chosen on these samples, so the scores "
            "are too good. `vla-lens test` gives scores on samples that nothing was chosen on."
        )
    if results.units < 2:
        lines.append(
            f"All samples are of one {results.unit}: how far the score would be off on another "
            "one cannot be said, and there are no intervals."
        )
    elif results.units < FEW_UNITS:
        lines.append(
            f"Only {results.units} {results.unit}s: bootstrap intervals from so few are too narrow."
        )
    lines += data.get("target_notes", [])
    unseen = data.get("untrained_classes", [])
    if unseen:
        lines.append(
            f"{len(unseen)} of {len(results.classes)} classes have no training sample, so that no "
            f"probe can recognise them: {', '.join(unseen[:5])}{' ...' * (len(unseen) > 5)}. More "
            "episodes would help."
        )
    if data.get("model", {}).get("weights") == "random":
        lines.append(
            "The policy had random weights: this shows what its architecture and its inputs pass "
            "on, not what training taught it."
        )
    unknown = data.get("dropped_without_value", 0)
    if unknown:
        lines.append(f"{unknown} samples were left out: their target is unknown.")
    dropped = data.get("dropped_without_valid_token", 0)
    if dropped:
        lines.append(f"{dropped} samples were left out: the region has no valid token in them.")
    return lines


def limits(run: RunRecord) -> list[str]:
    """What must not be concluded."""
    results, data = run.results, run.data
    lines = [
        "That a probe can read something does not mean that the policy uses it. That takes an "
        "intervention.",
        "A linear probe that fails does not prove absence: the information may be there in a "
        "form that no linear map finds.",
    ]
    if data.get("split", {}).get("by") == "episode":
        lines.append(
            "Training and this split share their tasks; only the episodes are new. Nothing here "
            "speaks about tasks or instructions that were never trained."
        )
    words = {"text", "instruction"}
    if results.cells[0].cell.region in words and results.target in {"task_id", "instruction"}:
        lines.append(
            "These are the tokens of the prompt, which names the task: a high score is expected "
            "at every layer that keeps the words."
        )
    samples = data.get("splits", {}).get("train", {}).get("samples")
    if samples and data.get("width", 0) > samples:
        lines.append(
            f"The latents have {data['width']} dimensions and the probes saw {samples} samples: "
            "any training labels could be fitted, so only held-out scores count."
        )
    return lines
