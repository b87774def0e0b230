"""Figures of a language report, drawn from its tables alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lightning_modules.figures.panels import CONTROL_COLOUR, Line, Panel, draw_panels, ramp
from lightning_modules.figures.step_heatmap import draw_step_heatmaps
from lightning_modules.figures.style import BLUE, GREY

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]
CONTROL = "state and time"
MOST_LINES = 4
LEVEL = 0.05
SMALLEST_RISE = 0.05
"""Of the language loss; less may be measurable, but says little."""
GREEN, RED = "#2f855a", "#c53030"

CAPTIONS: dict[str, str] = {
    "language_loss": "Language loss (1 - cosine of the held-out reading and the instruction's "
    "embedding) by rollout step. Bands: 95 % by drawing episodes. Orange: the same probe on the "
    "robot's state and the clock alone; dotted: a reading that knows nothing. Rings: changed since "
    "the episode's first step, corrected over all cells and steps.",
    "loss_heatmap": "Language loss of every layer at every step; crosses: risen by 0.05 or more "
    "since the first step (p < 0.05, corrected over all cells and steps).",
    "drift": "Cosine similarity of the latents to those at the episode's first step, with 95 % "
    "bands. Orange: the robot's state and the clock.",
    "separability": "Variance between instructions over variance within one, free of "
    "the scatter of means; dotted: no difference. Beyond 1 the axis is logarithmic. Bands: "
    "jackknife over episodes. Orange: state and clock.",
    "alignment": "Unbiased CKA between latents and the instructions' embeddings; dotted: no "
    "dependence. Bands: jackknife over episodes. Orange: state and clock.",
    "outcomes": "Language loss in episodes that succeeded and that failed, at the layer where it "
    "is lowest, with 95 % bands by drawing episodes (none below 6 episodes). Rings: goes with "
    "success, corrected.",
    "separation_cka": "Unbiased CKA between the experts' latents of the same samples at the same "
    "step, by layer; dotted: no dependence. Bands: jackknife over episodes.",
    "separation_angles": "Mean angle between the five main directions of both experts among "
    "samples (0: the same, 90: none in common). Bands: jackknife over hands of episodes (none "
    "below 6 episodes). Grey: exchanged episodes, 95 % of pairings.",
    "disagreement": "How often the probes of both experts name different instructions, with 95 % "
    "bands by drawing episodes. Grey: how often two probes would that err independently.",
    "predictors": "Area under the ROC curve of held-out predictions of success at each step, with "
    "95 % intervals; dotted: chance.",
}
"""What each figure shows, by the name of its file."""


def language_figures(tables: Tables) -> Iterator[tuple[str, Figure]]:
    """Draws the figures that make sense for these tables, each with its name."""
    draw: dict[str, Callable[[Tables], Figure | None]] = {
        "language_loss": _loss, "loss_heatmap": _heatmap, "outcomes": _outcomes, "drift": _drift,
        "separability": _separability, "alignment": _alignment,
        "separation_cka": _separation("cka", "unbiased CKA", 0.0, "no dependence"),
        "separation_angles": _separation("angle", "mean angle in degrees", None, ""),
        "disagreement": _separation("disagreement", "share of samples", None, ""),
        "predictors": _predictors,
    }  # fmt: skip
    for name, function in draw.items():
        figure = function(tables)
        if figure is not None:
            yield name, figure


def experts_of(rows: Sequence[Row]) -> list[str]:
    """The experts in the order of the table, without the control."""
    return [e for e in dict.fromkeys(row["expert"] for row in rows) if e != CONTROL]


def thin(values: Sequence[Any], most: int = MOST_LINES) -> list[Any]:
    """At most so many, evenly out of all."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def last_flow_time(rows: Sequence[Row]) -> float | None:
    """The flow time nearest to the action, which figures by step show."""
    times = [row["flow_time"] for row in rows if row["flow_time"] is not None]
    return min(times) if times else None


def line_of(rows: Sequence[Row], label: str, colour: str, **words: Any) -> Line:
    """A line by step."""
    return Line(
        label=label, colour=colour, x=[r["step"] for r in rows], y=[r["value"] for r in rows],
        low=[r["low"] for r in rows], high=[r["high"] for r in rows], **words,
    )  # fmt: skip


