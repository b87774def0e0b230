"""Somebody else's WebDataset is named as such, with what it has and what it lacks."""

import io
import json
import re
import tarfile

import ml_dtypes
import numpy as np
import pytest

from jax_bridge.shards import DamagedShardError, open_dataset, open_foreign
from jax_bridge.shards.inspection import describe, inspect_dataset
from jax_bridge.shards.safetensors_header import encode_tensors

KINDS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
HIDDEN = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)


def write_tar(path, members, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", KINDS)
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


def npy(array, **kwargs):
    file = io.BytesIO()
    np.save(file, array, **kwargs)
    return file.getvalue()


def foreign_members(key, label):
    return {
        f"{key}.cls": str(label).encode(),
        f"{key}.json": json.dumps({"label": label, "tags": ["a"], "mixed": label or "no"}).encode(),
        f"{key}.jpg": b"j" * (label + 1),
        f"{key}.state.npy": npy(np.full((2, 3), label, np.float32)),
        f"{key}.latents.safetensors": encode_tensors({"layer.3": HIDDEN + label}),
    }


@pytest.fixture(params=KINDS)
def foreign(request, tmp_path):
    """Two tars with folders, a link and (where the kind can) long and odd names."""
    long = "train/" + "long" * (16 if request.param == tarfile.USTAR_FORMAT else 60)
    for number, keys in enumerate((["a/0", "b/0"], [f"{long}-\N{GREEK SMALL LETTER PI}"])):
        members = {}
        for i, key in enumerate(keys):
            members |= foreign_members(key, 2 * number + i)
        path = write_tar(tmp_path / f"{number}.tar", members, request.param)
        with tarfile.open(path, "a", format=request.param) as tar:
            for name, kind in (("empty", tarfile.DIRTYPE), ("x.jpg", tarfile.SYMTYPE)):
                entry = tarfile.TarInfo(name)
                entry.type = kind
                tar.addfile(entry)
    return tmp_path


def test_foreign_data_is_read_for_what_it_has(foreign):
    before = sorted(foreign.rglob("*"))
    dataset = open_foreign(foreign)
    keys = dataset.index["key"].to_pylist()
    assert keys[:2] == ["a/0", "b/0"]
    assert keys[2].startswith("train/longlong")
    assert dataset.members == ["cls", "jpg", "json", "latents.safetensors", "state.npy"]
    assert dataset.fields == ["latents.layer.3", "state"]
    assert dataset.read_member("jpg") == [b"j", b"jj", b"jjj"]
    assert dataset.read_member(".cls", rows=[2, 0]) == [b"2", b"0"]
    np.testing.assert_array_equal(dataset.read("state")[:, 0, 0], [0, 1, 2])
    assert dataset.read("latents.layer.3").dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(
        dataset.read("latents.layer.3", where={"label": [1, 2]}), [HIDDEN + 1, HIDDEN + 2]
    )
    assert dataset.metadata["mixed"].to_pylist() == ['"no"', "1", "2"]
    assert sorted(foreign.rglob("*")) == before
    assert len(open_foreign([foreign / "1.tar"])) == len(open_foreign(foreign / "1.tar")) == 1


def test_what_foreign_data_lacks_is_said_with_what_it_has(tmp_path):
    path = write_tar(tmp_path / "0.tar", {"0.jpg": b"x", "0.cls": b"3", "1.jpg": b"y"}, KINDS[0])
    dataset = open_foreign(path)
    missing = r"there is no \.latents\.safetensors member; members are \.cls, \.jpg\."
    with pytest.raises(
        ValueError, match=rf"`field` must be one of none, but got 'vlm\.x': {missing}"
    ):
        dataset.read("vlm.x")
    with pytest.raises(ValueError, match=r"but got 'png': there is no \.png member; members are"):
        dataset.read_member("png")
    with pytest.raises(DamagedShardError, match=r"0\.tar, key 1, member cls: the sample has no"):
        dataset.read_member("cls")
    with pytest.raises(ValueError, match=r"columns of the index .* but got 'label'"):
        dataset.select({"label": 3})
    with pytest.raises(FileNotFoundError, match=r"must be a tar that is there, but got .*nowhere"):
        open_foreign(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"must be on this machine, but got s3://bucket/0\.tar"):
        open_foreign(["s3://bucket/0.tar"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"must hold tars of samples, but got .*empty"):
        open_foreign(tmp_path / "empty")


def test_foreign_arrays_are_never_unpickled_and_never_believed(tmp_path):
    lying = npy(np.zeros(3)).replace(b"(3,)", b"(9,)")
    members = {
        "0.x.npy": npy(np.array([{}], object), allow_pickle=True),
        "1.x.npy": lying,
        "2.x.npy": npy(np.zeros(3)),
        "3.x.npy": npy(np.zeros((2, 2))),
        "4.x.npy": b"no array",
    }
    dataset = open_foreign(write_tar(tmp_path / "0.tar", members, KINDS[0]))
    for rows, message in [
        ([0], r"header claims object"),
        ([1], r"header claims float64 \(9,\), but 24 bytes follow"),
        ([2, 3], r"x is float64 \(2, 2\), but float64 \(3,\) in the first sample"),
        ([4], r"key 4, member x\.npy: .*magic"),
    ]:
        with pytest.raises(DamagedShardError, match=message):
            dataset.read("x", rows=rows)


def test_a_foreign_tar_that_is_cut_or_none_is_named(foreign):
    path = foreign / "0.tar"
    content = path.read_bytes()
    for broken in (content[:700], b"no tar" * 300):
        path.write_bytes(broken)
        with pytest.raises(DamagedShardError, match=r"0\.tar: it is no whole tar"):
            open_foreign(foreign)


def test_inspect_shows_foreign_data(foreign):
    text = describe(inspect_dataset(foreign))
    assert "somebody else's WebDataset" in text
    assert "episodes, tasks and layers are not known" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["state", "float32", "2", "x", "3", "3", "72", "bytes"] in rows
    assert ["latents.layer.3", "bfloat16", "2", "x", "3", "3", "36", "bytes"] in rows
    assert [".jpg", "3", "6", "bytes"] in rows
    assert inspect_dataset(foreign / "1.tar").samples == 1


def test_a_version_from_the_future_asks_for_an_update(copy_of_toy):
    path = copy_of_toy / "dataset.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match=r"`version` of dataset\.json must be 1, but got 2\. Upd"):
        open_dataset(copy_of_toy)
