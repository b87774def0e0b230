"""The sentences of a language report: what the numbers say, warn of, and do not show."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_modules.figures.language_figures import (
    CONTROL,
    LEVEL,
    SMALLEST_RISE,
    Row,
    Tables,
    best_place,
    experts_of,
)

FEW_EPISODES = 20
"""Below this many, intervals from drawing episodes are known to be too narrow."""
Facts = Mapping[str, Any]


def place_words(row: Mapping[str, Any]) -> str:
    """`expert vlm, layer 5, flow time 0.90`."""
    words = [f"expert {row['expert']}"] if "expert" in row else []
    words += [] if row["layer"] is None else [f"layer {row['layer']}"]
    words += [] if row["flow_time"] is None else [f"flow time {row['flow_time']:.2f}"]
    return ", ".join(words)


def plain_words(facts: Facts, tables: Tables) -> list[str]:
    """What the numbers say."""
    lines = [
        f"{facts['samples']} samples of {facts['episodes']} episodes at {len(facts['steps'])} "
        f"rollout steps, {len(facts['instructions'])} instructions. Each episode was read by "
        f"probes that had not seen {_unseen(facts)}."
    ]
    lines += [_best_reading(tables, expert) for expert in experts_of(tables["trajectories"])]
    return [*lines, *fading_words(tables), *success_words(facts, tables), *separation_words(tables)]


def _unseen(facts: Facts) -> str:
    if facts["options"]["fold_by"] == "task":
        return "its task: the instructions were new to them"
    return "it, though others with the same instruction"


def mean_loss(rows: Sequence[Row], **words: Any) -> float:
    """The language loss over all episodes, averaged over the steps."""
    found = [
        row["value"]
        for row in rows
        if (row["quantity"], row["group"]) == ("language_loss", "all")
        and all(row[name] == value for name, value in words.items())
    ]
    return sum(found) / len(found)


def _best_reading(tables: Tables, expert: str) -> str:
    rows = tables["trajectories"]
    layer, time = best_place(rows, expert)
    loss = mean_loss(rows, expert=expert, layer=layer, flow_time=time)
    control = mean_loss(rows, expert=CONTROL)
    compared = "below" if loss < control else "not below"
    place = place_words({"layer": layer, "flow_time": time})
    return (
        f"Expert {expert}: the language loss is lowest at {place or 'its only cell'}, {loss:.2f} "
        f"on average over the steps; that is {compared} the {control:.2f} that the robot's state "
        "and the clock alone give (1: a reading that knows nothing). The place was chosen on the "
        "same episodes, so the number is somewhat too good."
    )


def fading_words(tables: Tables) -> list[str]:
    """Where the language loss rises after the first step."""
    tested = f"corrected over {len(tables['fading'])} places"
    found = [row for row in tables["fading"] if row["p_adjusted"] < LEVEL]
    risen = [row for row in found if row["change"] >= SMALLEST_RISE]
    if risen:
        worst = max(risen, key=lambda row: row["change"])
        first = min(row["step"] for row in risen)
        ends = f"[{worst['low']:+.2f}, {worst['high']:+.2f}]"
        lines = [
            f"Language fades in {len(_cells(risen))} cells, first at step {first}: there the loss "
            f"has risen by {SMALLEST_RISE} or more since the episode's first step ({tested}). The "
            f"largest rise is {worst['change']:+.2f} {ends} at {place_words(worst)}, step "
            f"{worst['step']}."
        ]
    else:
        lines = [
            "No fading was found: in no cell and at no step does the language loss rise by "
            f"{SMALLEST_RISE} or more, and by more than chance allows, since the episode's first "
            f"step ({tested})."
        ]
    little = _cells([row for row in found if 0 < row["change"] < SMALLEST_RISE]) - _cells(risen)
    if little:
        lines.append(
            f"In {len(little)} more cells it rises by less than {SMALLEST_RISE}: measurably, but "
            "hardly of importance."
        )
    fallen = _cells([row for row in found if row["change"] < 0])
    if fallen:
        lines.append(f"In {len(fallen)} cells the loss falls after the first step.")
    return lines


def _cells(rows: Sequence[Row]) -> set[tuple[Any, ...]]:
    return {(row["expert"], row["layer"], row["flow_time"]) for row in rows}


def success_words(facts: Facts, tables: Tables) -> list[str]:
    """What goes with success, if there are failures enough to ask."""
    if not facts["asked_about_success"]:
        return [
            f"Nothing can be said about success: {facts['successes']} episodes succeeded and "
            f"{facts['failures']} failed, and at least 5 of each are needed. Collect more, or "
            "harder ones."
        ]
    asked = [row for row in tables["success"] if row["p_adjusted"] == row["p_adjusted"]]
    if not asked:
        return ["Success is decided by the task alone: within a task all episodes end alike."]
    found = [row for row in asked if row["p_adjusted"] < LEVEL]
    if not found:
        lines = [
            f"Nothing that was measured goes with success ({facts['successes']} successes, "
            f"{facts['failures']} failures; {len(asked)} places tested together, outcomes "
            "exchanged within each task). With so few failures only strong relations would show."
        ]
    else:
        best = min(found, key=lambda row: (row["p_adjusted"], -abs(row["r"])))
        lines = [
            f"{len(found)} of {len(asked)} places go with success after correction. The clearest: "
            f"{best['quantity'].replace('_', ' ')} at {place_words(best)}, step {best['step']}: "
            f"r = {best['r']:.2f} [{best['r_low']:.2f}, {best['r_high']:.2f}], AUROC "
            f"{best['auroc']:.2f} [{best['auroc_low']:.2f}, {best['auroc_high']:.2f}], corrected "
            f"p = {best['p_adjusted']:.3f}."
        ]
    return [*lines, *predictor_words(tables)]


def predictor_words(tables: Tables) -> list[str]:
    """What success predictors get over all samples."""
    whole = [row for row in tables["predictors"] if row["step"] is None]
    listed = "; ".join(
        f"{r['predictor']} {r['auroc']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in whole
    )
    if not whole:
        return []
    return [
        f"Foretelling success from a sample (AUROC on held-out episodes, 0.5 is chance): {listed}. "
        "What the clock alone gives only says that failures run longer."
    ]


def separation_words(tables: Tables) -> list[str]:
    """How near the experts come to each other."""
    lines = []
    rows = tables["separation"]
    for pair in dict.fromkeys(row["pair"] for row in rows):
        own = [row for row in rows if row["pair"] == pair]
        near = [row for row in own if row["cka_low"] > 0]
        best = max(own, key=lambda row: row["cka"])
        lines.append(
            f"{pair}: CKA is above 0 with its whole interval in {len(near)} of {len(own)} cells; "
            f"the highest is {best['cka']:.2f} [{best['cka_low']:.2f}, {best['cka_high']:.2f}] at "
            f"{place_words({'layer': best['layer'], 'flow_time': best['flow_time']})}."
        )
    return lines


def warnings_of(facts: Facts, notes: Sequence[str]) -> list[str]:
    """What a reader must know before anything else."""
    lines = []
    if facts["model"].get("weights") == "random":
        lines.append(
            "The policy had random weights: this shows what its architecture and its inputs pass "
            "on, not what training taught it."
        )
    if facts["episodes"] < FEW_EPISODES:
        lines.append(f"Only {facts['episodes']} episodes: intervals from so few are too narrow.")
    if not facts["asked_about_success"]:
        lines.append(
            f"Too few failures or successes ({facts['failures']} and {facts['successes']}): the "
            "questions about success are left out."
        )
    if facts["unjudged"]:
        lines.append(f"{facts['unjudged']} episodes have no outcome and are left out there.")
    if facts["steps_left_out"]:
        lines.append(
            f"{facts['steps_left_out']} late steps are left out: too few episodes reach them."
        )
    if facts["thinned"]:
        lines.append(
            "There are more timesteps than steps: each step stands for a stretch, by its first "
            "sample."
        )
    return [*lines, *(f"{note[:1].upper()}{note[1:]}" for note in notes)]


LIMITS: tuple[str, ...] = (
    "A rising language loss means that this probe reads the instruction worse. The instruction may "
    "be gone, or be written otherwise than at other steps.",
    "That latents carry the instruction does not mean that the policy uses it. That takes an "
    "intervention.",
    "Late steps hold only the episodes that were not done before: differences between early and "
    "late steps are partly differences between episodes. The tests of fading compare each episode "
    "with itself.",
    "What goes with success need not cause it: hard starts may change both.",
    "Intervals hold for one place at a time; only the p values are corrected for all places.",
    "Tasks may differ in what the cameras see. Where every task has its own scene, the scene names "
    "the instruction.",
)
"""What must not be concluded."""