def _title(expert: str, time: float | None, shown: int, layers: int) -> str:
    words = [expert] + ([f"t = {time:.2f}"] if time is not None else [])
    words += [f"{shown} of {layers} layers"] if shown < layers else []
    return ", ".join(words)


def _by_step(
    rows: Sequence[Row],
    quantity: str,
    level: float | None,
    level_label: str,
    y_label: str,
    title: str,
    found: Mapping[tuple[Any, ...], bool] | None = None,
    linear_to: float | None = None,
) -> Figure:
    """A panel an expert, a line a layer, and the control in each."""
    rows = [r for r in rows if r["quantity"] == quantity and r.get("group", "all") == "all"]
    control = [r for r in rows if r["expert"] == CONTROL]
    panels = []
    for expert in experts_of(rows):
        own = [r for r in rows if r["expert"] == expert]
        time = last_flow_time(own)
        own = [r for r in own if r["flow_time"] == time]
        layers = list(dict.fromkeys(r["layer"] for r in own))
        lines = []
        for layer, colour in zip(thin(layers), ramp(len(thin(layers))), strict=True):
            here = [r for r in own if r["layer"] == layer]
            rings = [(found or {}).get((expert, layer, time, r["step"]), False) for r in here]
            lines.append(line_of(here, f"layer {layer}", colour, found=rings))
        lines.append(line_of(control, CONTROL, CONTROL_COLOUR, style="--"))
        panels.append(
            Panel(
                title=_title(expert, time, len(thin(layers)), len(layers)), lines=lines,
                level=level, level_label=level_label,
            )
        )  # fmt: skip
    return draw_panels(
        panels, x_label="rollout step", y_label=y_label, title=title, linear_to=linear_to
    )


def _place(row: Row) -> tuple[Any, ...]:
    return row["expert"], row["layer"], row["flow_time"], row["step"]


def _loss(tables: Tables) -> Figure:
    found = {_place(row): row["p_adjusted"] < LEVEL for row in tables["fading"]}
    return _by_step(
        tables["trajectories"], "language_loss", 1.0, "knows nothing", "1 - cosine",
        "Language loss", found,
    )  # fmt: skip


def _drift(tables: Tables) -> Figure:
    return _by_step(
        tables["trajectories"], "cosine_to_first", None, "", "cosine", "Cosine to the first step"
    )


def _separability(tables: Tables) -> Figure:
    return _by_step(
        tables["separability"], "variance_ratio", 0.0, "no difference",
        "variance between / within", "Separability of the instructions", linear_to=1.0,
    )  # fmt: skip


def _alignment(tables: Tables) -> Figure:
    return _by_step(
        tables["separability"], "cka_with_embeddings", 0.0, "no dependence", "unbiased CKA",
        "CKA with the instructions' embeddings",
    )  # fmt: skip


def _heatmap(tables: Tables) -> Figure:
    rows = [
        r for r in tables["trajectories"]
        if r["quantity"] == "language_loss" and r["group"] == "all" and r["expert"] != CONTROL
    ]  # fmt: skip
    risen = {
        _place(r)
        for r in tables["fading"]
        if r["p_adjusted"] < LEVEL and r["change"] >= SMALLEST_RISE
    }
    return draw_step_heatmaps(rows, risen, title="Language loss", label="1 - cosine")


def best_place(rows: Sequence[Row], expert: str) -> tuple[Any, Any]:
    """Layer and flow time where the expert's language loss is lowest over all steps."""
    places: dict[tuple[Any, Any], list[float]] = {}
    for row in rows:
        if (row["expert"], row["quantity"], row["group"]) == (expert, "language_loss", "all"):
            places.setdefault((row["layer"], row["flow_time"]), []).append(row["value"])
    return min(places, key=lambda place: sum(places[place]) / len(places[place]))


def _count(episodes: float) -> str:
    return f"{episodes:.0f} episode{'s' if episodes > 1 else ''}"


