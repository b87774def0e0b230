"""Episode files into shards: numbers, pictures, words, and what does not go together."""

import h5py
import numpy as np
import pytest

from jax_bridge.demos.conversion import ConversionPlan, Converter
from jax_bridge.demos.description import demonstrations_of
from jax_bridge.episodes import survey
from jax_bridge.shards import FingerprintError, ImageFormat, open_dataset
from jax_bridge.shards.sample_choice import SampleChoice
from tests.jax_bridge.episodes.episode_files import (
    WRITERS,
    actions,
    picture,
    write_aloha,
    write_calvin,
    write_libero,
    write_mobile_vla,
)

PNG = ImageFormat(kind="png")


class Silent:
    def update(self, report):
        pass


def convert(paths, out, **options):
    plan = ConversionPlan(**{"horizon": 3, "images": PNG, **options})
    converter = Converter(survey(paths).episodes, plan)
    return converter.run(str(out), Silent()), open_dataset(out)


def test_every_frame_of_a_file_is_a_sample_with_what_follows_it(tmp_path):
    path = write_libero(tmp_path / "a.hdf5", lengths=(5, 3))
    report, dataset = convert([path], tmp_path / "d", suite="libero")
    assert (report.episodes, report.samples) == (2, 8)
    choice = SampleChoice(
        robot=("state", "actions", "executed", "action_is_pad"), images=("base", "left_wrist"),
        metadata=("instruction", "success", "source", "episode_length"),
    )  # fmt: skip
    sample = choice.read(dataset, dataset.select({"episode": 0, "timestep": 3}))[0]
    assert sample["key"] == "libero-t000-e0000-s0003"
    expected = actions(5, 7).astype(np.float32)
    assert np.array_equal(sample["robot"]["actions"], expected[[3, 4, 4]])
    assert sample["robot"]["action_is_pad"].tolist() == [False, False, True]
    assert np.array_equal(sample["robot"]["executed"], expected[3])
    assert np.array_equal(sample["images"]["base"], picture(3)[0])
    assert np.array_equal(sample["images"]["left_wrist"], picture(3)[0])
    assert sample["metadata"] == {
        "instruction": "put the red cube in the bowl", "success": True,
        "source": "a.hdf5:data/demo_0", "episode_length": 5,
    }  # fmt: skip
    sizes = demonstrations_of(dataset.info, tmp_path)
    assert (sizes.horizon, sizes.action_dim, sizes.state_dim) == (3, 7, 8)
    assert sizes.cameras == ("base", "left_wrist")


def test_tasks_are_instructions_and_episodes_count_inside_them(tmp_path):
    for name, words in (("a", "push"), ("b", "pull"), ("c", "push")):
        write_libero(tmp_path / f"{name}.hdf5", lengths=(2, 2), words=words)
    _, dataset = convert([tmp_path], tmp_path / "d", images=None)
    columns = ["task_id", "episode", "instruction", "source"]
    rows = dataset.index.select(columns).to_table().to_pylist()
    found = {(r["task_id"], r["episode"]): (r["instruction"], r["source"][:1]) for r in rows}
    assert found == {
        (0, 0): ("push", "a"), (0, 1): ("push", "a"), (0, 2): ("push", "c"), (0, 3): ("push", "c"),
        (1, 0): ("pull", "b"), (1, 1): ("pull", "b"),
    }  # fmt: skip


@pytest.mark.parametrize("layout", [*WRITERS, "calvin"])
def test_every_layout_becomes_shards(tmp_path, layout):
    path = tmp_path / "a.hdf5"
    path = write_calvin(tmp_path / "c") if layout == "calvin" else WRITERS[layout](path)
    report, dataset = convert([path], tmp_path / "d", instruction="go", images=None)
    assert report.samples == len(dataset) > 3
    assert dataset.read_robot("actions").shape[1] == 3


