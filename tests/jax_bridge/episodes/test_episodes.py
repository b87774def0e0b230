"""Episode files: what is found, what is passed over, and that frames come out upright."""

import collections
import fcntl

import h5py
import numpy as np
import pytest

from jax_bridge.episodes import EpisodeReadError, open_episode, survey
from jax_bridge.episodes import frames as frames_module
from tests.jax_bridge.episodes.episode_files import (
    WRITERS,
    actions,
    jpeg,
    picture,
    pictures,
    write_aloha,
    write_calvin,
    write_droid,
    write_libero,
    write_mobile_vla,
    write_robomimic,
)


@pytest.mark.parametrize("layout", WRITERS)
def test_the_layout_is_found_by_the_names_in_the_file(tmp_path, layout):
    path = WRITERS[layout](tmp_path / "a.hdf5")
    found = survey([path])
    assert found.skipped == []
    assert {info.layout for info in found.episodes} == {layout}
    assert survey([path], layout=layout).episodes == found.episodes


def test_liberos_demonstrations_come_by_number_with_words_state_and_cameras(tmp_path):
    found = survey([write_libero(tmp_path / "a.hdf5", lengths=(5, 3) + (2,) * 9)])
    assert [info.place for info in found.episodes] == [f"data/demo_{i}" for i in range(11)]
    first = found.episodes[0]
    assert (first.length, first.action_dim, first.state_dim) == (5, 7, 8)
    assert first.instruction == "put the red cube in the bowl"
    assert first.success is True
    assert [camera.name for camera in first.cameras] == ["base", "left_wrist"]
    with open_episode(found.episodes[1]) as episode:
        assert np.array_equal(episode.actions(), actions(3, 7, 10).astype(np.float32))
        expected = np.concatenate([actions(3, 3, 1), actions(3, 3, 2), actions(3, 2, 3)], axis=1)
        assert np.array_equal(episode.state(), expected.astype(np.float32))


def test_robomimics_quaternions_become_axis_angles(tmp_path):
    (info,) = survey([write_robomimic(tmp_path / "a.hdf5")]).episodes
    assert (info.instruction, info.success, info.state_dim) == (None, False, 8)
    with open_episode(info) as episode:
        state = episode.state()
    assert np.allclose(state[:, 3:6], [np.pi / 2, 0, 0])


def test_droids_state_and_actions_are_openpis(tmp_path):
    (info,) = survey([write_droid(tmp_path / "a.h5")]).episodes
    assert (info.action_dim, info.state_dim) == (8, 8)
    assert info.instruction == "close the drawer"
    assert {c.name: c.place.split("/")[-1][:6] for c in info.cameras} == {
        "base": "varied", "left_wrist": "hand_c",
    }  # fmt: skip
    with open_episode(info) as episode:
        assert np.allclose(episode.actions()[:, 7], np.linspace(0, 1, 4))


def test_calvins_spans_are_episodes_and_its_pickle_is_not_read(tmp_path):
    folder = write_calvin(tmp_path / "training")
    (folder / "lang_annotations").mkdir()
    (folder / "lang_annotations" / "auto_lang_ann.npy").write_bytes(b"never opened")
    found = survey([tmp_path])
    assert [(info.place, info.length) for info in found.episodes] == [("7-9", 3), ("10-13", 4)]
    with open_episode(found.episodes[1]) as episode:
        assert np.array_equal(episode.frames("left_wrist", [1, 3])[1], picture(13)[0])
        assert episode.actions()[2, 0] == 12
        assert episode.state().shape == (4, 15)
    (info,) = survey([write_calvin(tmp_path / "words", annotated=True)]).episodes
    assert (info.place, info.instruction) == ("8-9", "open the drawer")


@pytest.mark.parametrize("how", [{}, {"compressed": True}])
def test_alohas_cameras_have_our_names(tmp_path, how):
    (info,) = survey([write_aloha(tmp_path / "a.hdf5", **how)]).episodes
    names = ["base", "left_wrist", "right_wrist", "cam_low"]
    assert [camera.name for camera in info.cameras] == names
    assert (info.action_dim, info.state_dim, info.attributes["sim"]) == (14, 14, False)
    with open_episode(info) as episode:
        seen = episode.frames("base", range(4))
    assert np.abs(seen.astype(int) - pictures(4)).max() <= (8 if how else 0)


