"""Statistics and sampling plans of small recorded episodes with known movements."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from cli.main import main
from datamodules.frames.frame_data_module import FrameDataModule
from datamodules.frames.plan_file import read_plan
from jax_bridge.episodes import survey
from lightning_modules.figures.recording_figures import draw_lengths, draw_strata
from lightning_modules.recordings.action_sums import BINS, ActionSums
from lightning_modules.recordings.episode_facts import Recordings
from lightning_modules.recordings.movement import movement_of
from lightning_modules.recordings.sampling_plan import PlanSettings, make_plan, spread
from lightning_modules.recordings.strata import stratify, thirds

TURN = np.pi / 2


def vehicle(path, actions, words="go to the basket", **attributes):
    """A recording of a vehicle: speeds along x and y and about the vertical."""
    actions = np.asarray(actions, np.float32)
    with h5py.File(path, "w") as file:
        file["actions"] = actions
        file["images"] = np.zeros((len(actions), 4, 6, 3), np.uint8)
        file.attrs["language_instruction"] = words
        for name, value in attributes.items():
            file.attrs[name] = value


def straight(steps, axis=0, sign=1.0):
    actions = np.zeros((steps, 3), np.float32)
    actions[:, axis] = sign
    return actions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve episodes: eight along +x, four along -y; long ones are hard."""
    root = tmp_path_factory.mktemp("recordings")
    for number in range(12):
        along_y = number >= 8
        hard = number % 4 == 3
        vehicle(
            root / f"{'hard' if hard else 'easy'}_{number:02d}.h5",
            straight(20 if hard else 8, axis=int(along_y), sign=-0.5 if along_y else 1.0),
            words="turn right" if along_y else "go ahead",
            operator="ann" if number % 2 else "bob",
        )
    return root


@pytest.fixture(scope="module")
def found(folder):
    return Recordings(survey([folder]))


def test_movement_of_known_paths():
    ahead = movement_of(straight(10), "mobile_vla")
    assert (ahead.path_length, ahead.curvature, ahead.direction) == (10.0, 0.0, "+x")
    corner = movement_of(
        np.concatenate([straight(5), straight(6, axis=1, sign=-1.0)]), "mobile_vla"
    )
    assert corner.direction == "-y"
    assert corner.curvature == pytest.approx(TURN / 10)
    assert movement_of(np.zeros((4, 7)), "libero").direction == "still"
    there_and_back = movement_of(
        np.concatenate([straight(5), straight(5, sign=-1.0)]), "mobile_vla"
    )
    assert (there_and_back.path_length, there_and_back.direction) == (10.0, "still")
    joints = np.zeros((5, 14))
    joints[:, 4] = [0, -1, -2, -3, -4]
    assert movement_of(joints, "aloha").direction == "-j4"
    assert movement_of(joints, "aloha").path_length == 4.0


