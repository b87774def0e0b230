import json
import shutil

import numpy as np
import pytest

from jax_bridge.checkpoints.download_record import load_record
from jax_bridge.pi0 import (
    Pi0,
    Pi0Config,
    check_params,
    param_shapes,
    params_digest,
    save_params,
)
from jax_bridge.pi0.parameters import unflatten
from jax_bridge.policies import checkpoint_folder as module
from jax_bridge.policies.checkpoint_folder import (
    checkpoint_folder,
    find_norm_stats,
    find_preset,
    stored_shapes,
)
from jax_bridge.policies.pi0_policy import Pi0Policy

LIBERO = "physical-intelligence/libero"


def _checkpoint(tmp_path, *asset_ids):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "_METADATA").write_text("{}")
    for asset_id in asset_ids:
        folder = tmp_path / "assets" / asset_id
        folder.mkdir(parents=True)
        (folder / "norm_stats.json").write_text("{}")
    return tmp_path


def test_a_checkpoint_is_found_by_its_folder_and_by_its_params(tmp_path):
    folder = _checkpoint(tmp_path)
    assert checkpoint_folder(str(folder)) == folder
    assert checkpoint_folder(str(folder / "params")) == folder


def test_a_folder_without_params_says_what_it_holds(tmp_path):
    (tmp_path / "train_state").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder params/ .*which holds train_state"):
        checkpoint_folder(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty', which holds nothing"):
        checkpoint_folder(str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=r"absent', which does not exist"):
        checkpoint_folder(str(tmp_path / "absent"))


def test_an_address_is_fetched_once_and_taken_from_the_cache_after(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "far").mkdir()
    far = _checkpoint(tmp_path / "far", LIBERO)
    (far / "train_state").mkdir()
    (far / "train_state" / "large").write_text("not needed")
    folder = checkpoint_folder(far.as_uri())
    held = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in held if not name.startswith(".")} == {
        "params/_METADATA", f"assets/{LIBERO}/norm_stats.json"
    }  # fmt: skip
    assert find_norm_stats(folder, LIBERO) == str(folder / "assets" / LIBERO / "norm_stats.json")
    shutil.rmtree(far)
    assert checkpoint_folder(far.as_uri()) == folder
    assert checkpoint_folder(f"{far.as_uri()}/params") == folder


def test_a_fetch_that_was_stopped_is_not_taken_for_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "far").mkdir()
    far = _checkpoint(tmp_path / "far", LIBERO)
    folder = checkpoint_folder(far.as_uri())
    record = load_record(folder)
    record.complete = False
    record.save(folder)
    (folder / "params" / "_METADATA").unlink()
    assert checkpoint_folder(far.as_uri()) == folder
    assert (folder / "params" / "_METADATA").is_file()


def test_an_address_without_params_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "far" / "assets").mkdir(parents=True)
    (tmp_path / "far" / "assets" / "notes").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"Orbax folder params/ .*which holds assets/notes"):
        checkpoint_folder((tmp_path / "far").as_uri())
    with pytest.raises(ValueError, match="address that can be opened, but got nonsense://b"):
        checkpoint_folder("nonsense://b/pi0")


@pytest.mark.parametrize("asset_ids", [(LIBERO,), (LIBERO, "droid"), ("droid",)])
def test_statistics_are_the_conventions_or_else_the_only_ones(tmp_path, asset_ids):
    folder = _checkpoint(tmp_path, *asset_ids)
    expected = folder / "assets" / asset_ids[0] / "norm_stats.json"
    assert find_norm_stats(folder, LIBERO) == str(expected)


def test_several_foreign_statistics_or_none_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match=r"hold assets/\*\*/norm_stats\.json"):
        find_norm_stats(_checkpoint(tmp_path / "a"), LIBERO)
    (tmp_path / "b").mkdir()
    folder = _checkpoint(tmp_path / "b", "droid", "trossen/aloha")
    with pytest.raises(ValueError, match=r"data set only, but got droid, trossen/aloha"):
        find_norm_stats(folder, LIBERO)


@pytest.mark.parametrize("flavour", ["plain", "value"])
def test_the_golden_checkpoints_tell_their_preset(shared, flavour):
    folder = shared / "golden" / "checkpoints" / f"pi0_micro_{flavour}"
    assert stored_shapes(folder) == param_shapes(Pi0Config.preset("pi0_micro"))
    assert find_preset(folder) == "pi0_micro"


def test_released_sizes_are_told_from_all_others():
    shapes = {name: param_shapes(Pi0Config.preset(name)) for name in module.PRESETS}
    distinct = {str(sorted(entry.items())) for entry in shapes.values()}
    assert len(distinct) == len(shapes)


def test_an_architecture_without_preset_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "stored_shapes", lambda folder: {"lora_a": (2, 3)})
    with pytest.raises(ValueError, match=r"`preset` must be given for .*its 1 parameters fit none"):
        find_preset(tmp_path)


def test_pi0_fast_is_refused_by_its_name(tmp_path, monkeypatch):
    """Its tree is that of a backbone alone."""
    backbone = {
        path: np.zeros(1, np.float32)
        for path in param_shapes(Pi0Config.preset("pi0_micro"))
        if path.startswith("PaliGemma") and "_1/" not in path.removeprefix("PaliGemma/img")
    }
    with pytest.raises(ValueError, match=r"`params` must be π0 or π0.5, but got π0-FAST, which"):
        check_params(unflatten(backbone), Pi0Config.preset("pi0_micro"))
    shapes = {path: leaf.shape for path, leaf in backbone.items()}
    monkeypatch.setattr(module, "stored_shapes", lambda folder: shapes)
    with pytest.raises(ValueError, match=r"`checkpoint` must be π0 or π0.5, but got π0-FAST"):
        find_preset(tmp_path)


def test_a_policy_reads_weights_and_statistics_from_an_address(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))
    params = Pi0(Pi0Config.preset("pi05_micro")).init(3)
    save_params(tmp_path / "far" / "params", params)
    rows = {"mean": [0.0] * 8, "std": [1.0] * 8, "q01": [-1.0] * 8, "q99": [1.0] * 8}
    file = tmp_path / "far" / "assets" / LIBERO / "norm_stats.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"norm_stats": {"state": rows, "actions": rows}}))
    policy = Pi0Policy(checkpoint=(tmp_path / "far").as_uri())
    assert policy.preset == "pi05_micro"
    assert params_digest(policy.params) == params_digest(params)
    assert policy.processor.norm_stats is not None
    assert policy.describe()["checkpoint"] == (tmp_path / "far").as_uri()
