"""Statistics of recordings as JSON and Markdown."""

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lightning_modules.recordings.action_sums import ActionSums
from lightning_modules.recordings.episode_facts import Recordings
from lightning_modules.recordings.sampling_plan import SamplingPlan
from lightning_modules.recordings.strata import NONE, STANDS_FOR, stratify

MOST_ROWS = 30
"""Rows of a table; what is left out is counted."""


def recordings_json(found: Recordings) -> dict[str, Any]:
    """Everything, in plain types."""
    lengths = np.asarray([facts.length for facts in found.episodes])
    return {
        "files": found.files,
        "episodes": len(found.episodes),
        "steps": int(lengths.sum()),
        "lengths": {
            "min": int(lengths.min()), "median": float(np.median(lengths)),
            "mean": float(lengths.mean()), "max": int(lengths.max()),
        },
        "layouts": _counted(facts.layout for facts in found.episodes),
        "cameras": _counted(camera for facts in found.episodes for camera in facts.cameras),
        "instructions": _counted(facts.instruction or NONE for facts in found.episodes),
        "success": _counted(str(facts.success) for facts in found.episodes),
        "actions": {str(size): sums.to_json() for size, sums in sorted(found.actions.items())},
        "strata": strata_counts(found),
        "skipped": found.skipped,
    }  # fmt: skip


def _counted(values: Iterable[str]) -> dict[str, int]:
    """How often each occurs, the most frequent first."""
    return dict(sorted(collections.Counter(values).items(), key=lambda item: (-item[1], item[0])))


def strata_counts(found: Recordings) -> dict[str, dict[str, int]]:
    """How many episodes each label of the usual strata has."""
    counts = {}
    for word in (*STANDS_FOR, "curvature", "duration"):
        strata = stratify(found.episodes, [word], None)
        counts[f"{word} ({strata.sources[word]})"] = _counted(label for (label,) in strata.labels)
    return counts


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table of the first rows."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        lines.append(f"\n{len(rows) - MOST_ROWS} more are in the JSON file.")
    return lines


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")


def recordings_markdown(found: Recordings, figures: Sequence[str]) -> str:
    """The report, with links to figures."""
    said = recordings_json(found)
    lengths = said["lengths"]
    lines = [
        "# Recorded episodes", "",
        f"{said['files']} files, {said['episodes']} episodes, {said['steps']:,} steps; an episode "
        f"has {lengths['min']} to {lengths['max']} steps, half of them at most "
        f"{lengths['median']:g}. {len(found.skipped)} files or episodes could not be read.", "",
    ]  # fmt: skip
    for name in ("instructions", "cameras", "layouts", "success"):
        lines += [f"## {name.capitalize()}", ""]
        lines += table((name, "episodes"), list(said[name].items()))
        lines += [""]
    lines += ["## Strata", ""]
    for name, counts in said["strata"].items():
        lines += [*table((name, "episodes"), list(counts.items())), ""]
    for size, sums in sorted(found.actions.items()):
        lines += [f"## Actions of {size} numbers", "", *_actions(sums), ""]
    if found.skipped:
        lines += ["## What could not be read", ""]
        lines += [*table(("where", "why"), list(found.skipped.items())), ""]
    lines += [f"![{name}]({name})\n" for name in figures]
    return "\n".join(lines)


def _actions(sums: ActionSums) -> list[str]:
    said = sums.to_json()
    shares = list(said["quantiles"])
    rows = [
        [dim, *(said[name][dim] for name in ("mean", "std", "min")),
         *(said["quantiles"][share][dim] for share in shares), said["max"][dim]]
        for dim in range(len(said["mean"]))
    ]  # fmt: skip
    head = ["dim", "mean", "std", "min", *(f"q{share}" for share in shares), "max"]
    error = 100 * said["quantile_relative_error"]
    return [
        f"{said['steps']:,} steps of {said['episodes']} episodes; quantiles are off by at most "
        f"{error:.2g} %.", "", *table(head, rows),
    ]  # fmt: skip


def plan_markdown(plan: SamplingPlan, name: str) -> str:
    """The document that lists what was chosen, and why."""
    settings = plan.settings
    lines = [
        "# Sampling plan", "",
        f"{plan.frames} frames of {len(plan.chosen)} episodes, {settings.frames_per_episode} an "
        f"episode, by {', '.join(settings.by)}, seed {settings.seed}. `{name}` is the plan for "
        "programs: `vla-lens predict ... --data.plan`.", "",
        *(f"- `{word}`: {source}" for word, source in plan.sources.items()), "",
        *(f"**Warning:** {warning}.\n" for warning in plan.warnings),
        "## Strata", "",
    ]  # fmt: skip
    lines += table(
        (*settings.by, "episodes", "chosen"),
        [(*label, count, plan.allotted[label]) for label, count in plan.available.items()],
    )
    lines += ["", "## Chosen", "", "| episode | frames | reason |", "|---|---|---|"]
    lines += [
        f"| {_cell(e.name)} | {', '.join(map(str, e.frames))} | {_cell(e.reason)} |"
        for e in plan.chosen
    ]
    return "\n".join([*lines, ""])