def test_statistics_of_a_stream_are_those_of_all_numbers():
    rng = np.random.default_rng(0)
    parts = [rng.normal(3, 2, (n, 2)).astype(np.float32) for n in (5, 1, 400)]
    sums = ActionSums(2)
    for part in parts:
        sums.add(part)
    every, said = np.concatenate(parts).astype(np.float64), sums.to_json()
    np.testing.assert_allclose(said["mean"], every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(said["std"], every.std(0), rtol=1e-12)
    assert (said["min"], said["max"]) == (every.min(0).tolist(), every.max(0).tolist())
    for share, row in said["quantiles"].items():
        exact = np.quantile(every, float(share), axis=0, method="inverted_cdf")
        np.testing.assert_allclose(row, exact, rtol=BINS.relative_error * 1.001)


def test_what_cannot_be_read_is_counted_and_named(folder, tmp_path):
    content = (folder / "easy_00.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[:300])
    vehicle(tmp_path / "good.h5", straight(3))
    vehicle(tmp_path / "nan.h5", np.full((3, 3), np.nan))
    found = Recordings(survey([tmp_path]))
    assert len(found.episodes) == 1
    assert {Path(name).name for name in found.skipped} == {"cut.h5", "nan.h5"}
    (tmp_path / "good.h5").unlink()
    with pytest.raises(
        ValueError, match=r"`files` must hold an episode that can be read, but got none \(.*cut.h5"
    ):
        Recordings(survey([tmp_path]))


def test_an_attribute_comes_before_a_computed_stratum(found):
    strata = stratify(found.episodes, ["operator", "trajectory", "task"], None)
    assert strata.sources == {
        "operator": "the files' attributes", "trajectory": "computed: direction", "task": "computed: task",
    }  # fmt: skip
    assert set(strata.labels) == {("ann", "+x", "go ahead"), ("bob", "+x", "go ahead"),
                                  ("ann", "-y", "turn right"), ("bob", "-y", "turn right")}  # fmt: skip


def test_a_name_rule_gives_strata(found):
    strata = stratify(found.episodes, ["difficulty"], r"(?P<difficulty>easy|hard)_\d+")
    assert strata.sources == {"difficulty": "the name rule"}
    assert [label for (label,) in strata.labels].count("hard") == 3
    with pytest.raises(ValueError, match=r"`name_rule` must fit names such as .*easy_00.h5"):
        stratify(found.episodes, ["difficulty"], r"(?P<difficulty>medium)")
    with pytest.raises(ValueError, match=r"must have named groups"):
        stratify(found.episodes, ["difficulty"], r"easy|hard")
    with pytest.raises(ValueError, match=r"`name_rule` must be a pattern, but got '\(' "):
        stratify(found.episodes, ["difficulty"], "(")


def test_an_unknown_stratum_names_what_there_is(found):
    with pytest.raises(
        ValueError, match=r"an attribute of the files \(.*operator.*but got 'weather'"
    ):
        stratify(found.episodes, ["weather"], None)
    with pytest.raises(ValueError, match="`by` must name each stratum once, but got "):
        stratify(found.episodes, ["task", "task"], None)


def test_a_stratum_of_one_value_is_warned_of(found):
    assert (
        "`layout` has a single value, 'mobile_vla'"
        in stratify(found.episodes, ["layout"], None).warnings[0]
    )


def test_thirds_never_part_equal_numbers():
    labels = thirds([1.0, 1.0, 1.0, 1.0, 2.0, 3.0])
    assert len(set(labels[:4])) == 1
    assert len({label.split()[0] for label in thirds([float(n) for n in range(9)])}) == 3


def plan(found, **settings):
    return make_plan(found.episodes, PlanSettings(**{"by": ("task",), **settings}))


def test_strata_get_their_shares_and_frames_are_spread(found):
    made = plan(found, total=18, frames_per_episode=3)
    assert made.allotted == {("go ahead",): 4, ("turn right",): 2}
    assert made.frames == 18
    assert made.warnings == []
    assert all(len(e.frames) == 3 for e in made.chosen)
    assert "task go ahead: 1 of 4 drawn from 8 by seed 0" in {e.reason for e in made.chosen}


def test_frames_are_the_middles_of_equal_parts():
    assert spread(10, 5) == (1, 3, 5, 7, 9)
    assert spread(20, 1) == (10,)
    assert spread(3, 5) == (0, 1, 2)


def test_a_seed_gives_one_plan_and_another_seed_another(found):
    names = {s: [e.name for e in plan(found, total=10, seed=s).chosen] for s in range(6)}
    assert names[0] == [e.name for e in plan(found, total=10, seed=0).chosen]
    assert len({tuple(n) for n in names.values()}) > 1


def test_a_plan_does_not_move_with_the_order_of_the_files(found):
    turned = make_plan(found.episodes[::-1], PlanSettings(by=("task",), total=10))
    assert turned.to_json() == plan(found, total=10).to_json()


def test_what_a_plan_lacks_is_warned_of(found):
    assert "120 of 500 frames" not in str(plan(found, total=60).warnings)
    assert any(w.startswith("60 of 500 frames") for w in plan(found).warnings)
    alone = plan(found, by=("task", "duration", "operator"), total=5)
    assert any("strata give no episode" in w for w in alone.warnings)
    assert any("have fewer than 9 episodes" in w for w in plan(found, total=90, minimum=9).warnings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"total": 0}, "`total` must be positive, but got 0"),
     ({"frames_per_episode": 0}, "`frames_per_episode` must be positive, but got 0"),
     ({"minimum": -1}, "`minimum` must not be negative, but got -1")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PlanSettings(by=("task",), **settings)


def test_the_commands_write_statistics_and_a_plan_that_can_be_read(folder, tmp_path, capsys):
    assert main(["dataset-stats", str(folder), "--out", str(tmp_path / "stats")]) == 0
    said = json.loads((tmp_path / "stats" / "dataset_statistics.json").read_text())
    assert (said["episodes"], said["steps"]) == (12, 9 * 8 + 3 * 20)
    assert said["instructions"] == {"go ahead": 8, "turn right": 4}
    assert said["cameras"] == {"base 4x6": 12}
    report = (tmp_path / "stats" / "dataset_statistics.md").read_text()
    assert "| go ahead | 8 |" in report
    assert {p.name for p in (tmp_path / "stats").glob("*.png")} == {
        "lengths.png",
        "instructions.png",
        "strata.png",
        "actions_3.png",
    }
    out = tmp_path / "plan.json"
    rule = r"(?P<difficulty>easy|hard)"
    assert main([
        "sampling-plan", str(folder), "--by", "task,difficulty,trajectory", "--name-rule", rule,
        "--frames-per-episode", "2", "--total", "12", "--min", "1", "--out", str(out),
    ]) == 0  # fmt: skip
    frames = read_plan(str(out))
    assert sum(len(f) for f in frames.values()) == 12
    data = FrameDataModule(str(folder), profile="raw", plan=str(out), batch_size=12)
    data.setup()
    (batch,) = data.predict_dataloader()
    read = {(f"{folder}/{Path(e.episode.name).name}") for e in data.episodes}
    assert (len(batch.samples), read) == (12, set(frames))
    document = out.with_suffix(".md").read_text()
    assert all(name in document for name in frames)
    assert "12 frames of 6 of 12 episodes in 4 strata" in capsys.readouterr().out


@pytest.mark.parametrize("highest", [10, 39, 40, 41, 123, 500])
def test_equally_frequent_lengths_make_bars_of_one_height(highest):
    (axes,) = draw_lengths(list(range(highest + 1))).axes
    heights = [bar.get_height() for bar in axes.patches]
    assert sum(heights) == highest + 1
    assert len(heights) <= 41
    assert len(set(heights[:-1])) == 1


def test_rare_labels_are_drawn_as_one_bar_that_holds_them_all():
    counts = {f"task {number:02d}": 50 - number for number in range(40)}
    (axes,) = draw_strata({"task": counts}).axes
    bars = [bar.get_width() for bar in axes.patches]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert (bars[0], names[0]) == (50, "task 00")
    assert sum(bars) == sum(counts.values())
    assert names[-1] == "29 others"


def test_what_is_wrong_is_one_sentence(folder, tmp_path, capsys):
    for args, message in (
        (["sampling-plan", str(folder), "--by", "weather"], "but got 'weather'"),
        (["sampling-plan", str(folder), "--out", "plan.txt"], "`--out` must end in .json"),
        (["dataset-stats", str(tmp_path / "none")], "that exist, but got"),
        (["dataset-stats", str(folder), "--out", __file__], "`--out` must be a folder, but"),
    ):
        assert main(args) == 2
        error = capsys.readouterr().err.lstrip()
        assert message in error
        assert error.count("\n") == 1
