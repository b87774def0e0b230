"""Questions about the tabletop: true answers, in words that one token holds, balanced, repeatable."""

import collections
import json

import numpy as np
import pytest

from cli.main import main
from jax_bridge.demos.questions import QuestionPlan, QuestionWriter
from jax_bridge.environments.tabletop import Tabletop
from jax_bridge.environments.tabletop.palette import COLOURS
from jax_bridge.environments.tabletop.questions import GRID, TabletopQuestions
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.tokenizers import make_tokenizer
from jax_bridge.rollouts.collect import CollectPlan
from jax_bridge.rollouts.demonstrations import DemoCollector
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.shards import ShardLimits, open_dataset, split_rows
from tests.jax_bridge.demos.demo_data import write_demos

NOTHING = CaptureSpec.preset("pooled")
TRUTH = {
    "objects": {
        "red_cube": [0.0, 0.0, 0.02], "red_ball": [0.1, 0.1, 0.02], "blue_bowl": [0.1, 0.1, 0.02],
        "white_plate": [-0.1, 0.0, 0.0], "yellow_ball": [0.0, 0.2, 0.02], "far_cube": [9, 0, 0],
    },
    "predicates": {
        "in(red_cube, blue_bowl)": True, "in(red_ball, blue_bowl)": True,
        "in(red_cube, white_plate)": False, "in(red_ball, white_plate)": False,
        "grasped(red_cube)": False, "grasped(red_ball)": True,
    },
}  # fmt: skip


