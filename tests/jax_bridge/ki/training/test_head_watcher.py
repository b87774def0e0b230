"""Both heads on held-out chunks in robot units; and all that the specification wants logged."""

import dataclasses

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cli.ki_heads import head_watchers
from jax_bridge.environments.environment import RobotObservation
from jax_bridge.fast.learn import learn_tokenizer
from jax_bridge.fast.vocabulary import CodeRange
from jax_bridge.ki.data.augmentation import AugmentConfig
from jax_bridge.ki.data.data_config import DataConfig
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.ki.data.opening import open_training_data
from jax_bridge.ki.objective import Objective
from jax_bridge.ki.sharding import make_mesh
from jax_bridge.ki.train_step import as_given
from jax_bridge.ki.training import head_watcher
from jax_bridge.ki.training.head_watcher import HeadWatcher, Spoken
from jax_bridge.ki.training.run_config import RunConfig, TrainSettings
from jax_bridge.ki.training.run_log import read_lines
from jax_bridge.ki.training.trainer import Trainer
from jax_bridge.ki.training.watcher import Watcher
from jax_bridge.pi0 import Pi0
from jax_bridge.policies.conventions.convention import Convention, Recipe
from jax_bridge.policies.processor import Processor
from jax_bridge.policies.tokenizers.tokenizer import Encoding
from jax_bridge.shards import open_dataset
from tests.jax_bridge.ki.data.demo_frames import attach, learn, tiny_model, write_frames

MODEL = tiny_model()
LISTED = {
    "loss": ["loss/total", "loss/fast", "loss/text", "loss/flow"],
    "FAST token accuracy and exact-chunk rate": ["fast/accuracy", "fast/exact_chunks"],
    "tokens a chunk": ["fast/tokens_mean", "fast/tokens_max"],
    "overflow count": ["left_out/fast_overflow"],
    "gradient norms": [
        f"gradient_norm/{group}" for group in ("vision", "backbone", "embedder", "expert")
    ],
    "flow gradient on the backbone": ["insulation/flow_gradient_on_backbone"],
    "clip fraction": ["clipped/backbone", "clipped/expert"],
    "decoded-FAST and sampled-flow MSE in robot units": ["heads/fast_mse", "heads/flow_mse"],
    "samples/s, tokens/s": ["speed/samples_per_s", "speed/tokens_per_s"],
    "data wait": ["speed/data_wait_share"],
    "peak memory": ["memory/host_peak_gb"],
    "learning rate": ["learning_rate"],
}
"""The names of the specification's paragraph "Log", and what they are called here."""


class FewWords:
    """A prompt tokenizer for the smallest of tables."""

    def vocabulary_size(self):
        return 30

    def encode(self, text, *, bos=False, eos=False):
        return Encoding((29,) + (1,) * eos, ((0, len(text)),) + ((0, 0),) * eos)

    def decode(self, ids):
        return ""

    def describe(self):
        return {}


@pytest.fixture(scope="module")
def tiny(settings_of):
    """Robot and FAST tokenizer of the model that all trainers of these tests share."""
    model = settings_of().model
    steps, dims, recipe = model.action_horizon, model.action_dim, Recipe(normalisation="quantile")
    robot = Convention(
        name="toy", image_keys={"image": "base"}, state_keys={"state": dims}, action_dim=dims,
        asset_id="toy", pi0=recipe, pi05=recipe,
    )  # fmt: skip
    processor = Processor(config=model, convention=robot, recipe=recipe, tokenizer=FewWords())
    chunks = np.random.default_rng(0).uniform(-1, 1, (60, steps, dims))
    codes = CodeRange(codes=28, vocab_size=model.vocab_size, skip=4, prompt_ids=30)
    return processor, Spoken(
        ids=FastIds(codes=codes, end=(29, 1), size=5),
        tokenizer=learn_tokenizer(chunks, scale=1.0, vocab_size=28),
    )


@pytest.fixture(scope="module")
def log(tiny, settings_of, memory_stream, tmp_path_factory):
    """Of a run: its folder."""
    out = tmp_path_factory.mktemp("run")
    settings = settings_of(run={"log_every": 6, "insulation_every": 6, "validate_every": 6})
    held_out = [next(memory_stream(settings.model))]
    watcher = HeadWatcher(
        held_out, as_given, tiny[0], settings.objective, tiny[1], every=6, mesh=make_mesh()
    )
    assert isinstance(watcher, Watcher)
    stream = memory_stream(settings.model)
    Trainer(settings, stream, out, held_out=held_out, watchers=[watcher]).run()
    return out


@pytest.fixture(scope="module")
def events(log):
    """What TensorBoard reads, by name."""
    events = EventAccumulator(str(log / "tensorboard"))
    events.Reload()
    return {name: events.Scalars(name) for name in events.Tags()["scalars"]}


@pytest.mark.parametrize("word", LISTED)
def test_every_name_of_the_specifications_log_is_in_the_event_file(events, word):
    for name in LISTED[word]:
        assert events[name][-1].step == 6, name
        assert np.isfinite(events[name][-1].value), name


def test_the_flow_loss_is_logged_by_bins_of_its_time(events):
    bins = {f"flow_by_time/{n / 10:.1f}-{(n + 1) / 10:.1f}" for n in range(10)}
    found = {name for name in events if name.startswith("flow_by_time/")}
    assert found <= bins
    assert len(found) >= 5  # of 24 times that were drawn


