"""A whole run: what it writes, that it goes on bit for bit, and how it ends."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from jax_bridge.ki.objective import Objective
from jax_bridge.ki.training.finite import NotFiniteError
from jax_bridge.ki.training.insulation import make_flow_gradient
from jax_bridge.ki.training.run_log import read_lines
from jax_bridge.ki.training.trainer import Trainer
from jax_bridge.pi0 import Pi0, load_params
from jax_bridge.pi0.parameters import leaves


def train(out, settings, stream, **more):
    return Trainer(settings, stream, out, **more).run()


def saved_params(out, step, model):
    folder = out / "checkpoints" / str(step) / "params"
    return {path: np.asarray(leaf) for path, leaf in leaves(load_params(folder, config=model))}


def curve(out):
    timed = ("speed", "memory")
    return [
        {name: value for name, value in line.items() if not name.startswith(timed)}
        for line in read_lines(out)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, settings_of, memory_stream):
    out = tmp_path_factory.mktemp("whole")
    settings = settings_of()
    return out, settings, train(out, settings, memory_stream(settings.model))


def test_a_run_leaves_checkpoints_in_openpis_layout(whole):
    out, settings, report = whole
    assert report.last_step == 6
    assert sorted(report.kept) == [3, 6]
    step = out / "checkpoints" / "6"
    assert (step / "assets/robot/norm_stats.json").read_bytes() == b"{}"
    model = json.loads((step / "assets/model.json").read_text())
    assert model["config"] == json.loads(json.dumps(settings.model.to_json()))
    assert model["policy"] == {"tokenizer": "bytes"}
    assert all(leaf.dtype == np.float32 for leaf in saved_params(out, 6, settings.model).values())


def test_the_log_holds_what_the_specification_lists(whole):
    out, _, report = whole
    line = read_lines(out)[-1]
    assert line["step"] == 6
    names = {
        *(f"loss/{name}" for name in ("total", "fast", "text", "flow")),
        *(f"gradient_norm/{name}" for name in ("vision", "embedder", "backbone", "expert")),
        *("fast/accuracy", "fast/exact_chunks", "fast/tokens_mean", "fast/tokens_max"),
        *("clipped/backbone", "clipped/expert", "left_out/fast_overflow", "learning_rate"),
        *("speed/samples_per_s", "speed/tokens_per_s", "speed/data_wait_share"),
        *("insulation/flow_gradient_on_backbone", "memory/host_peak_gb"),
    }
    assert names <= set(line)
    assert any(name.startswith("flow_by_time/") for name in line)
    assert line["insulation/flow_gradient_on_backbone"] == 0.0
    assert 2 <= line["fast/tokens_mean"] <= line["fast/tokens_max"] <= 5
    assert report.last_line["loss/total"] == line["loss/total"]
    assert list(out.glob("tensorboard/events*"))


@pytest.mark.slow
def test_where_the_flow_may_reach_the_backbone_it_is_seen(settings_of, batch_of):
    model = settings_of().model
    measure = jax.jit(make_flow_gradient(model, Objective(mode="joint")))
    assert measure(Pi0(model).init(0), batch_of(model, 0), jax.random.key(0)) > 1e-4


class Killed(BaseException):
    """Stands for `kill -9`: nothing of ours may catch it."""


@pytest.mark.parametrize("at", [4, 5])
def test_a_killed_run_goes_on_to_the_same_curve_bit_for_bit(
    whole, tmp_path, settings_of, memory_stream, at
):
    out, settings, _ = whole

    def kill(number):
        if number == at:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, settings, memory_stream(settings.model, kill=kill))
    again = train(tmp_path, settings, memory_stream(settings.model))
    assert again.first_step == 3
    assert curve(tmp_path) == curve(out)
    found, expected = (saved_params(folder, 6, settings.model) for folder in (tmp_path, out))
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_the_step_and_the_run_goes_on_from_there(
    whole, tmp_path, settings_of, memory_stream, name
):
    out, settings, _ = whole

    class Sender:
        def update(self, step, line):
            if step == 1:
                os.kill(os.getpid(), getattr(signal, name))

    report = train(tmp_path, settings, memory_stream(settings.model), progress=Sender())
    assert (report.last_step, report.stopped_by) == (1, name)
    again = train(tmp_path, settings, memory_stream(settings.model))
    assert again.first_step == 1
    assert curve(tmp_path) == curve(out)


def test_ctrl_c_that_stops_the_readers_as_well_still_saves(tmp_path, settings_of, memory_stream):
    """The terminal sends it to worker processes, too; what they raise is not the run's end."""

    def fail(number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)
            raise RuntimeError("a worker was interrupted")

    settings = settings_of(run={"read_ahead": 1})
    report = train(tmp_path, settings, memory_stream(settings.model, kill=fail))
    assert report.stopped_by == "SIGINT"
    assert list(report.kept) == [report.last_step]
    assert 1 <= report.last_step <= 2


