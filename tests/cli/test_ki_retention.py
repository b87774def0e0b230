"""Which labels probes get while a policy trains, and when they are asked."""

from types import SimpleNamespace

import pytest
from PIL import Image

from benchmarks.ki_retention import draw, read_curves, table_of
from cli.ki_retention import labels_of, retention_watchers
from jax_bridge.ki.training.run_log import TENSORBOARD, RunLog
from jax_bridge.shards import open_dataset, split_rows
from tests.jax_bridge.ki.data.demo_frames import write_frames

SHARE = 0.4


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return open_dataset(write_frames(tmp_path_factory.mktemp("retention") / "demos", episodes=8))


def test_held_out_samples_have_their_instruction_and_nothing_is_made_up(demos):
    labels = labels_of(demos, SHARE)
    rows = split_rows(demos.index, fractions=(1 - SHARE, SHARE, 0.0))["val"]
    table = demos.index.select(["key", "instruction"]).take(rows).to_pylist()
    assert len(table) > 0
    assert labels == {"instruction": {row["key"]: row["instruction"] for row in table}}


def test_a_recorded_goal_gives_object_and_container(demos, monkeypatch):
    from datamodules.targets import goal

    truth = '{"goal": "in(red_cube, blue_bowl)"}'
    monkeypatch.setattr(goal, "truths", lambda dataset, rows: [truth] * len(rows))
    labels = labels_of(demos, SHARE)
    assert set(labels["object"].values()) == {"red_cube"}
    assert set(labels["container"].values()) == {"blue_bowl"}
    assert labels["object"].keys() == labels["instruction"].keys()


def test_nobody_is_asked_unless_told_so_and_something_is_held_out():
    config, nothing = SimpleNamespace(datasets=()), SimpleNamespace(held_out=None)
    assert retention_watchers(0, config, nothing, None) == []
    with pytest.raises(ValueError, match="`retention_every` must be 0 where nothing is held out"):
        retention_watchers(5, config, nothing, None)


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"`retention_every` must be 0 with several .* but got 5"):
        retention_watchers(5, SimpleNamespace(), SimpleNamespace(), None)


def log_of_two_layers(folder, *, last):
    """A run's TensorBoard: CKA of 1 that falls to `last`, further in the second layer."""
    folder.mkdir()
    with RunLog(folder, 0) as log:
        for step, kept in ((0, 1.0), (10, last)):
            for part in ("prompt", "image"):
                layers = {
                    f"cka_to_start/{part}/layer00": kept,
                    f"cka_to_start/{part}/layer01": kept**2,
                }
                log.write(step, {f"retention/{name}": value for name, value in layers.items()})
        log.write(10, {"held_out/flow": 0.25, "loss/flow": 0.5})
    return folder / TENSORBOARD


def test_the_modes_stand_beside_each_other_from_start_to_end(tmp_path):
    kept = {"insulate": 0.9, "joint": 0.5}
    curves = {
        mode: read_curves(log_of_two_layers(tmp_path / mode, last=last))
        for mode, last in kept.items()
    }
    table = table_of(curves)
    assert "| measure | of | layers | chance | start | insulate | joint |" in table
    assert "| CKA to the start | prompt's tokens | mean |  | 1.000 | 0.855 | 0.375 |" in table
    assert "| CKA to the start | image tokens | last |  | 1.000 | 0.810 | 0.250 |" in table
    assert "| held-out flow loss |  |  |  |  | 0.250 | 0.250 |" in table
    assert "instruction" not in table
    draw(curves, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > figure.height
