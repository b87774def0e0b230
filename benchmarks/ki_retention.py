r"""What the backbone keeps while it learns to act: insulate against joint and flow_only.

Run as `python -m benchmarks.ki_retention --out DIR --steps N [--weights CHECKPOINT] [-- OPTIONS]`.
The tabletop policy is trained once a mode with `ki fit -c ki_tabletop`, from the same weights on
the same demonstrations in the same order, and looked at by `--retention_every`: what each layer
says of instruction and object, and its CKA to the starting weights. Out of the runs' TensorBoard
come one figure, `retention.png`, and a table, `retention.md` and `retention.json`.

Random weights have nothing to keep. A backbone that was trained on questions has:

    vla-lens questions --scenes 24000 --env.image_size 96 --env.view base --kinds whole \
        --per_frame 1 --out Q
    vla-lens ki fit -c ki_tabletop_words --data.paths Q --out W
    python -m benchmarks.ki_retention --weights W/checkpoints/STEP --out DIR --steps N

A stopped command goes on where it stopped. OPTIONS are more options of `ki fit`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tabletop_learning import run, surroundings
from jax_bridge.environments.tabletop.scene import OBJECTS
from jax_bridge.environments.tabletop.tasks import TASKS

MODES = ("insulate", "joint", "flow_only")
COLOURS = {"insulate": "#2b5c8a", "joint": "#d9762b", "flow_only": "#b91c1c"}
HELD_OUT = 0.2
"""Share of the episodes that is looked at, and not trained on."""
MEASURES = {
    "instruction_accuracy": "instruction, decoded",
    "object_accuracy": "object, decoded",
    "instruction_retrieval": "instruction, retrieved",
    "cka_to_start": "CKA to the start",
}
CHANCE = {
    "instruction_accuracy": 1 / len(TASKS),
    "object_accuracy": 1 / len(OBJECTS),
    "instruction_retrieval": 1 / len(TASKS),
}
"""Where every instruction is demonstrated equally often."""
PARTS = {"prompt": "prompt's tokens", "image": "image tokens"}

Curve = list[tuple[int, float]]
"""Steps and values."""
Layers = list[Curve]


def main() -> None:
    """Trains the modes, reads what was logged, draws and writes."""
    parser = argparse.ArgumentParser(description="What does the backbone keep?")
    parser.add_argument("--out", type=Path, required=True, help="for data, runs and results")
    parser.add_argument("--steps", type=int, default=1000, help="of each mode")
    parser.add_argument("--every", type=int, help="steps between two looks; a tenth by default")
    parser.add_argument("--weights", default="random", help="a checkpoint's folder, or random")
    parser.add_argument("--demos", type=Path, help="demonstrations with FAST targets; made if none")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("fit", nargs="*", help="more options of `ki fit`, behind --")
    arguments = parser.parse_args()
    demos = arguments.demos or make_demos(arguments.out)
    took = {mode: train(arguments, demos, mode) for mode in arguments.modes}
    curves = {mode: read_curves(arguments.out / mode / "tensorboard") for mode in took}
    found = {
        **surroundings(), "steps": arguments.steps, "weights": arguments.weights,
        "settings": arguments.fit, "took": took, "curves": curves,
    }  # fmt: skip
    (arguments.out / "retention.json").write_text(json.dumps(found, indent=1) + "\n")
    table = table_of(curves)
    (arguments.out / "retention.md").write_text(table)
    draw(curves, arguments.out / "retention.png")
    print(table, end="")
    print(f"-> {arguments.out / 'retention.png'}, retention.md and retention.json beside it")


def make_demos(out: Path) -> Path:
    """The quickstart's demonstrations with statistics and FAST targets; none are made twice."""
    demos, tokenizer = out / "demos", out / "tokenizer"
    if not (demos / "fast").exists():
        run("collect", "-c", "demos_tabletop", f"--out={demos}")
        run("norm-stats", str(demos))
        if not tokenizer.exists():
            sizes = ["--vocab_size=320", "--scale=5"]
            run("fast", "fit", str(demos), f"--out={tokenizer}", *sizes)
        run("fast", "attach", str(demos), f"--tokenizer={tokenizer}")
    return demos


