"""Questions about scenes of the tabletop: whole answers, scenes of their own, repeatable."""

import json

import numpy as np
import pytest

from cli.main import main
from jax_bridge.demos.scene_questions import SCENES_PER_EPISODE, ScenePlan, SceneQuestionWriter
from jax_bridge.environments.tabletop import Tabletop
from jax_bridge.environments.tabletop.questions import NEAR, STRIDES, TabletopQuestions
from jax_bridge.environments.tabletop.tasks import GOALS
from jax_bridge.policies.tokenizers import make_tokenizer
from jax_bridge.shards import open_dataset


def write(path, **plan):
    return SceneQuestionWriter(Tabletop(image_size=16), ScenePlan(**plan)).run(str(path))


BY_NAME_ORDER = ("way", "everything", "whole")


def shown(scene, seed=0):
    table = Tabletop(image_size=16)
    table.scatter(episode=scene, seed=seed)
    return table


def test_everything_names_each_thing_in_the_picture_with_its_place():
    table, questioner = shown(3), TabletopQuestions(["everything"])
    asked = questioner.ask(table.truth(), np.random.default_rng(0))
    words = asked.answer.split()
    told = {" ".join(words[i : i + 2]): " ".join(words[i + 2 : i + 4]) for i in range(0, 40, 4)}
    places = {
        name.replace("_", " "): questioner.place(point)
        for name, point in table.truth()["objects"].items()
    }
    assert told == {name: place for name, place in places.items() if place}
    assert len(told) == len(words) / 4
    tokenizer = make_tokenizer("words")
    for text in (asked.words, asked.answer):
        assert len(tokenizer.encode(text).ids) == len(text.split())


def told_way(words):
    """Metres, and by how much they may be wrong: half of the way to the next stride."""
    told = []
    for word, (ahead, behind) in zip(words, (("front", "back"), ("left", "right")), strict=True):
        size = int(word.removeprefix(ahead).removeprefix(behind))
        place = STRIDES.index(size)
        longer = STRIDES[place + 1] if place + 1 < len(STRIDES) else 100
        sign = 1 if word.startswith(ahead) else -1
        told.append((sign * size / 100, (longer - size) / 200))
    return np.array(told).T


def test_the_way_leads_to_the_object_and_with_it_in_the_hand_to_the_container():
    questioner, random = TabletopQuestions(["way"]), np.random.default_rng(0)
    held = near = 0
    for scene in range(80):
        truth = shown(scene).truth()
        asked = questioner.ask(truth, random)
        goal = next(goal for goal in GOALS if goal.instruction == asked.words)
        carried = truth["predicates"][f"grasped({goal.target.name})"]
        held += carried
        aim = truth["objects"][(goal.container if carried else goal.target).name]
        way = np.subtract(aim, truth["gripper"])[:2]
        near += bool(np.abs(way).max() < NEAR / 100)
        told, unsure = told_way(asked.answer.split()[:2])
        assert (np.abs(told - way) <= unsure + 1e-9).all(), asked
        places = [questioner.place(truth["objects"][i.name]) for i in (goal.target, goal.container)]
        assert " ".join(asked.answer.split()[2:]) == " ".join(filter(None, places))
        assert len(make_tokenizer("words").encode(asked.answer).ids) == len(asked.answer.split())
    assert 20 <= held <= 50, "half of what acts has the object in its hand"
    assert near >= 15, "a hand anywhere is hardly ever near what it has to go to"


def test_the_whole_is_the_way_and_then_everything():
    truth = shown(2).truth()
    way, everything, whole = (
        TabletopQuestions([kind]).ask(truth, np.random.default_rng(4)) for kind in BY_NAME_ORDER
    )
    assert whole.words == way.words
    assert whole.answer.startswith(f"{way.answer} ")
    rest = whole.answer.removeprefix(f"{way.answer} ").split()
    assert sorted(rest) == sorted(everything.answer.split())


def test_everything_and_the_way_are_asked_only_by_name():
    random, truth = np.random.default_rng(0), shown(0).truth()
    kinds = {TabletopQuestions().ask(truth, random).kind for _ in range(200)}
    assert not kinds & {"everything", "way", "whole"}
    with pytest.raises(ValueError, match=r"`kinds` must be some of where, .* got colours"):
        TabletopQuestions(["where", "colours"])


def test_a_moment_is_a_pure_function_of_its_number():
    first, again, other = (shown(scene).truth() for scene in (5, 5, 6))
    assert first == again
    assert first["objects"] != other["objects"]
    assert first["gripper"] != other["gripper"]


def test_moments_show_what_rollouts_reach_late_things_held_and_things_in_containers():
    truths = [shown(scene).truth() for scene in range(60)]
    true = [{name for name, holds in truth["predicates"].items() if holds} for truth in truths]
    assert 15 <= sum(any(name.startswith("grasped") for name in names) for names in true) <= 50
    assert sum(any(name.startswith("in(") for name in names) for names in true) >= 2
    heights = [truth["gripper"][2] for truth in truths]
    assert min(heights) < 0.05 < 0.2 < max(heights)


def test_scenes_become_samples_and_a_second_run_adds_only_what_is_missing(tmp_path):
    told = write(tmp_path / "q", scenes=SCENES_PER_EPISODE - 1, kinds=("where",))
    assert told.kinds == {"where": SCENES_PER_EPISODE}
    before = [json.dumps(row) for row in open_dataset(tmp_path / "q").index.to_pylist()]
    more = write(tmp_path / "q", scenes=2 * SCENES_PER_EPISODE, kinds=("where",))
    assert (more.episodes, more.skipped) == (1, 1)
    rows = open_dataset(tmp_path / "q").index.to_pylist()
    assert [json.dumps(row) for row in rows[: len(before)]] == before
    assert [row["frame"] for row in rows] == list(range(2 * SCENES_PER_EPISODE))
    truth = shown(rows[-1]["frame"]).truth()
    asked = rows[-1]["instruction"].removeprefix("where is the ").replace(" ", "_")
    assert TabletopQuestions().place(truth["objects"][asked]) == rows[-1]["answer"]


def test_the_command_needs_recorded_pictures_or_scenes_and_not_both(tmp_path, capsys):
    for words in ([], [str(tmp_path), "--scenes", "50"]):
        assert main(["questions", *words, "--out", str(tmp_path / "q")]) == 2
        assert "Either `DATASET` or `--scenes` must be given" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


def test_a_simulator_without_scenes_is_refused():
    unscattered = type("Unscattered", (Tabletop,), {"scatter": None, "suite": "elsewhere"})
    with pytest.raises(ValueError, match=r"must be a simulator that shows scenes .* 'elsewhere'"):
        SceneQuestionWriter(unscattered(), ScenePlan(scenes=1))


def test_cameras_are_chosen_by_name(tmp_path):
    write(tmp_path / "q", scenes=1, cameras=("base",))
    found = open_dataset(tmp_path / "q")
    assert found.info.environment["cameras"] == ["base"]
    assert len(found.read_members("base.png", [0])) == 1
    with pytest.raises(ValueError, match="`cameras` must be some of base, left_wrist, but got top"):
        write(tmp_path / "r", scenes=1, cameras=("top",))