@pytest.mark.parametrize(("version", "vlen"), [(1, False), (1, True), (5, False), (5, True)])
def test_mobile_vla_of_both_versions_raw_and_compressed(tmp_path, version, vlen):
    path = write_mobile_vla(tmp_path / "episode_1.h5", version=version, vlen=vlen)
    (info,) = survey([path]).episodes
    assert (info.action_dim, info.state_dim, info.length) == (3, None, 6)
    assert info.instruction == ("go around the box" if version == 5 else None)
    assert info.attributes["episode_name"] == "episode_1"
    with open_episode(info) as episode:
        assert episode.state() is None
        seen = episode.frames("base", [5, 0])
    expected = np.stack([picture(5)[0], picture(0)[0]])
    assert np.abs(seen.astype(int) - expected).max() <= (8 if vlen else 0)


def test_liberos_files_say_how_they_were_rendered(tmp_path):
    path = write_libero(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        file["data"].attrs["macros_image_convention"] = "opencv"
        file["data/demo_0/obs/agentview_rgb"][:] = pictures(5, turn="mirror")
    with open_episode(survey([path]).episodes[0]) as episode:
        assert np.array_equal(episode.frames("base", range(5)), pictures(5))


def test_droids_raw_frames_have_blue_first_and_a_fourth_channel(tmp_path):
    path = write_droid(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["observation/camera"]
        opaque = np.full((4, 16, 16, 1), 255, np.uint8)
        raw = np.concatenate([pictures(4, bgr=True), opaque], axis=3)
        file["observation/image/14013996_left"] = raw
    (info,) = survey([path]).episodes
    with open_episode(info) as episode:
        assert np.array_equal(episode.frames("base", [0, 3]), pictures(4)[[0, 3]])


@pytest.mark.parametrize("turn", ["flip", "mirror", "rotate"])
def test_turned_frames_come_out_upright(tmp_path, turn):
    path = write_libero(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        file["data/demo_0/obs/agentview_rgb"][:] = pictures(5, turn=turn)
    info = survey([path]).episodes[0].seen(turn=turn)
    with open_episode(info) as episode:
        assert np.array_equal(episode.frames("base", [2, 3]), pictures(5)[2:4])
    with open_episode(info.seen(turn="none", colour="bgr")) as episode:
        assert np.array_equal(episode.frames("base", [2]), pictures(5, turn=turn, bgr=True)[2:3])


def test_a_survey_decodes_no_frame(tmp_path, monkeypatch):
    def never(*args):
        raise AssertionError("a frame was decoded")

    for layout, write in WRITERS.items():
        write(tmp_path / f"{layout}.hdf5")
    write_aloha(tmp_path / "compressed.hdf5", compressed=True)
    monkeypatch.setattr(frames_module, "upright", never)
    monkeypatch.setattr("PIL.Image.Image.convert", never)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    assert len(survey([tmp_path]).episodes) == 7


def test_bad_files_are_named_counted_and_passed_over(tmp_path):
    good = write_libero(tmp_path / "good.hdf5")
    (tmp_path / "truncated.hdf5").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "foreign.hdf5").write_bytes(b"a picture of a cat" * 100)
    (tmp_path / "empty.h5").write_bytes(b"")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["temperature"] = np.zeros(3)
    with h5py.File(write_mobile_vla(tmp_path / "short.h5"), "r+") as file:
        del file["actions"]
        file["actions"] = actions(9, 3)
    found = survey([tmp_path])
    assert (found.files, len(found.episodes)) == (6, 2)
    reasons = {skipped.path.rsplit("/")[-1]: skipped.reason for skipped in found.skipped}
    assert reasons == {
        "truncated.hdf5": "it is truncated",
        "foreign.hdf5": "it is no HDF5 file",
        "empty.h5": "it is empty",
        "other.h5": "it is not of a known layout; holds temperature",
        "short.h5": "`images` has 6 steps, but the actions 9",
    }


def test_a_file_that_is_being_written_is_passed_over(tmp_path):
    path = write_libero(tmp_path / "a.hdf5")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as HDF5 does while it writes
        (skipped,) = survey([path]).skipped
    assert skipped.reason == "it is locked: another program is writing it"
    assert len(survey([path]).episodes) == 2


def test_damaged_bytes_are_passed_over_or_named_and_never_raise_anything_else(tmp_path):
    sources = [
        write_libero(tmp_path / "a.hdf5").read_bytes(),
        write_aloha(tmp_path / "b.hdf5", compressed=True).read_bytes(),
        write_mobile_vla(tmp_path / "c.h5", vlen=True).read_bytes(),
    ]
    generator = np.random.default_rng(0)
    path, outcomes = tmp_path / "damaged.h5", collections.Counter()
    for number in range(60):
        content = bytearray(sources[number % 3])
        for place in generator.integers(0, min(len(content), 4000), 1 + number % 8):
            content[place] = generator.integers(256)
        path.write_bytes(content if number % 4 else content[: generator.integers(len(content))])
        found = survey([path])
        outcomes["passed over"] += bool(found.skipped)
        assert found.skipped or found.episodes
        for info in found.episodes:
            try:
                with open_episode(info) as episode:
                    episode.actions()
                    for camera in info.cameras:
                        episode.frames(camera.name, [0])
                outcomes["read"] += 1
            except EpisodeReadError:
                outcomes["named"] += 1
    assert outcomes["passed over"] > 10
    assert outcomes["read"] > 10


def test_numbers_beyond_float32_are_infinite(tmp_path):
    path = write_mobile_vla(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["actions"][4] = 1e300
    with (
        open_episode(survey([path]).episodes[0]) as episode,
        pytest.raises(EpisodeReadError, match="NaN or infinite at step 4"),
    ):
        episode.actions()


def test_one_bad_demonstration_does_not_hide_the_others(tmp_path):
    path = write_libero(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/actions"]
    found = survey([path], layout="libero")
    assert [str(skipped) for skipped in found.skipped] == [
        f"{path}:data/demo_0: it has no `actions` of numbers"
    ]
    assert [info.place for info in found.episodes] == ["data/demo_1"]


def test_frames_after_the_last_action_are_not_part_of_the_episode(tmp_path):
    path = write_mobile_vla(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["actions"]
        file["actions"] = actions(5, 3)
    (info,) = survey([path]).episodes
    with open_episode(info) as episode, pytest.raises(ValueError, match=r"\[0, 5\), but got 5"):
        episode.frames("base", [5])


def test_what_cannot_be_read_names_file_place_and_step(tmp_path):
    path = write_mobile_vla(tmp_path / "a.h5", vlen=True)
    with h5py.File(path, "r+") as file:
        file["images"][3] = jpeg(3)[:40]
        file["actions"][2] = np.nan
    (info,) = survey([path]).episodes
    with open_episode(info) as episode:
        assert len(episode.frames("base", [2])) == 1
        with pytest.raises(EpisodeReadError, match=r"a\.h5: frames of images cannot be read"):
            episode.frames("base", [3])
        with pytest.raises(EpisodeReadError, match=r"actions is NaN or infinite at step 2"):
            episode.actions()
        with pytest.raises(ValueError, match=r"must be one of base in .*, but got 'wrist'"):
            episode.frames("wrist", [0])
    path.unlink()
    with pytest.raises(EpisodeReadError, match=r"a\.h5: the file cannot be read"):
        open_episode(info)


def test_paths_that_hold_no_episodes_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"patterns that exist, but got .*nowhere"):
        survey([tmp_path / "nowhere*"])
    with pytest.raises(FileNotFoundError, match=r"must hold episode files \(.hdf5, .h5"):
        survey([tmp_path])
    with pytest.raises(ValueError, match=r"`layout` must be one of auto, libero, .*got 'rlds'"):
        survey([tmp_path], layout="rlds")
