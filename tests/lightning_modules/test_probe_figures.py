import dataclasses

import numpy as np

from datamodules.cell import Cell
from lightning_modules.figures.fields import by_field
from lightning_modules.figures.heatmap import margins_of
from lightning_modules.figures.layer_lines import draw_layer_lines
from lightning_modules.figures.panels import Line, Panel, draw_panels
from lightning_modules.figures.probe_figures import caption_of, probe_figures
from lightning_modules.figures.style import save_figure
from lightning_modules.metrics.estimate import Estimate
from lightning_modules.results import CellResult, ControlResult, ProbeResults


def control(score: float, margin: float) -> ControlResult:
    estimate = Estimate(value=score, low=score - 0.05, high=score + 0.05)
    return ControlResult(
        score=estimate, gain=dataclasses.replace(estimate, value=0.0),
        margin=Estimate(value=margin, low=margin - 0.05, high=margin + 0.05),
    )  # fmt: skip


def two_fields() -> ProbeResults:
    """A vlm field of three layers, an action field of three layers and two flow times."""
    places = [("vlm", layer, None) for layer in range(3)]
    places += [("action", layer, time) for layer in range(3) for time in (1.0, 0.5)]
    cells = tuple(
        CellResult(
            cell=Cell(
                expert=expert, site="hidden_states", region="text" if time is None else "action",
                pool="mean", layer=layer, flow_time=time,
            ),
            score=0.3 + 0.1 * layer, interval=(0.2, 0.9), gain=(0.1, 0.4), loss=1.0,
            balanced_accuracy=0.3, best_epoch=1, validation_loss=1 - 0.1 * i, by_task={"a": 0.4},
            controls={
                "shuffled": control(0.1, 0.2 + 0.1 * layer), "time": control(0.2, 0.1),
                "random_projection": control(0.5, -0.3),
            },
            metrics={"auroc": Estimate(value=0.7, low=0.6, high=0.8, chance=0.5)},
        )
        for i, (expert, layer, time) in enumerate(places)
    )  # fmt: skip
    return ProbeResults(
        split="test", target="task_id", score_name="accuracy", samples=40, episodes=20,
        unit="episode", units=20, trivial=0.2, trivial_interval=(0.1, 0.3), chance=0.25,
        classes=("a", "b"), cells=cells, chosen=8, confusion=((3, 1), (0, 4)),
    )  # fmt: skip


def test_each_field_has_its_own_grid_and_the_chosen_ones_comes_first():
    first, second = by_field(two_fields())
    assert first.cells[0].cell.expert == "action"
    assert first.cells[first.chosen] == two_fields().cells[8]
    assert first.confusion
    assert second.cells[second.chosen].cell.layer == 2  # of the lowest validation loss
    assert second.confusion == ()


def test_every_field_is_drawn_and_every_figure_has_a_caption():
    names = [name for name, _ in probe_figures(two_fields())]
    other = "vlm.hidden_states.text.mean"
    assert names == [
        "layers", "heatmap", "controls", "metrics", "tasks", "confusion", f"layers-{other}",
        f"heatmap-{other}",
    ]  # fmt: skip
    assert caption_of(f"layers-{other}").endswith(f"Here: {other}.")


def test_a_margin_is_over_the_strongest_control_that_can_explain_a_score_away():
    # A random projection keeps what is in the latents: that it is as good refutes nothing.
    word, lows = margins_of(by_field(two_fields())[0])
    assert word == "above the strongest control"
    np.testing.assert_allclose(lows, 0.05)
    bare = tuple(dataclasses.replace(cell, controls={}) for cell in two_fields().cells)
    word, lows = margins_of(dataclasses.replace(two_fields(), cells=bare))
    assert word == "above the majority class"
    assert (lows == 0.1).all()


def test_lines_by_layer_carry_their_controls():
    figure = draw_layer_lines(by_field(two_fields())[0])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"targets exchanged", "time alone", "random projection"} <= set(labels)


def test_equal_figures_give_equal_files_as_png_and_svg(tmp_path):
    line = Line(label="a", x=[0, 1], y=[0.1, 0.2], low=[0, np.nan], high=[1, np.nan])
    for name in ("one", "two"):
        panels = [Panel(title="t", lines=[line], level=0.5, level_label="chance")]
        figure = draw_panels(panels, x_label="step", y_label="y", title="T")
        save_figure(figure, tmp_path / f"{name}.png")
    for kind in ("png", "svg"):
        one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two
