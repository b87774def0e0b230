import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from datamodules.cell import Cell
from lightning_modules.figures.layer_lines import draw_layer_lines, lines_of
from lightning_modules.figures.probe_figures import probe_figures
from lightning_modules.figures.task_bars import draw_task_bars
from lightning_modules.report.findings import limits, plain_words, warnings_of
from lightning_modules.report.page import render, write_report
from lightning_modules.report.run_record import RunRecord
from lightning_modules.results import CellResult, ProbeResults
from lightning_modules.run_folder import write_csv, write_json

FLOW_TIMES = (1.0, 0.5, 0.1)


def made_up(split: str = "test", *, gain: float = 0.3, times=(None,), region: str = "text"):
    expert = "vlm" if times == (None,) else "action"
    cells = tuple(
        CellResult(
            cell=Cell(
                expert=expert, site="hidden_states", region=region, pool="mean", layer=layer,
                flow_time=time,
            ),
            score=0.2 + 0.1 * layer, interval=(0.1 + 0.1 * layer, 0.3 + 0.1 * layer),
            gain=(gain - 0.1, gain + 0.1), loss=1.0, balanced_accuracy=0.2, best_epoch=3,
            validation_loss=1.0 - 0.1 * layer, by_task={"000 <a>": 0.5, "001 b": 0.25},
        )
        for layer in range(4)
        for time in times
    )  # fmt: skip
    return ProbeResults(
        split=split, target="task_id", score_name="accuracy", samples=40,
        episodes=25, unit="episode", units=25, trivial=0.5, trivial_interval=(0.4, 0.6), chance=0.5,
        classes=("000 <a>", "001 b"), cells=cells, chosen=len(cells) - 1,
        confusion=((10, 10), (5, 15)),
    )  # fmt: skip


def record(tmp_path, results: ProbeResults, **data) -> RunRecord:
    stage = "test" if results.split == "test" else "validate"
    entry = {
        "command": "vla-lens fit -c probe", "machine": "Linux, cpu", "versions": {"torch": "9.9"},
        "data": {"fingerprint": "f" * 64, "split": {"by": "episode", "seed": 0}, **data},
    }  # fmt: skip
    return RunRecord(folder=tmp_path, results=results, provenance={stage: entry}, config="a: 1")


def run_folder(tmp_path, results: ProbeResults):
    write_json(tmp_path / f"metrics/{results.split}.json", results.to_json())
    return tmp_path


class Addresses(HTMLParser):
    """Collects what a page would load from elsewhere, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("times", [(None,), FLOW_TIMES])
def test_a_report_is_one_page_that_loads_nothing(tmp_path, times):
    path = write_report(run_folder(tmp_path, made_up(times=times)))
    assert path == tmp_path / "report.html"
    parser = Addresses()
    text = path.read_text()
    parser.feed(text)
    assert parser.open == []
    assert len(parser.found) == 4
    assert all(address.startswith("data:image/svg+xml;base64,") for address in parser.found)
    assert "http" not in re.sub(r'src="[^"]*"', "", text)


def test_a_report_shows_every_cell_and_its_yardsticks(tmp_path):
    text = render(record(tmp_path, made_up()))
    assert text.count("<tr") - text.count("<tr><td>") >= 4
    assert "majority class alone" in text
    assert "chance" in text
    assert "f" * 64 in text
    assert "torch 9.9" in text
    assert "vla-lens fit -c probe" in text
    assert "<a>" not in text


def test_equal_results_give_equal_pages(tmp_path):
    run = record(tmp_path, made_up())
    assert render(run) == render(run)


def test_the_words_follow_the_gain_and_not_the_score():
    assert plain_words(made_up(gain=0.3))[0].startswith("A linear probe can read task_id here")
    assert "not read task_id measurably better" in plain_words(made_up(gain=0.05))[0]
    assert plain_words(made_up(gain=0.05))[1].startswith("0 of 4 cells")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"leaky": True}, "Leaky split"),
        ({"model": {"weights": "random"}}, "random weights"),
        ({"dropped_without_valid_token": 7}, "7 samples were left out"),
        ({"untrained_classes": ["001 b"]}, "1 of 2 classes have no training sample"),
    ],
)
def test_what_a_reader_must_know_comes_first(tmp_path, data, words):
    assert warnings_of(record(tmp_path, made_up())) == []
    assert words in warnings_of(record(tmp_path, made_up(), **data))[0]


def test_flow_times_that_are_not_drawn_are_counted_and_the_chosen_one_always_is():
    times = tuple(round(1 - 0.1 * i, 1) for i in range(10))
    results = dataclasses.replace(made_up(times=times), chosen=11)
    labels = [label for label, _ in lines_of(results)]
    assert labels == ["t = 1.00", "t = 0.90", "t = 0.70", "t = 0.40", "t = 0.10"]
    title = draw_layer_lines(results).axes[0].get_title(loc="left")
    assert title.endswith("(5 of 10 flow times)")


def test_tasks_that_are_not_drawn_are_counted():
    results = made_up()
    by_task = {f"{i:03d}": i / 50 for i in range(50)}
    cells = tuple(dataclasses.replace(cell, by_task=by_task) for cell in results.cells)
    figure = draw_task_bars(dataclasses.replace(results, cells=cells))
    assert "(lowest 40 of 50)" in figure.axes[0].get_title(loc="left")


def test_validation_scores_are_called_too_good(tmp_path):
    assert "too good" in warnings_of(record(tmp_path, made_up("val")))[0]


def test_reading_the_task_off_the_prompt_is_called_expected(tmp_path):
    prompt = "tokens of the prompt"
    assert any(prompt in line for line in limits(record(tmp_path, made_up())))
    image = made_up(region="image_base")
    assert not any(prompt in line for line in limits(record(tmp_path, image)))


def test_results_survive_the_way_through_a_file(tmp_path):
    results = made_up(times=FLOW_TIMES)
    assert ProbeResults.from_json(results.to_json()) == results
    cell = results.cells[0]
    unknown = CellResult(**{**cell.__dict__, "interval": (np.nan, np.nan)})
    odd = ProbeResults(**{**results.__dict__, "cells": (unknown, *results.cells[1:])})
    write_csv(tmp_path / "x.csv", odd)
    assert ",accuracy,0.2,,," in (tmp_path / "x.csv").read_text()
    assert np.isnan(ProbeResults.from_json(odd.to_json()).cells[0].interval).all()


def test_intervals_by_task_and_reliability_survive_the_way_through_a_file():
    bins = ({"from": 0.0, "to": 0.5, "samples": 3, "confidence": 0.4, "accuracy": 0.3},)
    results = dataclasses.replace(
        made_up(), task_intervals={"000 <a>": (0.2, 0.7)}, reliability=bins
    )
    assert ProbeResults.from_json(results.to_json()) == results
    assert "reliability" in dict(probe_figures(results))


def test_a_run_without_results_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="vla-lens test --ckpt_path"):
        write_report(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere is not there"):
        write_report(tmp_path / "nowhere")


def test_results_of_another_version_are_named(tmp_path):
    write_json(tmp_path / "metrics/test.json", {"cells": []})
    with pytest.raises(ValueError, match=r"test.json cannot be read"):
        write_report(tmp_path)
