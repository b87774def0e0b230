"""Every frame once, in batches of one token length, episodes whole on one rank."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.frames.frame_data_module import FrameDataModule
from datamodules.frames.frame_order import share_of_rank
from datamodules.frames.plan_file import write_plan
from datamodules.frames.profiles import PROFILES
from jax_bridge.shards import DatasetInfo, EpisodeWriter, ImageFormat
from tests.datamodules.frames.conftest import WORDS, colour, write_folders

ALL = {(e, t) for e, count in enumerate((4, 3, 5)) for t in range(count)}


def module(path, **options):
    data = FrameDataModule(str(path), **options)
    data.setup()
    return data


def read(data):
    return list(data.predict_dataloader())


def rows(batches):
    return [(s.episode, s.timestep) for batch in batches for s in batch.samples]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_every_frame_comes_once_and_a_batch_has_one_token_length(folders, tokenizer, workers):
    data = module(folders, tokenizer=tokenizer, batch_size=3, num_workers=workers)
    batches = read(data)
    assert data.frames == len(ALL) == sum(len(b.samples) for b in batches)
    assert set(rows(batches)) == ALL
    assert [b.tokens.shape[1] for b in batches] == [13, 13, 13, 16]
    assert rows(batches) == [*((0, t) for t in range(4)), *((2, t) for t in range(5)),
                             *((1, t) for t in range(3))]  # fmt: skip
    assert [s.last for b in batches for s in b.samples].count(True) == 3
    tokens = batches[0].tokens[0].tolist()
    assert (tokens[0], tokens[1], tokens[-1]) == (0, 4, 2)  # <s> <grounding> ... </s>


def test_frames_are_squashed_and_normalised_as_the_profile_says(folders):
    batch = read(module(folders, batch_size=2))[0]
    assert batch.images["base"].shape == (2, 1, 3, 224, 224)
    upstream = PROFILES["upstream"]
    grey = (np.array(colour(0, 1)) / 255 - upstream.mean) / upstream.std
    np.testing.assert_allclose(batch.images["base"][1, 0].mean((1, 2)), grey, atol=1e-5)
    assert batch.tokens is None
    assert batch.prompts[0] == f"<grounding>An image of a robot {WORDS[0]}"


def test_upstream_is_pils_bicubic_and_clips_numbers():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    resized = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
    by_hand = torch.from_numpy(resized.astype(np.float32) / 255).permute(2, 0, 1)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    found = torch.from_numpy(PROFILES["upstream"].pixels(image))
    torch.testing.assert_close(found, (by_hand - mean) / std, rtol=0, atol=1e-6)


def test_mobile_vla_has_a_gripper_image_of_zeros_and_no_normalisation(folders):
    batch = read(module(folders, profile="mobile_vla", batch_size=2))[0]
    assert not batch.images["gripper"].any()
    np.testing.assert_allclose(batch.images["base"][0, 0, :, 0, 0], np.array(colour(0, 0)) / 255)


def test_the_window_ends_at_the_frame_and_begins_with_the_first_one_repeated(folders):
    batch = read(module(folders, profile="raw", window=3, batch_size=4))[0]
    green = batch.images["base"][:, :, 1, 0, 0]
    frames = (green - 5) // 10
    assert frames.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_cameras_lie_in_folders_of_their_own(tmp_path):
    root = write_folders(tmp_path / "two", cameras=("front", "wrist"))
    data = module(root, profile="raw", camera="front", gripper_camera="wrist", batch_size=1)
    batch = read(data)[2]
    assert batch.images["gripper"][0, 0, :, 0, 0].tolist() == list(colour(0, 2, "wrist"))
    with pytest.raises(
        ValueError, match=r"`camera` must be one of front, wrist in .* but got 'base'"
    ):
        read(module(root, profile="raw", batch_size=1))


def test_ranks_share_whole_episodes_whatever_is_done(folders):
    data = module(folders)
    shares = [share_of_rank(data.episodes, rank, 2, ()) for rank in range(2)]
    ids = [[e.episode.id for e in share] for share in shares]
    assert sorted(ids[0] + ids[1]) == sorted(e.episode.id for e in data.episodes)
    done = {ids[0][0]}
    again = [share_of_rank(data.episodes, rank, 2, done) for rank in range(2)]
    assert [[e.episode.id for e in share] for share in again] == [ids[0][1:], ids[1]]


def test_what_is_done_is_not_read_again(folders):
    data = module(folders, batch_size=2)
    data.done = {data.episodes[0].episode.id}
    assert set(rows(read(data))) == {key for key in ALL if key[0] != 0}


def test_every_second_frame(folders):
    assert set(rows(read(module(folders, every=2)))) == {(e, t) for e, t in ALL if t % 2 == 0}


def plan(folders, path, frames):
    episodes = [{"name": str(folders / f"episode_{e}"), "frames": f} for e, f in frames.items()]
    write_plan(path, {"episodes": episodes})
    return str(path)


def test_a_plan_says_which_frames_are_read(folders, tmp_path):
    path = plan(folders, tmp_path / "plan.json", {0: [3, 1], 2: [4]})
    data = module(folders, plan=path)
    assert rows(read(data)) == [(0, 1), (0, 3), (2, 4)]
    assert data.describe()["frames"]["plan"] != module(folders).describe()["frames"]


@pytest.mark.parametrize(
    ("frames", "message"),
    [({0: []}, "at least one frame, but .* is empty"), ({0: [9]}, "has no timestep 9"),
     ({7: [0]}, "episode_7 is not there")],
)  # fmt: skip
def test_a_plan_that_does_not_fit_is_refused(folders, tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        module(folders, plan=plan(folders, tmp_path / "plan.json", frames))


def test_a_plan_that_is_none_is_named(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="`plan` must be a file, but /nowhere is not there"):
        module(folders, plan="/nowhere")
    (tmp_path / "plan.json").write_text(json.dumps({"format": "something"}))
    with pytest.raises(ValueError, match="cannot be read as one"):
        module(folders, plan=str(tmp_path / "plan.json"))


def test_the_images_of_rollouts_are_read_from_their_shards(tmp_path):
    info = DatasetInfo(fields={}, capture={}, model={}, environment={}, seed=0)
    with EpisodeWriter(tmp_path / "data", info, images=ImageFormat(kind="png")) as writer:
        for episode in range(2):
            with writer.episode(
                suite="toy", task_id=3, episode=episode, instruction="go", seed=5
            ) as e:
                for t in (0, 10):
                    pixels = np.full((8, 8, 3), colour(episode, t // 10), np.uint8)
                    e.append(timestep=t, images={"base": pixels, "left_wrist": 255 - pixels})
                e.finish(success=episode == 0, episode_length=20)
    data = module(tmp_path / "data", profile="raw", gripper_camera="left_wrist", batch_size=3)
    batch = read(data)[0]
    assert [(s.suite, s.task_id, s.episode, s.timestep, s.success, s.seed) for s in batch.samples] == [
        ("toy", 3, 0, 0, True, 5), ("toy", 3, 0, 10, True, 5), ("toy", 3, 1, 0, False, 5),
    ]  # fmt: skip
    assert batch.images["base"][1, 0, :, 0, 0].tolist() == list(colour(0, 1))
    assert batch.images["gripper"][2, 0, :, 0, 0].tolist() == [255 - c for c in colour(1, 0)]


def test_shards_without_images_say_how_to_get_them(tmp_path):
    info = DatasetInfo(fields={}, capture={}, model={}, environment={}, seed=0)
    with (
        EpisodeWriter(tmp_path / "data", info) as writer,
        writer.episode(suite="toy", task_id=0, episode=0) as e,
    ):
        e.append(timestep=0)
        e.finish(success=None)
    with pytest.raises(ValueError, match=r"must hold camera images, but .* has none. Collect it"):
        module(tmp_path / "data")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"profile": "upstraem"}, "but got 'upstraem'. Did you mean upstream?"),
     ({"window": 0}, "`window` must be positive, but got 0"),
     ({"every": 0}, "`every` must be positive, but got 0"),
     ({"batch_size": 0}, "`batch_size` must be positive, but got 0")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_at_once(folders, options, message):
    with pytest.raises(ValueError, match=message):
        FrameDataModule(str(folders), **options)


def test_what_is_missing_is_named(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match="but /nowhere is not there"):
        module("/nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold folders of images .* holds none"):
        module(tmp_path / "empty")
    with pytest.raises(
        FileNotFoundError, match=r"`tokenizer` must be one that can be loaded, but '.*' cannot"
    ):
        module(folders, tokenizer=str(tmp_path / "empty"))
    root = write_folders(tmp_path / "wordless")
    (root / "episode_1" / "instruction.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"what the robot was told, but neither .*episode_1"
    ):
        module(root)


def test_a_damaged_image_is_named(tmp_path):
    root = write_folders(tmp_path / "frames")
    (root / "episode_0" / "0002.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(
        ValueError, match=r"`path` must hold whole images, but .*0002.png is damaged"
    ):
        read(module(root, batch_size=8))
