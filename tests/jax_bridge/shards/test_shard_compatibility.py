"""The tars are plain WebDataset, and equal inputs give equal bytes."""

import io
import json
import subprocess
import tarfile

import numpy as np
import pytest
import safetensors.numpy
import webdataset as wds
from PIL import Image

from jax_bridge.shards import EpisodeWriter, ImageFormat, open_dataset

ACTION = "action.hidden_states.action.mean"


def tars(path):
    return sorted((path / "shards").glob("*.tar"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files to the gc
def test_plain_webdataset_reads_the_tars(toy, sandbox):
    urls = [str(path) for path in tars(toy)]
    samples = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert len(samples) == 18
    for sample in samples:
        entry = json.loads(sample["json"])
        key = f"toy-t{entry['task_id']:03d}-e{entry['episode']:04d}-s{entry['timestep']:04d}"
        assert sample["__key__"].endswith(key)
        robot = safetensors.numpy.load(sample["robot.safetensors"])
        assert (robot["state"] == entry["timestep"]).all()
        assert robot["actions"].shape == (2, 7)
        assert {"json", "latents.safetensors", "robot.safetensors"} <= set(sample)


def test_tar_lists_the_members_in_table_order(toy):
    listing = subprocess.run(
        ["tar", "tf", tars(toy)[0]], check=True, capture_output=True, text=True
    )
    assert listing.stderr == ""
    assert listing.stdout.split()[:3] == [
        "toy-t000-e0000-s0000.json",
        "toy-t000-e0000-s0000.latents.safetensors",
        "toy-t000-e0000-s0000.robot.safetensors",
    ]


def test_safetensors_itself_opens_the_members(toy, sandbox):
    torch = pytest.importorskip("torch")
    import safetensors.torch

    with tarfile.open(tars(toy)[0]) as tar:
        content = tar.extractfile("toy-t000-e0000-s0000.latents.safetensors").read()
    tensors = safetensors.torch.load(content)
    values = sandbox.values(0, 0, 0)
    assert tensors["vlm.hidden_states.text.mean"].dtype == torch.bfloat16
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.float().numpy(), values[name].astype(np.float32))


def test_json_members_hold_the_final_outcome_and_keep_their_width(toy):
    widths = set()
    for path in tars(toy):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    content = tar.extractfile(member).read()
                    entry = json.loads(content)
                    good = entry["episode"] % 2 == 0
                    assert entry["success"] is good
                    assert entry["outcome"] == ("success" if good else "failure")
                    assert entry["episode_length"] == 9
                    assert entry["truth"]["on"] == {"bowl": False}
                    widths.add(len(content))
    assert widths == {512}


def test_equal_inputs_give_equal_bytes(toy, sandbox, tmp_path):
    again = sandbox.write(tmp_path / "again")
    for path in sorted(toy.rglob("*")):
        other = again / path.relative_to(toy)
        assert path.is_dir() or path.read_bytes() == other.read_bytes(), path.name


def test_index_does_not_depend_on_where_shards_were_cut(toy, sandbox, tmp_path):
    other = open_dataset(sandbox.write(tmp_path / "one", shard_bytes=10**9))
    dataset = open_dataset(toy)
    assert len(set(dataset.index.column("shard").to_pylist())) > 1
    assert len(set(other.index.column("shard").to_pylist())) == 1
    names = [name for name in dataset.metadata.column_names if name != "shard"]
    assert dataset.metadata.select(names).equals(other.metadata.select(names))
    np.testing.assert_array_equal(dataset.read(ACTION), other.read(ACTION))


def test_a_shard_is_named_by_its_content(toy):
    assert [path.stem for path in tars(toy)] == [
        "toy-t000-e0000-0001",
        "toy-t000-e0002-t001-e0000",
        "toy-t001-e0001-0002",
    ]


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_camera_images_are_stored_as_asked(sandbox, tmp_path, kind):
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    with EpisodeWriter(tmp_path, sandbox.info, images=ImageFormat(kind=kind)) as writer:
        sandbox.write_episode(writer, 0, 0, images={"left_wrist": image, "base": image})
    with tarfile.open(tars(tmp_path)[0]) as tar:
        names = tar.getnames()[:5]
        content = tar.extractfile(f"toy-t000-e0000-s0000.base.{kind}").read()
    assert [name.partition(".")[2] for name in names] == [
        "json",
        "latents.safetensors",
        "robot.safetensors",
        f"base.{kind}",
        f"left_wrist.{kind}",
    ]
    stored = np.asarray(Image.open(io.BytesIO(content)))
    assert stored.shape == image.shape
    assert np.array_equal(stored, image) == (kind == "png")


def test_images_of_a_wrong_kind_are_refused(sandbox, tmp_path):
    with EpisodeWriter(tmp_path, sandbox.info) as writer:
        with pytest.raises(ValueError, match=r"uint8 .* but got float32 \(4, 4, 3\) for base"):
            sandbox.write_episode(writer, 0, 0, images={"base": np.zeros((4, 4, 3), np.float32)})
        with pytest.raises(ValueError, match=r"camera names .* but got 'a\.b'"):
            sandbox.write_episode(writer, 0, 0, images={"a.b": np.zeros((4, 4, 3), np.uint8)})
    with pytest.raises(ValueError, match="`quality` must lie in 1 to 95, but got 100"):
        ImageFormat(quality=100)
