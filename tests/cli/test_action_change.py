"""From `collect --intervene`, beside `--instructions`, to `action-change`, as users call them."""

import json

import numpy as np
import pytest

from cli.main import main
from jax_bridge.interventions import Intervention, Place, save_interventions
from jax_bridge.shards import open_dataset

COLLECT = [
    *("collect", "--policy.preset", "pi05_micro", "--policy.num_steps", "2", "--max-steps", "6"),
    *("--tasks", "0:1", "--episodes", "0:2", "--drive", "demonstrator", "--stride", "5"),
    *("--env.image_size", "32", "--images", "none", "--instructions", "scrambled"),
]


def intervention(path, size):
    """Moves the text tokens after block 0 of the backbone by a constant."""
    place = Place(
        expert="vlm", site="hidden_states", region="text", pool="mean", layer=0, flow_time=None
    )
    none = np.zeros((64, 0), np.float32)
    b = np.full(64, size, np.float32)
    save_interventions(path, [Intervention(place=place, u=none, v=none, b=b)], {"method": "test"})
    return str(path)


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("actions")
    for name, size in (("plain", None), ("erased", 10.0), ("random", 0.01)):
        file = () if size is None else ("--intervene", intervention(folder / f"{name}.st", size))
        assert main([*COLLECT, *file, "--out", str(folder / name)]) == 0
    return folder


def test_a_larger_change_of_activations_moves_actions_more(collected, tmp_path, capsys):
    plain, erased, random = (str(collected / name) for name in ("plain", "erased", "random"))
    args = ["action-change", plain, "--erased", erased, "--random", random, "--draws", "50"]
    assert main([*args, "--out", str(tmp_path / "out")]) == 0
    assert "4 policy calls of 2 episodes" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    first = summary["rows"][0]
    assert first["erased"]["value"] > first["random"]["value"] > 0
    assert (tmp_path / "out" / "report.html").is_file()


def test_instructions_go_together_with_an_intervention(collected):
    plain, erased = (open_dataset(collected / name) for name in ("plain", "erased"))
    told = plain.index["instruction"].to_pylist()
    assert told == erased.index["instruction"].to_pylist()
    assert told != plain.index["task_instruction"].to_pylist()
    assert plain.info.instruction_overrides == erased.info.instruction_overrides


def test_what_cannot_be_compared_is_one_sentence(collected, capsys):
    plain, erased = str(collected / "plain"), str(collected / "erased")
    assert main(["action-change", erased, "--erased", plain, "--random", plain]) == 2
    assert "`plain` must be collected without --intervene" in capsys.readouterr().err
    args = ["collect", "--record", "demos", "--drive", "demonstrator", "--instructions", "empty"]
    assert main([*args, "--out", "x"]) == 2
    assert "`--instructions` must be left out with --record demos" in capsys.readouterr().err