def test_a_finished_run_is_not_trained_again(whole, memory_stream):
    out, settings, _ = whole
    before = curve(out)
    report = train(out, settings, memory_stream(settings.model))
    assert report.first_step == report.last_step == 6
    assert curve(out) == before


def test_more_steps_may_be_asked_for_and_other_settings_may_not(
    whole, tmp_path, settings_of, memory_stream
):
    out, settings, _ = whole
    other = dataclasses.replace(settings, objective=Objective(flow_weight=2.0))
    with pytest.raises(ValueError, match=r"objective.flow_weight 1\.0 instead of 2\.0"):
        train(out, other, memory_stream(settings.model))
    short = dataclasses.replace(settings, run=dataclasses.replace(settings.run, steps=3))
    train(tmp_path, short, memory_stream(settings.model))
    train(tmp_path, settings, memory_stream(settings.model))
    found, expected = (saved_params(folder, 6, settings.model) for folder in (tmp_path, out))
    assert all((found[path] == leaf).all() for path, leaf in expected.items())


def test_nan_stops_the_run_and_names_step_and_samples(tmp_path, settings_of, memory_stream):
    settings = settings_of()
    match = r"at step 5 loss/total, loss/flow.*the checkpoint of step 3 is kept.*memory-t000-e0004-s0000"
    with pytest.raises(NotFiniteError, match=match):
        train(tmp_path, settings, memory_stream(settings.model, poison=4))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3"]
    kept = saved_params(tmp_path, 3, settings.model)
    assert all(np.isfinite(leaf).all() for leaf in kept.values())


def test_the_best_checkpoint_is_kept_beside_the_last(
    tmp_path, settings_of, memory_stream, batch_of
):
    run = {"steps": 8, "save_every": 1, "keep_last": 1, "keep_best": 1, "validate_every": 1}
    settings = settings_of(run=run)
    held = [memory_stream(settings.model).__next__()]
    report = train(tmp_path, settings, memory_stream(settings.model), held_out=held)
    losses = {line["step"]: line["held_out/total"] for line in read_lines(tmp_path)}
    best = min(range(1, 9), key=lambda step: losses[step])
    assert set(report.kept) == {best, 8}
    assert report.kept[best] == losses[best]


def test_a_watcher_sees_the_live_parameters_before_and_while_they_train(
    tmp_path, settings_of, memory_stream
):
    seen = []

    class Look:
        every = 2

        def watch(self, step, params):
            table = params["PaliGemma"]["llm"]["embedder"]["input_embedding"]
            seen.append((step, np.asarray(table).copy()))
            return {"retention/table": float(np.square(table).sum())}

    settings = settings_of(run={"steps": 4})
    train(tmp_path, settings, memory_stream(settings.model), watchers=[Look()])
    assert [step for step, _ in seen] == [0, 2, 4]
    assert (seen[0][1] != seen[1][1]).any()
    logged = {line["step"]: line.get("retention/table") for line in read_lines(tmp_path)}
    assert logged[0] == pytest.approx(np.square(seen[0][1]).sum())
    assert logged[4] == pytest.approx(np.square(seen[2][1]).sum())


def test_the_step_is_compiled_once(tmp_path, settings_of, memory_stream):
    settings = settings_of()
    trainer = Trainer(settings, memory_stream(settings.model), tmp_path)
    trainer.run()
    assert trainer._programs.step._cache_size() == 1


def test_a_batch_that_does_not_fit_is_named_before_anything_is_compiled(
    tmp_path, settings_of, memory_stream
):
    settings = settings_of(run={"batch_size": 8})
    with pytest.raises(ValueError, match="`batch_size` must be 8 rows a process, but got 4"):
        train(tmp_path, settings, memory_stream(settings.model))


def test_a_full_disk_is_named_and_the_last_checkpoint_stays_whole(
    tmp_path, settings_of, memory_stream
):
    script = pathlib.Path(__file__).with_name("full_disk.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert re.search(r"room for a checkpoint.*step 3 is the last whole one", done.stdout), done
    settings = settings_of()
    saved_params(tmp_path, 3, settings.model)
    assert train(tmp_path, settings, memory_stream(settings.model)).first_step == 3
