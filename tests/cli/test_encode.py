"""`vla-lens encode`: from HDF5 demonstrations to shards of latents, with a real small π0.5."""

import json

import pytest

from cli.main import main
from jax_bridge.encoding import load_moments
from jax_bridge.shards import open_dataset
from tests.jax_bridge.episodes.episode_files import write_libero

POLICY = ["--policy.preset", "pi05_micro", "--policy.num_steps", "2"]


@pytest.fixture
def demos(tmp_path):
    write_libero(tmp_path / "a.hdf5", lengths=(3, 2))
    (tmp_path / "b.hdf5").write_bytes(b"not HDF5")
    return str(tmp_path / "*.hdf5")


def test_recorded_episodes_become_latents_or_sums(demos, tmp_path, capsys):
    from jax_bridge.episodes import survey

    episodes = survey([demos]).episodes
    plan = {
        "format": "vla-lens-plan", "version": 1,
        "episodes": [{"name": episodes[1].source, "frames": [1]}],
    }  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    frames = ["--frames", str(tmp_path / "plan.json")]
    words = ["encode", "--demos", demos, *POLICY, *frames]
    assert main([*words, "--out", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert "b.hdf5" in said
    assert "1 episodes (0 were there already), 1 samples, 1 passed over, 0 errors" in said
    dataset = open_dataset(tmp_path / "data")
    (row,) = dataset.metadata.to_pylist()
    assert (row["episode"], row["timestep"]) == (1, 1)
    assert dataset.read("action.hidden_states.action.mean").shape[:3:2] == (1, 2)
    assert main([*words, "--reduce", "task", "--out", str(tmp_path / "sums")]) == 0
    assert "1 samples summed by task" in capsys.readouterr().out
    (group,) = load_moments(tmp_path / "sums").groups
    assert group["samples"] == 1


def test_what_cannot_be_encoded_is_one_sentence(demos, tmp_path, capsys):
    words = ["encode", "--demos", demos, *POLICY, "--out", str(tmp_path / "data")]
    assert main([*words, "--layout", "aloha"]) == 2
    error = capsys.readouterr().err
    assert "`demos` must hold at least one episode" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()
