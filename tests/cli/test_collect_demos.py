"""`vla-lens collect --record demos` as its users call it."""

import numpy as np
import pytest

from cli.collect import main
from cli.main import main as command
from jax_bridge.environments.tabletop import Tabletop
from jax_bridge.shards import open_dataset

DEMOS = [
    *("--env", "tabletop", "--env.image_size", "24", "--drive", "demonstrator"),
    *("--record", "demos", "--horizon", "8", "--tasks", "0:2", "--episodes", "0:1"),
]


def test_the_tabletops_demonstrations_are_recorded_without_a_policy(tmp_path, capsys):
    assert main(["collect", *DEMOS, "--out", str(tmp_path / "d")]) == 0
    assert "2 episodes (0 were there already)" in capsys.readouterr().out
    dataset = open_dataset(tmp_path / "d")
    assert dataset.info.model == {}
    assert set(dataset.index["success"].to_pylist()) == {True}
    chunks, executed = dataset.read_robot("actions"), dataset.read_robot("executed")
    assert chunks.shape[1:] == (8, 7)
    assert np.array_equal(chunks[:, 0], executed)


def test_hands_anywhere_are_recorded_and_written_down(tmp_path, capsys):
    words = [*DEMOS, "--env.hand", "anywhere", "--out", str(tmp_path / "d")]
    assert main(words) == 0
    dataset = open_dataset(tmp_path / "d")
    assert dataset.info.environment["hand"] == "anywhere"
    first = dataset.read_robot("state")[0, :3]
    table = Tabletop(hand="anywhere")
    table.reset(task_id=0, episode=0, seed=0)
    np.testing.assert_array_equal(first, np.float32(table.truth()["gripper"]))
    with pytest.raises(ValueError, match=r"environment.hand"):
        main([*DEMOS, "--out", str(tmp_path / "d")])
    capsys.readouterr()
    assert command(["collect", *DEMOS, "--env.hand", "up"]) == 2
    assert "Literal['start', 'anywhere']. Got value: up" in capsys.readouterr().err


def test_options_that_would_be_left_out_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`--policy.preset` must be left out with --record demos"):
        main([*DEMOS, "--policy.preset=pi05_micro", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match=r"`--estimate` must be left out with --record demos"):
        main([*DEMOS, "--estimate"])
    with pytest.raises(ValueError, match=r"`--out` must name the folder"):
        main(DEMOS)