def test_heads_are_asked_before_the_first_step_and_again(events, log):
    for name in ("heads/flow_mse", "heads/fast_mse"):
        assert [event.step for event in events[name]] == [0, 6]
    lines = {line["step"]: line for line in read_lines(log)}
    assert lines[0]["heads/flow_mse"] != lines[6]["heads/flow_mse"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = write_frames(tmp_path_factory.mktemp("heads") / "demos")
    return attach(path, learn(path))


@pytest.fixture(scope="module")
def data(path):
    config = DataConfig(paths=str(path), threads=1, held_out=0.4, overflow="leave_out")
    return open_training_data(
        config, MODEL, batch_size=4, seed=0, mode="insulate", augment=AugmentConfig()
    )


@pytest.fixture
def watcher(data):
    (watcher,) = head_watchers(2, TrainSettings(model=MODEL), data)
    return watcher


def recorded(path, held_out):
    """Chunks as they were recorded, and which of their steps are real, of held-out samples."""
    dataset = open_dataset(path)
    rows = dataset.index["key"].to_pylist()
    rows = [rows.index(key) for host in list(held_out)[:2] for key in host.keys]
    robot = {name: dataset.read_robot(name, rows=rows) for name in ("actions", "state")}
    return robot, ~dataset.read_robot("action_is_pad", rows=rows).astype(bool)


def planted(flow, tokens, said, batch):
    return head_watcher._Asked(
        flow=flow, tokens=tokens, said=said, wanted=np.asarray(batch.actions),
        real=~np.asarray(batch.action_is_pad),
    )  # fmt: skip


def test_the_flows_error_is_that_of_the_actions_that_the_robot_gets(
    path, data, watcher, monkeypatch
):
    random, sampled = np.random.default_rng(0), []

    def sample(params, batch, key):
        sampled.append(random.normal(size=batch.actions.shape))
        nothing = np.zeros((4, 1), int)
        return planted(sampled[-1], nothing, nothing > 0, batch)

    monkeypatch.setattr(watcher, "_ask", sample)
    line = watcher.watch(0, {})
    robot, real = recorded(path, data.held_out)
    errors = []
    for row, chunk in enumerate(np.concatenate(sampled)):
        observation = RobotObservation(images={}, state=robot["state"][row], instruction="")
        sent = data.maker.processor.robot_actions(chunk, observation)
        errors.append(np.square(sent - robot["actions"][row]).mean(axis=1))
    errors = np.asarray(errors)
    assert real.shape == errors.shape == (8, 4)
    assert not real.all()  # some chunks reach beyond the end of their episode
    assert line["heads/flow_mse"] == pytest.approx(errors[real].mean(), rel=1e-5)
    assert line["heads/flow_first_mse"] == pytest.approx(errors[:, 0].mean(), rel=1e-5)


@pytest.mark.parametrize("right", [True, False])
def test_said_chunks_are_decoded_and_sequences_that_are_none_are_counted(
    path, data, watcher, monkeypatch, right
):
    """Planted: the backbone says the targets themselves, or nothing."""

    def say(params, batch, key):
        given = batch.observation
        mask = np.asarray(given.fast_action_mask)
        tokens = np.asarray(given.fast_action_tokens)
        return planted(np.zeros(batch.actions.shape), tokens, mask & right, batch)

    monkeypatch.setattr(watcher, "_ask", say)
    line = watcher.watch(0, {})
    robot, real = recorded(path, data.held_out)
    middle = np.square(robot["actions"]).mean(axis=2)[real].mean()  # the range is -2 to 2
    assert line["heads/flow_mse"] == pytest.approx(middle, rel=1e-5)
    assert line["heads/fast_undecodable"] == (0 if right else 1)
    if right:
        assert line["heads/fast_mse"] < 0.02 * middle
    else:
        assert line["heads/fast_mse"] == pytest.approx(middle, rel=1e-5)


def test_only_heads_that_are_trained_are_asked(tiny, memory_stream):
    processor, spoken = tiny
    host = next(memory_stream(processor.config))

    def made(mode, spoken):
        return HeadWatcher(
            [host], as_given, processor, Objective(mode=mode), spoken, every=1, mesh=make_mesh()
        )

    shapes = jax.eval_shape(lambda: Pi0(processor.config).init(0))
    for mode, flow, fast in (("flow_only", True, False), ("fast_only", False, True)):
        one = made(mode, spoken)
        asked = jax.eval_shape(one._ask, shapes, host.batch, one.key(0))
        assert (asked.flow is not None, asked.tokens is not None) == (flow, fast)
    with pytest.raises(ValueError, match="`spoken` must be given in mode fast_only, but got None"):
        made("fast_only", None)


def test_settings_without_sense_are_refused(tiny, memory_stream):
    held_out = [next(memory_stream(tiny[0].config))]
    rest = (as_given, tiny[0], Objective(), tiny[1])
    with pytest.raises(ValueError, match="`every` must be at least 1, but got 0"):
        HeadWatcher(held_out, *rest, every=0, mesh=make_mesh())
    with pytest.raises(ValueError, match="`held_out` must hold samples to compare with, but got"):
        HeadWatcher([], *rest, every=1, mesh=make_mesh())


def test_a_watcher_comes_with_held_out_losses_unless_told_otherwise(data):
    never = TrainSettings(model=MODEL)
    often = TrainSettings(model=MODEL, run=RunConfig(validate_every=3))
    nothing = dataclasses.replace(data, held_out=None)
    assert head_watchers(None, never, data) == head_watchers(0, often, data) == []
    assert head_watchers(None, often, nothing) == []
    (found,) = head_watchers(None, often, data)
    assert found.every == 3
    with pytest.raises(
        ValueError, match=r"`heads_every` must be 0 where nothing is held out, .* 5"
    ):
        head_watchers(5, never, nothing)
