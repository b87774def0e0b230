"""Robot data and vision-language data in one run: the same batches, shares, losses, and errors."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from cli.ki_heads import head_watchers
from cli.ki_retention import retention_watchers
from jax_bridge.ki.data.augmentation import AugmentConfig
from jax_bridge.ki.data.data_config import DataConfig
from jax_bridge.ki.data.opening import open_training_data
from jax_bridge.ki.objective import Objective
from jax_bridge.ki.optimiser import OptimiserConfig
from jax_bridge.ki.sharding import make_mesh
from jax_bridge.ki.training.prefetch import place_batch
from jax_bridge.ki.training.programs import build_programs
from jax_bridge.ki.training.retention import RetentionWatcher
from jax_bridge.ki.training.run_config import RunConfig, TrainSettings
from jax_bridge.ki.training.trainer import Trainer
from jax_bridge.ki.training.window import mean_losses
from jax_bridge.pi0 import Pi0
from jax_bridge.shards import open_dataset
from tests.jax_bridge.ki.data.demo_frames import attach, learn, tiny_model, write_frames
from tests.jax_bridge.ki.data.question_frames import ANSWERS, write_questions
from tests.quick_compiler import quick_compiler

STILL = AugmentConfig(crop=0.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
MODEL = tiny_model()
ROBOT, WORDS = "robot", "words"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixture")
    robot = write_frames(root / ROBOT)
    attach(robot, learn(robot))
    write_questions(root / WORDS)
    return root


def opened(folder, *names, mode="insulate", model=MODEL, batch_size=4, **settings):
    paths = [str(folder / name) for name in names or (ROBOT, WORDS)]
    ranks = {key: settings.pop(key) for key in ("rank", "world_size") if key in settings}
    data = DataConfig(**{"paths": paths, "threads": 2, "held_out": 0.0, **settings})
    return open_training_data(
        data, model, batch_size=batch_size, seed=3, mode=mode, augment=STILL, **ranks
    )


def taken(stream, count):
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()


def test_a_question_has_pictures_words_to_read_and_words_to_say_and_no_robot(folder):
    data = opened(folder, batch_size=10)
    (host,) = taken(data.stream, 1)
    words, batch = data.maker.processor.tokenizer, host.batch
    seen = batch.observation
    dataset = open_dataset(folder / WORDS)
    keys = dataset.index["key"].to_pylist()
    asked = [place for place, key in enumerate(host.keys) if key.startswith("vqa")]
    np.testing.assert_array_equal(~batch.action_mask, np.isin(np.arange(10), asked))
    assert 0 < len(asked) < 10
    for place in asked:
        row = dataset.index.take([keys.index(host.keys[place])]).to_pylist()[0]
        prompt = seen.tokenized_prompt[place][seen.tokenized_prompt_mask[place]]
        assert words.decode(prompt) == row["instruction"] + "\n"
        assert seen.tokenized_prompt[place][0] == words.encode("", bos=True).ids[0]
        said = seen.text_target_tokens[place][seen.text_target_mask[place]]
        assert tuple(said) == words.encode(row["answer"], eos=True).ids
        for nothing in (
            seen.state, batch.actions, batch.action_is_pad, seen.fast_action_mask,
            seen.fast_action_tokens, seen.image_masks["left_wrist_0_rgb"],
        ):  # fmt: skip
            assert not nothing[place].any()
        assert seen.image_masks["base_0_rgb"][place]
        assert len(np.unique(seen.images["base_0_rgb"][place])) > 50
    robots = np.setdiff1d(np.arange(10), asked)
    assert seen.fast_action_mask[robots].any(axis=1).all()
    assert not seen.text_target_mask[robots].any()
    data.prepare(None, batch).check(MODEL)


def test_all_batches_have_the_same_shapes_and_the_shares_that_were_asked_for(folder):
    hosts = taken(opened(folder, weights=[1.0, 3.0], batch_size=5).stream, 40)
    shapes = {
        json.dumps([[str(leaf.dtype), leaf.shape] for leaf in jax.tree.leaves(host.batch)])
        for host in hosts
    }
    assert len(shapes) == 1
    asked = [~host.batch.action_mask for host in hosts]
    assert any(own.all() for own in asked), "a batch of questions alone"
    assert 0.65 < np.mean(asked) < 0.85


def test_a_mixture_goes_on_where_it_stopped_whatever_the_number_of_processes(folder):
    whole = taken(opened(folder).stream, 8)
    again = opened(folder)
    again.stream.restore(json.loads(json.dumps(whole[2].position)))
    for expected, found in zip(whole[3:], taken(again.stream, 5), strict=True):
        assert found.keys == expected.keys
        jax.tree.map(np.testing.assert_array_equal, found.batch, expected.batch)
    shares = [
        [host.keys for host in taken(opened(folder, rank=rank, world_size=2).stream, 8)]
        for rank in range(2)
    ]
    assert [a + b for a, b in zip(*shares, strict=True)] == [host.keys for host in whole]


@pytest.fixture(scope="module")
def training(folder):
    """Data and settings of a run whose programs are compiled once, and quickly."""
    settings = TrainSettings(
        model=MODEL,
        objective=Objective(),
        optimiser=OptimiserConfig(peak_learning_rate=1e-2, warmup_steps=1),
        run=RunConfig(
            steps=12, batch_size=4, log_every=6, save_every=12, validate_every=0, insulation_every=0
        ),
    )
    with quick_compiler():
        yield opened(folder, weights=[1.0, 3.0]), settings


def test_14_questions_alone_teach_the_backbone_and_leave_the_action_expert_at_exactly_zero(
    training,
):
    data, settings = training
    hosts = taken(data.stream, 40)
    programs = build_programs(settings, make_mesh(1), data.prepare)

    def told(host):
        batch, state = place_batch(host.batch, make_mesh(1)), programs.start(Pi0(MODEL).init(0))
        return programs.step(state, batch, jax.random.key(0))[1]

    alone = told(next(host for host in hosts if not host.batch.action_mask.any()))
    losses = alone.losses
    assert float(losses.flow) == float(losses.fast) == float(losses.fast_accuracy) == 0
    assert float(losses.total) == float(losses.text) > 0
    assert float(alone.gradient_norm["expert"]) == 0.0
    for name in ("vision", "embedder", "backbone"):
        assert 0 < float(alone.gradient_norm[name]) < np.inf
    mixed = told(next(host for host in hosts if 0 < host.batch.action_mask.sum() < 4))
    assert min(float(mixed.losses.flow), float(mixed.losses.fast), float(mixed.losses.text)) > 0
    assert float(mixed.gradient_norm["expert"]) > 0


def test_a_run_on_a_mixture_logs_both_losses_and_both_accuracies(training, tmp_path):
    data, settings = training
    data.stream.restore({"step": 0})
    Trainer(settings, data.stream, tmp_path / "run", prepare=data.prepare).run()
    data.stream.close()
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    first, last = (next(one for one in lines if one["step"] == step) for step in (6, 12))
    for name in ("loss/text", "loss/fast", "loss/flow"):
        assert 0 < last[name] < 20, name
    assert last["loss/text"] < first["loss/text"]
    for name in ("text/accuracy", "text/exact_answers", "fast/accuracy", "fast/exact_chunks"):
        assert 0 <= last[name] <= 1
    assert last["left_out/text_left_out"] == last["left_out/fast_left_out"] == 0


def test_means_count_only_batches_that_have_something_and_by_how_much_of_it():
    losses = [{"total": 2.0, "text": 4.0, "text_accuracy": 1.0, "flow": 1.0},
              {"total": 4.0, "text": 1.0, "text_accuracy": 0.5, "flow": 0.0}]  # fmt: skip
    counts = [{"text_samples": 1, "action_samples": 4}, {"text_samples": 3, "action_samples": 0}]
    found = mean_losses(losses, counts)
    assert found == {"total": 3.0, "text": 1.75, "text_accuracy": 0.625, "flow": 1.0}
    nobody = [{"text_samples": 0, "action_samples": 2}] * 2
    assert mean_losses(losses, nobody) == {"total": 3.0, "text": 0.0, "flow": 0.5}


def test_who_watches_the_robot_is_not_shown_questions(folder):
    data = opened(folder, held_out=0.4)
    looked_at, told = [], {}

    def judge(means, keys):
        looked_at.append((means["prompt"].shape[1], keys))
        return told

    watcher = RetentionWatcher(data.held_out, data.prepare, MODEL, judge, every=1)
    watcher._means = lambda params, given: {"prompt": np.zeros((1, given.state.shape[0], 2))}
    watcher.watch(0, {})
    held = [key for host in data.held_out for key in host.keys]
    assert any(key.startswith("vqa") for key in held)
    robots = tuple(key for key in held if not key.startswith("vqa"))
    assert looked_at == [(len(robots), robots)]
    config = DataConfig(paths=[str(folder / WORDS), str(folder / ROBOT)], held_out=0.4)
    (judged,) = retention_watchers(1, config, data, MODEL)
    assert set(judged._judge._labels["instruction"]) == set(robots)
    alone = opened(folder, WORDS, held_out=0.4)
    with pytest.raises(ValueError, match="but got none in which a robot acts"):
        RetentionWatcher(alone.held_out, alone.prepare, MODEL, judge, every=1)
    with pytest.raises(ValueError, match="`retention_every` must be 0 where no robot acts"):
        retention_watchers(1, config, alone, MODEL)
    settings = TrainSettings(model=MODEL, run=RunConfig(validate_every=5))
    assert head_watchers(None, settings, alone) == []
    with pytest.raises(ValueError, match="`heads_every` must be 0 where no robot acts, but got 3"):
        head_watchers(3, settings, alone)
    swapped = opened(folder, WORDS, ROBOT, held_out=0.4)
    assert len(head_watchers(None, settings, swapped)) == 1


def test_what_is_held_out_of_one_data_set_is_looked_at_where_the_other_is_small(folder):
    write_questions(folder / "few", episodes=1, suite="few")
    data = opened(folder, ROBOT, "few", held_out=0.3)
    held = {key.split("-")[0] for host in data.held_out for key in host.keys}
    assert held == {"demo0"}


def test_what_does_not_fit_is_said_before_anything_is_trained_or_counted(folder, tmp_path):
    needed = max(map(len, ANSWERS)) + 1
    with pytest.raises(
        ValueError,
        match=rf"`data.max_text_len` must be at least {needed} for all answers of .*words, but got 5: 10 of 20",
    ):
        opened(folder, max_text_len=5)
    with pytest.raises(
        ValueError, match=r"must hold some answers of .*words, but got 2; the shortest needs 3"
    ):
        opened(folder, max_text_len=2, overflow="leave_out")
    write_questions(tmp_path / "long", answers=("a" * 5,))
    short = dataclasses.replace(MODEL, max_token_len=6)
    message = r"`model.max_token_len` must hold some questions of .*long, but got 6; the shortest"
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, "long", model=short)
    data = opened(folder, max_text_len=5, overflow="leave_out", batch_size=5)
    hosts = taken(data.stream, 10)
    masks = [host.batch.observation.text_target_mask.any(axis=1) for host in hosts]
    left = sum(
        int((~mask & ~host.batch.action_mask).sum())
        for mask, host in zip(masks, hosts, strict=True)
    )
    assert left == hosts[-1].counts["text_left_out"] > 0
    assert hosts[-1].counts["fast_left_out"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"answers": ("yes", None)}, r"an `answer` in words for each .* 10 of the 20 samples of .*q have none, the first is vqa-t000-e0000-s0001"),
        ({"answers": ("yes", " ")}, r"an `answer` in words for each .* 10 of the 20 samples"),
        ({"answers": (3, 4)}, r"an `answer` in words for each .* 20 of the 20 samples"),
        ({"cameras": ("phone",)}, r"pictures of base, left_wrist \(convention libero\), but .*q has phone"),
        ({"cameras": ()}, r"pictures of base, left_wrist .* but .*q has none"),
        ({"answers": (None,)}, r"or vision-language data with an `answer` .* but .*q has neither"),
    ],
)  # fmt: skip
def test_questions_that_lack_something_are_refused_by_name(tmp_path, settings, message):
    write_questions(tmp_path / "q", **settings)
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, "q")


def test_questions_alone_are_learnt_in_words_and_refused_where_only_actions_count(folder):
    with pytest.raises(
        ValueError,
        match=r"`objective.mode` must learn tokens where no robot acts, but got flow_only",
    ):
        opened(folder, WORDS, mode="flow_only")
    (host,) = taken(opened(folder, WORDS, mode="fast_only").stream, 1)
    assert host.batch.observation.fast_action_tokens is None
    assert host.batch.observation.text_target_mask.any(axis=1).all()
    (host,) = taken(
        opened(
            folder, mode="flow_only", norm_stats=str(folder / ROBOT / "fast/norm_stats.json")
        ).stream,
        1,
    )
    assert host.batch.observation.text_target_tokens is None