def train(arguments: argparse.Namespace, demos: Path, mode: str) -> dict[str, float]:
    """One run of `ki fit`; says what it took."""
    every = arguments.every or max(arguments.steps // 10, 1)
    return run(
        "ki", "fit", "-c", "ki_tabletop", f"--data.paths={demos}", f"--objective.mode={mode}",
        f"--data.held_out={HELD_OUT}", f"--weights={arguments.weights}", "--heads_every=0",
        f"--run.steps={arguments.steps}", f"--retention_every={every}",
        f"--run.validate_every={every}", f"--run.log_every={every}",
        f"--out={arguments.out / mode}", *arguments.fit,
    )  # fmt: skip


def read_curves(board: Path) -> dict[str, Curve]:
    """Every scalar of a TensorBoard folder by its name; not a number where a mode learns none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(board), size_guidance={"scalars": 0})
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if name.startswith(("retention/", "held_out/"))
    }


def layers_of(curves: Mapping[str, Curve], measure: str, part: str) -> Layers:
    """The curves of a measure, layer by layer."""
    start = f"retention/{measure}/{part}/layer"
    return [curves[name] for name in sorted(curves) if name.startswith(start)]


def table_of(curves: Mapping[str, Mapping[str, Curve]]) -> str:
    """Start and end of every measure, as a mean over layers and in the last one (Markdown)."""
    head = ["measure", "of", "layers", "chance", "start", *curves]
    rows = [head, ["---"] * len(head)]
    for measure, title in MEASURES.items():
        for part, tokens in PARTS.items():
            by_mode = {mode: layers_of(own, measure, part) for mode, own in curves.items()}
            if all(by_mode.values()):
                for which, chosen in (("mean", slice(None)), ("last", slice(-1, None))):
                    ends = [_at(layers[chosen], -1) for layers in by_mode.values()]
                    start = _at(next(iter(by_mode.values()))[chosen], 0)
                    numbers = [f"{value:.3f}" for value in (start, *ends)]
                    chance = f"{CHANCE[measure]:.3f}" if measure in CHANCE else ""
                    rows.append([title, tokens, which, chance, *numbers])
    for name in ("flow", "fast"):
        ends = [own.get(f"held_out/{name}") for own in curves.values()]
        # A loss that a mode does not have is logged as 0.
        numbers = [f"{end[-1][1]:.3f}" if end and end[-1][1] else "" for end in ends]
        rows.append([f"held-out {name} loss", *[""] * 4, *numbers])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _at(layers: Sequence[Curve], place: int) -> float:
    return float(np.mean([curve[place][1] for curve in layers]))


def draw(curves: Mapping[str, Mapping[str, Curve]], path: Path) -> None:
    """One row a measure, one column a layer; prompt solid, images dashed, chance dotted."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from lightning_modules.figures.style import SETTINGS

    depth = max(len(layers_of(own, "cka_to_start", "prompt")) for own in curves.values())
    shown = [
        name for name in MEASURES if all(layers_of(own, name, "prompt") for own in curves.values())
    ]
    with rc_context(SETTINGS):
        figure = Figure(figsize=(2.3 * depth + 0.8, 2.0 * len(shown) + 0.7), layout="constrained")
        grid: Any = figure.subplots(len(shown), depth, sharex=True, sharey="row", squeeze=False)
        for axes, measure in zip(grid, shown, strict=True):
            axes[0].set_ylabel(MEASURES[measure])
            for layer, panel in enumerate(axes):
                _draw_panel(panel, curves, measure, layer)
        for layer in range(depth):
            grid[0, layer].set_title(f"layer {layer}")
            grid[-1, layer].set_xlabel("step")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.savefig(path, dpi=160, metadata={"Software": None})


def _draw_panel(
    panel: Any, curves: Mapping[str, Mapping[str, Curve]], measure: str, layer: int
) -> None:
    from lightning_modules.figures.style import GREY

    for part, style in (("prompt", "-"), ("image", "--")):
        for mode, own in curves.items():
            layers = layers_of(own, measure, part)
            if layers:
                steps, values = zip(*layers[layer], strict=True)
                label = f"{mode}, {PARTS[part]}"
                panel.plot(steps, values, style, color=COLOURS[mode], lw=1.5, label=label)
    if measure in CHANCE:
        panel.axhline(CHANCE[measure], color=GREY, ls=":", lw=1.0)
    panel.set_ylim(-0.03, 1.05)
    panel.grid(axis="y", color="#e5e7eb", lw=0.8)


if __name__ == "__main__":
    main()
