"""Every format gives the names, shapes, types and values that were written."""

import collections
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jax_bridge.checkpoints import open_checkpoint
from jax_bridge.pi0.parameters import leaves

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "a.bias": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "b.0": torch.tensor(7, dtype=torch.int64),
    "empty": torch.zeros((0, 3)),
}


def _same(found, tensors):
    assert set(found.tensors) == set(tensors)
    for name, tensor in tensors.items():
        array = found.read(name)
        assert array.shape == found.tensors[name].shape == tuple(tensor.shape)
        assert found.tensors[name].dtype == str(tensor.dtype).removeprefix("torch.")
        assert array.astype(np.float64).tolist() == tensor.double().tolist()
        blocks = list(found.blocks(name, step=2))
        joined = np.concatenate(blocks) if tensor.shape and blocks else array
        assert joined.tobytes() == array.tobytes()


def test_safetensors_are_read_as_written(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    _same(open_checkpoint(tmp_path / "model.safetensors"), TENSORS)


def test_the_parts_of_a_cut_model_are_one_checkpoint(tmp_path):
    names = list(TENSORS)
    save_file({n: TENSORS[n] for n in names[:2]}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({n: TENSORS[n] for n in names[2:]}, tmp_path / "model-00002-of-00002.safetensors")
    _same(open_checkpoint(tmp_path), TENSORS)
    save_file({names[0]: TENSORS[names[0]]}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"each tensor once, but got 'a.weight' in both model-0"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("top", [None, "state_dict"])
def test_files_of_torch_are_read_as_written(tmp_path, top):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        **TENSORS,
        "view": base[1:, 2:4],
        "turned": base.T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    saved = collections.OrderedDict(tensors)
    torch.save({top: saved, "epoch": 3, "args": {"lr": 0.1}} if top else saved, tmp_path / "a.pt")
    found = open_checkpoint(tmp_path / "a.pt")
    assert found.unsafe == ()
    prefix = f"{top}." if top else ""
    _same(found, {prefix + name: tensor.detach() for name, tensor in tensors.items()})


def test_orbax_folders_are_read_as_written(orbax_folder, pi0_params):
    expected = dict(leaves(pi0_params))
    for path in (orbax_folder, orbax_folder / "params"):
        found = open_checkpoint(path)
        assert {n: t.shape for n, t in found.tensors.items()} == {
            n: leaf.shape for n, leaf in expected.items()
        }
    for name in ("action_in_proj/kernel", "PaliGemma/llm/layers/mlp/linear"):
        assert np.array_equal(found.read(name), expected[name])


@pytest.mark.parametrize("flavour", ["plain", "value"])
def test_openpis_own_folders_have_the_same_names(shared, flavour, orbax_folder):
    found = open_checkpoint(shared / "golden" / "checkpoints" / f"pi0_micro_{flavour}")
    assert list(found.tensors.values()) == list(open_checkpoint(orbax_folder).tensors.values())


def test_a_look_imports_neither_jax_nor_torch(orbax_folder):
    code = (
        "import sys; from jax_bridge.checkpoints import open_checkpoint;"
        "from jax_bridge.checkpoints.account import describe;"
        f"describe(open_checkpoint({str(orbax_folder)!r}));"
        "print([m for m in ('jax', 'torch', 'orbax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("cut", [5, 60, -1])
def test_a_cut_file_is_refused_by_name(tmp_path, cut):
    save_file(TENSORS, tmp_path / "cut.safetensors")
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"whole safetensors file, but got '.*cut.safetensors': "):
        open_checkpoint(tmp_path / "cut.safetensors")
    torch.save(TENSORS, tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"zip as torch.save writes .*'.*cut.pt' is none"):
        open_checkpoint(tmp_path / "cut.pt")


def test_a_damaged_orbax_folder_is_refused_by_name(tmp_path, orbax_folder):
    metadata = json.loads((orbax_folder / "params" / "_METADATA").read_text())
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "_METADATA").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"Orbax folder, but '.*params' could not .*is missing"):
        open_checkpoint(tmp_path)
    (tmp_path / "params" / "_METADATA").write_text("{}")
    with pytest.raises(ValueError, match=r"Orbax folder, but .*KeyError"):
        open_checkpoint(tmp_path)


def test_a_tensor_that_reaches_beyond_its_bytes_is_refused(tmp_path):
    torch.save({"w": torch.ones(100)}, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "short.pt", "w") as short,
    ):
        for info in whole.infolist():
            content = whole.read(info)
            short.writestr(info.filename, content[:40] if info.file_size == 400 else content)
    with pytest.raises(ValueError, match="tensor w reaches beyond its 40 bytes"):
        open_checkpoint(tmp_path / "short.pt")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got '.*nowhere', which does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"one of orbax, safetensors, torch .*notes.txt"):
        open_checkpoint(tmp_path / "notes.txt")
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"zip as torch.save writes it since PyTorch 1.6"):
        open_checkpoint(tmp_path / "old.pth")
    with pytest.raises(ValueError, match=r"is a folder with old.pth. Name the file"):
        open_checkpoint(tmp_path)