def test_a_robot_without_a_state_has_none(tmp_path):
    _, dataset = convert([write_mobile_vla(tmp_path / "a.h5")], tmp_path / "d", instruction="go")
    assert demonstrations_of(dataset.info, tmp_path).state_dim is None
    assert not any("state" in name for name in dataset.index.column_names)


def test_frames_can_be_scaled_and_thinned_out_and_cameras_chosen(tmp_path):
    path = write_aloha(tmp_path / "a.hdf5", steps=5)
    _, dataset = convert(
        [path], tmp_path / "d", instruction="go", image_size=8, stride=2, cameras=("cam_low",)
    )
    assert dataset.index["timestep"].to_pylist() == [0, 2, 4]
    (sample,) = SampleChoice(images=("cam_low",)).read(dataset, np.array([1]))
    assert sample["images"]["cam_low"].shape == (8, 8, 3)
    assert np.allclose(dataset.read_robot("actions")[0, :, 0], [0, 1, 2])
    assert not any("base" in name for name in dataset.index.column_names)


def test_a_bad_episode_is_noted_and_tried_again_when_asked(tmp_path):
    path = write_libero(tmp_path / "a.hdf5", lengths=(4, 3))
    with h5py.File(path, "r+") as file:
        file["data/demo_0/actions"][2] = np.nan
    report, dataset = convert([path], tmp_path / "d")
    assert (report.episodes, len(dataset)) == (1, 3)
    assert "data/demo_0: actions is NaN or infinite at step 2" in report.errors[0]
    with h5py.File(path, "r+") as file:
        file["data/demo_0/actions"][2] = 0.0
    again, _ = convert([path], tmp_path / "d")
    assert (again.episodes, again.skipped) == (0, 2)
    again, dataset = convert([path], tmp_path / "d", retry_errors=True)
    assert (again.episodes, len(dataset)) == (1, 7)


def test_a_stopped_conversion_goes_on_to_the_same_data(tmp_path, monkeypatch):
    path = write_libero(tmp_path / "a.hdf5", lengths=(4, 3, 5))
    _, whole = convert([path], tmp_path / "whole")

    class Stopping(Silent):
        def update(self, report):
            if report.episodes == 2:
                raise KeyboardInterrupt

    plan = ConversionPlan(horizon=3, images=PNG)
    with pytest.raises(KeyboardInterrupt):
        Converter(survey([path]).episodes, plan).run(str(tmp_path / "d"), Stopping())
    report, dataset = convert([path], tmp_path / "d")
    assert (report.skipped, report.episodes) == (2, 1)
    assert dataset.metadata.drop(["shard"]).equals(whole.metadata.drop(["shard"]))
    actions_of = [d.read_robot("actions").tobytes() for d in (whole, dataset)]
    assert actions_of[0] == actions_of[1]


def test_other_files_do_not_mix_into_a_data_set(tmp_path):
    convert([write_libero(tmp_path / "a.hdf5")], tmp_path / "d")
    write_libero(tmp_path / "b.hdf5")
    with pytest.raises(FingerprintError, match=r"environment\.episodes_digest is"):
        convert([tmp_path / "a.hdf5", tmp_path / "b.hdf5"], tmp_path / "d")


def test_what_does_not_go_together_is_named(tmp_path):
    a, b = write_libero(tmp_path / "a.hdf5"), write_aloha(tmp_path / "b.hdf5")
    with pytest.raises(ValueError, match=r"a\.hdf5:data/demo_0 has 7 action and 8 state numbers"):
        convert([a, b], tmp_path / "d")
    with pytest.raises(ValueError, match=r"files have none: 1 of 1 episodes, .*--instruction TEXT"):
        convert([b], tmp_path / "d")
    with pytest.raises(ValueError, match="at least one episode that can be read"):
        Converter([], ConversionPlan(horizon=3))


@pytest.mark.parametrize(
    ("name", "value"), [("horizon", 0), ("stride", 0), ("image_size", 0), ("suite", "a b")]
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must .*but got '?{value}"):
        ConversionPlan(**{"horizon": 3, name: value})
