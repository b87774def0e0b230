"""Somebody else's WebDataset is named as such, with what it has and what it lacks."""

import io
import json
import re
import tarfile

import numpy as np
import pytest

from jax_bridge.shards import DamagedShardError, open_dataset


def write_tar(path, members, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("place", ["000.tar", "shards/000.tar"])
def test_a_foreign_web_dataset_is_described(tmp_path, kind, place):
    members = {
        "train/0001.jpg": b"x",
        "train/0001.cls": b"3",
        f"{'long' * (20 if kind == tarfile.USTAR_FORMAT else 40)}.jpg": b"y",
    }
    path = write_tar(tmp_path / place, members, kind)
    message = r"has no dataset\.json\. There is a tar of samples with \.cls, \.jpg and no \.json or"
    for given in (tmp_path, *([path] if path.parent == tmp_path else [])):
        with pytest.raises(FileNotFoundError, match=message):
            open_dataset(given)


def test_a_folder_of_anything_else_is_not_called_a_web_dataset(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar")
    with pytest.raises(
        FileNotFoundError, match=re.escape("Give the folder that `vla-lens collect")
    ):
        open_dataset(tmp_path)


def test_a_foreign_tar_among_shards_is_read_for_what_it_has(copy_of_toy):
    members = {"a.json": json.dumps({"label": 3}).encode(), "a.jpg": b"x"}
    write_tar(copy_of_toy / "shards" / "foreign.tar", members, tarfile.USTAR_FORMAT)
    dataset = open_dataset(copy_of_toy)
    (row,) = dataset.select({"label": 3})
    assert dataset.metadata["key"][int(row)].as_py() == "a"
    with pytest.raises(
        DamagedShardError,
        match=r"Shard foreign, key a, member latents\.safetensors: the sample has no tensor vlm",
    ):
        dataset.read("vlm.hidden_states.text.mean")
    kept = dataset.read("vlm.hidden_states.text.mean", on_error="skip")
    assert len(kept) == len(dataset) - 1
    assert list(dataset.damaged) == [int(row)]
    rows = np.delete(np.arange(len(dataset)), row)
    np.testing.assert_array_equal(dataset.read("vlm.hidden_states.text.mean", rows=rows), kept)


def test_a_foreign_tar_without_json_among_shards_says_what_is_missing(copy_of_toy):
    write_tar(copy_of_toy / "shards" / "foreign.tar", {"a.jpg": b"x"}, tarfile.USTAR_FORMAT)
    with pytest.raises(DamagedShardError, match=r"Shard foreign, key a, .*must have one \.json"):
        open_dataset(copy_of_toy)
