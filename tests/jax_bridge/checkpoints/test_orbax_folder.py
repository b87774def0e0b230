"""Orbax folders are read in slices, bit for bit, however they are stored."""

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jax_bridge.checkpoints import orbax_folder
from jax_bridge.checkpoints.orbax_folder import OrbaxFolder

VALUES = np.random.default_rng(0).standard_normal((7, 30, 11), dtype=np.float32)


def _save(folder, tree, **words):
    with ocp.PyTreeCheckpointer() as checkpointer:
        how = {key: ocp.SaveArgs(**words) for key in tree["params"]}
        checkpointer.save(folder, args=ocp.args.PyTreeSave(tree, save_args={"params": how}))


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(orbax_folder, "_SLICE_BYTES", 1000)
    monkeypatch.setattr(orbax_folder, "_RANGE_BYTES", 700)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("chunk_bytes", [None, 1320, 400])
def test_any_chunks_are_read_into_any_type(tmp_path, chunk_bytes, dtype):
    _save(
        tmp_path / "p", {"params": {"w": VALUES, "one": np.float32(3)}}, chunk_byte_size=chunk_bytes
    )
    folder = OrbaxFolder(tmp_path / "p")
    assert folder._is_one_large_chunk("w") == (chunk_bytes is None)
    out = np.empty(VALUES.shape, dtype)
    folder.fill("w", out)
    assert out.tobytes() == VALUES.astype(dtype).tobytes()
    scalar = np.empty((), dtype)
    folder.fill("one", scalar)
    assert scalar == 3


@pytest.mark.parametrize("range_bytes", [1, 7, 10**6])
def test_a_chunk_is_streamed_whatever_the_ranges(tmp_path, monkeypatch, range_bytes):
    values = np.zeros((300, 3), np.float32)
    values[::7] = 1
    _save(tmp_path / "p", {"params": {"w": values}})
    folder, out = OrbaxFolder(tmp_path / "p"), np.empty_like(values)
    monkeypatch.setattr(orbax_folder, "_RANGE_BYTES", 10**6)
    stored = len(folder._chunk("w").read())
    for size in (range_bytes, stored, stored - 1):
        monkeypatch.setattr(orbax_folder, "_RANGE_BYTES", size)
        out[:] = -1
        folder.fill("w", out)
        assert np.array_equal(out, values)


def test_a_damaged_array_is_named(tmp_path):
    _save(tmp_path / "p", {"params": {"w": VALUES}})
    for path in (tmp_path / "p").rglob("d/*"):
        content = bytearray(path.read_bytes())
        if len(content) > 4000:
            content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
            path.write_bytes(content)
    folder = OrbaxFolder(tmp_path / "p")
    with pytest.raises(ValueError, match=r"a whole Orbax folder, but '.*p' could not be read"):
        folder.fill("w", np.empty(VALUES.shape, np.float32))


def test_value_is_taken_off_only_if_every_leaf_ends_in_it(tmp_path):
    training = {"attention/value/kernel/value": VALUES, "bias/value": VALUES}
    policy = {"attention/value": VALUES, "bias": VALUES}
    for number, flat in enumerate((training, policy)):
        tree: dict = {}
        for path, leaf in flat.items():
            *parents, name = path.split("/")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[name] = leaf
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / str(number), {"params": tree})
    assert list(OrbaxFolder(tmp_path / "0").tensors) == ["attention/value/kernel", "bias"]
    assert list(OrbaxFolder(tmp_path / "1").tensors) == ["attention/value", "bias"]