def _outcomes(tables: Tables) -> Figure | None:
    rows = tables["trajectories"]
    if not tables["success"]:  # too few of one outcome to ask
        return None
    found = {
        _place(row) for row in tables["success"]
        if row["quantity"] == "language_loss" and row["p_adjusted"] < LEVEL
    }  # fmt: skip
    episodes = {
        group: _count(max(row["episodes"] for row in rows if row["group"] == group))
        for group in ("success", "failure")
    }
    panels = []
    for expert in experts_of(rows):
        layer, time = best_place(rows, expert)
        lines = []
        for group, colour in (("success", GREEN), ("failure", RED)):
            here = [
                r for r in rows
                if (r["expert"], r["layer"], r["flow_time"], r["group"], r["quantity"])
                == (expert, layer, time, group, "language_loss")
            ]  # fmt: skip
            rings = [group == "failure" and _place(r) in found for r in here]
            lines.append(line_of(here, f"{group} ({episodes[group]})", colour, found=rings))
        at = f"{expert}, layer {layer}" + ("" if time is None else f", t = {time:.2f}")
        panels.append(Panel(title=at, lines=lines, level=1.0, level_label="knows nothing"))
    return draw_panels(
        panels, x_label="rollout step", y_label="1 - cosine", title="Language loss by outcome"
    )


def _separation(
    word: str, y_label: str, level: float | None, level_label: str
) -> Callable[[Tables], Figure | None]:
    def draw(tables: Tables) -> Figure | None:
        rows = tables["separation"]
        if not rows:
            return None
        panels = []
        for pair in dict.fromkeys(row["pair"] for row in rows):
            own = [r for r in rows if r["pair"] == pair]
            times = thin(list(dict.fromkeys(r["flow_time"] for r in own)))
            lines = []
            for time, colour in zip(times, ramp(len(times)), strict=True):
                here = [r for r in own if r["flow_time"] == time]
                lines.append(_layer_line(here, word, f"t = {time:.2f}" if time else pair, colour))
            lines += _chance_lines([r for r in own if r["flow_time"] == times[-1]], word)
            panels.append(Panel(title=pair, lines=lines, level=level, level_label=level_label))
        return draw_panels(panels, x_label="layer", y_label=y_label, title=TITLES[word])

    return draw


TITLES = {
    "cka": "Experts compared: CKA",
    "angle": "Experts compared: principal angles",
    "disagreement": "Experts compared: probes that disagree",
}


def _layer_line(rows: Sequence[Row], word: str, label: str, colour: str) -> Line:
    y = [row[word] for row in rows]
    ends = [[row.get(f"{word}_{end}", row[word]) for row in rows] for end in ("low", "high")]
    return Line(
        label=label,
        colour=colour,
        x=[r["layer"] or 0 for r in rows],
        y=y,
        low=ends[0],
        high=ends[1],
    )


def _chance_lines(rows: Sequence[Row], word: str) -> list[Line]:
    x = [row["layer"] or 0 for row in rows]
    if word == "angle":
        low = [r["angle_chance_low"] for r in rows]
        high = [r["angle_chance_high"] for r in rows]
        middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
        return [
            Line(label="exchanged episodes", colour=GREY, x=x, y=middle, low=low, high=high,
                 style="--")
        ]  # fmt: skip
    if word == "disagreement":
        y = [r["disagreement_independent"] for r in rows]
        return [Line(label="independent errors", colour=GREY, x=x, y=y, low=y, high=y, style="--")]
    return []


def _predictors(tables: Tables) -> Figure | None:
    rows = [row for row in tables["predictors"] if row["step"] is not None]
    if not rows:
        return None
    names = list(dict.fromkeys(row["predictor"] for row in rows))
    whole = {r["predictor"]: r for r in tables["predictors"] if r["step"] is None}
    panels = []
    for name in names:
        here = [{**r, "value": r["auroc"]} for r in rows if r["predictor"] == name]
        area = whole[name]
        title = f"{name}\nall samples {area['auroc']:.2f} [{area['low']:.2f}, {area['high']:.2f}]"
        lines = [line_of(here, "held-out episodes", BLUE)]
        panels.append(Panel(title=title, lines=lines, level=0.5, level_label="chance"))
    clock = whole["time"]
    title = f"Foretelling success (clock alone, all samples: {clock['auroc']:.2f})"
    return draw_panels(panels, x_label="rollout step", y_label="AUROC", title=title)
