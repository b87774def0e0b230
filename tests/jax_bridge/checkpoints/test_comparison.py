"""Two checkpoints differ in what was made to differ, by as much as was asked."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from jax_bridge.checkpoints import open_checkpoint, stored_checkpoint
from jax_bridge.checkpoints.change_figure import draw_changes
from jax_bridge.checkpoints.comparison import compare, describe_difference


@pytest.fixture
def found(two_files):
    return compare(open_checkpoint(two_files.before), open_checkpoint(two_files.after))


def test_what_was_planted_is_found(found):
    assert found.prefixes == ("model.", "")
    assert found.missing == ["only_before"]
    assert found.extra == ["only_after"]
    assert found.reshaped == [("cut", (2, 3), (3, 2))]
    assert [(move.name, move.part) for move in found.moved] == [
        ("action_token", "other"),
        ("act_head.w", "action head"),
        ("backbone.text_model.layers.1.w", "vlm"),
    ]
    relative = {move.name: move.relative for move in found.moves}
    assert relative["action_token"] == math.inf
    assert relative["act_head.w"] == 1.0
    assert relative["backbone.text_model.layers.1.w"] == pytest.approx(0.5, abs=1e-7)
    assert relative["backbone.text_model.layers.0.w"] == 0.0


def test_the_page_and_the_json_say_so(found, tmp_path):
    page = describe_difference(found)
    assert "4 tensors in both, of which 3 moved and 1 are equal; 1 missing, 1 extra, 1 of" in page
    assert "- `cut` [2, 3] -> [3, 2]" in page
    entry = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (entry["moved"], entry["same"]) == (3, 1)
    draw_changes(found, tmp_path / "changes.png")
    assert (tmp_path / "changes.png").read_bytes()[1:4] == b"PNG"


def test_slices_give_what_the_whole_gives(two_files, found, monkeypatch):
    monkeypatch.setattr(stored_checkpoint, "BLOCK_BYTES", 24)
    sliced = compare(open_checkpoint(two_files.before), open_checkpoint(two_files.after))
    assert [m.name for m in sliced.moves] == [m.name for m in found.moves]
    assert [m.relative for m in sliced.moves] == pytest.approx([m.relative for m in found.moves])


def test_another_type_and_another_format_are_compared_by_value(tmp_path):
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(16, 4)
    save_file({"w": values}, tmp_path / "a.safetensors")
    torch.save({"state_dict": {"w": torch.from_numpy(values).bfloat16()}}, tmp_path / "b.pt")
    sides = [open_checkpoint(tmp_path / name) for name in ("a.safetensors", "b.pt")]
    (move,) = compare(*sides).moves
    assert move.dtypes == ("float32", "bfloat16")
    assert 0 < move.relative < 2**-8


def test_numbers_that_are_not_finite_are_counted_and_left_out(tmp_path):
    save_file({"w": np.array([1, 2, 3], np.float32)}, tmp_path / "a.safetensors")
    save_file({"w": np.array([1, np.nan, 3], np.float32)}, tmp_path / "b.safetensors")
    found = compare(*(open_checkpoint(tmp_path / f"{n}.safetensors") for n in "ab"))
    assert (found.moves[0].relative, found.moves[0].bad) == (0.0, 1)
    assert "1 not finite" in describe_difference(found)


def test_checkpoints_without_a_common_name_are_refused(tmp_path):
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "a.safetensors")
    save_file({"b": np.ones(1, np.float32)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"have none in common: 'b' and 'a', for example"):
        compare(*(open_checkpoint(tmp_path / f"{n}.safetensors") for n in "ab"))