class Silent:
    def update(self, report):
        pass


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Four short episodes of the tabletop."""
    path = tmp_path_factory.mktemp("table") / "demos"
    protocol = RolloutProtocol(drive="demonstrator", stride=3, max_steps=50)
    plan = CollectPlan(
        tasks=(0, 5), episodes=(0, 1), protocol=protocol, images="png", capture=NOTHING
    )
    DemoCollector(Tabletop(image_size=32), plan, horizon=2).run(str(path), Silent())
    return path


def asked(count=3000, truth=TRUTH):
    random, questioner = np.random.default_rng(0), TabletopQuestions()
    return [questioner.ask(truth, random) for _ in range(count)]


def test_answers_are_what_the_truth_says():
    answers = collections.defaultdict(set)
    for question in asked():
        answers[question.words].add(question.answer)
    assert all(len(found) == 1 for found in answers.values())
    told = {words: found.pop() for words, found in answers.items()}
    assert told["what is in the blue bowl"] == "red cube and red ball"
    assert told["what is on the white plate"] == told["what is in the green box"] == "nothing"
    assert told["is the red cube in the blue bowl"] == "yes"
    assert told["is the red cube on the white plate"] == "no"
    assert told["what is in the hand"] == "red ball"
    assert told["is there a yellow ball"] == "yes"
    assert told["is there an orange cube"] == "no"
    assert told["where is the red ball"] == told["where is the blue bowl"] == told_place(0.1, 0.1)
    assert "where is the far cube" not in told, "it is beside the picture"


def told_place(x, y):
    return TabletopQuestions().place([x, y, 0.02])


def test_yes_and_no_are_as_likely_so_that_nobody_need_not_look():
    found = asked()
    for kind in ("whether", "there"):
        yes = [question.answer == "yes" for question in found if question.kind == kind]
        assert len(yes) > 400
        assert 0.42 < np.mean(yes) < 0.58
    kinds = collections.Counter(question.kind for question in found)
    assert set(kinds) == {"where", "inside", "whether", "held", "there"}


def test_a_place_is_where_the_thing_is_seen_in_the_picture():
    table, questioner = Tabletop(image_size=8 * GRID), TabletopQuestions()
    hits = []
    for episode in range(12):
        table.reset(task_id=0, episode=episode, seed=3)
        picture = table.observe().images["base"].astype(float)
        for name, point in table.truth()["objects"].items():
            across, down = (int(word[1:]) for word in questioner.place(point).split())
            cell = picture[8 * down : 8 * down + 8, 8 * across : 8 * across + 8].reshape(-1, 3)
            colour = np.asarray(COLOURS[name.split("_")[0]])
            likeness = (cell / np.linalg.norm(cell, axis=1, keepdims=True)) @ colour
            hits.append((likeness / np.linalg.norm(colour)).max() > 0.98)
    assert np.mean(hits) > 0.95, "some are hidden by the hand"


def test_small_models_need_one_token_a_word():
    tokenizer = make_tokenizer("words")
    for question in asked(500):
        for text in (question.words, question.answer):
            assert len(tokenizer.encode(text).ids) == len(text.split()), text


def write(demos, path, **plan):
    return QuestionWriter(open_dataset(demos), QuestionPlan(**plan)).run(str(path))


def test_each_question_is_a_sample_with_the_pictures_of_its_frame(demos, tmp_path):
    told = write(demos, tmp_path / "q", per_frame=3, stride=2)
    source, found = open_dataset(demos), open_dataset(tmp_path / "q")
    assert told.episodes == 4
    assert sum(told.kinds.values()) == len(found)
    rows = found.index.to_pylist()
    frames = {
        (r["task_id"], r["episode"], r["timestep"]): i
        for i, r in enumerate(source.index.to_pylist())
    }
    about = collections.Counter((r["task_id"], r["episode"], r["frame"]) for r in rows)
    assert set(about.values()) == {3}
    assert len(about) == sum(frame[2] % 6 == 0 for frame in frames)
    for number in (0, len(rows) - 1):
        row = rows[number]
        truth = json.loads(
            source.index["truth"][frames[row["task_id"], row["episode"], row["frame"]]].as_py()
        )
        assert row["success"] is None
        known = {q.words: q.answer for q in asked(2000, truth)}
        assert known[row["instruction"]] == row["answer"]
        place = frames[row["task_id"], row["episode"], row["frame"]]
        for camera in ("base.png", "left_wrist.png"):
            assert found.read_members(camera, [number]) == source.read_members(camera, [place])


def test_questions_are_held_out_with_the_demonstrations_of_their_episode(demos, tmp_path):
    write(demos, tmp_path / "q")
    sides = []
    for path in (demos, tmp_path / "q"):
        index = open_dataset(path).index
        rows = split_rows(index, fractions=(0.5, 0.5, 0.0))["val"]
        sides.append({(r["task_id"], r["episode"]) for r in index.take(rows).to_pylist()})
    assert sides[0] == sides[1]
    assert 0 < len(sides[0]) < 4


def test_the_same_seed_gives_the_same_bytes_and_a_stopped_run_goes_on(demos, tmp_path, monkeypatch):
    write(demos, tmp_path / "whole")
    calls = []

    def stop(count):
        calls.append(count)
        if len(calls) == 3:
            raise KeyboardInterrupt

    writer = QuestionWriter(open_dataset(demos), QuestionPlan())
    with pytest.raises(KeyboardInterrupt):
        writer.run(str(tmp_path / "cut"), stop)
    told = write(demos, tmp_path / "cut")
    assert (told.episodes, told.skipped) == (2, 2)
    columns = ["key", "instruction", "answer", "frame", "question"]
    whole, cut = (open_dataset(tmp_path / n).index.select(columns) for n in ("whole", "cut"))
    assert whole.equals(cut)
    write(demos, tmp_path / "other", seed=1)
    assert not whole.equals(open_dataset(tmp_path / "other").index.select(columns))


def test_the_command_says_what_it_wrote_and_what_cannot_be_asked_about(demos, tmp_path, capsys):
    assert main(["questions", str(demos), "--out", str(tmp_path / "q"), "--stride", "4"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 episodes (0 were there already), ")
    assert f"-> {tmp_path}/q" in out
    files = write_demos(tmp_path / "files", episodes=1)
    for words, message in (
        ([files], r"must be of a simulator that can be asked about (tabletop), but"),
        ([demos, "--per_frame", "0"], "`per_frame` must be positive, but got 0"),
        ([demos, "--seed", "1"], "questions.stride"),
        ([tmp_path / "none"], "none"),
    ):
        args = [str(word) for word in (*words, "--out", tmp_path / "q")]
        assert main(["questions", *args]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_pictures_and_truth_must_have_been_recorded(tmp_path):
    protocol = RolloutProtocol(drive="demonstrator", max_steps=2)
    plan = CollectPlan(tasks=(0,), episodes=(0,), protocol=protocol, images="none", capture=NOTHING)
    DemoCollector(Tabletop(image_size=8), plan, horizon=1, limits=ShardLimits()).run(
        str(tmp_path / "blind"), Silent()
    )
    with pytest.raises(ValueError, match=r"blind has no pictures\. Record it with"):
        QuestionWriter(open_dataset(tmp_path / "blind"), QuestionPlan())
